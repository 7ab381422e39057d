"""Cells and operations of image networks: sizes, wirings, branches, and the gates' gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.architecture import draw_architecture
from gdas.cnn.cell import (
    DerivedCell,
    FixedReductionCell,
    SearchCell,
    sum_of,
)
from gdas.cnn.derive import edge_list
from gdas.cnn.genotype import DERIVED_OPERATIONS, OPERATIONS, random_genotype
from gdas.cnn.layout import cell_places
from gdas.cnn.operations import FactorizedReduce, Style, build_operation
from gdas.cnn.supernet import Supernet
from gdas.config import SamplerConfig
from gdas.errors import InputError
from gdas.sampler import Pick
from tests.gdas.tiny import CPU, SEARCH_STYLE, fixed_cell, seeded, stir
from tests.narrow import narrow

# A search cell and the derived cell it stands for


def picks_of(genotype_edges: tuple[tuple[str, int], ...]) -> list[Pick]:
    edges = edge_list(len(genotype_edges) // 2)
    return [
        (edges.index((i // 2, source)), OPERATIONS.index(name))
        for i, (name, source) in enumerate(genotype_edges)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("last_reduced", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_search_cell_with_a_derived_cells_picks_equals_the_derived_cell(
    seed: int, reduction: bool, last_reduced: bool, training: bool
) -> None:
    genotype = random_genotype(seed)
    edges = genotype.reduce if reduction else genotype.normal
    assert edges is not None
    shape = (6, 5, 4)
    search = SearchCell(
        *shape, SEARCH_STYLE, nodes=4, reduction=reduction, last_reduced=last_reduced
    ).double()
    stir(search, seed)
    derived = DerivedCell(
        edges, *shape, SEARCH_STYLE, reduction=reduction, last_reduced=last_reduced
    ).double()
    picks = picks_of(edges)
    derived.preprocess.load_state_dict(search.preprocess.state_dict())
    for operation, (e, k) in zip(derived.operations, picks, strict=True):
        operation.load_state_dict(search.edges[e][k].state_dict())  # type: ignore[index]
    search.train(training)
    derived.train(training)
    size = 16 if last_reduced else 8
    s0 = torch.randn(2, 6, size, size, generator=seeded(seed), dtype=torch.float64)
    s1 = torch.randn(2, 5, 8, 8, generator=seeded(seed + 1), dtype=torch.float64)
    out = search(s0, s1, picks)
    assert out.shape == ((2, 16, 4, 4) if reduction else (2, 16, 8, 8))
    torch.testing.assert_close(out, derived(s0, s1, None), rtol=1e-12, atol=1e-12)


def test_a_node_whose_every_edge_drew_none_is_zero() -> None:
    cell = SearchCell(4, 4, 4, SEARCH_STYLE, nodes=2, reduction=True, last_reduced=False)
    s = torch.randn(2, 4, 7, 7, generator=seeded(0))
    out = cell(s, s, [(0, 0), (1, 0), (2, 4), (3, 0), (4, 0)])
    assert out.shape == (2, 8, 4, 4)
    assert (out[:, :4] == 0).all()
    assert (out[:, 4:] != 0).any()


# Shapes


@pytest.mark.parametrize("size", [7, 8, 9])
@pytest.mark.parametrize("name", DERIVED_OPERATIONS)
@pytest.mark.parametrize("affine", [False, True])
def test_an_operation_keeps_the_size_or_halves_it_rounding_up(
    name: str, size: int, affine: bool
) -> None:
    x = torch.randn(2, 4, size, size, generator=seeded(0))
    style = Style(affine)
    assert build_operation(name, 4, 1, style)(x).shape == x.shape
    half = (size + 1) // 2
    assert build_operation(name, 4, 2, style)(x).shape == (2, 4, half, half)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7), (6, 7), (7, 6)])
def test_factorized_reduce_is_two_strided_convolutions_one_of_a_shifted_image(
    height: int, width: int
) -> None:
    reduce = FactorizedReduce(3, 4, Style(False, bias_without_affine=True)).double().eval()
    stir(reduce, 1)
    x = torch.randn(2, 3, height, width, generator=seeded(0), dtype=torch.float64)
    shifted = F.pad(x.relu(), (0, 1, 0, 1))[:, :, 1:, 1:]
    parts = [
        F.conv2d(image, conv.weight, conv.bias, stride=2)
        for image, conv in ((x.relu(), reduce.even), (shifted, reduce.odd))
    ]
    expected = F.batch_norm(torch.cat(parts, 1), reduce.norm.running_mean, reduce.norm.running_var)
    torch.testing.assert_close(reduce(x), expected)
    with pytest.raises(ValueError, match="even"):
        FactorizedReduce(4, 5, SEARCH_STYLE)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="conv_9x9"):
        build_operation("conv_9x9", 4, 1, SEARCH_STYLE)


def test_the_supernet_runs_on_sizes_that_do_not_halve_evenly() -> None:
    supernet = Supernet(10, channels=4, normals_per_block=1)
    logits = supernet.initial_logits(seeded(0))
    drawn = draw_architecture(logits, supernet.kinds, SamplerConfig(), 1.0, seeded(1))
    images = torch.randn(2, 3, 13, 13, generator=seeded(2))
    assert supernet(images, drawn.picks).shape == (2, 10)


@pytest.mark.parametrize(
    ("macro", "stem", "widths", "reductions"),
    [
        ("3n+2", "cifar", [4] * 2 + [8] * 3 + [16] * 3, [2, 5]),
        ("3n", "cifar", [4] * 2 + [8] * 2 + [16] * 2, [2, 4]),
        ("3n+2", "imagenet", [4] * 2 + [8] * 3 + [16] * 3, [2, 5]),
    ],
)
def test_cells_double_their_width_at_the_two_reductions(
    macro: Any, stem: Any, widths: list[int], reductions: list[int]
) -> None:
    places = cell_places(4, 2, macro, stem)
    assert [place.channels for place in places] == widths
    assert [i for i, place in enumerate(places) if place.reduction] == reductions
    after = [i + 1 for i in reductions]
    expected = [0, *after] if stem == "imagenet" else after
    assert [i for i, place in enumerate(places) if place.last_reduced] == expected


@pytest.mark.parametrize("size", [8, 9])
def test_both_wirings_of_the_fixed_reduction_cell_have_equal_parameters_and_unequal_outputs(
    size: int,
) -> None:
    figure, older = fixed_cell("figure"), fixed_cell("2019")
    count = [sum(p.numel() for p in cell.parameters()) for cell in (figure, older)]
    assert count[0] == count[1]
    assert figure.state_dict().keys() == older.state_dict().keys()
    older.load_state_dict(figure.state_dict())
    s0 = torch.randn(2, 6, size, size, generator=seeded(0))
    s1 = torch.randn(2, 5, size, size, generator=seeded(1))
    a, b = figure(s0, s1, None), older(s0, s1, None)
    half = (size + 1) // 2
    assert a.shape == b.shape == (2, 32, half, half)
    # Only the third branch differs.
    assert torch.equal(a[:, :16], b[:, :16])
    assert torch.equal(a[:, 24:], b[:, 24:])
    assert not torch.allclose(a[:, 16:24], b[:, 16:24])


def test_the_fixed_reduction_cells_branches_are_those_of_the_figure() -> None:
    cell = fixed_cell("figure").double().eval()
    stir(cell, 3)
    s0 = torch.randn(2, 6, 8, 8, generator=seeded(0), dtype=torch.float64)
    s1 = torch.randn(2, 5, 8, 8, generator=seeded(1), dtype=torch.float64)
    states = cell.preprocess(s0, s1)

    def norm(m: Any, x: Tensor) -> Tensor:
        return F.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, eps=m.eps)

    expected = []
    for branch, state in zip(cell.convolutions, states, strict=True):
        layers: list[Any] = [*narrow(branch, nn.Sequential)]
        _, across, down, first, _, point, second = layers
        x = F.conv2d(state.relu(), across.weight, None, (1, 2), (0, 1), groups=8)
        x = F.conv2d(x, down.weight, None, (2, 1), (1, 0), groups=8)
        x = F.conv2d(norm(first, x).relu(), point.weight)
        expected.append(norm(second, x))
    for branch, state in zip(cell.poolings, states, strict=True):
        expected.append(norm(branch[1], F.max_pool2d(state, 3, 2, 1)))  # type: ignore[index]
    torch.testing.assert_close(cell(s0, s1, None), torch.cat(expected, 1))


def test_the_fixed_reduction_cell_refuses_widths_not_divisible_by_eight() -> None:
    with pytest.raises(InputError, match=r"12 cell channels: .* a multiple of 8; choose"):
        FixedReductionCell(4, 4, 12, SEARCH_STYLE, last_reduced=False)


# The gradient of the logits


def dense_cell(
    cell: SearchCell, s0: Tensor, s1: Tensor, gate_EK: Tensor, *, through_all: bool
) -> Tensor:
    """Every operation on every edge, weighted by the whole gate."""
    states = cell.preprocess(s0, s1)
    for node in range(cell.nodes):
        terms = []
        for e, (of_node, source) in enumerate(cell.edge_list):
            if of_node != node:
                continue
            for k, operation in enumerate(narrow(cell.edges[e], nn.ModuleList)):
                gate = gate_EK[e, k]
                if not through_all and float(gate.detach()) == 0.0:
                    gate = gate.detach()
                terms.append(operation(states[source]) * gate)
        states.append(sum_of(terms))
    return torch.cat(states[2:], dim=1)


def test_a_soft_gate_weighs_every_operation_of_every_edge() -> None:
    torch.manual_seed(0)
    cell = SearchCell(4, 4, 4, SEARCH_STYLE, nodes=2, reduction=True, last_reduced=False)
    cell = cell.double().eval()
    stir(cell, 1)
    gate_EK = torch.rand(5, 8, generator=seeded(0), dtype=torch.float64).requires_grad_()
    s = torch.randn(2, 4, 6, 6, generator=seeded(1), dtype=torch.float64)
    soft = cell(s, s, [(e, k) for e in range(5) for k in range(8)], gate_EK)
    dense = dense_cell(cell, s, s, gate_EK, through_all=True)
    torch.testing.assert_close(soft, dense)
    ours, expected = (torch.autograd.grad(out.sin().sum(), gate_EK)[0] for out in (soft, dense))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("scope", ["cell_instance", "cell_type"])
def test_the_logits_gradient_is_that_of_running_every_operation_under_the_one_hot_gate(
    fixed: bool, scope: Any
) -> None:
    """The supernet in evaluation mode, so that a batch norm does not tell who ran before.

    Backward goes only through the drawn operations (paper, section 3.2, "Acceleration"): the gates
    of the others are constants. Where they are not, the gradient is another one.
    """
    torch.manual_seed(0)
    supernet = Supernet(10, channels=4, normals_per_block=1, fixed_reduction=fixed)
    supernet = supernet.double().eval()
    stir(supernet, 2)
    logits: dict[str, Tensor] = {
        kind: torch.randn(14, 8, generator=seeded(i), dtype=torch.float64).requires_grad_()
        for i, kind in enumerate(supernet.searched)
    }
    drawn = draw_architecture(
        logits, supernet.kinds, SamplerConfig(scope=scope), 1.0, seeded(5), gate_device=CPU
    )
    assert drawn.gates is not None
    assert any(k == 0 for picks in drawn.picks for _, k in picks)
    images = torch.randn(4, 3, 12, 12, generator=seeded(6), dtype=torch.float64)
    labels = torch.tensor([1, 2, 3, 4])

    def dense_scores(*, through_all: bool) -> Tensor:
        assert drawn.gates is not None
        s0, s1 = supernet.stem(images)
        for cell, gate_EK in zip(supernet.cells, drawn.gates, strict=True):
            if gate_EK is None:
                out = cell(s0, s1, None)
            else:
                assert isinstance(cell, SearchCell)
                out = dense_cell(cell, s0, s1, gate_EK, through_all=through_all)
            s0, s1 = s1, out.relu()
        return supernet.classifier(supernet.pool(out).flatten(1))  # type: ignore[no-any-return]

    def gradient(scores: Tensor) -> list[Tensor]:
        loss = F.cross_entropy(scores, labels)
        return list(torch.autograd.grad(loss, list(logits.values()), retain_graph=True))

    sparse = supernet(images, drawn.picks, drawn.gates)
    dense = dense_scores(through_all=False)
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(
        supernet(images, drawn.picks), sparse, msg="a gate's value is 1 at every pick"
    )
    ours = gradient(sparse)
    for a, b in zip(ours, gradient(dense), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-14)
    assert not torch.allclose(ours[0], gradient(dense_scores(through_all=True))[0], rtol=0.1)
    if scope == "cell_type":
        (picks,) = {tuple(drawn.picks[i]) for i, k in enumerate(supernet.kinds) if k == "normal"}
        for e, k in picks:
            assert (ours[0][e] == 0).all() == (k == 0), "the row of a drawn `none` gets no gradient"


def test_style_decides_which_layers_have_affine_norms_pooling_norms_and_biases() -> None:
    def layers(style: Style, name: str) -> list[nn.Module]:
        return list(build_operation(name, 4, 2, style).modules())

    released = Style(affine=False, pooling_norm=False, bias_without_affine=True)
    for style, affine, bias in (
        (Style(True), True, False),
        (SEARCH_STYLE, False, False),
        (released, False, True),
        (dataclasses.replace(released, affine=True), True, False),
    ):
        found = layers(style, "sep_conv_3x3")
        norms = [m for m in found if isinstance(m, nn.BatchNorm2d)]
        points = [m for m in found if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
        assert [m.affine for m in norms] == [affine] * 2
        assert [m.bias is not None for m in points] == [bias] * 2
        pooling = [m for m in layers(style, "avg_pool_3x3") if isinstance(m, nn.BatchNorm2d)]
        assert [m.affine for m in pooling] == ([False] if style.pooling_norm else [])


def test_average_pooling_leaves_padding_out_of_the_mean() -> None:
    pool = build_operation("avg_pool_3x3", 2, 1, Style(False, pooling_norm=False))
    assert torch.equal(pool(torch.ones(1, 2, 4, 4)), torch.ones(1, 2, 4, 4))
