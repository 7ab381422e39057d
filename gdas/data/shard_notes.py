"""What to look at after a conversion: classes with too few photos to learn or to be scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gdas.data.layouts import Found
from gdas.data.shard_index import FOLDERS, ShardIndex

SHOWN = 5


def notes(index: ShardIndex, found: Found) -> Iterator[str]:
    """A line for each kind of class that has too few photos, counted and named.

    Args:
        index: what was written.
        found: what was there before; damaged photos are not counted.
    """
    counts = []
    for split, folder in FOLDERS.items():
        damaged = set(index.splits[split].damaged)
        counts.append(
            Counter(
                photo.label
                for photo in found.photos[split]
                if f"{folder}/{photo.name}" not in damaged
            )
        )
    train, scored = counts
    classes = range(len(index.classes))
    for kind, means, labels in (
        ("no training photo", "never learned", [i for i in classes if train[i] == 0]),
        ("a single training photo", "hardly learned", [i for i in classes if train[i] == 1]),
        ("no scored photo", "in no accuracy", [i for i in classes if scored[i] == 0]),
    ):
        if labels:
            names = ", ".join(index.classes[i] for i in labels[:SHOWN])
            more = ", ..." if len(labels) > SHOWN else ""
            noun = "class has" if len(labels) == 1 else "classes have"
            yield (
                f"{len(labels)} {noun} {kind} and {'is' if len(labels) == 1 else 'are'} {means}: "
                f"{names}{more}"
            )
