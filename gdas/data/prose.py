"""Python's own manual as a text: small and real, without a download."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from gdas.data.vocabulary import UNKNOWN, Lines, Split, count_tokens

PROSE_SHARES: dict[Split, tuple[float, float]] = {
    "train": (0.0, 0.8),
    "valid": (0.8, 0.9),
    "test": (0.9, 1.0),
}
"""Shares of all tokens; a topic belongs to the split in whose share it begins."""


@cache
def prose(split: Split) -> Lines:
    """The manual's words and signs in lower case; words seen once in training are `<unk>`."""
    if split == "train":
        lines = _prose_lines(split)
        seen = Counter(word for line in lines for word in line)
        common = {word for word, count in seen.items() if count >= 2}
    else:
        lines, common = _prose_lines(split), {w for line in prose("train") for w in line}
    return [[word if word in common else UNKNOWN for word in line] for line in lines]


def _prose_lines(split: Split) -> Lines:
    """A split's lines, without those that underline headings.

    Topics quote each other, so a repeated paragraph counts only at its first place.
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
    total, before, chosen = sum(map(count_tokens, texts)), 0, list[Sequence[str]]()
    low, high = PROSE_SHARES[split]
    for text in texts:
        if low <= before / total < high:
            chosen += text
        before += count_tokens(text)
    return chosen


@cache
def prose_identity(split: Split) -> str:
    """A checksum of the text, which differs between Python versions."""
    text = "\n\n".join("\n".join(map(" ".join, prose(s))) for s in ("train", split))
    return "prose-" + hashlib.sha256(text.encode()).hexdigest()[:16]
