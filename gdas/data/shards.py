"""Convert photos to Parquet shards, once.

    python -m gdas.data.shards SOURCE TARGET [--damaged-limit N] [--workers N] [--rows N]

SOURCE has one of the layouts of gdas.data.layouts (folders, tars, tables), which is found out and
printed. TARGET is a folder in the data folder, named after the data set (DATA/imagenet). Files are
copied unchanged, after each has been decoded once.

The command may be stopped, and goes on if it is run again; a complete TARGET is verified and
repaired. The result has the same bytes however often it was stopped, with any number of workers.

Decision: training photos are shuffled once, here, so that a few row groups are a random sample of
the whole; each class is spread over all shards.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import torch

from gdas.data.layouts import HELD_OUT, LAYOUTS, TRAIN, Found, find_photos, say_left_out
from gdas.data.photo_places import WINDOW_BYTES, Photo, PhotoReader, Row, refuse_odd_path
from gdas.data.settings import PLAIN, is_plain
from gdas.data.shard_index import FOLDERS, INDEX, PHOTOS, Shard, ShardIndex, Shards, read_index
from gdas.data.shard_notes import notes
from gdas.data.shard_writing import (
    digest_of,
    kept,
    parts_of,
    side_file,
    too_many,
    write_part,
    writing,
)
from gdas.data.source import Split
from gdas.errors import InputError
from gdas.files import as_text, sha256_of, without_surrogates, write_json
from gdas.randomness import generator

OWN_FILE = re.compile(r"\d{5,}\.parquet(\.\w[\w-]*)*(\.\d+\.partial)?")
"""What files of a conversion are called: shards, their side files, and either half-written."""
BLOCKS = 16
"""How many row groups of a table are shuffled together (fewer if they are large)."""


def shuffled(found: Found) -> list[Photo]:
    """The training photos in random order, which is always the same.

    If photos must be read one row group after the other, the row groups are shuffled, and then the
    photos within windows of a few row groups.
    """
    photos, draw = found.photos["train"], generator(0, "shards")
    if not found.blocks:
        return [photos[i] for i in torch.randperm(len(photos), generator=draw).tolist()]
    groups: dict[tuple[str, int], list[Photo]] = {}
    for photo in photos:
        assert isinstance(photo.place, Row)
        groups.setdefault((photo.place.path, photo.place.group), []).append(photo)
    listed = list(groups.values())
    mixed, window, blocks, size = list[Photo](), list[Photo](), 0, 0
    order = torch.randperm(len(listed), generator=draw).tolist()
    for i, group in enumerate(order):
        window += listed[group]
        blocks += 1
        size += listed[group][0].bytes  # that of its row group
        if blocks == BLOCKS or size >= WINDOW_BYTES or i + 1 == len(order):
            mixed += [window[j] for j in torch.randperm(len(window), generator=draw).tolist()]
            window, blocks, size = [], 0, 0
    return mixed


# Conversion


def convert(
    source: Path | Found,
    target: Path,
    *,
    damaged_limit: int = 0,
    workers: int = 1,
    shard_rows: int = 2048,
    group_rows: int = 64,
    say: Callable[[str], None] = lambda line: None,
) -> ShardIndex:
    """Convert photos, or go on with it; a complete conversion is verified and repaired.

    Args:
        source: a folder with a known layout, or what was found in one.
        target: the folder of the shards.
        damaged_limit: how many photos may be left out because they cannot be decoded.
        workers: how many threads read and decode.
        shard_rows, group_rows: how many photos a shard and a row group have.
        say: called with a line for every shard.

    Raises:
        InputError: the source cannot be used, too many photos are damaged, or `target` has other
            content or cannot be written to.
    """
    found = find_photos(source) if isinstance(source, Path) else source
    _refuse_others(target)
    classes = [as_text(name) for name in found.classes]
    photos: dict[Split, list[Photo]] = {"train": shuffled(found), "test": found.photos["test"]}
    parts = {
        split: parts_of(target, split, photos[split], shard_rows, group_rows) for split in FOLDERS
    }
    reader = PhotoReader()
    plan = digest_of(
        [PHOTOS, list(found.classes), [part.plan for split in FOLDERS for part in parts[split]]]
    )
    with _locked(target), ThreadPoolExecutor(workers) as pool:
        finished = _finished(target, plan)
        damaged = 0
        splits: dict[Split, Shards] = {}
        for split, of_split in parts.items():
            (target / FOLDERS[split]).mkdir(exist_ok=True)
            shards, missing, flat = list[Shard](), list[str](), list[str]()
            for number, part in enumerate(of_split):
                expected = finished.splits[split].shards[number].sha256 if finished else None
                started, written = time.monotonic(), kept(part)
                sha = sha256_of(part.path) if written else ""
                there = written is not None and expected in (None, sha)
                if written is None or not there:
                    written = write_part(part, group_rows, pool, reader, damaged, damaged_limit)
                    sha = sha256_of(part.path)
                if expected not in (None, sha):
                    raise _changed(part.path)
                missing += [f"{FOLDERS[split]}/{name}" for name in written.damaged]
                flat += [f"{FOLDERS[split]}/{name}" for name in written.one_colour]
                damaged += len(written.damaged)
                if damaged > damaged_limit:
                    raise too_many(missing[-1], "", damaged_limit)
                size = part.path.stat().st_size
                shards.append(Shard(part.path, written.photos, size, sha))
                rate = len(part.photos) / (time.monotonic() - started)
                how = "there already" if there else f"{rate:.0f} photos/s"
                say(
                    f"{FOLDERS[split]}: shard {number + 1} of {len(of_split)}, {how}"
                    + (f", {damaged} damaged so far" if damaged else "")
                )
            splits[split] = Shards(tuple(shards), group_rows, tuple(missing), tuple(flat))
            if splits[split].photos == 0:
                raise InputError(
                    f"{target / FOLDERS[split]}: every photo is damaged, such as {missing[0]}; a "
                    "split must have one or more, so mend some and run the same command again"
                )
        index = ShardIndex(target, plan, tuple(classes), splits)
        if finished is None:
            _remove_others(target, index)
            with writing(target / INDEX):
                write_json(target / INDEX, index.to_json())
        return index


def _changed(path: Path) -> InputError:
    return InputError(
        f"{path}: made anew it is another file: the photos changed, or another version of Arrow "
        f"wrote it; delete {path.parent.parent} to convert everything anew"
    )


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Let one conversion run at a time; the lock ends with the process."""
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        lock = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(
            f"{target}: another conversion is writing to it; wait for it, or stop it"
        ) from None
    finally:
        os.close(lock)


