"""The table of NAS-Bench-201 from the benchmark's public file: `python -m gdas.bench201.extract`.

The file, NAS-Bench-201-v1_1-096897.pth, is a dictionary that torch.save wrote: `meta_archs` has the
cells' strings, and `arch2infos`, by a cell's place there, its trainings of 200 epochs (`full`) and
of 12 (`less`). A training, by data set and seed, has accuracies by split and epoch. This is how the
benchmark's own program reads the file; the file itself has not been at hand here. It is read with
`weights_only`, which runs nothing that is in it; numbers of numpy are allowed beside what PyTorch
allows by itself.

An accuracy is the mean over the seeds, after the last epoch, in percent with three decimals. In the
table of this project's figures, accuracies of 12 epochs on the test set are those of one seed, of
10,000 images, and those on the validation set the means of two, of 25,000: as the benchmark says of
its second version (1.1).
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gdas.bench201.genotype import ACCURACIES, CELLS, Accuracy, bench201_from_string
from gdas.bench201.table import ARCHITECTURE, check_chance, read_table
from gdas.errors import InputError, one_line
from gdas.files import sha256_of, write_text

TABLE_SHA256 = "531e25f6fddf8f1e84915dbdbb49b5a2e8c25029997a08323ff9b2fa44b2821f"
"""Of the table with which the figures of this project were made."""


class Where(NamedTuple):
    """Where a column's accuracies are in the file.

    Attributes:
        trainings: `full` (200 epochs) or `less` (12).
        images: the benchmark's name of the data set, which says on what part the cell was trained.
        split: its name of the split, and the last epoch.
    """

    trainings: str
    images: str
    split: str


PLACES: dict[Accuracy, Where] = {
    "cifar10_test_200": Where("full", "cifar10", "ori-test@199"),
    "cifar100_test_200": Where("full", "cifar100", "x-test@199"),
    "imagenet16_120_test_200": Where("full", "ImageNet16-120", "x-test@199"),
    "cifar10_valid_12": Where("less", "cifar10-valid", "x-valid@11"),
    "cifar10_test_12": Where("less", "cifar10", "ori-test@11"),
}

EPILOG = """FILE is the benchmark's, several GB, such as NAS-Bench-201-v1_1-096897.pth
(https://github.com/D-X-Y/NAS-Bench-201); it is read whole, which takes several times the memory.

  python -m gdas.bench201.extract NAS-Bench-201-v1_1-096897.pth
  python -m orchestrator.reproduce_paper nasbench201 --data data

Exit code: 0 the table is written and checked, 2 bad input."""


def _numbers_of_numpy() -> list[Any]:
    """What weights_only must know to read numbers of numpy, under the names of all its versions."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    dtypes = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4")]
    old = (scalar, "numpy.core.multiarray.scalar")
    return [scalar, old, np.dtype, *dtypes]


def read_benchmark(path: Path) -> dict[str, Any]:
    """Read the benchmark's file; nothing that is in it is run.

    Raises:
        InputError: it cannot be read, or is another file.
    """
    try:
        with torch.serialization.safe_globals(_numbers_of_numpy()):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # on damaged files PyTorch's reader raises many kinds
        raise InputError(
            f"{path}: is not the benchmark's file, or has what is not read without running it "
            f"({one_line(error, 200)}); download it again"
        ) from None
    if not isinstance(found, dict) or not {"meta_archs", "arch2infos"} <= set(found):
        raise InputError(
            f"{path}: has no meta_archs and arch2infos; it must be the benchmark's whole file, "
            "such as NAS-Bench-201-v1_1-096897.pth"
        )
    return found


def table_of(benchmark: Mapping[str, Any], path: Path) -> str:
    """The table as CSV text, the cells in the benchmark's order.

    Args:
        benchmark: the content of the file.
        path: the file, for errors.

    Raises:
        InputError: a cell or an accuracy is missing, or not what it must be.
    """
    cells = benchmark["meta_archs"]
    if len(cells) != CELLS:
        raise InputError(f"{path}: has {len(cells)} cells; the benchmark has {CELLS}")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["index", ARCHITECTURE, *ACCURACIES])
    for index, cell in enumerate(cells):
        bench201_from_string(str(cell), where=f"{path}, cell {index}")
        where = f"{path}, cell {index}"
        accuracies = [
            _accuracy(benchmark["arch2infos"], index, PLACES[c], where) for c in ACCURACIES
        ]
        table.writerow([index, cell, *accuracies])
    return text.getvalue()


def _accuracy(infos: Any, index: int, place: Where, where: str) -> float:
    try:
        trained = infos[index][place.trainings]
        values = list(_of_seeds(trained, place))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputError(
            f"{where}: has no {place.trainings}, {place.images}, {place.split} "
            f"({one_line(error, 100)}); version 1.1 of the file has them all"
        ) from None
    if not values:
        raise InputError(f"{where}: was not trained on {place.images} ({place.trainings})")
    return round(statistics.fmean(values), 3)


def _of_seeds(trained: Mapping[str, Any], place: Where) -> Iterator[float]:
    for (images, _), result in sorted(trained["all_results"].items()):
        if images == place.images:
            yield float(result["eval_acc1es"][place.split])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gdas.bench201.extract",
        description="Make the table of NAS-Bench-201 from the benchmark's public file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the benchmark's file")
    usual = Path("data/nasbench201/nasbench201.csv")
    parser.add_argument("--to", type=Path, metavar="CSV", default=usual, help=f"default: {usual}")
    options = parser.parse_args(arguments)
    try:
        _extract(options.file, options.to)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: --to {options.to}: cannot write ({error.strerror})", file=sys.stderr)
        return 2
    return 0


def _extract(file: Path, to: Path) -> None:
    text = table_of(read_benchmark(file), file)
    to.parent.mkdir(parents=True, exist_ok=True)
    write_text(to, text)
    try:
        check_chance(read_table(to), to)
    except InputError:
        to.unlink()
        raise
    found = sha256_of(to)
    print(f"{file}: SHA-256 {sha256_of(file)}")
    print(f"written: {to} ({CELLS} cells), SHA-256 {found}")
    if found == TABLE_SHA256:
        print("this is the table of the figures in experiments/results.md, byte for byte")
    else:
        print(f"the table of the figures in experiments/results.md has {TABLE_SHA256}")


if __name__ == "__main__":
    sys.exit(main())
