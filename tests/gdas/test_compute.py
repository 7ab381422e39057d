"""What opening a device sets for the whole process."""

from __future__ import annotations

import gc
import warnings
import weakref

import torch

from gdas.compute import allow_tf32, open_device
from tests.gpu.arithmetic import tf32


def test_float32_is_never_tensorfloat32() -> None:
    allow_tf32(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_device("cpu", threads=torch.get_num_threads())
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    # PyTorch's newer names for the same: they must agree, or reading the older ones fails.
    assert "tf32" not in (
        torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision,
    )
    with tf32(True):
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_what_is_loaded_is_spared_by_the_garbage_collector_and_garbage_is_not() -> None:
    class Ring:
        def __init__(self) -> None:
            self.own = self

    ring = weakref.ref(Ring())
    try:
        open_device("cpu", threads=torch.get_num_threads())
        assert ring() is None
        assert gc.get_freeze_count() > 10_000  # PyTorch's own objects
        later = weakref.ref(Ring())
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