def _refuse_addresses(*folders: Path) -> None:
    for path in folders:
        if re.match(r"\w+:/", str(path)):
            raise InputError(
                f"{path}: an address; photos are converted between folders of this machine, such "
                "as to data/NAME, and copied to a store afterwards"
            )


def _refuse_name(target: Path) -> None:
    """Every experiment refuses such a data.name, after hours of conversion."""
    if not is_plain(target.name):
        raise InputError(
            f"{target}: its last part is the data set's name (data.name), which must be a plain "
            f"folder name ({PLAIN}); such as {target.parent / 'flowers'}"
        )


def _refuse_within(source: Path, target: Path, *, tables: bool) -> None:
    """Shards among photos would be taken for photos by the next conversion, or written over them.

    Raises:
        InputError: one is where the other's splits are.
    """
    here, there = source.resolve(), target.resolve()
    below = there.relative_to(here).parts if there.is_relative_to(here) else None
    above = here.relative_to(there).parts if here.is_relative_to(there) else None
    among = below is not None and (
        not below or below[0].lower() in (*TRAIN, *HELD_OUT) or (tables and len(below) == 1)
    )
    if among or (above and above[0] in FOLDERS.values()):
        raise InputError(
            f"{target}: lies among the photos of {source}; name a folder apart from them, such as "
            "data/NAME"
        )


def _refuse_others(target: Path) -> None:
    """Only what a conversion wrote may be written over or removed."""
    for folder in FOLDERS.values():
        try:
            inside = sorted((target / folder).iterdir())
        except OSError:
            continue
        for path in inside:
            if not OWN_FILE.fullmatch(path.name) and not path.name.startswith("."):
                raise InputError(
                    f"{target}: holds {folder}/{path.name}, which no conversion wrote; name "
                    "another folder, such as one that is not there yet"
                )


