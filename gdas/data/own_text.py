"""Your own text: train, valid and test files in a folder become a data set.

Words are split as in Penn Treebank and WikiText-2, at white space, with one `<eos>` per line; so
these two come out the same if they are read as own text. A text that has `<unk>` was prepared and
is read as it is. In any other text, words that are rare in training become `<unk>`, because a word
that training never saw has no output. Line ends and a byte-order mark make no difference.

Files are read line by line and counted once per process; only words stay in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gdas.data.vocabulary import END, UNKNOWN, Split
from gdas.errors import InputError, one_line

NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Words in a file's name that tell its split, as in my.valid.txt."""
ENDINGS = (".txt", ".tokens", ".text", ".raw", "")
RARE = 2
"""By default, words that occur fewer times in training become `<unk>`."""
BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Counted(NamedTuple):
    """A file's content.

    Attributes:
        sha256: SHA-256 of its lines, without their ends.
        tokens: how many tokens it has: words and `<eos>`.
        words: how often each occurs, in the order of first occurrence, with `<eos>`.
    """

    sha256: str
    tokens: int
    words: Counter[str]


class OwnText(NamedTuple):
    """The files of an own text.

    Attributes:
        files: the file of each split.
        min_count: how often a word of training must occur to be kept; None: this depends on the
            text.
    """

    files: dict[Split, Path]
    min_count: int | None = None

    def ids(self) -> dict[str, int]:
        """The id of each word, in the order of first occurrence in training."""
        words = _count(self.files["train"]).words
        least = self.min_count or (1 if UNKNOWN in words else RARE)
        ids: dict[str, int] = {}
        for word, count in words.items():
            kept = word if count >= least or word in (END, UNKNOWN) else UNKNOWN
            ids.setdefault(kept, len(ids))
        return ids

    def identity(self, split: Split) -> str:
        """A split's checksum, with its tokens and the size of the vocabulary (see `counts_in`).

        Raises:
            InputError: a file cannot be read, is not text, or has words without an id.
        """
        ids, train, own = self.ids(), _count(self.files["train"]), _count(self.files[split])
        self._refuse_unknown(split, ids, own.words)
        if not set(ids) - {END, UNKNOWN}:
            raise InputError(
                f"{self.files['train']}: no word is seen {self.min_count or RARE} times, so all "
                f"would become {UNKNOWN}; give a longer text, or a lower data.min_count, such as 1"
            )
        digest = hashlib.sha256(f"{train.sha256} {own.sha256} {sorted(ids)}".encode())
        return f"text-{own.tokens}-{len(ids)}-{digest.hexdigest()[:16]}"

    def encode(self, split: Split) -> NDArray[np.int32]:
        """The ids of all tokens of a split."""
        ids = self.ids()
        self._refuse_unknown(split, ids, _count(self.files[split]).words)
        unknown = ids.get(UNKNOWN, -1)
        found = (ids.get(w, unknown) for line in _lines(self.files[split]) for w in (*line, END))
        return np.fromiter(found, np.int32)

    def _refuse_unknown(self, split: Split, ids: dict[str, int], words: Counter[str]) -> None:
        unknown = [word for word in words if word not in ids]
        if unknown and UNKNOWN not in ids:
            raise InputError(
                f"{self.files[split]}: {len(unknown)} words such as {unknown[0][:40]!r} are not in "
                f"{self.files['train'].name}, which has no {UNKNOWN}; write {UNKNOWN} for them, or "
                "raise data.min_count until some words of training become it"
            )


def counts_in(identity: str) -> tuple[int, int] | None:
    """Tokens of a split and words of its vocabulary, from its identity; None for a known text."""
    match = re.fullmatch(r"text-(\d+)-(\d+)-[0-9a-f]+", identity)
    return (int(match[1]), int(match[2])) if match else None


def find_files(folder: Path) -> dict[Split, Path]:
    """The file of each split, by its name.

    Raises:
        InputError: the folder or a file is missing, or two files fit a split.
    """
    wanted = f"{folder}/train.txt, valid.txt and test.txt, with words between blanks"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; put your text there: {wanted}")
    files: dict[Split, Path] = {}
    for split, names in NAMES.items():
        found = [path for path in sorted(folder.iterdir()) if _is_of(path, names)]
        if not found:
            there = sorted(path.name for path in folder.iterdir()) or ["nothing"]
            shown = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
            raise InputError(
                f"{folder}: no file of {split} (it holds {shown}); it must have {wanted}"
            )
        if len(found) > 1:
            raise InputError(
                f"{folder}: {found[0].name} and {found[1].name} may both be {split}; leave one"
            )
        files[split] = found[0]
    return files


def _is_of(path: Path, names: tuple[str, ...]) -> bool:
    words = re.split(r"[._-]+", path.name.lower())
    known = path.suffix.lower() in ENDINGS or path.suffix[1:].lower() in names
    return known and not path.name.startswith(".") and path.is_file() and bool({*words} & {*names})


def own_text(folder: Path, min_count: int | None) -> OwnText:
    """The text in a folder; see `find_files`."""
    return OwnText(find_files(folder), min_count)


def _count(path: Path) -> Counted:
    try:
        about = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror})") from None
    return _counted(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=6)
def _counted(path: Path, size: int, changed: int) -> Counted:
    """A file's content; a different size or modification time means another file."""
    digest, words = hashlib.sha256(), Counter[str]()
    for number, line in enumerate(_lines(path), 1):
        if END in line:
            raise InputError(
                f"{path}: line {number} has {END}, and one is added at the end of every line; "
                f"remove them, such as with sed -i 's/ *{END} *$//' {path.name}"
            )
        words.update(line)
        words[END] += 1
        digest.update("\0".join(line).encode() + b"\n")
    if not set(words) - {END}:
        raise InputError(f"{path}: is empty; it must have lines of words, such as: the cat sat")
    return Counted(digest.hexdigest(), words.total(), words)


def _lines(path: Path) -> Iterator[list[str]]:
    """The words of each line.

    Raises:
        InputError: it cannot be read, or is not UTF-8 text; the error names the line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    if line[:2] in BYTE_ORDER_MARKS:
                        raise _no_text(path, number, BYTE_ORDER_MARKS[line[:2]])
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if b"\0" in line:
                    raise _no_text(path, number, "a zero byte")
                # \r\n ends a line of Windows, \r alone one of an old Macintosh.
                for part in line.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"):
                    yield part.decode("utf-8").split()
    except UnicodeDecodeError as error:
        raise _no_text(path, number, one_line(error)) from None
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror})") from None


def _no_text(path: Path, line: int, why: str) -> InputError:
    return InputError(
        f"{path}: line {line} is not UTF-8 text ({why}); save the file as UTF-8, such as with "
        "iconv -t UTF-8"
    )
