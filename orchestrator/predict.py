"""Labels for the photos of a folder: `python -m orchestrator.predict OUT:FINAL FOLDER`."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gdas.errors import InputError
from gdas.files import write_text
from orchestrator.terminal.command import (
    add_data,
    add_operations,
    command_parser,
    run_command,
)
from orchestrator.terminal.words import counted

if TYPE_CHECKING:  # the help needs no PyTorch
    from orchestrator.driver.finals import Final

FORMATS = (".csv", ".json")
BATCH = 64

MORE = """examples:
  python -m orchestrator.predict runs/smoke:gdas-frc-digits photos
  python -m orchestrator.predict runs/flowers:best photos --to labels.csv
  python -m orchestrator.predict s3://BUCKET/runs/flowers:best-seed0 photos --to labels.json

Every photo of FOLDER and of the folders in it is resized as a test image, its centre cut out, and
labelled. A line of CSV has the file, the most probable label, its probability, and the probability
of every label; JSON has the same. Files that are no photos are passed over; damaged photos are
named on stderr."""


class Labelled(NamedTuple):
    """A photo and what the network says of it.

    Attributes:
        file: its path below the folder.
        probabilities: one for every label.
    """

    file: str
    probabilities: list[float]


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.predict",
        "Label photos with the network of a finished final.",
        MORE,
        done="all photos have their label",
        failed="some could not be read",
    )
    parser.add_argument("final", metavar="OUT:FINAL", help="a study's folder and a final's name")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the photos")
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help=".csv or .json (default: print CSV)"
    )
    add_data(parser, "the one that the study read")
    add_operations(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _predict, arguments)


def _predict(options: argparse.Namespace) -> int:
    path: Path | None = options.to
    if path is not None and path.suffix not in FORMATS:
        raise InputError(f"--to {path}: must end with {' or '.join(FORMATS)}")
    from gdas.data.layouts import EXTENSIONS  # here: the help needs no PyTorch
    from orchestrator.driver.finals import open_final

    folder: Path = options.folder
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; name the one with the photos")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
    if not files:
        raise InputError(f"{folder}: has no photos; they must end with {', '.join(EXTENSIONS)}")
    final = open_final(options.final, options.operations, options.data)
    found = list(predictions(final, files, folder))
    form = _as_json if path is not None and path.suffix == ".json" else _as_csv
    text = form(found, final.labels)
    if path is None:
        print(text, end="")
    else:
        try:
            write_text(path, text)
        except OSError as error:
            raise InputError(f"--to {path}: cannot write ({error.strerror})") from None
        print(f"written: {path} ({counted(len(found), 'photo')})")
    return 0 if len(found) == len(files) else 1


def predictions(final: Final, files: Sequence[Path], folder: Path) -> Iterator[Labelled]:
    """Label photos, in batches; one that cannot be decoded is named on stderr."""
    import torch

    from gdas.data.decode import decode
    from gdas.data.photos import plain_photo
    from gdas.data.settings import PhotoData

    data = final.config.data
    if not isinstance(data, PhotoData):  # photos are brought to the size of its images
        classes = max(2, len(final.labels))
        data = PhotoData(name="photos", classes=classes, size=final.size, resize=final.size)
    names, pixels = [], []
    for i, file in enumerate(files):
        try:
            pixels.append(plain_photo(decode(file.read_bytes()), data))
            names.append(str(file.relative_to(folder)))
        except (ValueError, OSError) as error:
            print(f"{file}: cannot be read ({error})", file=sys.stderr)
        if names and (len(names) == BATCH or i == len(files) - 1):
            scores = torch.from_numpy(final.model.predict(torch.stack(pixels).numpy()))
            for name, row in zip(names, scores.double().softmax(1).tolist(), strict=True):
                yield Labelled(name, row)
            names, pixels = [], []


def _best(labelled: Labelled, labels: Sequence[str]) -> tuple[str, float]:
    best = max(range(len(labels)), key=labelled.probabilities.__getitem__)
    return labels[best], labelled.probabilities[best]


def _as_csv(found: Sequence[Labelled], labels: Sequence[str]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "label", "probability", *(f"p({label})" for label in labels)])
    for one in found:
        label, probability = _best(one, labels)
        rest = [f"{p:.6f}" for p in one.probabilities]
        table.writerow([one.file, label, f"{probability:.6f}", *rest])
    return text.getvalue()


def _as_json(found: Sequence[Labelled], labels: Sequence[str]) -> str:
    values = []
    for one in found:
        label, probability = _best(one, labels)
        of_labels = dict(zip(labels, one.probabilities, strict=True))
        values.append(
            {
                "file": one.file,
                "label": label,
                "probability": probability,
                "probabilities": of_labels,
            }
        )
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
