"""What of a cell the kernels cover: its layers in the kernels' terms, or None.

They cover float32 on CPUs, batch norm in training mode, and convolutions without biases. Whoever
gets None runs the cell in plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gdas.cnn.fused.calls import Pass, Pool, Reader, Reducing
from gdas.cnn.fused.convolution import Convolution, dense_weight
from gdas.cnn.norm import BatchNorm
from gdas.cnn.operations import Depthwise, FactorizedReduce
from gdas.cnn.operations import Pool as PoolModule
from gdas.cnn.pooling import AveragePool

KERNELS = (3, 5)
LAYERS_OF_A_PASS = 4


Layer = Pass | Convolution | Pool | Reader | Reducing


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
    )


def norm_of(layer: object) -> BatchNorm | None:
    """A batch norm in training mode, else None."""
    if type(layer) is BatchNorm and layer.training and layer.track_running_stats:
        return layer
    return None


def norm_weights(norms: Iterable[BatchNorm | None]) -> list[Tensor]:
    """Scales and shifts, if there are any."""
    found: list[Tensor] = []
    for norm in norms:
        if norm is not None and norm.affine:
            found += [norm.weight, norm.bias]
    return found


def _plain_convolution(layer: object, kernel: int = 1) -> nn.Conv2d | None:
    if type(layer) is nn.Conv2d and layer.bias is None and layer.kernel_size == (kernel, kernel):
        return layer
    return None


def reader_of(layer: nn.Module) -> Reader | None:
    """A layer of the preprocessing: 1 x 1 convolution and norm, or FactorizedReduce."""
    if is_watched(layer):
        return None
    if isinstance(layer, FactorizedReduce):
        norm = norm_of(layer.norm)
        if norm is None or layer.even.bias is not None:
            return None
        return Reader(layer.even.weight, layer.odd.weight, norm)
    if not isinstance(layer, nn.Sequential) or len(layer) != 3:
        return None
    convolution, norm = _plain_convolution(layer[1]), norm_of(layer[2])
    if convolution is None or norm is None:
        return None
    return Reader(convolution.weight, None, norm)


def edge_of(operation: nn.Module, source: int) -> Edge | None:
    """An operation of a cell, which reads the state `source`."""
    if is_watched(operation):
        return None
    if isinstance(operation, nn.Identity):
        return Edge(source)
    if isinstance(operation, PoolModule):
        return _pool_edge(operation, source)
    if isinstance(operation, FactorizedReduce):
        reader = reader_of(operation)
        return None if reader is None else Edge(source, (reader,))
    if isinstance(operation, nn.Sequential):
        passes = separable_passes(list(operation))
        return Edge(source, tuple(passes)) if passes else None
    return None


def is_watched(module: nn.Module) -> bool:
    """Whether somebody waits for these layers to be called one by one."""
    return any(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        for layer in (module, *module.children())
    )


def _pool_edge(operation: PoolModule, source: int) -> Edge | None:
    pool = operation.pool
    norm = norm_of(operation.norm)
    if norm is None and not isinstance(operation.norm, nn.Identity):
        return None
    if isinstance(pool, AveragePool):
        own = Pool(True, norm, pool.stride)
    elif isinstance(pool, nn.MaxPool2d) and isinstance(pool.stride, int):
        own = Pool(False, norm, pool.stride)
    else:
        return None
    return Edge(source, (own,))


def reducing_edge(branch: nn.Module, source: int) -> Edge | None:
    """A branch of convolutions of the fixed reduction cell."""
    if not isinstance(branch, nn.Sequential) or len(branch) != 7 or is_watched(branch):
        return None
    rows, columns, pointwise = branch[1], branch[2], _plain_convolution(branch[5])
    norms = norm_of(branch[3]), norm_of(branch[6])
    if pointwise is None or norms[0] is None or norms[1] is None:
        return None
    if not isinstance(rows, nn.Conv2d) or not isinstance(columns, nn.Conv2d):
        return None
    if rows.bias is not None or columns.bias is not None:
        return None
    grouped = Reducing(rows.weight, columns.weight, norms[0])
    return Edge(source, (grouped, Reader(pointwise.weight, None, norms[1])))


def pooling_edge(layers: nn.Module, source: int) -> Edge | None:
    """Max pooling and its norm, one after the other."""
    if not isinstance(layers, nn.Sequential) or len(layers) != 2 or is_watched(layers):
        return None
    pool, norm = layers[0], norm_of(layers[1])
    if not isinstance(pool, nn.MaxPool2d) or not isinstance(pool.stride, int) or norm is None:
        return None
    return Edge(source, (Pool(False, norm, pool.stride),))


def shortcut_edge(layers: nn.Module, source: int) -> Edge | None:
    """Means of 2 x 2 pixels and a 1 x 1 convolution, without ReLU and batch norm."""
    if not isinstance(layers, nn.Sequential) or len(layers) != 2 or is_watched(layers):
        return None
    pool, convolution = layers[0], _plain_convolution(layers[1])
    if type(pool) is not nn.AvgPool2d or convolution is None:
        return None
    usual = (
        (pool.kernel_size, pool.stride, pool.padding) == (2, 2, 0)
        and pool.ceil_mode
        and not pool.count_include_pad
        and pool.divisor_override is None
        and (convolution.stride, convolution.padding, convolution.groups) == ((1, 1), (0, 0), 1)
    )
    if not usual or not dense_weight(convolution.weight):
        return None
    halving, mixing = Pool(True, None, 2, 2), Convolution(convolution.weight, None, 1, False)
    return Edge(source, (halving, mixing))


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
    relu = len(layers) > 0 and isinstance(layers[0], nn.ReLU)
    own = layers[relu:]
    if len(own) != 2 or any(is_watched(layer) for layer in layers):
        return None
    layer, norm = own[0], norm_of(own[1])
    if type(layer) is not nn.Conv2d or layer.bias is not None or norm is None:
        return None
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    usual = (
        layer.kernel_size == (kernel, kernel)
        and layer.padding == (kernel // 2, kernel // 2)
        and layer.stride == (stride, stride)
        and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
    )
    if not usual or kernel not in (1, 3) or stride not in (1, 2) or not dense_weight(layer.weight):
        return None
    return Convolution(layer.weight, norm, stride, relu)


def _separable_pass(layers: Sequence[nn.Module]) -> Pass | None:
    if len(layers) != LAYERS_OF_A_PASS or not isinstance(layers[0], nn.ReLU):
        return None
    depthwise, pointwise, norm = layers[1], _plain_convolution(layers[2]), norm_of(layers[3])
    if not isinstance(depthwise, Depthwise) or pointwise is None or norm is None:
        return None
    if depthwise.kernel_size[0] not in KERNELS:
        return None
    return Pass(
        depthwise.weight, pointwise.weight, norm, depthwise.stride[0], depthwise.dilation[0]
    )
