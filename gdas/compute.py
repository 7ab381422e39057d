"""Device, threads and precision, always from settings, never from what happens to be visible.

`precision: float32` is real float32 on a GPU too. TensorFloat32, which PyTorch allows in
convolutions by default, keeps only 10 of the 23 bits of a mantissa. If forward passes are rounded
in this way, ReLUs and poolings choose differently, and the gradient of a search's logits is off by
20 to 40 % of its norm (against float64, rounded in this way on a CPU; float32 itself: 0.4 %).
`bfloat16` is there for speed, in W steps, scores and trainings; alpha steps on images stay float32.
tests/gpu measures these errors on a card.
"""

from __future__ import annotations

import gc
import warnings
from contextlib import AbstractContextManager

import torch

from gdas.config import Precision
from gdas.errors import InputError, one_line


def open_device(name: str, *, threads: int, deterministic: bool = True) -> torch.device:
    """Set up this process and return the device; TensorFloat32 is off.

    Args:
        name: "cpu", "cuda" or "cuda:0" ...
        threads: PyTorch's threads on the CPU; results are equal bit for bit only if these are
            equal.
        deterministic: whether cuDNN uses deterministic algorithms and does not benchmark.

    Raises:
        InputError: a GPU is asked for and there is none, or the name is not a device.
    """
    device = device_of(name)
    spare_what_is_loaded()
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    allow_tf32(False)
    return device


def device_of(device: torch.device | str) -> torch.device:
    """The device, also of its name.

    Args:
        device: a device, or "cpu", "cuda" or "cuda:0" ...

    Raises:
        InputError: it is a GPU and there is none, or it is not a device.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(
            f"device={one_line(device, 60)}: not a device; use cpu, cuda or cuda:N"
        ) from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={device}: PyTorch sees no GPU here; use device=cpu")
    return found


def spare_what_is_loaded() -> None:
    """Let the garbage collector leave alone all that this process has loaded so far.

    It would walk through PyTorch's half a million objects again and again while a network trains.
    """
    gc.collect()  # what a fork server has spared already stays spared, and is not walked through
    gc.freeze()


def allow_tf32(allowed: bool) -> None:
    """Set whether float32 products and convolutions on CUDA may use TensorFloat32.

    This uses the older of PyTorch's two interfaces, which also sets the newer one, but not
    conversely. Some versions of PyTorch warn about that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for forward passes; with float32, nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def memory_format(channels_last: bool) -> torch.memory_format:
    """The memory layout of images and feature maps."""
    return torch.channels_last if channels_last else torch.contiguous_format
