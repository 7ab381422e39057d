"""Labels for the photos of a folder: `python -m orchestrator.predict OUT:FINAL FOLDER`."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gdas.errors import InputError
from gdas.files import as_text, without_surrogates
from orchestrator.terminal.command import (
    add_data,
    add_operations,
    command_parser,
    refuse_no_folder,
    run_command,
)
from orchestrator.terminal.words import counted

if TYPE_CHECKING:  # the help needs no PyTorch
    from orchestrator.driver.finals import Final

FORMATS = (".csv", ".json")
BATCH = 64
PROGRESS_S = 10.0
"""How often a line on stderr says how many photos are labelled."""

MORE = """examples:
  python -m orchestrator.predict runs/smoke:gdas-frc-digits photos
  python -m orchestrator.predict runs/flowers:best photos --to labels.csv
  python -m orchestrator.predict s3://BUCKET/runs/flowers:best-seed0 photos --to labels.json

Every photo of FOLDER and of the folders in it is resized as a test image, its centre cut out, and
labelled. A line of CSV has the file, the most probable label, its probability, and the probability
of every label; JSON has the same. Lines are written as photos are labelled; if the command is
interrupted, they are in FILE.partial. Files that are no photos are passed over; damaged photos are
named on stderr. A byte of a file's name that is not UTF-8 is written as \\xe4."""


class Labelled(NamedTuple):
    """A photo and what the network says of it.

    Attributes:
        file: its path below the folder, as `gdas.files.as_text` writes it.
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
    if path is not None:
        refuse_no_folder(path)
    from gdas.data.layouts import EXTENSIONS  # here: the help needs no PyTorch
    from orchestrator.driver.finals import open_final

    folder: Path = options.folder
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; name the one with the photos")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
    if not files:
        raise InputError(f"{folder}: has no photos; they must end with {', '.join(EXTENSIONS)}")
    final = open_final(options.final, options.operations, options.data)
    found = predictions(final, files, folder)
    if path is None:
        count = _to_screen(found, final.labels)
    else:
        count = _to_file(found, final.labels, path, len(files))
        print(f"written: {path} ({counted(count, 'photo')})")
    return 0 if count == len(files) else 1


def _to_screen(found: Iterable[Labelled], labels: Sequence[str]) -> int:
    """Print lines of CSV as photos are labelled; returns how many photos are."""
    print(_csv_head(labels), end="", flush=True)
    count = 0
    for count, one in enumerate(found, 1):  # noqa: B007
        print(_csv_line(one, labels), end="", flush=True)
    return count


def _to_file(found: Iterable[Labelled], labels: Sequence[str], path: Path, of: int) -> int:
    """Write a file as photos are labelled; it takes its name when all are.

    Until then, and if that is not to be, what there is lies beside it in FILE.partial.

    Args:
        of: how many photos there are, for the progress on stderr.

    Returns:
        How many photos are labelled.

    Raises:
        InputError: the file cannot be written.
    """
    beside = path.with_name(f"{path.name}.partial")
    as_json = path.suffix == ".json"
    count, said = 0, time.monotonic()
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write("[" if as_json else _csv_head(labels))
            try:
                for count, one in enumerate(found, 1):
                    before = ",\n" if count > 1 else "\n"
                    entry = _json_entry(one, labels) if as_json else _csv_line(one, labels)
                    file.write(before + entry if as_json else entry)
                    if count % BATCH == 0:
                        file.flush()
                        if time.monotonic() - said > PROGRESS_S:
                            said = time.monotonic()
                            print(f"{count} of {of} photos are labelled", file=sys.stderr)
            finally:
                file.write(("\n]\n" if count else "]\n") if as_json else "")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except KeyboardInterrupt:
        print(f"{count} of {of} photos are labelled: {beside}", file=sys.stderr)
        raise
    except OSError as error:
        raise InputError(f"--to {path}: cannot write ({error.strerror})") from None
    return count


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
            names.append(as_text(str(file.relative_to(folder))))
        except (ValueError, OSError) as error:
            print(without_surrogates(f"{file}: cannot be read ({error})"), file=sys.stderr)
        if names and (len(names) == BATCH or i == len(files) - 1):
            scores = torch.from_numpy(final.model.predict(torch.stack(pixels).numpy()))
            for name, row in zip(names, scores.double().softmax(1).tolist(), strict=True):
                yield Labelled(name, row)
            names, pixels = [], []


def _best(labelled: Labelled, labels: Sequence[str]) -> tuple[str, float]:
    best = max(range(len(labels)), key=labelled.probabilities.__getitem__)
    return labels[best], labelled.probabilities[best]


def _csv_head(labels: Sequence[str]) -> str:
    return _csv_row(["file", "label", "probability", *(f"p({label})" for label in labels)])


def _csv_line(one: Labelled, labels: Sequence[str]) -> str:
    label, probability = _best(one, labels)
    rest = [f"{p:.6f}" for p in one.probabilities]
    return _csv_row([one.file, label, f"{probability:.6f}", *rest])


def _csv_row(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _json_entry(one: Labelled, labels: Sequence[str]) -> str:
    label, probability = _best(one, labels)
    value = {
        "file": one.file,
        "label": label,
        "probability": probability,
        "probabilities": dict(zip(labels, one.probabilities, strict=True)),
    }
    return textwrap.indent(json.dumps(value, indent=1, ensure_ascii=False), " ")


if __name__ == "__main__":
    sys.exit(main())
