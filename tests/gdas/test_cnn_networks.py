"""Whole image networks: drop path, the auxiliary head, and the macro structure of 2020."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gdas.cnn.cell import (
    DerivedCell,
    drop_path,
)
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.network import check_auxiliary_input, draw_drop_path
from gdas.cnn.operations import Style
from gdas.errors import InputError
from tests.gdas.tiny import fixed_cell, seeded, stir, tiny_network

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


def test_the_2020_macro_ends_with_batch_norm_and_relu_before_pooling() -> None:
    network = tiny_network(PUBLISHED["GDAS_V1"], macro="3n").eval()
    pooled: list[Tensor] = []
    network.pool.register_forward_hook(lambda _m, args, _out: pooled.append(args[0]))
    with torch.no_grad():
        network(torch.randn(2, 3, 16, 16, generator=seeded(0)))
    assert float(pooled[0].min()) == 0.0
    assert isinstance(network.last_activation, nn.Sequential)
    assert isinstance(network.last_activation[0], nn.BatchNorm2d)
