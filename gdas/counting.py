"""Multiply-adds of a forward pass, seen where PyTorch runs its products: not by kind of layer.

Counted are convolutions (transposed ones too), products of matrices and vectors, and recurrent
layers, each with its bias. Not counted, as by the authors, are batch norm, pooling, activations and
everything else that works number by number. An operation that multiplies in another way is refused
by name: a silent zero would be worse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from gdas.errors import InputError


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; then every part has its own mode again, a frozen batch norm too."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


def _convolution(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *more: Any) -> int:
    """`more`: stride, padding, dilation, transposed, and so on."""
    per_number = weight[0].numel()  # of the output or, if transposed, of the input
    products = (x if more[3] else out).numel() * per_number
    return products + (0 if bias is None else out.numel())


def _product(out: Tensor, a: Tensor, b: Tensor, *more: Any) -> int:
    """A product of matrices or vectors; a's last dimension is summed over."""
    return out.numel() * a.shape[-1]


def _product_and_bias(out: Tensor, bias: Tensor, a: Tensor, b: Tensor, *more: Any) -> int:
    return _product(out, a, b) + out.numel()


def _lstm(out: Sequence[Tensor], x: Tensor, *weights: Any) -> int:
    """One layer in one direction; weights of the input and of the state, and their biases."""
    per_step = sum(int(weight.numel()) for weight in weights[:4])
    return x.shape[0] * x.shape[1] * per_step


COUNTED: Mapping[str, Callable[..., int]] = {
    "convolution": _convolution,
    "mm": _product,
    "bmm": _product,
    "mv": _product,
    "dot": _product,
    "addmm": _product_and_bias,
    "addmv": _product_and_bias,
    "baddbmm": _product_and_bias,
    "mkldnn_rnn_layer": _lstm,
}
"""By the name of PyTorch's operator: its multiply-adds, from what it returns and its arguments."""

MULTIPLIES = re.compile(
    "conv|mm|mv|dot|linear|rnn|lstm|gru|attention|transformer|fft|cdist|einsum|addr|int_mm|scan"
)
"""Names of operators that multiply, or may. `bilinear` samplings of images only interpolate."""
SAMPLES = re.compile("upsample|interpolate|grid_sample")


class MultiplyAdds(TorchDispatchMode):
    """Adds up the multiply-adds of all operators that run inside the block.

    Attributes:
        total: the multiply-adds so far.
        layer_bias: true inside a linear layer, whose bias is counted once for the whole layer.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.layer_bias = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it.

        Raises:
            InputError: it is not known whether, or how often, it multiplies.
        """
        out = func(*args, **(kwargs or {}))
        space, _, name = func._schema.name.partition("::")
        if name in COUNTED and space == "aten":
            self.total += COUNTED[name](out, *args)
            if self.layer_bias and COUNTED[name] is _product_and_bias:
                self.total -= out.numel()
        elif space not in ("aten", "prim", "prims") or (
            MULTIPLIES.search(name) and not SAMPLES.search(name)
        ):
            raise InputError(
                f"{space}::{name}: its multiply-adds are not known; write them into COUNTED in "
                "gdas/counting.py, or compute it from convolutions and products of matrices"
            )
        return out

    def watch(self, module: nn.Module) -> list[Any]:
        """Count the biases of a network's linear layers; returns the handles of the hooks.

        PyTorch adds them in one operator with the product or in another, by the input's layout.
        """

        def enter(layer: nn.Module, args: Any) -> None:
            self.layer_bias = True

        def leave(layer: nn.Module, args: Any, out: Tensor) -> None:
            self.layer_bias = False
            self.total += 0 if layer.bias is None else out.numel()

        linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        before = [layer.register_forward_pre_hook(enter) for layer in linear]
        return before + [layer.register_forward_hook(leave) for layer in linear]


def multiply_adds(module: nn.Module, *inputs: object) -> int:
    """The multiply-adds of one forward pass, in the mode that the module is in.

    Attention runs as the products that it is made of, on any device: PyTorch has operators for it
    that hide them, on CPUs other ones than elsewhere.

    Raises:
        InputError: an operation is neither counted nor known to multiply nothing.
    """
    counter = MultiplyAdds()
    handles, fast = counter.watch(module), torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            module(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
    return counter.total
