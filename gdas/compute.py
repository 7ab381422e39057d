"""Device, threads and precision, always from settings, never from what happens to be visible.

`precision: float32` is float32 on a GPU too: TensorFloat32, which PyTorch allows in convolutions by
default, keeps 10 of the 23 bits of a number. Rounding forward passes so makes ReLUs and poolings
choose otherwise, and the gradient of a search's logits is then off by 20 to 40 % of its norm
(beside float64, rounded so on a CPU; float32 itself: 0.4 %). For speed there is `bfloat16`.
tests/gpu measures them on a card.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager

import torch

from gdas.config import Precision
from gdas.errors import InputError


def open_device(name: str, *, threads: int, deterministic: bool = True) -> torch.device:
    """Set this process up and return the device; TensorFloat32 is off.

    Args:
        name: "cpu", "cuda" or "cuda:0" ...
        threads: of PyTorch on the CPU; results are equal bit for bit only where this is.
        deterministic: cuDNN picks deterministic algorithms and does not benchmark.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device={name}: not a device; use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={name}: PyTorch sees no GPU here; use device=cpu")
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    allow_tf32(False)
    return device


def allow_tf32(allowed: bool) -> None:
    """Say whether float32 products and convolutions on CUDA may be TensorFloat32's.

    By the older of PyTorch's two interfaces, which sets the newer one as well, but not conversely;
    some versions warn of that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for forward passes; float32 changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def memory_format(channels_last: bool) -> torch.memory_format:
    """Layout of images and feature maps."""
    return torch.channels_last if channels_last else torch.contiguous_format
