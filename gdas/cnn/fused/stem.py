"""Convolutions outside of cells: the stems, which read images.

Each is an autograd function of its own. It writes its output before its batch norm, as those of a
cell do, and reads its input as it is stored. There is no gradient of the images.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gdas.cnn.fused import calls
from gdas.cnn.fused.convolution import Convolution, convolution_backward, convolution_forward
from gdas.cnn.fused.interface import Map, Term
from gdas.cnn.fused.layers import convolution_of, covers_input, norm_weights, runs_as
from gdas.cnn.fused.pairs import dense, of_norm, sums_as_norm, with_sums
from gdas.cnn.layout import CifarStem, ImageNetStem


class _Convolve(torch.autograd.Function):
    """Arguments: layers, values and norm of x, the layers' parameters."""

    @staticmethod
    def forward(ctx: Any, layers: Convolution, *tensors: Any) -> Map:
        ctx.set_materialize_grads(False)
        x = Map(dense(tensors[0]), tensors[1])
        y = convolution_forward(x, layers)
        ctx.layers = layers
        ctx.save_for_backward(*x, *y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_values: Tensor | None, of_norm_4C: Tensor | None) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        if of_values is None:
            return (None,) * len(needs)
        saved = ctx.saved_tensors
        x, y = Map(*saved[:2]), Map(*saved[2:])
        of_y = with_sums(y, dense(of_values), of_norm_4C)
        of_x, of_weight = convolution_backward(
            of_y, y, x, ctx.layers, weights=any(needs[3:]), of_input=any(needs[1:3])
        )
        found: list[Tensor | None] = [None, None]
        if of_x is not None:
            found = [of_x.values_BCHW, sums_as_norm(x, of_x.sums_2C)]
        return None, *found, of_weight, *of_norm(ctx.layers.norm, y, of_y.sums_2C)


class _Normalise(torch.autograd.Function):
    """Arguments: values and norm."""

    @staticmethod
    def forward(ctx: Any, values_BCHW: Tensor, norm_4C: Tensor) -> Tensor:
        x = Map(values_BCHW, norm_4C)
        ctx.save_for_backward(*x)
        return calls.sum_of_terms([Term(x)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Any, ...]:
        x, own_BCHW = Map(*ctx.saved_tensors), dense(gradient_BCHW)
        return own_BCHW, sums_as_norm(x, calls.gradient_sums(own_BCHW, [Term(x)])[0][0])


def meant(x: Map) -> Tensor:
    """What a map means: its values, normalised if that was left to its readers."""
    if x.norm_4C is None:
        return x.values_BCHW
    normalised: Tensor = _Normalise.apply(*x)
    return normalised


def _convolve(x: Map, layers: Convolution) -> Map:
    return Map(*_Convolve.apply(layers, *x, layers.weight, *norm_weights([layers.norm])))


def run_stem(stem: nn.Module, images_BCHW: Tensor) -> list[Map] | None:
    """What the convolutions of a stem make, one after the other; None if they are not covered.

    Args:
        stem: a CifarStem, an ImageNetStem, or a convolution and its batch norm.
    """
    if images_BCHW.requires_grad or not covers_input(images_BCHW):
        return None
    stages = _stages(stem)
    layers = [own for own in map(convolution_of, stages) if own is not None]
    if not layers or len(layers) < len(stages):
        return None
    made = [Map(images_BCHW)]
    for own in layers:
        made.append(_convolve(made[-1], own))
    return made[1:]


def _stages(stem: nn.Module) -> list[list[nn.Module]]:
    """The layers of its convolutions, or none if it is another stem, or a changed one."""
    if runs_as(stem, CifarStem):
        return [[stem.conv, stem.norm]]
    if runs_as(stem, ImageNetStem):
        parts = stem.stem0, stem.stem1
        match [list(part.children()) for part in parts if runs_as(part, nn.Sequential)]:
            case [[*first, relu, second, norm], [start, *third]]:
                # The ReLU between both parts comes after the first one's norm.
                if runs_as(relu, nn.ReLU) and runs_as(start, nn.Identity):
                    return [first, [relu, second, norm], [nn.ReLU(), *third]]
        return []
    return [list(stem.children())] if runs_as(stem, nn.Sequential) else []