def _finished(target: Path, plan: str) -> ShardIndex | None:
    """The index of the same conversion; None if it is not complete."""
    try:
        index = read_index(target)
    except InputError:  # missing or damaged; the shards tell what is done
        return None
    if index.plan != plan:
        raise InputError(
            f"{target}: holds other photos, or the same in other shards; name another folder, or "
            "delete it to convert anew"
        )
    return index


def _remove_others(target: Path, index: ShardIndex) -> None:
    """Delete what a conversion that was given up left behind."""
    paths = [shard.path for shards in index.splits.values() for shard in shards.shards]
    ours = {*paths, *map(side_file, paths)}
    for folder in FOLDERS.values():
        for path in (target / folder).glob("*.parquet*"):
            if path not in ours:
                path.unlink()


# Command line

EPILOG = f"""examples:
  python -m gdas.data.shards ILSVRC2012 data/imagenet
  python -m gdas.data.shards ~/flowers data/flowers --damaged-limit 10

{LAYOUTS}

It can be stopped and run again: complete shards are kept. Afterwards, an experiment with
data: {{name: flowers, format: photos, classes: 102}} finds the photos in --data data.

Exit code: 0 all is converted, 2 bad input, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gdas.data.shards",
        description="Convert photos to Parquet shards, once; the layout of SOURCE is found out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder of the photos, tars or tables"
    )
    parser.add_argument(
        "target", type=Path, metavar="DATA/NAME", help="NAME is the data set's name (data.name)"
    )
    parser.add_argument(
        "--damaged-limit",
        type=int,
        default=0,
        metavar="N",
        help="how many photos may be left out because they cannot be decoded (default: 0)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="threads (default: one per core)",
    )
    parser.add_argument(
        "--rows", type=int, default=2048, metavar="N", help="photos per shard (default: 2048)"
    )
    parser.add_argument(
        "--group-rows",
        type=int,
        default=64,
        metavar="N",
        help="photos per row group, the unit of shuffling (default: 64)",
    )
    parser.add_argument(
        "--scored",
        metavar="SPLIT",
        help="which split is the test split, if there are several: val, valid, test ... "
        "(default: the first of these that has photos and labels)",
    )
    options = parser.parse_args(arguments)
    for key in ("workers", "rows", "group_rows"):
        if getattr(options, key) < 1:
            parser.error(f"--{key.replace('_', '-')}: must be 1 or more")
    if options.damaged_limit < 0:
        parser.error("--damaged-limit: must be 0 or more")
    try:
        _refuse_addresses(options.source, options.target)
        _refuse_name(options.target)
        refuse_odd_path(options.target.absolute())
        found = find_photos(options.source, held_out=options.scored)
        _refuse_within(options.source, options.target, tables=found.blocks)
        _say(f"{options.source}: {found.layout}")
        index = convert(
            found,
            options.target,
            damaged_limit=options.damaged_limit,
            workers=options.workers,
            shard_rows=options.rows,
            group_rows=options.group_rows,
            say=_say,
        )
    except InputError as problem:
        _say(f"error: {problem}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on")
        return 130
    data, name = options.target.parent, options.target.name
    setting = "" if name == "imagenet" else f"   # data: {{name: {name}, format: photos, ...}}"
    _say(f"{options.target}: {summary(index, found)}")
    for line in notes(index, found):
        _say(f"note: {line}")
    command = f"python -m orchestrator.reproduce_paper EXPERIMENT --data {quote(str(data))}"
    print(without_surrogates(f"next: {command}{setting}"))
    return 0


def summary(index: ShardIndex, found: Found) -> str:
    """What was converted, what was left out, and what to look at, in one line."""
    counts = ", ".join(
        f"{shards.photos} in {FOLDERS[split]} ({len(shards.damaged)} damaged left out)"
        for split, shards in index.splits.items()
    )
    parts = [f"{len(index.classes)} classes", counts]
    if flat := [name for shards in index.splits.values() for name in shards.one_colour]:
        parts.append(f"{len(flat)} of almost one colour, such as {flat[0]}")
    if left_out := say_left_out(found.left_out):
        parts.append(f"left out: {left_out}")
    return "; ".join(parts)


def _say(line: str) -> None:
    print(without_surrogates(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
