"""Checkpoints: save, load and digest everything that a run needs to go on, without pickled objects.

A checkpoint is a folder `<position>/` with `state.pt` and `manifest.json`. The manifest is written
last and its presence commits the checkpoint. It has the state's SHA-256, its digest, the records so
far, and a checksum of itself. Every file is written to a temporary file and renamed, and the state
is read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gdas.errors import InputError, one_line
from gdas.files import sha256_of, write_json

STATE = "state.pt"
MANIFEST = "manifest.json"

State = dict[str, Any]
"""Nested dictionaries and lists of tensors, numbers, strings, booleans and None."""


@dataclass(frozen=True)
class Segment:
    """What a training loop yields: an epoch, or a part of a long one.

    Attributes:
        position: how many segments are done, counted from 1.
        of: how many segments there are in all.
        metrics: numbers, by names such as "train/loss".
        details: anything else worth recording, ready for JSON (a genotype, say).
        state: the state to save, to be used before the loop goes on; None on ranks above 0.
    """

    position: int
    of: int
    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    state: State | None = None


def digest(value: object) -> str:
    """SHA-256 over structure, types, shapes and bytes: a single flipped bit changes it."""
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


def save(
    folder: Path | str, segment: Segment, records: Sequence[Mapping[str, Any]], *, keep: int = 2
) -> str:
    """Write a checkpoint and delete the oldest ones.

    Args:
        folder: the folder of one job's checkpoints.
        segment: a segment that has its state.
        records: the whole history as in records.jsonl, with this segment's record.
        keep: how many checkpoints to keep.

    Returns:
        The state's digest.

    Raises:
        OSError: it cannot be written; earlier checkpoints are unchanged.
    """
    assert segment.state is not None
    folder = Path(folder)
    target = folder / f"{segment.position:06d}"
    target.mkdir(parents=True, exist_ok=True)
    beside = target / f"{STATE}.partial"
    try:
        _write_state(beside, segment.state)
        sha = sha256_of(beside)
        (target / MANIFEST).unlink(missing_ok=True)
        beside.replace(target / STATE)
        state_digest = digest(segment.state)
        manifest = {
            "position": segment.position,
            "sha256": sha,
            "digest": state_digest,
            "records": records,
        }
        write_json(target / MANIFEST, manifest | {"check": _check(manifest)})
    except OSError:
        beside.unlink(missing_ok=True)
        if not (target / MANIFEST).exists():  # there was no complete checkpoint here before
            shutil.rmtree(target, ignore_errors=True)
        raise
    # Later positions were damaged, and belong to a history that was given up.
    others = sorted(path for path in folder.iterdir() if path != target)
    earlier = [path for path in others if path.name < target.name]
    kept = earlier[len(earlier) - (keep - 1) :] if keep > 1 else []
    for old in others:
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return state_digest


def _write_state(path: Path, state: State) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:
        # PyTorch raises this on a full disk, with an OSError as its context.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _check(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found valid."""

    position: int
    digest: str
    records: list[dict[str, Any]]
    state: State


def newest(folder: Path | str, *, older: bool = False) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint in `folder`, and a line for each damaged one that was skipped.

    Args:
        older: whether older ones than the folder's may be elsewhere.
    """
    folder = Path(folder)
    damaged: list[str] = []
    there = sorted(folder.iterdir() if folder.is_dir() else [], reverse=True)
    committed = [target for target in there if (target / MANIFEST).exists()]
    for target in committed:
        try:
            return load(target), damaged
        except (OSError, ValueError) as error:
            if older:
                then = "looking for the one before it"
            elif target == committed[-1]:
                then = "there is none before it, so starting anew"
            else:
                then = "going on from the one before it"
            damaged.append(f"{target}: {error}; {then}")
    return None, damaged


def history(folder: Path | str) -> list[dict[str, Any]] | None:
    """The records of the newest checkpoint with a valid manifest; None if there is none."""
    folder = Path(folder)
    for target in sorted(folder.iterdir() if folder.is_dir() else [], reverse=True):
        try:
            records: list[dict[str, Any]] = _read_manifest(target)["records"]
        except (OSError, ValueError):
            continue
        return records
    return None


def load(target: Path | str) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    target = Path(target)
    manifest = _read_manifest(target)
    sha = manifest["sha256"]
    if (found := sha256_of(target / STATE)) != sha:
        raise ValueError(f"damaged {STATE}, SHA-256 {found}, expected {sha}")
    try:
        state = torch.load(target / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that we did not write can raise anything
        text = one_line(error, 200)
        raise ValueError(f"damaged {STATE} ({type(error).__name__}: {text})") from None
    if not isinstance(state, dict):
        raise ValueError(f"damaged {STATE} (a {type(state).__name__}, not a dictionary)")
    return Checkpoint(manifest["position"], manifest["digest"], manifest["records"], state)


def load_weights(network: nn.Module, state: State) -> None:
    """Give a network the weights of a segment's state.

    Raises:
        InputError: it is no state, or the state of another network.
    """
    weights = state.get("weights") if isinstance(state, Mapping) else None
    if not isinstance(weights, Mapping):
        found = "has no weights" if isinstance(state, Mapping) else f"is a {type(state).__name__}"
        raise InputError(
            f"checkpoint: {found}; must be a segment's state, such as segment.state or "
            "newest(folder)[0].state"
        )
    if (other := _other_weights(network.state_dict(), weights)) is not None:
        raise InputError(
            f"checkpoint: is of other settings ({other}); use the settings that it was made with, "
            "or checkpoint=None to start from the beginning"
        )
    network.load_state_dict(weights)


def _other_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """The first weight that only one of two networks has, or that differs in size."""
    for name in (*own, *weights):
        ours, theirs = _size(own, name), _size(weights, name)
        if ours != theirs:
            return f"{name}: {theirs} in it, {ours} in this network"
    return None


def _size(weights: Mapping[str, Tensor], name: str) -> str:
    if name not in weights:
        return "none"
    return " x ".join(map(str, weights[name].shape)) or "one number"


def _read_manifest(target: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        check = manifest.pop("check")
        position, records = manifest["position"], manifest["records"]
        manifest["sha256"], manifest["digest"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"damaged {MANIFEST} ({type(error).__name__}: {error})") from None
    if (found := _check(manifest)) != check:
        raise ValueError(f"damaged {MANIFEST}, SHA-256 {found}, expected {check}")
    if type(position) is not int or f"{position:06}" != target.name:
        raise ValueError(f"damaged {MANIFEST} (of position {position!r})")
    if not isinstance(records, list):
        raise ValueError(f"damaged {MANIFEST} (its records are no list)")
    whole: dict[str, Any] = manifest
    return whole
