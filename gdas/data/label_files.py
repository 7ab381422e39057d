"""Files that give the class of each photo in a flat folder.

They have one line per photo, with its file in the first column and its class in the second,
separated by tabs, commas, semicolons or blanks; a first line of titles is allowed. ImageNet's
`LOC_val_solution.csv` from Kaggle has this form (files without their ending, the class followed by
a box), and so has tiny-imagenet's `val_annotations.txt`. ImageNet's development kit numbers its
classes instead.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gdas.data.layouts import is_photo
from gdas.errors import InputError, one_line

LABEL_ENDINGS = (".csv", ".txt", ".tsv")
DEVKIT, GROUND_TRUTH = "ILSVRC2012_devkit_t12", "ILSVRC2012_validation_ground_truth.txt"
MOST = 256 * 2**20
"""The most bytes that a file of labels may have."""
EXAMPLE = "a line a photo, such as 0001.jpg,CLASS"


class Labels(NamedTuple):
    """What a file of labels says.

    Attributes:
        file: the file.
        classes: each photo's class.
        lacking: the photos that it names and that are not there.
    """

    file: Path
    classes: dict[str, str]
    lacking: list[str]

    def left_out(self, photos: int) -> dict[str, int]:
        """Kinds of what is left out of so many photos, and how many there are."""
        found = {f"photos that {self.file.name} does not name": photos - len(self.classes)}
        if self.lacking:
            such = f"such as {self.lacking[0][:80]}"
            found[f"lines of {self.file.name} without their photo, {such}"] = len(self.lacking)
        return found


def read_labels(
    files: Iterable[Path], photos: Sequence[str], classes: Sequence[str] | None, folder: str = ""
) -> Labels | None:
    """Read the first file that names any of the photos.

    Args:
        files: the candidates, in order.
        photos: the photos' paths below the folder.
        classes: the names of the known classes; None: the file says which there are.

    Returns:
        None if no file names a photo. Photos that the file does not name are left out.

    Raises:
        InputError: the file gives a photo an unknown class, or two classes, or none.
    """
    by_name, doubtful = _names(photos, folder)
    known = set(classes or ())
    for path in files:
        rows = _rows(path)
        named = [(by_name[row[0]], row[1]) for row in rows if len(row) > 1 and row[0] in by_name]
        found: dict[str, str] = {}
        for photo, word in named:
            name = word if word in known or classes is None else (word.split() or [""])[0]
            if classes is None and not name:
                raise InputError(f"{path}: {photo} has no class; {EXAMPLE}")
            if classes is not None and name not in known:
                raise InputError(
                    f"{path}: {photo} is of class {word[:80]!r}, of which train has no folder; "
                    f"the second column must name one, such as {photo},{min(known)}"
                )
            if found.setdefault(photo, name) != name:
                raise InputError(
                    f"{path}: {photo} is of two classes, {found[photo]} and {name}; leave one line"
                )
        if found:
            return Labels(path, found, _lacking(rows, {*by_name, *doubtful}, folder))
    return None


def _lacking(rows: Sequence[Sequence[str]], there: set[str], folder: str) -> list[str]:
    """The photos of a file's lines that are not there, without a first line of titles.

    What the file says of photos in other folders is of other splits.
    """
    named = [row[0] for row in rows[1:] if len(row) > 1 and row[0]]
    if rows and len(rows[0]) > 1 and is_photo(rows[0][0]):
        named.insert(0, rows[0][0])
    ours = (name for name in named if PurePosixPath(name).parent.name in ("", folder))
    return [name for name in dict.fromkeys(ours) if name not in there]


def label_files(folder: Path, split: str, above: int = 4) -> list[Path]:
    """Files that may have a flat folder's labels: in it, or above it under the split's name."""
    places = [(folder, "")]
    places += [(place, split) for place in [*folder.absolute().parents][:above]]
    found = []
    for place, word in places:
        if not place.is_dir():
            continue
        for path in sorted(place.iterdir()):
            if path.suffix.lower() in LABEL_ENDINGS and word in path.name.lower():
                found.append(path)
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def _names(photos: Sequence[str], folder: str) -> tuple[dict[str, str], set[str]]:
    """Path, file name and file name without ending of each photo, and those that photos share."""
    names: dict[str, str] = {}
    doubtful: set[str] = set()
    for photo in photos:
        path = PurePosixPath(photo)
        below = {f"{folder}/{photo}", f"./{folder}/{photo}"} if folder else set()
        for name in {photo, path.name, path.stem, str(path.with_suffix("")), *below}:
            if names.setdefault(name, photo) != photo:
                doubtful.add(name)
    return {name: photo for name, photo in names.items() if name not in doubtful}, doubtful


def _rows(path: Path) -> list[list[str]]:
    try:
        if path.stat().st_size > MOST:
            return []
        text = path.read_bytes().decode("utf-8-sig")
        first = text.partition("\n")[0]
        between = next((sign for sign in "\t,;" if sign in first), None)
        if between is None:
            return [line.split(maxsplit=1) for line in text.splitlines()]
        rows = list(
            csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True)
        )
    except UnicodeDecodeError:
        return []
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); {EXAMPLE}") from None
    return [[cell.strip() for cell in row] for row in rows]


# ImageNet's development kit


def devkit_labels(folder: Path, photos: Sequence[str]) -> dict[str, str] | None:
    """Each photo's class by the development kit in `folder`, packed or unpacked.

    Source: torchvision.datasets.imagenet, which reads the same two files.

    Args:
        folder: the folder of the kit.
        photos: ImageNet's validation images; sorted by name, they are the lines of the ground
            truth.

    Returns:
        None if there is no kit.

    Raises:
        InputError: it is damaged, or for another number of photos.
    """
    try:
        files = _devkit(folder)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise InputError(f"{folder}/{DEVKIT}: damaged ({one_line(error)})") from None
    if files is None:
        return None
    numbers, meta = files
    try:
        lines = [int(line) for line in numbers.decode("ascii").split()]
        classes = _wnids(meta)
        found = [classes[number] for number in lines]
    except Exception as error:  # a damaged .mat file can raise anything
        raise InputError(
            f"{folder}/{DEVKIT}: not ImageNet's development kit ({one_line(error, 200)})"
        ) from None
    if len(found) != len(photos):
        raise InputError(
            f"{folder}/{DEVKIT}: has labels of {len(found)} photos, and there are {len(photos)}"
        )
    return dict(zip(sorted(photos), found, strict=True))


def _devkit(folder: Path) -> tuple[bytes, bytes] | None:
    wanted = (GROUND_TRUTH, "meta.mat")
    data = folder / DEVKIT / "data"
    if data.is_dir():
        numbers, meta = ((data / name).read_bytes() for name in wanted)
        return numbers, meta
    for ending in (".tar.gz", ".tgz", ".tar"):
        path = folder / f"{DEVKIT}{ending}"
        if path.is_file():
            found = dict[str, bytes]()
            with tarfile.open(path) as tar:
                for member in tar:
                    name = PurePosixPath(member.name).name
                    content = tar.extractfile(member) if member.isreg() else None
                    if name in wanted and content is not None and member.size <= MOST:
                        found[name] = content.read()
            if len(found) < 2:
                raise InputError(f"{path}: has no {' and '.join(set(wanted) - set(found))}")
            return found[GROUND_TRUTH], found["meta.mat"]
    return None


def _wnids(meta: bytes) -> dict[int, str]:
    """The names of the class numbers; only those without children are classes of the challenge."""
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    return {
        int(synset["ILSVRC2012_ID"]): str(synset["WNID"])
        for synset in synsets
        if int(synset["num_children"]) == 0
    }
