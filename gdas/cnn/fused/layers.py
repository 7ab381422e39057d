"""What of a cell the kernels cover: its layers in the kernels' terms, or None.

They cover float32 on CPUs, batch norm in training mode, and convolutions without biases. Whoever
gets None runs the cell in plain PyTorch.

The kernels never call a layer's `forward`, so a layer is covered only if it is one of those that
this package builds, with their settings, and nobody has changed or watches what it does
(`runs_as`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from gdas.cnn.fused.calls import Pass, Pool, Reader, Reducing
from gdas.cnn.fused.convolution import Convolution
from gdas.cnn.norm import BatchNorm
from gdas.cnn.operations import Depthwise, FactorizedReduce
from gdas.cnn.operations import Pool as PoolModule
from gdas.cnn.pooling import AveragePool

KERNELS, STRIDES, DILATIONS = (3, 5), (1, 2), (1, 2)
GROUPS = 8
"""Of the fixed reduction cell's convolutions."""
LAYERS_OF_A_PASS = 4


Layer = Pass | Convolution | Pool | Reader | Reducing
M = TypeVar("M", bound=nn.Module)


class Edge(NamedTuple):
    """An operation of a cell: layers one after the other, or none (skip).

    Attributes:
        source: the state that it reads.
    """

    source: int
    layers: tuple[Layer, ...] = ()

    @property
    def parameters(self) -> list[Tensor]:
        """Those of its layers, in order."""
        return [w for layer in self.layers for w in parameters_of(layer)]


def parameters_of(layer: Layer) -> list[Tensor]:
    """A layer's weights, then its norm's."""
    return [*layer.weights, *norm_weights([layer.norm])]


def covers_input(x_BCHW: Tensor) -> bool:
    """Whether the kernels read such images or maps."""
    return (
        x_BCHW.device.type == "cpu"
        and x_BCHW.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and x_BCHW.numel() > x_BCHW.shape[1]
        and not torch_module._has_any_global_hook()
    )


def runs_as(layer: object, kind: type[M]) -> TypeGuard[M]:
    """Whether a layer does what its class does: no subclass, no own `forward`, and no hooks."""
    return (
        type(layer) is kind
        and "forward" not in layer.__dict__
        and not (
            layer._forward_hooks
            or layer._forward_pre_hooks
            or layer._backward_hooks
            or layer._backward_pre_hooks
        )
    )


def readable(weight: Tensor) -> bool:
    """Whether the kernels read such weights: float32, on a CPU, contiguous or channels-last."""
    return (
        weight.dtype is torch.float32
        and weight.is_cpu
        and (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))
    )


def norm_of(layer: object) -> BatchNorm | None:
    """A batch norm in training mode, else None."""
    if not runs_as(layer, BatchNorm):
        return None
    mean, scale = layer.running_mean, layer.weight
    kept = layer.training and layer.track_running_stats and mean is not None and readable(mean)
    return layer if kept and (scale is None or readable(scale)) else None


def norm_weights(norms: Iterable[BatchNorm | None]) -> list[Tensor]:
    """Scales and shifts, if there are any."""
    found: list[Tensor] = []
    for norm in norms:
        if norm is not None and norm.affine:
            found += [norm.weight, norm.bias]
    return found


def _plain_convolution(
    layer: object,
    window: tuple[int, int] = (1, 1),
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> nn.Conv2d | None:
    """A convolution without a bias that keeps the size, or halves it where the stride is 2."""
    if not runs_as(layer, nn.Conv2d):
        return None
    usual = (
        layer.bias is None
        and layer.kernel_size == window
        and layer.stride == stride
        and layer.padding == (window[0] // 2, window[1] // 2)
        and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), groups, "zeros")
    )
    return layer if usual and readable(layer.weight) else None


def reader_of(layer: nn.Module) -> Reader | None:
    """A layer of the preprocessing: 1 x 1 convolution and norm, or FactorizedReduce."""
    if runs_as(layer, FactorizedReduce):
        even, odd = _plain_convolution(layer.even), _plain_convolution(layer.odd)
        norm = norm_of(layer.norm)
        return Reader(even.weight, odd.weight, norm) if even and odd and norm else None
    if not runs_as(layer, nn.Sequential):
        return None
    match list(layer.children()):
        case [first, second, third] if runs_as(first, nn.Identity):
            convolution, norm = _plain_convolution(second), norm_of(third)
            return Reader(convolution.weight, None, norm) if convolution and norm else None
    return None


def edge_of(operation: nn.Module, source: int) -> Edge | None:
    """An operation of a cell, which reads the state `source`."""
    if runs_as(operation, nn.Identity):
        return Edge(source)
    if runs_as(operation, PoolModule):
        return _pool_edge(operation, source)
    if runs_as(operation, FactorizedReduce):
        reader = reader_of(operation)
        return None if reader is None else Edge(source, (reader,))
    if runs_as(operation, nn.Sequential):
        passes = separable_passes(list(operation.children()))
        return Edge(source, tuple(passes)) if passes else None
    return None


def _pool_edge(operation: PoolModule, source: int) -> Edge | None:
    pool = operation.pool
    norm = norm_of(operation.norm)
    if norm is None and not runs_as(operation.norm, nn.Identity):
        return None
    if runs_as(pool, AveragePool):
        return Edge(source, (Pool(True, norm, pool.stride),)) if pool.stride in STRIDES else None
    own = _max_pooling(pool, norm)
    return None if own is None else Edge(source, (own,))


