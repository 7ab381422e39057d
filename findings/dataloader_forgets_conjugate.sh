#!/bin/sh
# torch 2.14.1: a DataLoader with a worker gives a conjugated spectrum unconjugated, and the imaginary
# part of one (real numbers) with the opposite sign. Without workers both are right.
# Guessed: batches do not depend on num_workers; torch.save keeps these two marks.
# conj() is lazy: a bit of the tensor says so, as another does for the sign of its .imag. A tensor that
# goes to another process takes its storage, sizes and strides along, and neither bit. It is silent when
# the data set makes its own batches (batch_size=None, as iterable data sets do); torch's collating
# refuses such tensors. Any torch.multiprocessing queue does the same. A cross-correlation or a Fourier
# feature that ends with conj() is another number for whoever sets num_workers; resolve_conj() and
# resolve_neg() before a tensor leaves the data set help.
# Seen with torch 2.14.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.14.1 numpy==2.4.6
cat > "$folder/spectra.py" <<'PYTHON'
import torch
from torch.utils.data import DataLoader, Dataset


class Spectra(Dataset):
    """Two batches of one spectrum: conjugated, and the imaginary part of that."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        conjugated = torch.fft.fft(torch.arange(4.0) + index).conj()
        return conjugated, conjugated.imag


def first(workers):
    return next(iter(DataLoader(Spectra(), batch_size=None, num_workers=workers)))


if __name__ == "__main__":
    print("torch", torch.__version__)
    (spectrum, imaginary), (of_worker, imaginary_of_worker) = first(0), first(1)
    print("spectrum, no worker:  ", spectrum.tolist())
    print("spectrum, one worker: ", of_worker.tolist())
    print("imaginary, no worker: ", imaginary.dtype, imaginary.tolist())
    print("imaginary, one worker:", imaginary_of_worker.dtype, imaginary_of_worker.tolist())
    print("guessed: the same with and without a worker")
    lost = torch.equal(spectrum.conj(), of_worker) and torch.equal(-imaginary, imaginary_of_worker)
    differ = not torch.equal(spectrum, of_worker) and not torch.equal(imaginary, imaginary_of_worker)
    raise SystemExit(0 if lost and differ else "a worker gives other values now")
PYTHON
"$folder/venv/bin/python" "$folder/spectra.py"
