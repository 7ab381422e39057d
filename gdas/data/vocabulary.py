"""From lines of words to token ids, for all texts.

A line's tokens are its words and one `<eos>`. The vocabulary is that of the training split, in the
order of first occurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gdas.errors import InputError

Split = Literal["train", "valid", "test"]
Lines = Sequence[Sequence[str]]

END, UNKNOWN = "<eos>", "<unk>"


def vocabulary_of(lines: Lines) -> dict[str, int]:
    """The id of each word, in the order of first occurrence."""
    ids: dict[str, int] = {}
    for line in lines:
        for word in (*line, END):
            ids.setdefault(word, len(ids))
    return ids


def encode(lines: Lines, ids: dict[str, int], where: str) -> NDArray[np.int32]:
    """The ids of all tokens, with one `<eos>` per line; unknown words become `<unk>`.

    Raises:
        InputError: a word is unknown and the vocabulary has no `<unk>`.
    """
    unknown = ids.get(UNKNOWN, -1)
    found = [ids.get(word, unknown) for line in lines for word in (*line, END)]
    encoded = np.array(found, np.int32)
    if len(encoded) and encoded.min() < 0:
        word = next(w for line in lines for w in line if w not in ids)
        raise InputError(
            f"{where}: the word {word!r} is not in the training split; write {UNKNOWN} for it in "
            "both"
        )
    return encoded


def count_tokens(lines: Lines) -> int:
    """The number of tokens: words, and one `<eos>` per line."""
    return sum(len(line) + 1 for line in lines)
