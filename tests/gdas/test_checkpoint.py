"""Digests of a state, and checkpoints on disk: kept, damaged, half written, and passed over."""

from __future__ import annotations

import copy
import errno
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gdas.checkpoint
from gdas.checkpoint import MANIFEST, STATE, Segment, digest, newest, save
from gdas.config import WeightUpdate
from gdas.data.arrow import Images
from tests.gdas.tiny import latest, run_search, search_config


@pytest.fixture(scope="module")
def segment(small_digits: Images) -> Segment:
    """One whole epoch of the smallest search."""
    config = search_config(nodes=1, weights=WeightUpdate(undrawn="skip"))
    return next(run_search(config, small_digits))


def flip_bit(tensor: Tensor) -> None:
    tensor[(0,) * tensor.dim()].view(torch.int32).bitwise_xor_(1)


def flip_float(numbers: dict[str, float], key: str) -> None:
    (bits,) = struct.unpack("<q", struct.pack("<d", numbers[key]))
    (numbers[key],) = struct.unpack("<d", struct.pack("<q", bits ^ 1))


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a weight": lambda s: flip_bit(s["weights"]["classifier.bias"]),
    "a running mean": lambda s: flip_bit(s["weights"]["stem.norm.running_mean"]),
    "a batch count": lambda s: s["weights"]["stem.norm.num_batches_tracked"].add_(1),
    "a momentum buffer": lambda s: flip_bit(s["weight_optimizer"]["state"][0]["momentum_buffer"]),
    "an Adam average": lambda s: flip_bit(s["alpha_optimizer"]["state"][0]["exp_avg_sq"]),
    "an Adam step": lambda s: s["alpha_optimizer"]["state"][0]["step"].add_(1),
    "a rate": lambda s: flip_float(s["weight_optimizer"]["param_groups"][0], "lr"),
    "a logit": lambda s: flip_bit(s["logits"]["normal"]),
    "a logit's gradient": lambda s: flip_bit(s["logits_gradient"]["normal"]),
    "whether a gradient was there": lambda s: s["has_gradient"].__setitem__(
        0, not s["has_gradient"][0]
    ),
    "the position": lambda s: s.__setitem__("position", 2),
    "a metric": lambda s: flip_float(s["history"][0], "valid/loss"),
    "a metric's sign of zero": lambda s: s["history"][0].__setitem__("zero", -0.0),
    "a key": lambda s: s.__setitem__("Position", s.pop("position")),
    "a type": lambda s: s.__setitem__("position", 1.0),
    "a truth value for a number": lambda s: s.__setitem__("position", True),
    "a dtype": lambda s: s["weights"].__setitem__(
        "classifier.bias", s["weights"]["classifier.bias"].view(torch.int32)
    ),
    "a shape": lambda s: s["weights"].__setitem__(
        "classifier.bias", s["weights"]["classifier.bias"][None]
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_changes_with_every_single_thing(segment: Segment, change: str) -> None:
    state = copy.deepcopy(segment.state)
    assert state is not None
    state["history"][0]["zero"] = 0.0
    before = digest(state)
    assert digest(copy.deepcopy(state)) == before
    CHANGES[change](state)
    assert digest(state) != before


def backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def test_the_digest_does_not_depend_on_the_order_of_keys_or_on_memory_layout(
    segment: Segment,
) -> None:
    assert segment.state is not None
    turned = backwards(segment.state)
    assert list(turned) == list(reversed(segment.state))
    assert digest(turned) == digest(segment.state)
    name = "stem.conv.weight"
    weight = segment.state["weights"][name]
    laid_out = {
        layout: digest(weight.contiguous(memory_format=layout))
        for layout in (torch.contiguous_format, torch.channels_last)
    }
    assert len(set(laid_out.values())) == 1


def test_the_digest_tells_nestings_apart() -> None:
    values: list[object] = [[], {}, [[]], [[], []], "", None, [None], 0, 0.0, False, ["ab"]]
    values += [
        ["a", "b"],
        {"a": "b"},
        {"b": "a"},
        torch.zeros(0),
        torch.zeros(0, 1),
        torch.zeros(1),
    ]
    assert len({digest(value) for value in values}) == len(values)
    with pytest.raises(TypeError, match="set"):
        digest({"a": {1}})


# Checkpoints on disk


def positions(folder: Path) -> list[int]:
    return sorted(int(target.name) for target in folder.iterdir())


def save_all(folder: Path, segment: Segment, count: int, keep: int = 2) -> None:
    for position in range(1, count + 1):
        save_at(folder, segment, position, keep)


def save_at(folder: Path, segment: Segment, position: int, keep: int = 2) -> str:
    assert segment.state is not None
    state = segment.state | {"position": position}
    records = [{"position": p} for p in range(1, position + 1)]
    moved = Segment(position, 9, segment.metrics, {}, state)
    return save(folder, moved, records, keep=keep)


def test_what_is_saved_is_read_back_with_its_records(tmp_path: Path, segment: Segment) -> None:
    expected = save_at(tmp_path / "new" / "folder", segment, 1)
    checkpoint = latest(tmp_path / "new" / "folder")
    assert checkpoint.digest == expected == digest(checkpoint.state)
    assert checkpoint.records == [{"position": 1}]
    assert checkpoint.position == 1
    assert newest(tmp_path / "nowhere") == (None, [])


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, segment: Segment, keep: int) -> None:
    save_all(tmp_path, segment, 4, keep)
    assert positions(tmp_path) == list(range(5 - keep, 5))
    assert latest(tmp_path).position == 4


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def drop_records(path: Path) -> None:
    manifest = json.loads(path.read_text())
    del manifest["records"]
    path.write_text(json.dumps(manifest))


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "torn state": (STATE, truncate),
    "a flipped bit of the state": (STATE, flip_last_byte),
    "empty state": (STATE, lambda path: path.write_bytes(b"")),
    "missing state": (STATE, lambda path: path.unlink()),
    "torn manifest": (MANIFEST, truncate),
    "empty manifest": (MANIFEST, lambda path: path.write_bytes(b"")),
    "manifest of another kind": (MANIFEST, lambda path: path.write_text("[1]")),
    "manifest that is no text": (MANIFEST, lambda path: path.write_bytes(b"\xff\xfe")),
    "manifest without records": (MANIFEST, drop_records),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_used_and_a_line_says_so(
    tmp_path: Path, segment: Segment, damage: str
) -> None:
    save_all(tmp_path, segment, 2)
    file, harm = DAMAGES[damage]
    harm(tmp_path / "000002" / file)
    checkpoint, lines = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.position == 1
    assert digest(checkpoint.state) == checkpoint.digest
    assert len(lines) == 1
    assert str(tmp_path / "000002") in lines[0]
    assert lines[0].endswith("; going on from the one before it")
    # The run goes on and writes the damaged position anew.
    save_at(tmp_path, segment, 2)
    assert latest(tmp_path).position == 2


