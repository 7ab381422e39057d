"""The text data sets: their source, their checksums, and their batches.

`open_tokens` converts a split once to Arrow and memory-maps it from then on. A line's tokens are
its words and one `<eos>`. The vocabulary is that of the training split, in the order of first
occurrence. The test split has its own file, which only a final training opens.

Shapes: N tokens of a split, T time steps, B columns of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gdas.data.arrow import convert_once, mapped, read_split, write_split
from gdas.data.corpora import CORPORA, corpus_identity, find_file, is_published, read_corpus
from gdas.data.own_text import OwnText, counts_in, own_text
from gdas.data.prose import prose, prose_identity
from gdas.data.settings import TEXT_DATA, TextData
from gdas.data.vocabulary import Lines, Split, count_tokens, encode, vocabulary_of
from gdas.errors import InputError
from gdas.randomness import generator

TOKENS = "gdas-tokens/1"


@dataclass(frozen=True)
class Tokens:
    """A split of a text.

    Attributes:
        ids_N: int32, each below `vocabulary`; if it was read from a file, a view of the mapped
            file.
        vocabulary: the number of words.

    Raises:
        InputError: the words are no such numbers; the error says how to make them.
    """

    ids_N: Tensor
    vocabulary: int

    def __post_init__(self) -> None:
        _check_ids(self.ids_N, self.vocabulary)

    def __len__(self) -> int:
        return len(self.ids_N)

    def first(self, count: int | None, key: str = "train_tokens") -> Tokens:
        """The first `count` tokens; all if None.

        Raises:
            InputError: there are fewer tokens than asked for; the error names the setting `key`.
        """
        if count is None:
            return self
        if not 2 <= count <= len(self):
            raise InputError(
                f"{key}={count}: must be from 2 to the split's {len(self)} tokens, or null for all"
            )
        return Tokens(self.ids_N[:count], self.vocabulary)


def _check_ids(ids_N: object, vocabulary: object) -> None:
    """Refuse what is no text in numbers, which embeddings would misread or fail on later."""
    if type(vocabulary) is not int or vocabulary < 1:
        raise InputError(f"vocabulary={vocabulary!r}: must be an int of 1 or more, such as 10000")
    if isinstance(ids_N, str) or (isinstance(ids_N, list) and ids_N and isinstance(ids_N[0], str)):
        raise InputError(
            "ids_N are words: must be their numbers; use number = {word: i for i, word in "
            "enumerate(dict.fromkeys(words))} and torch.tensor([number[word] for word in words])"
        )
    if not isinstance(ids_N, Tensor):
        raise InputError(
            f"ids_N are a {type(ids_N).__name__}: must be a torch.Tensor; use torch.as_tensor(ids)"
        )
    if ids_N.dtype not in (torch.int32, torch.int64):
        kind = str(ids_N.dtype).removeprefix("torch.")
        raise InputError(f"ids_N are {kind}: must be int32 or int64; use ids.long()")
    if ids_N.ndim != 1 or not len(ids_N):
        raise InputError(
            f"ids_N of shape {tuple(ids_N.shape)}: must be N numbers, one or more, the words of "
            "the text in a row; batches are made of them later"
        )
    if ids_N.is_meta:
        return
    low, high = (int(end) for end in ids_N.aminmax())
    if low < 0 or high >= vocabulary:
        raise InputError(
            f"ids_N from {low} to {high}: must be from 0 to {vocabulary - 1}, below vocabulary="
            f"{vocabulary}; number all splits by the words of one"
        )


def require_tokens(*texts: object, names: Sequence[str]) -> None:
    """Raise InputError unless texts are Tokens (or None) whose words have the same numbers."""
    first: Tokens | None = None
    for text, name in zip(texts, names, strict=True):
        if text is None and name != names[0]:
            continue
        if not isinstance(text, Tokens):
            raise InputError(
                f"{name}: is a {type(text).__name__}; must be Tokens(ids, vocabulary) of "
                "gdas.data.text, or what its open_tokens gives"
            )
        first = first or text
        if text.vocabulary != first.vocabulary:
            raise InputError(
                f"{name}: has a vocabulary of {text.vocabulary} words and {names[0]} of "
                f"{first.vocabulary}; must be one, so that a number is the same word in both"
            )


@dataclass(frozen=True)
class TextSet:
    """A known text.

    Attributes:
        vocabulary: the number of words.
        counts: the number of tokens in a split.
        identity: gives a split's checksum, which enters the id of every job that reads the split;
            if it is published, no file is opened.
        read: from a folder and a split, reads the lines' words without `<eos>`, and checks them.
    """

    vocabulary: int
    counts: dict[Split, int]
    identity: Callable[[Split], str]
    read: Callable[[Path, Split], Lines]


def known_text(name: str) -> TextSet:
    """Look up a text by name.

    Raises:
        InputError: the name is unknown.
    """
    if name == "prose":
        counts = {split: count_tokens(prose(split)) for split in ("train", "valid", "test")}
        words = len(vocabulary_of(prose("train")))
        return TextSet(words, counts, prose_identity, lambda _, split: prose(split))  # type: ignore[arg-type]
    if name in CORPORA:
        corpus = CORPORA[name]
        return TextSet(
            corpus.vocabulary,
            corpus.counts,
            lambda split: corpus_identity(name, split),
            lambda folder, split: read_corpus(name, folder, split),
        )
    raise InputError(
        f"data.name={name}: unknown text; use {', '.join(TEXT_DATA)} (or your own files: "
        "data.format=text)"
    )


def text_identity(data: str | TextData, split: Split, folder: Path) -> str:
    """A split's checksum, which enters the id of every job that reads the split.

    For own text, and for unpublished files, it is computed from their content.

    Raises:
        InputError: it depends on files that are missing or not text.
    """
    data = TextData(name=data) if isinstance(data, str) else data
    own = _own(data, split, folder)
    return known_text(data.name).identity(split) if own is None else own.identity(split)


class TextCounts(NamedTuple):
    """The sizes of a text.

    Attributes:
        vocabulary: the number of words.
        counts: the number of tokens in each split.
    """

    vocabulary: int
    counts: dict[Split, int]


def text_counts(data: TextData, identities: Mapping[Any, str]) -> TextCounts:
    """The sizes of a text, from the identities of its splits, without opening a file."""
    read = {split: counts_in(identity) for split, identity in identities.items()}
    own = {cast(Split, split): found for split, found in read.items() if found is not None}
    counts: dict[Split, int] = {} if data.format == "text" else dict(known_text(data.name).counts)
    counts |= {split: tokens for split, (tokens, _) in own.items()}
    words = [vocabulary for _, vocabulary in own.values()]
    return TextCounts(words[0] if words else known_text(data.name).vocabulary, counts)


def _own(data: TextData, split: Split, folder: Path) -> OwnText | None:
    """The text as own files; None if the training split and `split` are the published ones."""
    if data.format == "text":
        return own_text(folder / data.name, data.min_count)
    if data.checksum == "published" or data.name not in CORPORA:
        return None
    needed: tuple[Split, ...] = ("train", split)
    files = {s: find_file(data.name, s, folder) for s in needed}
    if not all(path.is_file() for path in files.values()):
        return None  # the published files will be downloaded
    if all(is_published(path, CORPORA[data.name].sha256[s]) for s, path in files.items()):
        return None
    return OwnText(files)


def open_tokens(
    data: str | TextData, split: Split, folder: Path, *, verify: bool = False
) -> Tokens:
    """Memory-map a split; it is converted first if that has not been done.

    The conversion also reads the training split, for its vocabulary, and no other split.

    Args:
        data: the settings, or the name of a known text.
        folder: the folder of the data sets; the converted files are in `folder`/arrow.
        verify: whether to compare the whole content with its checksum.

    Raises:
        InputError: the source is missing and cannot be downloaded, or damaged.
    """
    data = TextData(name=data) if isinstance(data, str) else data
    own, name = _own(data, split, folder), data.name
    path = folder / "arrow" / f"{name}-{split}.arrow"
    identity = known_text(name).identity(split) if own is None else own.identity(split)

    def convert() -> None:
        if own is not None:
            encoded, words = own.encode(split), len(own.ids())
        else:
            known = known_text(name)
            train = known.read(folder, "train")
            ids = vocabulary_of(train)
            lines = train if split == "train" else known.read(folder, split)
            encoded, words = encode(lines, ids, f"{name}, {split} split"), len(ids)
        write_tokens(path, encoded, vocabulary=words, identity=identity)

    convert_once(path, identity, convert)
    return read_tokens(path, identity=identity, verify=verify)


# Arrow


def write_tokens(path: Path, ids_N: NDArray[np.int32], *, vocabulary: int, identity: str) -> None:
    """Write a split of tokens; see gdas.data.arrow.write_split."""
    about = {"format": TOKENS, "identity": identity, "vocabulary": str(vocabulary)}
    write_split(path, {"token": pa.array(ids_N)}, about)


def read_tokens(path: Path, *, identity: str, verify: bool) -> Tokens:
    """Memory-map a split of tokens; see gdas.data.arrow.read_split.

    Raises:
        InputError: it is another kind of file, comes from another source, or is damaged.
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
    """Lay out a text as T x B int64, each column a contiguous part of it (authors' code).

    The text is trimmed to a multiple of `batch`.

    Raises:
        InputError: there are fewer than two tokens per column.
    """
    steps = len(ids_N) // batch
    if steps < 2:
        raise InputError(
            f"{len(ids_N)} tokens are too few for a batch of {batch}, whose every column needs "
            f"two; use a batch of {len(ids_N) // 2} or less, or more tokens"
        )
    return ids_N[: steps * batch].long().view(batch, steps).t().contiguous()


def bptt_lengths(
    targets: int, bptt: int, *, seed: int, epoch: int, varied: bool, attempt: int = 0
) -> list[int]:
    """The lengths of an epoch's sequences, which together cover every target exactly once.

    Source: authors' code. The mean is `bptt` with probability 0.95, else half of it. A search uses
    the mean itself; a training draws from a normal distribution around it with standard deviation
    5, clipped to 5 and `bptt` + 20.

    Args:
        targets: how many time steps have a next token: T - 1.
        bptt: the usual mean length.
        seed, epoch: the position of the random stream.
        varied: True for a training, False for a search.
        attempt: how often the run went back after a NaN; each attempt draws anew.
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
