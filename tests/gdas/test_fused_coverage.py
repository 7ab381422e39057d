"""What somebody has changed or watches runs in plain PyTorch: fused kernels never pass it by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from gdas.bench201.genotype import Bench201Genotype
from gdas.bench201.network import Network as Bench201Network
from gdas.cnn.fused.build import library
from gdas.cnn.fused.choice import use
from gdas.cnn.fused.layers import edge_of, reducing_edge
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.layout import CifarStem
from gdas.cnn.network import Network
from gdas.cnn.operations import Style, _separable_pass
from gdas.cnn.supernet import Supernet

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels cannot be compiled here")

PICKS = [[(e, 2 + e % 6) for e in range(14)]] * 3
"""Each of the operations but `none` and max pooling, in every cell; the fixed cell ignores them."""


def supernet() -> Supernet:
    return Supernet(10, channels=4, normals_per_block=1, fixed_reduction=True).train()


def scores(network: nn.Module, images: Tensor) -> Tensor:
    out: Tensor = network(images, [PICKS[0]] * len(cast(Any, network).cells))
    return out


class Doubled(CifarStem):
    """A stem whose forward pass is not that of the class it comes from."""

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(2 * images_BCHW + 1)


def first_fixed(network: Supernet) -> Any:
    return network.cells[network.kinds.index("fixed")]


def in_fixed(network: Supernet, place: int, layer: nn.Module) -> None:
    """Put a layer in the branches of the fixed reduction cell."""
    for branch in first_fixed(network).convolutions:
        branch[place] = copy.deepcopy(layer)


def reflect(network: Supernet) -> None:
    for branch in first_fixed(network).convolutions:
        branch[1].padding_mode = "reflect"
        branch[1]._reversed_padding_repeated_twice = [1, 1, 0, 0]


def own_forward(network: Supernet) -> None:
    for edge in cast(Any, network.cells[0]).edges:
        for operation in edge:
            operation.forward = lambda x: x * 0.5


def transposed(network: Supernet) -> None:
    """The same weights, lying in memory in another order."""
    for p in network.parameters():
        if p.dim() == 4:
            p.data = p.data.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)


def dilated(network: Supernet) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 8 and module.dilation == (2, 2):
            module.dilation, module.padding = (3, 3), (3, 3)


def pooled(network: Supernet) -> None:
    network.pool = nn.AdaptiveMaxPool2d(1)  # type: ignore[assignment]


def stemmed(network: Supernet) -> None:
    stem = Doubled(4)
    stem.load_state_dict(network.stem.state_dict())
    network.stem = stem


CHANGES: dict[str, Callable[[Supernet], None]] = {
    "a stem of one's own": stemmed,
    "SiLU in the fixed cell": lambda network: in_fixed(network, 0, nn.SiLU()),
    "the second ReLU in the fixed cell": lambda network: in_fixed(network, 4, nn.GELU()),
    "reflected padding": reflect,
    "forward of an operation": own_forward,
    "weights in another order": transposed,
    "another dilation": dilated,
    "another pooling at the end": pooled,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_computes_what_it_says(change: str) -> None:
    plain, images = supernet(), torch.randn(6, 3, 12, 12)
    before = scores(copy.deepcopy(plain), images)
    CHANGES[change](plain)
    own = copy.deepcopy(plain)
    use(own, "fused")
    expected, found = scores(plain, images), scores(own, images)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert change == "weights in another order" or not torch.allclose(before, expected, atol=1e-3)


def watched(network: nn.Module) -> dict[str, nn.Module]:
    """What a fused pass would not call, by what it is."""
    cells = cast(Any, network).cells
    return {
        "cell": cells[0],
        "preprocessing": cells[0].preprocess,
        "reader": cells[0].preprocess.s1,
        "convolution": cells[0].preprocess.s1[1],
        "norm": cells[0].preprocess.s1[2],
        "stem": network.stem,
        "the stem's norm": cast(Any, network.stem).norm,
        "pooling at the end": network.pool,
        "activation at the end": network.last_activation,
    }


@pytest.mark.parametrize("what", watched(supernet()))
def test_hooks_are_called(what: str) -> None:
    network, called = supernet(), list[str]()
    use(network, "fused")
    module = watched(network)[what]
    module.register_forward_hook(lambda *_: called.append(what))
    scores(network, torch.randn(6, 3, 12, 12))
    assert called == [what]
    derived = Network(PUBLISHED["GDAS_F1"], 10, channels=4, normals_per_block=1).train()
    use(derived, "fused")
    called.clear()
    watched(derived)[what].register_forward_pre_hook(lambda *_: called.append(what))
    derived(torch.randn(6, 3, 12, 12))
    assert called == [what]


def test_hooks_on_all_modules_are_called() -> None:
    network, called = supernet(), set[type]()
    use(network, "fused")
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: called.add(type(m)))
    try:
        scores(network, torch.randn(6, 3, 12, 12))
    finally:
        handle.remove()
    assert {CifarStem, nn.ReLU, nn.Conv2d, nn.AdaptiveAvgPool2d} <= called


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_cells_of_another_type_are_not_read_as_float32(dtype: torch.dtype) -> None:
    network = supernet()
    use(network, "fused")
    for cell in network.cells:
        cell.to(dtype)
    with pytest.raises(RuntimeError, match="type"):
        scores(network, torch.randn(6, 3, 12, 12))
    statistics = supernet()
    use(statistics, "fused")
    for module in statistics.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean = module.running_mean.to(dtype)
    with pytest.raises(RuntimeError, match="type"):
        scores(statistics, torch.randn(6, 3, 12, 12))


def bench201() -> Bench201Network:
    cell = Bench201Genotype("own", ("nor_conv_3x3", "skip_connect", "avg_pool_3x3") * 2)
    return Bench201Network(10, channels=8, normals_per_block=1, genotype=cell).train()


def test_hooks_in_a_network_of_the_benchmark_are_called() -> None:
    def places(network: Any) -> Sequence[nn.Module]:
        cell, block = network.cells[0], network.cells[1]
        operations = [next(iter(edge.values())) for edge in cell.edges[:3]]
        of_block = [block.convolutions, block.convolutions[0], block.convolutions[0][1]]
        return [network.stem, *operations, *of_block, block.shortcut, block.shortcut[0]]

    for i in range(len(places(bench201()))):
        network, called = bench201(), list[int]()
        use(network, "fused")
        places(network)[i].register_forward_hook(lambda *_, i=i, called=called: called.append(i))
        network(torch.randn(4, 3, 8, 8))
        assert called == [i]


def test_what_this_package_builds_is_covered() -> None:
    """So that none of these tests passes because nothing is fused."""
    network = supernet()
    assert reducing_edge(first_fixed(network).convolutions[0], 0) is not None
    operations = [op for edge in cast(Any, network.cells[0]).edges for op in edge[1:]]
    assert all(edge_of(op, 0) is not None for op in operations)
    own = nn.Sequential(*_separable_pass(4, 3, 1, 1, Style(False)))
    assert edge_of(own, 0) is not None
    own[0] = nn.LeakyReLU()
    assert edge_of(own, 0) is None