def _max_pooling(layer: object, norm: BatchNorm | None) -> Pool | None:
    if not runs_as(layer, nn.MaxPool2d):
        return None
    usual = (layer.kernel_size, layer.padding, layer.dilation) == (3, 1, 1)
    if not usual or layer.ceil_mode or layer.return_indices:
        return None
    return Pool(False, norm, layer.stride) if layer.stride in STRIDES else None


def reducing_edge(branch: nn.Module, source: int) -> Edge | None:
    """A branch of convolutions of the fixed reduction cell."""
    layers = list(branch.children())
    if not runs_as(branch, nn.Sequential) or len(layers) != 7:
        return None
    if not runs_as(layers[0], nn.ReLU) or not runs_as(layers[4], nn.ReLU):
        return None
    rows = _plain_convolution(layers[1], (1, 3), (1, 2), GROUPS)
    columns = _plain_convolution(layers[2], (3, 1), (2, 1), GROUPS)
    pointwise, norms = _plain_convolution(layers[5]), (norm_of(layers[3]), norm_of(layers[6]))
    if rows is None or columns is None or pointwise is None or norms[0] is None or norms[1] is None:
        return None
    grouped = Reducing(rows.weight, columns.weight, norms[0])
    return Edge(source, (grouped, Reader(pointwise.weight, None, norms[1])))


def pooling_edge(layers: nn.Module, source: int) -> Edge | None:
    """Max pooling and its norm, one after the other."""
    if not runs_as(layers, nn.Sequential):
        return None
    match list(layers.children()):
        case [pool, second] if norm := norm_of(second):
            own = _max_pooling(pool, norm)
            return None if own is None else Edge(source, (own,))
    return None


def shortcut_edge(layers: nn.Module, source: int) -> Edge | None:
    """Means of 2 x 2 pixels and a 1 x 1 convolution, without ReLU and batch norm."""
    if not runs_as(layers, nn.Sequential):
        return None
    match list(layers.children()):
        case [pool, second] if runs_as(pool, nn.AvgPool2d):
            convolution = _plain_convolution(second)
            if convolution is None or not _halves(pool):
                return None
            mixing = Convolution(convolution.weight, None, 1, False)
            return Edge(source, (Pool(True, None, 2, 2), mixing))
    return None


def _halves(pool: nn.AvgPool2d) -> bool:
    """Whether a pooling takes the means of 2 x 2 pixels, of what there is of them at an edge."""
    return (
        (pool.kernel_size, pool.stride, pool.padding) == (2, 2, 0)
        and pool.ceil_mode
        and not pool.count_include_pad
        and pool.divisor_override is None
    )


def separable_passes(layers: Sequence[nn.Module]) -> list[Pass]:
    """The passes of a separable or dilated convolution; none if the layers are others."""
    passes = []
    for i in range(0, len(layers), LAYERS_OF_A_PASS):
        own = _separable_pass(layers[i : i + LAYERS_OF_A_PASS])
        if own is None:
            return []
        passes.append(own)
    return passes


def convolution_of(layers: Sequence[nn.Module]) -> Convolution | None:
    """A dense convolution without bias that keeps the size or halves it, and batch norm.

    A ReLU may come first.
    """
    relu = len(layers) > 0 and runs_as(layers[0], nn.ReLU)
    own = layers[relu:]
    if len(own) != 2:
        return None
    layer, norm = own[0], norm_of(own[1])
    if not isinstance(layer, nn.Conv2d) or norm is None:
        return None
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    if kernel not in (1, 3) or stride not in STRIDES:
        return None
    if _plain_convolution(layer, (kernel, kernel), (stride, stride)) is None:
        return None
    return Convolution(layer.weight, norm, stride, relu)


def sequence_of(layers: nn.Module) -> Convolution | None:
    """The same of an nn.Sequential."""
    return convolution_of(list(layers.children())) if runs_as(layers, nn.Sequential) else None


def residual_edge(layers: nn.Module, source: int) -> Edge | None:
    """Two dense convolutions, one after the other."""
    if not runs_as(layers, nn.Sequential):
        return None
    match [sequence_of(own) for own in layers.children()]:
        case [first, second] if first is not None and second is not None:
            return Edge(source, (first, second))
    return None


def _separable_pass(layers: Sequence[nn.Module]) -> Pass | None:
    if len(layers) != LAYERS_OF_A_PASS or not runs_as(layers[0], nn.ReLU):
        return None
    depthwise, pointwise, norm = layers[1], _plain_convolution(layers[2]), norm_of(layers[3])
    if not runs_as(depthwise, Depthwise) or pointwise is None or norm is None:
        return None
    (kernel, across), (stride, _), (dilation, _) = (
        depthwise.kernel_size,
        depthwise.stride,
        depthwise.dilation,
    )
    usual = kernel == across and kernel in KERNELS and stride in STRIDES and dilation in DILATIONS
    if not usual or depthwise.bias is not None or not readable(depthwise.weight):
        return None
    return Pass(depthwise.weight, pointwise.weight, norm, stride, dilation)
