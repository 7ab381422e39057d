"""From logits to a genotype, on logits made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gdas.bench201.genotype import CELL_OPERATIONS
from gdas.bench201.network import build_cell_operation
from gdas.cell_json import Edge
from gdas.cnn.derive import derive_cell, edge_list
from gdas.cnn.genotype import DERIVED_OPERATIONS, OPERATIONS
from gdas.cnn.operations import Style, build_operation
from gdas.derive import PARAMETER_FREE, parameter_free

NONE, MAX, AVG, SKIP, SEP3, SEP5, DIL3, DIL5 = range(8)


def logits(rows: dict[tuple[int, int], dict[int, float]], nodes: int = 1) -> Tensor:
    """Zeros but for {(node, source): {operation: logit}}."""
    edges = edge_list(nodes)
    out_EK = torch.zeros(len(edges), 8)
    for edge, values in rows.items():
        for k, value in values.items():
            out_EK[edges.index(edge), k] = value
    return out_EK


def softmax(row: dict[int, float]) -> list[float]:
    weights = [math.exp(row.get(k, 0.0)) for k in range(8)]
    return [weight / sum(weights) for weight in weights]


def test_edges_run_node_by_node_then_by_source() -> None:
    assert edge_list(2) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert len(edge_list(4)) == 14


def test_a_node_keeps_its_two_most_important_sources_with_the_best_operation_of_each() -> None:
    # Node 1 chooses among sources 0, 1 and 2; the second best pair of source 2 beats the best of
    # source 0, and is left out because the source is taken.
    a_EK = logits(
        {
            (0, 0): {SEP3: 1.0},
            (0, 1): {DIL5: 2.0},
            (1, 0): {SKIP: 1.0},
            (1, 1): {AVG: 0.5},
            (1, 2): {SEP5: 3.0, MAX: 2.9},
        },
        nodes=2,
    )
    cell = derive_cell(a_EK, nodes=2)
    assert cell.edges == (
        ("dil_conv_5x5", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_5x5", 2),
        ("skip_connect", 0),
    )


def test_one_source_may_be_kept_twice_where_the_setting_allows_it() -> None:
    a_EK = logits({(1, 0): {SKIP: 1.0}, (1, 1): {AVG: 0.5}, (1, 2): {SEP5: 3.0, MAX: 2.9}}, nodes=2)
    cell = derive_cell(a_EK, nodes=2, distinct_sources=False)
    assert cell.edges[2:] == (("sep_conv_5x5", 2), ("max_pool_3x3", 2))
    expected = softmax({SEP5: 3.0, MAX: 2.9})
    assert cell.probabilities[2:] == pytest.approx((expected[SEP5], expected[MAX]))


def test_none_is_left_out_of_choice_and_importance_unless_it_is_eligible() -> None:
    # Edge 0 is all `none`: as an edge it is the most important with `none`, the least without.
    rows = {
        (1, 0): {NONE: 5.0, SKIP: 0.1},
        (1, 1): {SEP3: 1.0},
        (1, 2): {NONE: 1.5, DIL3: 1.2},
    }
    a_EK = logits(rows, nodes=2)
    assert derive_cell(a_EK, nodes=2).edges[2:] == (("sep_conv_3x3", 1), ("dil_conv_3x3", 2))
    eligible = derive_cell(a_EK, nodes=2, exclude_none=False)
    assert eligible.edges[2:] == (("none", 0), ("none", 2))


@pytest.mark.parametrize("exclude_none", [True, False])
@pytest.mark.parametrize("distinct_sources", [True, False])
def test_ties_keep_the_earlier_index(exclude_none: bool, distinct_sources: bool) -> None:
    cell = derive_cell(
        torch.zeros(14, 8), exclude_none=exclude_none, distinct_sources=distinct_sources
    )
    first = OPERATIONS[1 if exclude_none else 0]
    second = first if distinct_sources else OPERATIONS[2 if exclude_none else 1]
    expected: list[Edge] = []
    for _ in range(4):
        expected += [(first, 0), (second, 1 if distinct_sources else 0)]
    assert cell.edges == tuple(expected)


def test_a_tie_between_later_operations_keeps_the_earlier_one() -> None:
    a_EK = logits({(0, 0): {DIL3: 1.0, SEP3: 1.0}, (0, 1): {DIL5: 1.0, AVG: 1.0}})
    assert derive_cell(a_EK, nodes=1).edges == (("sep_conv_3x3", 0), ("avg_pool_3x3", 1))


def test_probabilities_and_margins_are_of_the_softmax_over_all_operations() -> None:
    first, second = {SEP3: 1.0, SKIP: 0.4, NONE: 0.7}, {MAX: 2.0}
    a_EK = logits({(0, 0): first, (0, 1): second})
    p, q = softmax(first), softmax(second)
    cell = derive_cell(a_EK, nodes=1)
    assert cell.edges == (("max_pool_3x3", 1), ("sep_conv_3x3", 0))
    assert cell.probabilities == pytest.approx((q[MAX], p[SEP3]))
    assert cell.margins == pytest.approx((q[MAX] - q[AVG], p[SEP3] - p[SKIP]))
    eligible = derive_cell(a_EK, nodes=1, exclude_none=False)
    assert eligible.margins == pytest.approx((q[MAX] - q[NONE], p[SEP3] - p[NONE]))


@pytest.mark.parametrize("count", [5, 9])
def test_margins_are_to_the_next_best_of_all_operations_however_many_there_are(
    count: int,
) -> None:
    operations = (*OPERATIONS, "ninth")[:count]
    a_EK = torch.zeros(2, count)
    a_EK[:, count - 2], a_EK[:, count - 1] = 2.0, 1.0
    cell = derive_cell(a_EK, nodes=1, operations=operations)
    total = math.exp(2.0) + math.exp(1.0) + count - 2
    assert cell.probabilities == pytest.approx([math.exp(2.0) / total] * 2)
    assert cell.margins == pytest.approx([(math.exp(2.0) - math.exp(1.0)) / total] * 2)


def test_entropy_is_one_for_undecided_and_nearly_zero_for_decided_logits() -> None:
    assert derive_cell(torch.zeros(14, 8)).entropy == pytest.approx(1.0)
    decided_EK = torch.zeros(14, 8)
    decided_EK[:, SEP3] = 1000.0
    assert derive_cell(decided_EK).entropy == pytest.approx(0.0, abs=1e-12)
    two_EK = torch.full((14, 8), -1000.0)
    two_EK[:, [SKIP, SEP5]] = 0.0
    assert derive_cell(two_EK).entropy == pytest.approx(1 / 3)  # log 2 / log 8
    two_EK[:7] = 0.0
    assert derive_cell(two_EK).entropy == pytest.approx((1 + 1 / 3) / 2)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="14, 8"):
        derive_cell(torch.zeros(13, 8))
    with pytest.raises(ValueError, match="14, 7"):
        derive_cell(torch.zeros(14, 7))


def test_parameter_free_operations_are_counted() -> None:
    edges = tuple((name, 0) for name in OPERATIONS)
    assert parameter_free(edges) == 4
    assert parameter_free((("sep_conv_3x3", 0), ("skip_connect", 1), ("skip_connect", 0))) == 2


def test_the_operations_without_parameters_are_those_whose_modules_have_none() -> None:
    built = {name: build_operation(name, 4, 1, Style(False)) for name in DERIVED_OPERATIONS}
    for name in CELL_OPERATIONS:
        if name != "none":
            built[name] = build_cell_operation(name, 4, affine=True)
    for name, module in built.items():
        assert (name in PARAMETER_FREE) == (not list(module.parameters())), name
    assert set(PARAMETER_FREE) <= set(built)