def test_a_checkpoint_that_was_never_committed_is_passed_over(
    tmp_path: Path, segment: Segment
) -> None:
    save_all(tmp_path, segment, 2)
    (tmp_path / "000002" / MANIFEST).unlink()
    # Its writer was killed half-way: nothing was lost, so there is nothing to report.
    assert latest(tmp_path).position == 1


def test_where_every_checkpoint_is_damaged_there_is_none_and_each_has_its_line(
    tmp_path: Path, segment: Segment
) -> None:
    save_all(tmp_path, segment, 2)
    for position in (1, 2):
        truncate(tmp_path / f"{position:06d}" / STATE)
    checkpoint, lines = newest(tmp_path)
    assert checkpoint is None
    assert lines[1].endswith("; there is none before it, so starting anew")
    assert newest(tmp_path, older=True)[1][1].endswith("; looking for the one before it")
    assert [str(tmp_path / "000002") in lines[0], str(tmp_path / "000001") in lines[1]] == [
        True,
        True,
    ]


def test_a_checkpoint_saved_after_all_others_were_damaged_is_kept(
    tmp_path: Path, segment: Segment
) -> None:
    save_all(tmp_path, segment, 6)
    for position in (5, 6):
        truncate(tmp_path / f"{position:06d}" / STATE)
    assert newest(tmp_path)[0] is None
    save_at(tmp_path, segment, 1)
    checkpoint, _ = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.position == 1


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(state: object, file: Any) -> None:
    file.write(b"half")
    full_disk()


@pytest.mark.parametrize("failing", ["state", "half of the state", "manifest"])
def test_a_write_that_fails_leaves_the_checkpoints_before_it_whole(
    tmp_path: Path, segment: Segment, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    save_all(tmp_path, segment, 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        if failing == "manifest":
            patch.setattr(gdas.checkpoint, "write_json", full_disk)
        else:
            patch.setattr(torch, "save", full_disk if failing == "state" else half_written)
        with pytest.raises(OSError, match="No space left"):
            save_at(tmp_path, segment, 3)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before, "nothing lost, nothing left behind"
    assert latest(tmp_path).position == 2
    save_at(tmp_path, segment, 3)
    assert latest(tmp_path).position == 3


def test_a_state_is_never_unpickled_into_code(tmp_path: Path, segment: Segment) -> None:
    save_all(tmp_path, segment, 1)
    called: list[bool] = []
    original = torch.load

    def watching(*args: Any, **kwargs: Any) -> Any:
        called.append(kwargs.get("weights_only") is True)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", watching)
        latest(tmp_path)
    assert called == [True]


def test_a_full_disk_leaves_the_checkpoint_of_the_same_position_whole(
    tmp_path: Path, segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_at(tmp_path, segment, 1)
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_at(tmp_path, segment, 1)
    checkpoint, damaged = newest(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.position, damaged) == (1, [])


def test_a_disk_that_is_really_full_is_named_and_leaves_nothing_behind(
    tmp_path: Path, segment: Segment
) -> None:
    save_all(tmp_path, segment, 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "000003").mkdir()
    (tmp_path / "000003" / f"{STATE}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        save_at(tmp_path, segment, 3)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert latest(tmp_path).position == 2


def test_one_changed_number_in_a_manifest_is_found(tmp_path: Path, segment: Segment) -> None:
    save_all(tmp_path, segment, 2)
    path = tmp_path / "000002" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["records"][0]["position"] += 1
    path.write_text(json.dumps(manifest))
    checkpoint, lines = newest(tmp_path)
    assert checkpoint is not None and checkpoint.position == 1
    assert len(lines) == 1 and "damaged manifest.json" in lines[0]
    assert gdas.checkpoint.history(tmp_path) == checkpoint.records
