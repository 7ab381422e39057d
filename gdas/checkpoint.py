"""All that a run needs to go on, as plain tensors and numbers: save, load, digest.

A checkpoint is a folder `<position>/` with `state.pt` and `manifest.json`; the manifest, written
last, names the state's SHA-256, its digest and the records so far, and its presence commits the
checkpoint. Everything is written beside and renamed, and read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdas.files import sha256_of, write_json

STATE = "state.pt"
MANIFEST = "manifest.json"

State = dict[str, Any]
"""Nested dictionaries and lists of tensors, numbers, strings, booleans and None."""


@dataclass(frozen=True)
class Segment:
    """What a training loop yields: an epoch, or a part of a long one.

    Attributes:
        position: segments done, counted from 1.
        of: segments in all.
        metrics: numbers, by names such as "train/loss".
        details: anything else worth a record, ready for JSON (a genotype, say).
        state: what to save, to be used before the loop goes on; None on ranks above 0.
    """

    position: int
    of: int
    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    state: State | None = None


def digest(value: object) -> str:
    """SHA-256 over structure, types, shapes and bytes: one flipped bit changes it."""
    sha = hashlib.sha256()
    for part in _parts(value):
        sha.update(part)
    return sha.hexdigest()


def _parts(value: object) -> Iterator[bytes]:
    match value:
        case Tensor():
            tensor = value.detach().cpu().contiguous()
            yield f"tensor {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield tensor.flatten().view(torch.uint8).numpy().tobytes()
        case dict():
            yield f"dict {len(value)}".encode()
            for key in sorted(value, key=lambda k: (type(k).__name__, str(k))):
                yield from _parts(key)
                yield from _parts(value[key])
        case list() | tuple():
            yield f"list {len(value)}".encode()
            for item in value:
                yield from _parts(item)
        case bool() | int() | str() | None:
            yield f"{type(value).__name__} {value!r};".encode()
        case float():
            yield b"float" + struct.pack("<d", value)
        case _:
            raise TypeError(f"a state holds no {type(value).__name__}")


def save(folder: Path, segment: Segment, records: list[dict[str, Any]], *, keep: int = 2) -> str:
    """Write a checkpoint and drop the oldest ones.

    Args:
        folder: holds the checkpoints of one job.
        segment: with its state.
        records: the whole history as it stands in records.jsonl, this segment's included.
        keep: how many checkpoints stay.

    Returns:
        The state's digest.

    Raises:
        OSError: nothing that was there before is harmed.
    """
    assert segment.state is not None
    target = folder / f"{segment.position:06d}"
    target.mkdir(parents=True, exist_ok=True)
    beside = target / f"{STATE}.partial"
    try:
        with beside.open("wb") as file:
            torch.save(segment.state, file)
            file.flush()
            os.fsync(file.fileno())
        sha = sha256_of(beside)
        (target / MANIFEST).unlink(missing_ok=True)
        beside.replace(target / STATE)
        state_digest = digest(segment.state)
        write_json(
            target / MANIFEST,
            {
                "position": segment.position,
                "sha256": sha,
                "digest": state_digest,
                "records": records,
            },
        )
    except OSError:
        beside.unlink(missing_ok=True)
        if not (target / MANIFEST).exists():  # nothing whole was here before
            shutil.rmtree(target, ignore_errors=True)
        raise
    # Later positions are of a history that was given up, because they were damaged.
    others = sorted(path for path in folder.iterdir() if path != target)
    earlier = [path for path in others if path.name < target.name]
    kept = earlier[len(earlier) - (keep - 1) :] if keep > 1 else []
    for old in others:
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return state_digest


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole."""

    position: int
    digest: str
    records: list[dict[str, Any]]
    state: State


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint in `folder`, and a line for each damaged one passed over."""
    damaged: list[str] = []
    for target in sorted(folder.iterdir() if folder.is_dir() else [], reverse=True):
        if not (target / MANIFEST).exists():
            continue  # never committed
        try:
            return load(target), damaged
        except (OSError, ValueError) as error:
            damaged.append(f"{target}: {error}; going on from the one before it")
    return None, damaged


def load(target: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        ValueError: damaged.
        OSError: cannot be read.
    """
    try:
        manifest = json.loads((target / MANIFEST).read_text())
        position, sha, expected = manifest["position"], manifest["sha256"], manifest["digest"]
        records = manifest["records"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"damaged {MANIFEST} ({error})") from None
    if (found := sha256_of(target / STATE)) != sha:
        raise ValueError(f"damaged {STATE}, SHA-256 {found}, expected {sha}")
    state = torch.load(target / STATE, map_location="cpu", weights_only=True)
    return Checkpoint(position, expected, records, state)
