"""Which kernels a job runs with: fused ones, or plain PyTorch.

The setting `kernels: fused` asks for the fused ones. They are for float32 on a CPU, and they are
there if this machine could compile them. What they do not cover runs in plain PyTorch. The same
numbers come out but for rounding, so the bits of a job depend on which ones it ran with; its
records say which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdas.cnn.fused import build
from gdas.config import Kernels, Precision

if TYPE_CHECKING:  # a command that only asks needs no PyTorch
    from torch import nn


def wanted(kernels: Kernels, device: str, precision: Precision, *, compiled: bool = False) -> bool:
    """Whether these settings ask for fused kernels.

    Args:
        device: "cpu", "cuda" or "cuda:0" ...
        compiled: whether torch.compile makes the kernels instead.
    """
    return kernels == "fused" and device == "cpu" and precision == "float32" and not compiled


def chosen(
    kernels: Kernels, device: str, precision: Precision, *, compiled: bool = False
) -> Kernels:
    """Which kernels run on this machine with these settings, as `wanted` takes them."""
    return available(asked=wanted(kernels, device, precision, compiled=compiled))


def available(*, asked: bool) -> Kernels:
    """Which kernels run on this machine if the fused ones are asked for, or are not."""
    return "fused" if asked and build.library() is not None else "plain"


def use(network: nn.Module, kernels: Kernels) -> None:
    """Let a network run with fused kernels, or in plain PyTorch, as a new network does.

    A module that has a fused way says so by an attribute `fused` of its class, which is False, and
    asks `self.fused` in its forward pass.
    """
    for module in network.modules():
        if hasattr(type(module), "fused"):
            module.fused = kernels == "fused"  # type: ignore[assignment]
