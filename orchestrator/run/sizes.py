"""Check settings against the size of the data: whether there is at least one batch. Pure.

What is refused here would otherwise fail in a worker, after waiting for machines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gdas.cnn.halves import check_halves, search_split
from gdas.errors import InputError
from gdas.presets import ImageSearchConfig
from gdas.rnn.config import TextSearchConfig, TextTrainConfig

SETTING = re.compile(r"[a-z]\w*(\.\w+)*=")
"""How an error about a setting begins: batch_size=128."""
FEWEST_TOKENS = 2
"""The fewest tokens in a column of a batch of text: a word, and the next one to predict."""


def check_image_search(config: ImageSearchConfig, images: int) -> tuple[int, int]:
    """The numbers of images in D_T and D_V of a search.

    Args:
        images: the number of images in the training split.

    Raises:
        InputError: a half is larger than the split, or smaller than a batch.
    """
    train_T, valid_V = search_split(config, images)
    check_halves(config, len(train_T), len(valid_V))
    return len(train_T), len(valid_V)


@contextmanager
def under(key: str) -> Iterator[None]:
    """Prefix the setting that an InputError names with `key`; leave one that names a file."""
    try:
        yield
    except InputError as problem:
        if not SETTING.match(str(problem)):
            raise
        raise InputError(f"{key}.{problem}") from None


def check_text_search(config: TextSearchConfig, tokens: Mapping[str, int]) -> None:
    """Raise InputError unless both texts of a search have at least one batch.

    Args:
        tokens: the number of tokens by split.
    """
    for split, key in (("train", "train_tokens"), ("valid", "valid_tokens")):
        read = _first(tokens[split], split, key, getattr(config, key))
        _check_columns(read, split, "batch_size", config.batch_size)


def check_text_training(config: TextTrainConfig, tokens: Mapping[str, int], *splits: str) -> None:
    """Raise InputError unless every text that a training reads has at least one batch.

    Args:
        tokens: the number of tokens by split.
        splits: the splits that are read: "train", "valid", "test".
    """
    keys = {
        "train": "batch_size",
        "valid": "evaluation_batch_size",
        "test": "test_batch_size",
    }
    for split in splits:
        read = tokens[split]
        if split == "train":
            read = _first(read, split, "train_tokens", config.train_tokens)
        _check_columns(read, split, keys[split], getattr(config, keys[split]))


def _first(tokens: int, split: str, key: str, asked: int | None) -> int:
    """How many of a split's tokens are read."""
    if asked is None:
        return tokens
    if not FEWEST_TOKENS <= asked <= tokens:
        raise InputError(
            f"{key}={asked}: must be from {FEWEST_TOKENS} to the {tokens} tokens of the {split} "
            "split, or null for all of them"
        )
    return asked


def _check_columns(tokens: int, split: str, key: str, batch: int) -> None:
    most = tokens // FEWEST_TOKENS
    if batch > most:
        fix = f"use {key}={most}" if most == 1 else f"use {key}={most} or less"
        raise InputError(
            f"{key}={batch}: wider than the {split} text ({tokens} tokens, {FEWEST_TOKENS} or more "
            f"a column); {fix if most else f'give a longer {split} text'}"
        )
