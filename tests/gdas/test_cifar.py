"""CIFAR in its published batches: read, told apart, refused, and never unpickled into code."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import gdas.data.cifar
import gdas.data.images
from gdas.data.images import identity, open_images
from gdas.data.settings import IMAGE_DATA
from gdas.data.source import Split
from gdas.errors import InputError
from tests.harm import flip_byte

# CIFAR


def write_batch(path: Path, content: bytes) -> tuple[str, str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.name, hashlib.md5(content).hexdigest()


def batch(seed: int, *, old_module: bool = False) -> tuple[bytes, NDArray[np.uint8], list[int]]:
    """A batch of three images in the official layout, and what is in it."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (3, 3072), dtype=np.uint8)
    labels = rng.integers(0, 10, 3).tolist()
    content = pickle.dumps({"data": data, "labels": labels, "batch_label": "x"}, protocol=2)
    if old_module:  # as the official files, which an old NumPy wrote
        assert b"numpy._core.multiarray" in content
        content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    return content, data, labels


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two small training batches and a test batch that pass for CIFAR-10."""
    base = tmp_path / "cifar-10-batches-py"
    files: dict[str, list[tuple[str, str]]] = {
        "train": [
            write_batch(base / "data_batch_1", batch(1)[0]),
            write_batch(base / "data_batch_2", batch(2, old_module=True)[0]),
        ],
        "test": [write_batch(base / "test_batch", batch(3)[0])],
    }
    monkeypatch.setattr(gdas.data.cifar, "cifar_files", lambda _, split: files[split])
    return tmp_path


def test_cifar_batches_are_read_in_their_order(cifar: Path) -> None:
    train = open_images("cifar10", "train", cifar, verify=True)
    test = open_images("cifar10", "test", cifar, verify=True)
    expected = [batch(seed) for seed in (1, 2, 3)]
    data = np.concatenate([expected[0][1], expected[1][1]]).reshape(6, 3, 32, 32)
    assert np.array_equal(train.images_NCHW.numpy(), data)
    assert train.labels_N.tolist() == expected[0][2] + expected[1][2]
    assert np.array_equal(test.images_NCHW.numpy(), expected[2][1].reshape(3, 3, 32, 32))
    assert test.labels_N.tolist() == expected[2][2]


def test_opening_the_training_split_never_touches_the_test_file(
    cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []
    read_bytes = Path.read_bytes

    def recording(path: Path) -> bytes:
        touched.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", recording)
    open_images("cifar10", "train", cifar)
    assert touched == ["data_batch_1", "data_batch_2"]
    assert [path.name for path in (cifar / "arrow").iterdir()] == ["cifar10-train.arrow"]
    touched.clear()
    (cifar / "cifar-10-batches-py" / "test_batch").unlink()
    open_images("cifar10", "train", cifar)
    assert touched == [], "a converted split needs no source"


def test_a_damaged_cifar_batch_is_refused_naming_the_file_and_the_official_sum(cifar: Path) -> None:
    path = cifar / "cifar-10-batches-py" / "data_batch_2"
    official = hashlib.md5(path.read_bytes()).hexdigest()
    flip_byte(path, 200)
    with pytest.raises(InputError) as caught:
        open_images("cifar10", "train", cifar)
    for part in (str(path), official, "data.checksum=any"):
        assert part in str(caught.value)
    assert not (cifar / "arrow").exists()


ANY = dataclasses.replace(IMAGE_DATA["cifar10"], checksum="any")


def test_other_batches_are_read_on_request_as_other_data(cifar: Path) -> None:
    published = identity(IMAGE_DATA["cifar10"], "train", cifar)
    assert identity(ANY, "train", cifar) == published, "the official files are the official data"
    content, data, labels = batch(7)
    (cifar / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.checksum=any"):
        open_images(IMAGE_DATA["cifar10"], "train", cifar)
    images = open_images(ANY, "train", cifar, verify=True)
    assert torch.equal(images.images_NCHW[3:].flatten(1), torch.from_numpy(data))
    assert images.labels_N[3:].tolist() == labels
    other = identity(ANY, "train", cifar)
    assert other != published
    assert identity(IMAGE_DATA["cifar10"], "train", cifar) == published
    assert identity(ANY, "test", cifar) == identity(IMAGE_DATA["cifar10"], "test", cifar)
    (cifar / "cifar-10-batches-py" / "data_batch_1").write_bytes(batch(8)[0])
    assert identity(ANY, "train", cifar) not in (other, published)
    assert open_images(ANY, "train", cifar).labels_N[:3].tolist() == batch(8)[2], "converted anew"


def test_where_nothing_is_there_yet_the_official_files_are_expected(tmp_path: Path) -> None:
    published = IMAGE_DATA["cifar10"]
    assert identity(ANY, "train", tmp_path) == identity(published, "train", tmp_path)


DATA, LABELS = np.zeros((2, 3072), np.uint8), [3, 4]
BAD_BATCHES: dict[str, tuple[object, str]] = {
    "no dictionary": ([1, 2], "not a CIFAR-10 batch"),
    "no labels": ({"data": DATA}, "'labels'"),
    "fine labels": ({"data": DATA, "fine_labels": LABELS}, "'labels'"),
    "numbers for data": ({"data": DATA.tolist(), "labels": LABELS}, "not an array of bytes"),
    "floats": ({"data": DATA.astype(np.float32), "labels": LABELS}, "not an array of bytes"),
    "objects": ({"data": DATA.astype(object), "labels": LABELS}, "not an array of bytes"),
    "short rows": ({"data": DATA[:, 1:], "labels": LABELS}, r"\(2, 3071\), must be N x 3072"),
    "no rows": ({"data": DATA[:0], "labels": []}, r"\(0, 3072\)"),
    "fewer labels": ({"data": DATA, "labels": [3]}, "must be 2 integers"),
    "words": ({"data": DATA, "labels": ["a", "b"]}, "must be 2 integers"),
    "fractions": ({"data": DATA, "labels": [0.5, 1.5]}, "must be 2 integers"),
    "a label too many": ({"data": DATA, "labels": [0, 10]}, "from 0 to 10, must be from 0 to 9"),
    "a negative label": ({"data": DATA, "labels": [-1, 3]}, "from -1 to 3, must be from 0 to 9"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_batch_that_is_none_is_refused_by_the_files_name(cifar: Path, case: str) -> None:
    path = cifar / "cifar-10-batches-py" / "data_batch_2"
    value, message = BAD_BATCHES[case]
    path.write_bytes(pickle.dumps(value, protocol=4))
    with pytest.raises(InputError, match=message) as caught:
        open_images(ANY, "train", cifar)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x05", batch(1)[0][:-100]])
def test_a_torn_batch_is_refused_by_the_files_name(cifar: Path, content: bytes) -> None:
    path = cifar / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a CIFAR-10 batch") as caught:
        open_images(ANY, "train", cifar)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar100_is_read_with_its_fine_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    rng = np.random.default_rng(5)
    files: dict[str, list[tuple[str, str]]] = {}
    for split in ("train", "test"):
        data = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        value = {"data": data, "coarse_labels": [1, 2, 3, 4], "fine_labels": [0, 50, 98, 99]}
        content = pickle.dumps(value, protocol)
        files[split] = [write_batch(tmp_path / "cifar-100-python" / split, content)]
    names: list[str] = []

    def published(name: str, split: str) -> list[tuple[str, str]]:
        names.append(name)
        return files[split]

    monkeypatch.setattr(gdas.data.cifar, "cifar_files", published)
    test = open_images("cifar100", "test", tmp_path, verify=True)
    assert test.labels_N.tolist() == [0, 50, 98, 99]
    assert (test.classes, test.size, len(test)) == (100, 32, 4)
    assert torch.equal(test.images_NCHW.flatten(1), torch.from_numpy(data))
    assert set(names) == {"cifar100"}


def test_both_cifars_have_torchvisions_files_and_identities_of_their_own(tmp_path: Path) -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    for name, of in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        files: dict[Split, Any] = {"train": of.train_list, "test": of.test_list}
        for split, listed in files.items():
            found = gdas.data.cifar.cifar_files(name, split)
            assert found == [tuple(pair) for pair in listed]
    ids = {
        identity(IMAGE_DATA[name], split, tmp_path)
        for name in ("cifar10", "cifar100")
        for split in ("train", "test")
    }
    assert len(ids) == 4


def test_a_missing_cifar_batch_is_refused_by_name(cifar: Path) -> None:
    path = cifar / "cifar-10-batches-py" / "data_batch_1"
    path.unlink()
    with pytest.raises(InputError) as caught:
        open_images("cifar10", "train", cifar)
    assert str(path) in str(caught.value)


def test_cifar_from_other_batches_is_not_taken_for_the_same_data(
    cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_images("cifar10", "train", cifar)
    monkeypatch.setattr(gdas.data.cifar, "cifar_files", lambda name, split: [("x", "0" * 32)])
    with pytest.raises(InputError, match="x: cannot read"):  # it is converted anew, from these
        open_images("cifar10", "train", cifar)


class Payload:
    """Runs a command when it is unpickled by the ordinary unpickler."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (self.command,))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_batch_that_would_run_a_command_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    mark = tmp_path / "ran"
    content = pickle.dumps({"data": Payload(f"touch {mark}"), "labels": []}, protocol)
    files = [write_batch(tmp_path / "cifar-10-batches-py" / "data_batch_1", content)]
    monkeypatch.setattr(gdas.data.cifar, "cifar_files", lambda name, split: files)
    with pytest.raises(InputError, match="system") as caught:
        open_images("cifar10", "train", tmp_path)
    assert "data_batch_1" in str(caught.value)
    assert not mark.exists()
    assert not (tmp_path / "arrow").exists()
    pickle.loads(content)
    assert mark.exists(), "the payload is real"


def test_a_folder_without_cifar_that_cannot_be_downloaded_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    class Offline:
        base_folder = "cifar-10-batches-py"

        def __init__(self, root: str, *, download: bool) -> None:
            raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Offline)
    monkeypatch.setattr(gdas.data.cifar, "cifar_files", lambda name, split: [("x", "0" * 32)])
    with pytest.raises(InputError, match="no route to host") as caught:
        open_images("cifar10", "train", tmp_path)
    assert str(tmp_path) in str(caught.value)
