"""Cells and networks: what runs, what moves, what shapes and gradients come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from gdas.architecture import Architecture, draw_architecture
from gdas.cnn.cell import (
    DerivedCell,
    FixedReductionCell,
    SearchCell,
    drop_path,
    sum_of,
)
from gdas.cnn.derive import edge_list
from gdas.cnn.genotype import DERIVED_OPERATIONS, OPERATIONS, PUBLISHED, Genotype, random_genotype
from gdas.cnn.layout import cell_places
from gdas.cnn.network import Network, check_auxiliary_input, draw_drop_path
from gdas.cnn.operations import FactorizedReduce, Style, build_operation
from gdas.cnn.space import ImageSpace
from gdas.cnn.supernet import Supernet
from gdas.config import SamplerConfig, WeightUpdate
from gdas.data.arrow import Images
from gdas.errors import InputError
from gdas.sampler import Pick
from gdas.search import SearchSteps
from tests.gdas.tiny import CPU, search_config
from tests.narrow import narrow

SEARCH_STYLE = Style(affine=False)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def run_on(
    images: Images, reduction: Literal["searched", "fixed"] = "searched", **changes: Any
) -> tuple[SearchSteps, ImageSpace]:
    """A tiny search, ready to step, in training mode."""
    config = search_config(reduction, **changes)
    space = ImageSpace(config, images, CPU)
    space.weights.train()
    return SearchSteps(config, space), space


Step = Literal["weight", "alpha"]


def take(run: SearchSteps, step: Step, index: int = 0) -> None:
    (run.weight_step if step == "weight" else run.alpha_step)(0, index, 1.0)


def watch_architectures(space: ImageSpace) -> list[Architecture]:
    """Every architecture whose loss is asked for from now on."""
    seen: list[Architecture] = []

    def watching(loss: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(architecture: Architecture, epoch: int, step: int) -> Any:
            seen.append(architecture)
            return loss(architecture, epoch, step)

        return wrapped

    space.weight_loss = watching(space.weight_loss)  # type: ignore[method-assign]
    space.alpha_loss = watching(space.alpha_loss)  # type: ignore[method-assign]
    return seen


def search_cells(space: ImageSpace) -> Iterator[tuple[int, SearchCell]]:
    for i, cell in enumerate(space.supernet.cells):
        if isinstance(cell, SearchCell):
            yield i, cell


# What runs and what moves in a search step


@pytest.mark.parametrize("step", ["weight", "alpha"])
@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_only_the_picked_operations_run_each_once_and_none_never(
    small_digits: Images, step: Step, reduction: Literal["searched", "fixed"]
) -> None:
    run, space = run_on(small_digits, reduction)
    architectures = watch_architectures(space)
    ran: list[tuple[int, int, int]] = []

    def note(place: tuple[int, int, int]) -> Callable[..., None]:
        return lambda *_: ran.append(place)

    for i, cell in search_cells(space):
        for e, operations in enumerate(cell.edges):
            for k, operation in enumerate(narrow(operations, nn.ModuleList)):
                operation.register_forward_hook(note((i, e, k)))
    take(run, step)
    (architecture,) = architectures
    picked = [(i, e, k) for i, picks in enumerate(architecture.picks) for e, k in picks]
    assert len(picked) == 14 * len(list(search_cells(space)))
    assert any(k == 0 for *_, k in picked), "`none` is among the picks"
    assert sorted(ran) == sorted(place for place in picked if place[2] != 0)


def snapshot(space: ImageSpace) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in space.weights.named_parameters()}


def gradients(space: ImageSpace) -> dict[str, Tensor]:
    """The value of every gradient; none at all counts as zero, which is what SGD is given."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in space.weights.named_parameters()
    }


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("undrawn", ["decay", "skip"])
@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_an_alpha_step_moves_the_logits_and_no_weight(
    small_digits: Images, reduction: Literal["searched", "fixed"], undrawn: Any
) -> None:
    run, space = run_on(small_digits, reduction, weights=WeightUpdate(undrawn=undrawn))
    take(run, "weight")
    weights, grads = snapshot(space), gradients(space)
    logits = {kind: a.detach().clone() for kind, a in run.logits.items()}
    take(run, "alpha")
    assert equal(snapshot(space), weights)
    assert equal(gradients(space), grads)
    assert all(p.requires_grad for p in space.weights.parameters())
    for kind, a in run.logits.items():
        assert (a != logits[kind]).all(), "every logit moves"


