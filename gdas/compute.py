"""Device, threads and precision, always from settings, never from what happens to be visible."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from gdas.config import Precision
from gdas.errors import InputError


def open_device(name: str, *, threads: int, deterministic: bool = True) -> torch.device:
    """Set this process up and return the device.

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
    return device


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for forward passes; float32 changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def memory_format(channels_last: bool) -> torch.memory_format:
    """Layout of images and feature maps."""
    return torch.channels_last if channels_last else torch.contiguous_format
