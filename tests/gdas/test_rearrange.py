"""Gradients computed by way of denser tensors are those of PyTorch's plain modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gdas.cnn import rearrange
from gdas.cnn.cell import sum_through_gates
from gdas.cnn.operations import Depthwise, Style, build_operation
from gdas.cnn.rearrange import (
    alternate_pixels,
    concatenate,
    depthwise,
    join_phases,
    join_rows,
    layout_of,
    split_phases,
    split_rows,
    with_dense_gradient,
)
from gdas.metrics import count_multiply_adds

SIZES = [(8, 8), (7, 7), (6, 9), (9, 4), (5, 6), (3, 3), (2, 2)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
CHANNELS = 6


def random(*shape: int, seed: int = 0, layout: torch.memory_format = LAYOUTS[0]) -> Tensor:
    x = torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)
    return x.contiguous(memory_format=layout) if x.dim() == 4 else x


def gradients(out: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Of a product with fixed random numbers, so that every output counts differently."""
    weights = random(*out.shape, seed=9)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)]


def assert_equal(ours: list[Tensor], plain: list[Tensor]) -> None:
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_a_depthwise_convolution_has_the_plain_modules_output_and_gradients(
    kernel: int, stride: int, dilation: int, size: tuple[int, int], layout: torch.memory_format
) -> None:
    ours = Depthwise(CHANNELS, kernel, stride, dilation).double()
    padding = dilation * (kernel // 2)
    plain = nn.Conv2d(
        CHANNELS, CHANNELS, kernel, stride, padding, dilation, groups=CHANNELS, bias=False
    ).double()
    plain.load_state_dict(ours.state_dict())
    x = random(3, CHANNELS, *size, layout=layout).requires_grad_()
    assert_equal(gradients(ours(x), x, ours.weight), gradients(plain(x), x, plain.weight))
    # The alpha step: the weight stands still. And the first cell's: the input has no gradient.
    ours.weight.requires_grad_(False)
    assert_equal(gradients(ours(x), x), gradients(plain(x), x))
    ours.weight.requires_grad_(True)
    x = x.detach()
    assert_equal(gradients(ours(x), ours.weight), gradients(plain(x), plain.weight))


class WeightGradients(TorchDispatchMode):
    """Sizes of the kernels whose gradients PyTorch computes."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.kernels: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.convolution_backward.default and args[10][1]:
            self.kernels.append(tuple(args[2].shape[2:]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("stride", "dilation", "passes"), [(1, 1, 2), (2, 1, 1), (1, 2, 2), (2, 2, 2)]
)
def test_a_wide_weights_gradient_is_computed_in_narrow_pieces(
    stride: int, dilation: int, passes: int
) -> None:
    size = 12 * stride * dilation
    x = random(2, CHANNELS, size, size, layout=torch.channels_last)
    weight = random(CHANNELS, 1, 5, 5).requires_grad_()
    out = depthwise(x, weight, stride, dilation)
    with WeightGradients() as seen:
        out.sum().backward()
    assert seen.kernels == [(5, 3)] * passes


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["dil_conv_3x3", "dil_conv_5x5", "sep_conv_5x5"])
def test_multiply_adds_are_those_of_the_plain_convolution(name: str, stride: int) -> None:
    side, half = 9, (9 + stride - 1) // stride
    kernel, passes = int(name[-1]), 2 if name.startswith("sep") else 1
    per_pixel = CHANNELS * kernel**2 + CHANNELS**2
    operation = build_operation(name, CHANNELS, stride, Style(affine=False))
    counted = count_multiply_adds(operation, torch.zeros(1, CHANNELS, side, side))
    assert counted == passes * half**2 * per_pixel


def test_on_gpus_a_depthwise_convolution_is_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = random(2, CHANNELS, 8, 8), random(CHANNELS, 1, 5, 5).requires_grad_()
    name = type(depthwise(x, weight, 1, 2).grad_fn).__name__
    assert name == "_DepthwiseBackward"
    monkeypatch.setattr(rearrange, "DEPTHWISE_ON", ())
    name = type(depthwise(x, weight, 1, 2).grad_fn).__name__
    assert name == "ConvolutionBackward0"


def test_a_depthwise_convolution_under_autocast_goes_back_in_its_precision() -> None:
    x = random(2, CHANNELS, 8, 8).float().requires_grad_()
    weight = random(CHANNELS, 1, 5, 5).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = depthwise(x, weight, 1, 2), F.conv2d(x, weight, None, 1, 4, 2, CHANNELS)
    assert ours.dtype == plain.dtype == torch.bfloat16
    for a, b in zip(gradients(ours, x, weight), gradients(plain, x, weight), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a.float(), b.float(), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_phases_are_joined_to_what_was_split(
    size: tuple[int, int], layout: torch.memory_format
) -> None:
    x = random(3, CHANNELS, *size, layout=layout)
    phases = split_phases(x)
    assert len(phases) == 12
    assert torch.equal(phases[:3, :, : size[0] // 2, : size[1] // 2], x[:, :, :-1:2, :-1:2])
    assert torch.equal(join_phases(phases, *size), x)


@pytest.mark.parametrize("size", [(8, 8), (9, 4), (5, 6), (2, 2)])
def test_rows_are_joined_to_what_was_split(size: tuple[int, int]) -> None:
    x = random(3, CHANNELS, *size, layout=torch.channels_last)
    rows = split_rows(x)
    assert torch.equal(rows[:3, :CHANNELS, : size[0] // 2], x[:, :, : size[0] // 2 * 2 : 2, ::2])
    assert torch.equal(rows[3:, CHANNELS:, : size[0] // 2], x[:, :, 1::2, 1::2])
    assert torch.equal(join_rows(rows, size[0]), x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_alternate_pixels_are_two_slices_with_a_dense_gradient(
    size: tuple[int, int], layout: torch.memory_format
) -> None:
    x = random(3, CHANNELS, *size, layout=layout).requires_grad_()

    def both(even: Tensor, odd: Tensor) -> Tensor:
        return torch.cat([even.flatten(), odd.flatten()])

    ours = gradients(both(*alternate_pixels(x)), x)
    assert_equal(ours, gradients(both(x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]), x))
    assert ours[1].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_concatenations_parts_get_dense_gradients(layout: torch.memory_format) -> None:
    parts = [random(2, 4, 5, 5, seed=i, layout=layout).requires_grad_() for i in range(3)]
    joined = concatenate(parts)
    assert layout_of(joined) == layout
    ours = gradients(joined, *parts)
    assert_equal(ours, gradients(torch.cat(parts, dim=1), *parts))
    # A part that is not a leaf gets what comes out of the concatenation itself.
    seen: list[Tensor] = []
    inner = [part * 2 for part in parts]
    for part in inner:
        part.register_hook(seen.append)
    concatenate(inner).sin().sum().backward()
    assert len(seen) == 3
    assert all(gradient.is_contiguous(memory_format=layout) for gradient in seen)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_mean_over_pixels_gives_a_dense_gradient(layout: torch.memory_format) -> None:
    x_BCHW = torch.randn(2, 3, 4, 5).contiguous(memory_format=layout).requires_grad_()
    seen: list[Tensor] = []
    same_BCHW = with_dense_gradient(x_BCHW * 1.0)
    assert torch.equal(same_BCHW, x_BCHW)
    x_BCHW.register_hook(seen.append)
    same_BCHW.mean((2, 3)).sum().backward()
    (gradient_BCHW,) = seen
    assert gradient_BCHW.is_contiguous(memory_format=layout)
    assert torch.equal(gradient_BCHW, torch.full((2, 3, 4, 5), 1 / 20))
    still_BCHW = x_BCHW.detach()
    assert with_dense_gradient(still_BCHW) is still_BCHW


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_sum_through_gates_of_value_one_is_the_sum_of_products(count: int) -> None:
    terms = [random(2, 3, 4, 4, seed=i).requires_grad_() for i in range(count)]
    terms[0].requires_grad_(count == 1)  # a term may need no gradient: the first cell's inputs
    gates = torch.ones(count, dtype=torch.float64, requires_grad=True)
    wanted = [gates, *(term for term in terms if term.requires_grad)]
    product: Callable[..., Any] = sum
    plain = product(term * gate for term, gate in zip(terms, gates, strict=True))
    assert_equal(
        gradients(sum_through_gates(gates.unbind(), terms), *wanted), gradients(plain, *wanted)
    )