@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_a_weight_step_moves_weights_and_no_logit(
    small_digits: Images, reduction: Literal["searched", "fixed"]
) -> None:
    run, space = run_on(small_digits, reduction)
    take(run, "alpha")
    weights = snapshot(space)
    logits = {kind: a.detach().clone() for kind, a in run.logits.items()}
    grads = {kind: a.grad.clone() for kind, a in run.logits.items() if a.grad is not None}
    assert grads.keys() == logits.keys()
    take(run, "weight")
    for kind, a in run.logits.items():
        assert torch.equal(a, logits[kind])
        assert a.grad is not None
        assert torch.equal(a.grad, grads[kind])
    moved = snapshot(space)
    assert not torch.equal(moved["classifier.weight"], weights["classifier.weight"])
    assert not torch.equal(moved["stem.conv.weight"], weights["stem.conv.weight"])


def test_with_clip_scope_all_the_logits_gradient_enters_the_norm_but_moves_no_logit(
    small_digits: Images,
) -> None:
    norms = []
    scopes: tuple[Literal["weights", "all"], ...] = ("weights", "all")
    for scope in scopes:
        run, _ = run_on(small_digits, weights=WeightUpdate(clip=0.01, clip_scope=scope))
        for a in run.logits.values():
            a.grad = torch.ones_like(a)  # a norm of 15 beside the weights'
        before = {kind: a.detach().clone() for kind, a in run.logits.items()}
        take(run, "weight")
        assert all(torch.equal(a, before[kind]) for kind, a in run.logits.items())
        parts = [p.grad.norm() for p in run.parameters if p.grad is not None]
        norms.append(float(torch.stack(parts).norm()))
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert norms[1] < 0.005


def test_two_cells_with_the_same_seed_start_with_the_same_weights_and_another_seed_with_others(
    small_digits: Images,
) -> None:
    first, again, other = (snapshot(run_on(small_digits, seed=seed)[1]) for seed in (1, 1, 2))
    assert equal(first, again)
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])


# Undrawn operations


def edge_parameters(space: ImageSpace) -> dict[tuple[int, int, int], list[nn.Parameter]]:
    """The parameters of every operation of every edge that has any."""
    found = {}
    for i, cell in search_cells(space):
        for e, operations in enumerate(cell.edges):
            for k, operation in enumerate(narrow(operations, nn.ModuleList)):
                if parameters := list(operation.parameters()):
                    found[i, e, k] = parameters
    return found


