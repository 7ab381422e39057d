"""What opening a device sets for the whole process."""

from __future__ import annotations

import warnings

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
