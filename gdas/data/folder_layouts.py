"""Photos in folders: one per class, Kaggle's ImageNet, flat folders with a file of labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from gdas.data.label_files import Labels, label_files, read_labels
from gdas.data.layouts import (
    EXTENSIONS,
    HIDDEN,
    TRAIN,
    Found,
    Labelled,
    class_names,
    ending_of,
    hidden,
    is_photo,
    say_left_out,
    sorted_by_class,
    unknown_class,
)
from gdas.data.source import Split
from gdas.errors import InputError

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
KAGGLE_LABELS = "; Kaggle's are LOC_val_solution.csv, beside the folder ILSVRC"
KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")


def image_folder(source: Path, names: Sequence[str]) -> Found | None:
    """Read train/CLASS/... and a second such folder, or a flat one with a file of labels.

    Args:
        source: the folder.
        names: names of the folder of the scored photos, the preferred one first.

    Returns:
        None if there is no folder of training photos.

    Raises:
        InputError: a class has no photos, there are no photos to score, they have no labels, or
            they have a class that the training photos lack.
    """
    base = next((b for b in (source, *(source / k for k in KAGGLE)) if _train(b)), None)
    if base is None:
        return None
    train = _train(base)
    assert train is not None
    classes = _folders(train)
    left_out = Counter[str]()
    if len(classes) <= 1 and (flat := _flat_train(train, left_out)) is not None:
        classes, of_train, labels_in = flat
        return _with_scored(source, base, names, classes, of_train, labels_in, left_out)
    if not any(path for name in classes for path in _files(train / name, Counter())):
        if any(path.suffix in (".tar", ".parquet", ".arrow") for path in train.iterdir()):
            return None
        if not classes:
            raise _no_classes(train)
    of_train = [one for name in classes for one in _of_class(train, name, left_out)]
    _refuse_empty(train, classes, {one.name for one in of_train})
    _count_loose(train, set(), left_out)
    return _with_scored(source, base, names, classes, of_train, "", left_out)


def _flat_train(
    train: Path, left_out: Counter[str]
) -> tuple[list[str], list[Labelled], str] | None:
    """The classes and photos of a flat folder of training photos with a file of labels.

    Returns:
        None if there is no such file. The last of the three is how the photos are labelled.
    """
    passed = Counter[str]()
    below = {path[len(str(train)) + 1 :]: path for path in sorted(_files(train, passed))}
    labels = read_labels(label_files(train, train.name.lower()), list(below), None, train.name)
    if labels is None:
        return None
    left_out.update(passed)
    return (
        class_names(labels.classes.values()),
        _of_labels(labels, below, train, left_out),
        f" flat, labels in {labels.file.name}",
    )


def _of_labels(
    labels: Labels, below: dict[str, str], folder: Path, left_out: Counter[str]
) -> list[Labelled]:
    """The photos that a file of labels names; the others, and lines without one, are counted."""
    left_out[labels.file.suffix.lower()] -= labels.file.parent == folder
    left_out.update(labels.left_out(len(below)))
    return [Labelled(below[n], n, name, _size(below[n])) for n, name in labels.classes.items()]


def _with_scored(
    source: Path,
    base: Path,
    names: Sequence[str],
    classes: Sequence[str],
    of_train: list[Labelled],
    labels_in: str,
    left_out: Counter[str],
) -> Found:
    """Training photos, with the scored ones beside them."""
    train = _train(base)
    assert train is not None
    held, scored, how = _held_out(base, names, classes, left_out)
    for name in names:
        other = _folder(base, name)
        if other is not None and other != held:
            photos = len(list(_files(other, Counter())))
            left_out[f"photos in {other.name}/ ({held.name}/ is scored)"] += photos
    kaggle = "Kaggle's ImageNet" if base != source else "an ImageFolder"
    photos_of: dict[Split, list[Labelled]] = {"train": of_train, "test": scored}
    return Found(
        f"{kaggle} ({train.name}/{labels_in}, {held.name}/{how})",
        classes,
        {split: sorted_by_class(found, classes) for split, found in photos_of.items()},
        left_out,
    )


def _train(base: Path) -> Path | None:
    return next((found for name in TRAIN if (found := _folder(base, name))), None)


def _folder(base: Path, name: str) -> Path | None:
    """The folder of a name, in capitals too; the exact name goes first."""
    if (base / name).is_dir():
        return base / name
    if not base.is_dir():
        return None
    found = [p for p in sorted(base.iterdir()) if p.name.lower() == name.lower() and p.is_dir()]
    return found[0] if found else None


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _of_class(folder: Path, name: str, left_out: Counter[str]) -> Iterator[Labelled]:
    top = folder / name
    for path in _files(top, left_out):
        yield Labelled(path, path[len(str(top)) + 1 :], name, _size(path))


def _files(folder: Path, left_out: Counter[str]) -> Iterator[str]:
    """Photos at any depth, also through links, but not in circles; counts the files it skips."""
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        below = here[len(str(folder)) :]
        for file in files:
            if hidden(f"{below}/{file}"):
                left_out[HIDDEN] += is_photo(file)
            elif is_photo(file):
                yield f"{here}/{file}"
            else:
                left_out[ending_of(file)] += 1


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise InputError(
            f"{path}: cannot read ({error.strerror}); remove it, or mend it if it is a link"
        ) from None


def _count_loose(folder: Path, taken: set[str], left_out: Counter[str]) -> None:
    """Count files beside the folders of the classes, and folders that begin with a dot."""
    for path in folder.iterdir():
        if path.is_dir():
            if path.name.startswith("."):
                left_out[HIDDEN] += len(list(_files(path, Counter())))
        elif path.name not in taken and is_photo(path.name):
            kind = HIDDEN if path.name.startswith(".") else "photos of no class's folder"
            left_out[kind] += 1


def _refuse_empty(train: Path, classes: Sequence[str], found: set[str]) -> None:
    for name in classes:
        if name not in found:
            passed = Counter[str]()
            for _ in _files(train / name, passed):
                pass
            but = f", but {say_left_out(passed)}" if passed else ""
            raise InputError(
                f"{train / name}: no photos ({', '.join(EXTENSIONS)}){but}; put some there, or "
                "remove the folder"
            )


def _no_classes(train: Path) -> InputError:
    loose = sum(is_photo(path.name) for path in train.iterdir())
    but = f" ({loose} photos lie in {train.name}/ itself)" if loose else ""
    return InputError(
        f"{train}: no folders of classes{but}; move each photo into the folder of its class, such "
        f"as {train.name}/cat/1.jpg, or write {train}/labels.csv, a line a photo, such as 1.jpg,cat"
    )


def _held_out(
    base: Path, names: Sequence[str], classes: Sequence[str], left_out: Counter[str]
) -> tuple[Path, list[Labelled], str]:
    """The folder of the scored photos, those photos, and how they are labelled."""
    there = [folder for name in names if (folder := _folder(base, name))]
    if not there:
        raise InputError(
            f"{base}: no folder {names[0]}"
            + (f" (nor {', '.join(names[1:])})" if len(names) > 1 else "")
            + "; photos to score must lie apart from those in train/CLASS/: move some of every "
            f"class, such as a tenth, to {names[0]}/CLASS/"
        )
    problems = list[str]()
    for folder in there:
        passed = Counter[str]()
        scored = _scored(folder, classes, passed)
        if not isinstance(scored, str):
            left_out.update(passed)
            return folder, *scored
        problems.append(scored)
    raise InputError(problems[0])


def _scored(
    folder: Path, classes: Sequence[str], left_out: Counter[str]
) -> tuple[list[Labelled], str] | str:
    """A folder's photos, labelled by the folders of their classes or by a file of labels.

    Returns:
        The photos and how they are labelled; or, as text, why there are none.

    Raises:
        InputError: a class is missing in train, or a file of labels contradicts itself.
    """
    inside = _folders(folder)
    if set(inside) & set(classes):
        if unknown := sorted(set(inside) - set(classes)):
            raise unknown_class(str(folder / unknown[0]), unknown)
        found = [one for name in inside for one in _of_class(folder, name, left_out)]
        if not found:
            return f"{folder}: no photos ({', '.join(EXTENSIONS)})"
        _count_loose(folder, set(), left_out)
        return found, ""
    paths = sorted(_files(folder, left_out))
    if not paths:
        return f"{folder}: no photos ({', '.join(EXTENSIONS)})"
    below = {path[len(str(folder)) + 1 :]: path for path in paths}
    files = label_files(folder, folder.name.lower())
    labels = read_labels(files, list(below), classes, folder.name)
    if labels is None:
        if inside:
            raise unknown_class(str(folder / inside[0]), inside)
        but = f"{files[0].name} names none of them in its first column" if files else ""
        return (
            f"{folder}: {len(paths)} photos without a class: no folders {folder.name}/CLASS/, and "
            f"{but or 'no file of labels'}; move each into its class's folder, or write "
            f"{folder}/labels.csv, a line a photo, such as {Path(paths[0]).name},{min(classes)}"
            + (KAGGLE_LABELS if folder.parent.name == "CLS-LOC" else "")
        )
    found = _of_labels(labels, below, folder, left_out)
    return found, f" flat, labels in {labels.file.name}"


def no_layout(source: Path, names: Sequence[str]) -> InputError:
    """The error for a folder without a known layout, which names what the folder contains."""
    inside = sorted(path.name for path in source.iterdir() if not path.name.startswith("."))
    shown = ", ".join(inside[:5]) + (", ..." if len(inside) > 5 else "") or "nothing"
    return InputError(
        f"{source}: no folder {TRAIN[0]}, and no tars or tables of a known layout (it holds "
        f"{shown}); {_way_out(source, names, inside)}"
    )


def _way_out(source: Path, names: Sequence[str], inside: Sequence[str]) -> str:
    """What to do about a folder that is of no layout."""
    nearby = [source / name for name in inside]
    nearby += [path for folder in nearby if folder.is_dir() for path in sorted(folder.glob("*"))]
    if source.name.lower() in (*TRAIN, *names):
        nearby.append(source.parent)
    if whole := [folder for folder in nearby if _train(folder)]:
        return f"name {whole[0]}, which has it"
    if any(name.lower().endswith(ARCHIVES) for name in inside):
        return "unpack the archive and name the folder that comes of it"
    if way := _apart(source, names):
        return way
    if any(is_photo(path.name) for name in _folders(source) for path in (source / name).iterdir()):
        return (
            f"move these folders into {source / TRAIN[0]}, and some photos of every class, such as "
            f"a tenth, into {source / names[0]}/CLASS/"
        )
    return (
        f"it must have {TRAIN[0]}/CLASS/*.jpg and {names[0]}/CLASS/*.jpg, or what "
        "`python -m gdas.data.shards --help` lists"
    )


def _apart(source: Path, names: Sequence[str]) -> str:
    """What to do about photos that lie together, whatever their class; "" if they do not.

    They are in one folder, such as images/, or in the source itself.
    """
    folders = [name for name in _folders(source) if _holds_photos(source / name)]
    if len(folders) > 1 or not (folders or _holds_photos(source)):
        return ""
    here = source / folders[0] if folders else source
    tables = [path for place in (source, here) for path in label_files(place, "", above=0)]
    train, held = TRAIN[0], names[0]
    if tables:
        return (
            f"the photos lie together in {here}, and a file of labels is read for one split: move "
            f"them into {source / train}/ and, such as a tenth of every class, {source / held}/, "
            f"and their lines of {tables[0].name} into {train}/labels.csv and {held}/labels.csv, "
            "FILE,CLASS a line"
        )
    return (
        f"the photos lie together in {here}, and nothing says of which class each is: move each to "
        f"{source / train}/CLASS/ or, such as a tenth of every class, {source / held}/CLASS/"
    )


def _holds_photos(folder: Path) -> bool:
    return any(is_photo(path.name) for path in folder.iterdir())