@pytest.mark.parametrize("undrawn", ["decay", "skip"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_undrawn_operations_stand_still_or_move_on_as_sgd_with_zero_gradients(
    small_digits: Images, undrawn: Any, nesterov: bool
) -> None:
    settings = WeightUpdate(undrawn=undrawn, nesterov=nesterov, weight_decay=0.05, lr=0.1)
    run, space = run_on(small_digits, weights=settings, batch_size=16)
    architectures = watch_architectures(space)
    places = edge_parameters(space)
    once_drawn: set[tuple[int, int, int]] = set()
    buffers: dict[nn.Parameter, Tensor] = {}  # ours, of parameters that the optimiser has moved
    stood = coasted = decayed_before_any_weight_step = 0

    for index in range(3):
        take(run, "alpha", index)
        if undrawn == "decay":
            once_drawn |= drawn_places(architectures[-1])
        before = {place: [p.detach().clone() for p in ps] for place, ps in places.items()}
        take(run, "weight", index)
        drawn = drawn_places(architectures[-1])
        for place, parameters in places.items():
            for p, old in zip(parameters, before[place], strict=True):
                if place in drawn:
                    assert not torch.equal(p, old)
                    buffers[p] = run.weight_optimizer.state[p]["momentum_buffer"].clone()
                elif place in once_drawn and undrawn == "decay":
                    first = p not in buffers
                    gradient = 0.05 * old
                    buffer = gradient if first else 0.9 * buffers[p] + gradient
                    step = gradient + 0.9 * buffer if nesterov else buffer
                    torch.testing.assert_close(p.detach(), old - 0.1 * step, rtol=1e-5, atol=1e-8)
                    assert not torch.equal(p, old)
                    buffers[p] = buffer
                    coasted += 1
                    decayed_before_any_weight_step += first
                else:
                    assert torch.equal(p, old)
                    stood += 1
        once_drawn |= drawn
    assert stood > 0
    if undrawn == "decay":
        assert coasted > 100
        assert decayed_before_any_weight_step > 10, "drawn by an alpha step only"


def drawn_places(architecture: Architecture) -> set[tuple[int, int, int]]:
    return {(i, e, k) for i, picks in enumerate(architecture.picks) for e, k in picks}


# A search cell and the derived cell it stands for


def picks_of(genotype_edges: tuple[tuple[str, int], ...]) -> list[Pick]:
    edges = edge_list(len(genotype_edges) // 2)
    return [
        (edges.index((i // 2, source)), OPERATIONS.index(name))
        for i, (name, source) in enumerate(genotype_edges)
    ]


def stir(module: nn.Module, seed: int) -> None:
    """Give batch norms statistics that a forgotten or swapped one would betray."""
    draw = seeded(seed)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert m.running_mean is not None and m.running_var is not None
            m.running_mean.normal_(0, 0.3, generator=draw)
            m.running_var.uniform_(0.5, 2.0, generator=draw)


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


# The fixed reduction cell


def fixed_cell(wiring: Any, *, affine: bool = True) -> FixedReductionCell:
    torch.manual_seed(0)
    return FixedReductionCell(6, 5, 8, Style(affine), last_reduced=False, wiring=wiring)


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


# Drop path

MIXED = (
    ("skip_connect", 0),
    ("sep_conv_3x3", 1),
    ("max_pool_3x3", 0),
    ("skip_connect", 2),
)


@pytest.mark.parametrize("reduction", [False, True])
def test_drop_path_scales_every_operation_but_identity_skips(reduction: bool) -> None:
    # In a reduction the skip from input 0 has layers, and is dropped; from node 2 it is identity.
    cell = DerivedCell(MIXED, 4, 4, 4, Style(True), reduction=reduction, last_reduced=False)
    cell = cell.double().eval()
    stir(cell, 1)
    assert cell.drop_sites == (3 if reduction else 2)
    s0 = torch.randn(3, 4, 6, 6, generator=seeded(0), dtype=torch.float64)
    s1 = torch.randn(3, 4, 6, 6, generator=seeded(1), dtype=torch.float64)
    keep_DB = torch.tensor([[0.0, 1.25, 1.25], [1.25, 0.0, 1.25], [1.25, 1.25, 0.0]])
    keep_DB = keep_DB[: cell.drop_sites].double()
    rows = iter(keep_DB)
    ones = torch.ones(3, dtype=torch.float64)
    skip = next(rows) if reduction else ones
    sep, pool = next(rows), next(rows)
    x0, x1 = cell.preprocess(s0, s1)

    def scaled(i: int, x: Tensor, factor_B: Tensor) -> Tensor:
        out: Tensor = cell.operations[i](x)
        return out * factor_B[:, None, None, None]

    node2 = scaled(0, x0, skip) + scaled(1, x1, sep)
    node3 = scaled(2, x0, pool) + node2
    torch.testing.assert_close(cell(s0, s1, keep_DB), torch.cat([node2, node3], 1))
    nothing = cell(s0, s1, torch.zeros_like(keep_DB))
    kept = torch.zeros_like(node2) if reduction else x0
    torch.testing.assert_close(nothing, torch.cat([kept, kept], 1))


def test_drop_path_drops_all_four_branches_of_the_fixed_reduction_cell() -> None:
    cell = fixed_cell("figure").eval()
    s0 = torch.randn(2, 6, 8, 8, generator=seeded(0))
    s1 = torch.randn(2, 5, 8, 8, generator=seeded(1))
    plain = cell(s0, s1, None)
    assert cell.drop_sites == 4
    for branch in range(4):
        keep_DB = torch.ones(4, 2)
        keep_DB[branch, 1] = 0.0
        out = cell(s0, s1, keep_DB)
        expected = plain.clone()
        expected[1, 8 * branch : 8 * branch + 8] = 0.0
        torch.testing.assert_close(out, expected)


def tiny_network(genotype: Genotype, **changes: Any) -> Network:
    torch.manual_seed(0)
    return Network(genotype, 10, channels=4, normals_per_block=1, **changes)


@pytest.mark.parametrize("name", ["GDAS_V1", "GDAS_F1"])
def test_every_cell_of_a_network_gets_its_own_rows_of_the_drop_path_factors(name: str) -> None:
    network = tiny_network(PUBLISHED[name]).eval()
    got: list[Tensor] = []
    for cell in network.cells:
        cell.register_forward_pre_hook(lambda _, args: got.append(args[2]))
    keep_DB = torch.rand(network.drop_sites, 2, generator=seeded(0))
    images = torch.randn(2, 3, 16, 16, generator=seeded(1))
    with torch.no_grad():
        dropped, _ = network(images, keep_DB)
        assert torch.equal(torch.cat(got), keep_DB)
        # V1: 5 operations of a normal cell have layers, all 8 of the reduction; F1: 3, and 4.
        assert [len(rows) for rows in got] == (
            [4, 8, 4, 8, 4] if name == "GDAS_V1" else [3, 4, 3, 4, 3]
        )
        plain, _ = network(images)
        one, _ = network(images, torch.ones_like(keep_DB))
    torch.testing.assert_close(one, plain)
    assert not torch.allclose(dropped, plain)


def test_drop_path_factors_are_zero_or_one_over_keep_with_mean_one() -> None:
    network = tiny_network(PUBLISHED["GDAS_V1"])
    keep_DB = draw_drop_path(network, 5000, 0.2, seeded(0))
    assert keep_DB is not None
    assert keep_DB.shape == (network.drop_sites, 5000)
    assert set(keep_DB.unique().tolist()) == {0.0, 1.25}
    # Standard deviation of one factor: sqrt(p / (1 - p)) = 0.5. Six standard errors: false
    # alarms 2e-9 for the whole, and below 1e-7 for the worst of the sites.
    assert float(keep_DB.mean()) == pytest.approx(1.0, abs=6 * 0.5 / keep_DB.numel() ** 0.5)
    assert (keep_DB.mean(1) - 1).abs().max() < 6 * 0.5 / 5000**0.5
    assert len({tuple(row[:50].tolist()) for row in keep_DB}) == network.drop_sites
    assert draw_drop_path(network, 8, 0.0, seeded(0)) is None


def test_no_drop_path_factor_leaves_a_sample_as_it_is() -> None:
    x = torch.randn(2, 3, 4, 4, generator=seeded(0))
    assert drop_path(x, None) is x
    assert torch.equal(drop_path(x, torch.tensor([0.0, 2.0])), torch.stack([0 * x[0], 2 * x[1]]))


# The auxiliary head


@pytest.mark.parametrize(
    ("stem", "size", "suits"),
    [
        ("cifar", 28, False),
        ("cifar", 29, True),
        ("cifar", 40, True),
        ("cifar", 41, False),
        ("imagenet", 192, False),
        ("imagenet", 193, True),
        ("imagenet", 256, True),
        ("imagenet", 257, False),
    ],
)
def test_the_auxiliary_head_is_refused_exactly_where_it_cannot_run(
    stem: Any, size: int, suits: bool
) -> None:
    with torch.device("meta"):
        network = tiny_network(PUBLISHED["GDAS_V1"], stem=stem, auxiliary=True)
        images = torch.empty(2, 3, size, size)
    if suits:
        check_auxiliary_input(size, stem)
        scores, auxiliary = network(images)
        assert auxiliary is not None
        assert scores.shape == auxiliary.shape == (2, 10)
    else:
        with pytest.raises(InputError, match=f"{size} x {size}"):
            check_auxiliary_input(size, stem)
        with pytest.raises(RuntimeError):
            network(images)
    assert network.eval()(images)[1] is None, "the head is for training only"


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


def test_the_2020_macro_ends_with_batch_norm_and_relu_before_pooling() -> None:
    network = tiny_network(PUBLISHED["GDAS_V1"], macro="3n").eval()
    pooled: list[Tensor] = []
    network.pool.register_forward_hook(lambda _m, args, _out: pooled.append(args[0]))
    with torch.no_grad():
        network(torch.randn(2, 3, 16, 16, generator=seeded(0)))
    assert float(pooled[0].min()) == 0.0
    assert isinstance(network.last_activation, nn.Sequential)
    assert isinstance(network.last_activation[0], nn.BatchNorm2d)


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
