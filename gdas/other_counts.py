"""What other programs count as multiply-adds, so that a published number can be compared with ours.

Each counts its own way, and papers seldom say with which program. The rules were read off the
programs' results for three published networks in evaluation mode, which these rules give to the
digit (`RULES` names the versions). The programs see layers by their type: the numbers are those for
a network of PyTorch's own layers, as the authors' is, for which ours stands in.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gdas.cnn.pooling import AveragePool
from gdas.counting import evaluating

Counter = Literal["thop", "fvcore", "ptflops", "torchinfo"]
COUNTERS: tuple[Counter, ...] = get_args(Counter)

RULES: dict[Counter, str] = {
    "thop": "0.1.1.post2209072238: no bias; batch norm 2 a number, 4 if affine; average pooling 1 "
    "an output, global pooling 1 an input and 1 an output",
    "fvcore": "0.1.5.post20221221: no bias; batch norm 1 a number, 2 if affine; global pooling 1 "
    "an input",
    "ptflops": "0.7.5, backend pytorch: batch norm 1 a number, 2 if affine; ReLU, pooling layers "
    "2 a number, for the layer and again for its function (backend aten: as ours)",
    "torchinfo": "1.8.0: each parameter of a batch norm once, however large the image",
}
"""By program: the version that was tried, and what it counts beside convolutions and products."""


def _layer(counter: Counter, layer: nn.Module, x: Tensor, out: Tensor) -> int:
    """What a program counts for a layer of its own."""
    with_bias = counter in ("ptflops", "torchinfo")
    match layer:
        case nn.Conv2d():
            bias = out.numel() if with_bias and layer.bias is not None else 0
            return out.numel() * layer.weight[0].numel() + bias
        case nn.Linear():
            return out.numel() * (layer.in_features + (with_bias and layer.bias is not None))
        case nn.BatchNorm2d():
            if counter == "torchinfo":
                return sum(p.numel() for p in layer.parameters())
            return x.numel() * (2 if layer.affine else 1) * (2 if counter == "thop" else 1)
        case nn.ReLU():
            return out.numel() if counter == "ptflops" else 0
        case nn.AdaptiveAvgPool2d():
            twice = 2 * x.numel()
            of_counter = {"thop": x.numel() + out.numel(), "ptflops": twice, "torchinfo": 0}
            return of_counter.get(counter, x.numel())
        case AveragePool() | nn.AvgPool2d():
            return {"thop": out.numel(), "ptflops": 2 * x.numel()}.get(counter, 0)
        case nn.MaxPool2d():
            return 2 * x.numel() if counter == "ptflops" else 0
    return 0


class _Functions(TorchFunctionMode):
    """Counts ReLUs that are called as functions, by layers too."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.relu:
            self.total += out.numel()
        return out


def multiply_adds_as(counter: Counter, network: nn.Module, image: Tensor) -> int:
    """The multiply-adds that a program reports for a network in evaluation mode.

    Args:
        counter: the program.
        network: a network of image cells; it and its parts return to the modes that they were in.
        image: an image tensor of batch 1, possibly on the meta device.
    """
    total = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], out: Any) -> None:
        nonlocal total
        total += _layer(counter, layer, args[0], out)

    handles = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, LAYERS)
    ]
    functions = _Functions()
    try:
        with evaluating(network), torch.no_grad(), functions:
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return total + (functions.total if counter == "ptflops" else 0)


LAYERS: tuple[type[nn.Module], ...] = (
    *(nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU),
    *(nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d, AveragePool),
)
