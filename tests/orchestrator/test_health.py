"""A search's health: entropy and margins, collapse, and alarms."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random
from typing import Any

import pytest
from matplotlib.image import imread

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.genotype import Bench201Genotype
from gdas.cnn.config import SearchConfig
from gdas.cnn.genotype import OPERATIONS, PUBLISHED
from gdas.config import SamplerConfig
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT, RecurrentGenotype
from orchestrator.report.health import (
    alarms,
    edge_figure,
    edge_histories,
    parameter_free_counts,
    search_health,
)
from orchestrator.store.results import Record
from tests.orchestrator.written import plain_record

# Search health

EDGES = 14


def record(
    position: int, logits_EK: list[list[float]], *, kind: str = "normal", cell: Any = None
) -> Record:
    genotype = (cell or PUBLISHED["GDAS_F1"]).to_json()
    return plain_record(
        position,
        metrics={"normal/parameter_free": float(position)},
        details={"genotype": genotype, "logits": {kind: logits_EK}},
    )


def favouring(operation: str, edges: int, by: float = 3.0) -> list[list[float]]:
    """Logits in which the first `edges` edges favour an operation and the others sep_conv_3x3."""
    chosen = [operation] * edges + ["sep_conv_3x3"] * (EDGES - edges)
    return [[by if name == op else 0.0 for name in OPERATIONS] for op in chosen]


def kinds(records: list[Record]) -> list[str]:
    return [alarm.kind for alarm in alarms(records, SearchConfig())]


def test_entropy_and_margin_of_every_edge_by_hand() -> None:
    # Two operations of 8 share everything: entropy log 2 / log 8 = 1/3. One alone: 0. Uniform: 1.
    logits = [[100.0, 100.0] + [0.0] * 6, [100.0] + [0.0] * 7, [5.0] * 8]
    history = edge_histories([record(1, logits), record(2, logits[::-1])])["normal"]
    assert history.positions == (1, 2)
    assert history.entropy[0] == pytest.approx((1 / 3, 0.0, 1.0), abs=1e-9)
    assert history.entropy[1] == pytest.approx((1.0, 0.0, 1 / 3), abs=1e-9)
    assert history.margin[0] == pytest.approx((0.0, 1.0, 0.0), abs=1e-9)
    assert history.mean_entropy == pytest.approx(4 / 9)
    assert history.mean_margin == pytest.approx(1 / 3)


def test_the_library_and_the_report_agree_on_entropy() -> None:
    import torch

    from gdas.cnn.derive import derive_cell

    logits = torch.randn(EDGES, 8, generator=torch.Generator().manual_seed(0))
    history = edge_histories([record(1, logits.tolist())])["normal"]
    assert history.mean_entropy == pytest.approx(derive_cell(logits).entropy, abs=1e-6)


def test_records_without_logits_are_left_out() -> None:
    assert edge_histories([]) == {}
    assert edge_histories([plain_record(1)]) == {}
    health = search_health([], SearchConfig())
    assert (health.edges, health.parameter_free, health.alarms) == ({}, (), ())


def test_parameter_free_operations_over_the_epochs() -> None:
    records = [record(i, favouring("sep_conv_3x3", 0)) for i in (1, 2)]
    assert parameter_free_counts(records) == [(1, 1), (2, 2)]


def test_the_published_cells_raise_no_alarm_and_all_skips_do() -> None:
    decided = favouring("skip_connect", 10)
    assert kinds([record(1, decided)]) == []
    free = PUBLISHED["GDAS_F1"].normal
    six = tuple(("skip_connect", s) if i < 6 else (op, s) for i, (op, s) in enumerate(free))
    five = tuple(
        ("skip_connect", s) if i < 5 else ("sep_conv_3x3", s) for i, (_, s) in enumerate(free)
    )
    collapsed = dataclasses.replace(PUBLISHED["GDAS_F1"], normal=six)
    assert kinds([record(1, decided, cell=collapsed)]) == ["collapse"]
    healthy = dataclasses.replace(PUBLISHED["GDAS_F1"], normal=five)
    assert kinds([record(1, decided, cell=healthy)]) == []


@pytest.mark.parametrize("operation", ["skip_connect", "max_pool_3x3", "avg_pool_3x3"])
def test_one_operation_on_most_edges_is_a_collapse(operation: str) -> None:
    assert kinds([record(1, favouring(operation, 11))]) == ["collapse"]  # 11 of 14 > 3/4
    assert kinds([record(1, favouring(operation, 10))]) == []
    assert kinds([record(1, favouring("sep_conv_5x5", 14))]) == []
    # The last record decides.
    assert kinds([record(1, favouring(operation, 14)), record(2, favouring(operation, 0))]) == []


def test_a_cell_of_the_benchmark_collapses_to_operations_without_parameters_too() -> None:
    def found(cell: Bench201Genotype, rows: list[list[float]]) -> list[str]:
        last = plain_record(
            1,
            metrics={"cell/parameter_free": 5.0},
            details={"genotype": cell.to_json(), "logits": {"cell": rows}},
        )
        assert parameter_free_counts([last]) == [(1, 5)]
        return [alarm.text for alarm in alarms([last], Bench201SearchConfig())]

    none, conv = [9.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0, 0.0]
    names = ("none",) * 5 + ("nor_conv_3x3",)
    texts = found(Bench201Genotype("five", names), [none] * 5 + [conv])
    assert texts == [
        "collapsed: 5 of 6 operations of the cell have no parameters.",
        "collapsed: none is the most probable operation on 5 of 6 edges of the cell.",
    ]
    assert found(Bench201Genotype("none", ("nor_conv_3x3",) * 6), [conv] * 6) == []


def test_a_recurrent_cell_that_is_nearly_linear_is_a_collapse_and_published_ones_are_not() -> None:
    rows = [[0.0, 4.0, 0.0, 0.0, 0.0]] * 36
    soft = dataclasses.replace(TextSearchConfig(), sampler=SamplerConfig(relaxation="soft"))

    def found(cell: RecurrentGenotype) -> list[str]:
        last = record(1, rows, kind="recurrent", cell=cell)
        return [alarm.text for alarm in alarms([last], soft)]

    assert not any(found(cell) for cell in PUBLISHED_RECURRENT.values())
    edges = tuple(("identity" if i else "tanh", 0) for i in range(8))
    assert found(RecurrentGenotype("linear", edges)) == [
        "collapsed: 7 of 8 functions of the recurrent cell are identity."
    ]
    fewer = tuple(("identity" if i < 5 else "tanh", 0) for i in range(8))
    assert found(RecurrentGenotype("fewer", fewer)) == []


def test_logits_that_have_hardly_moved_alarm() -> None:
    found = alarms([record(1, favouring("sep_conv_5x5", 14, by=0.1))], SearchConfig())
    assert [alarm.kind for alarm in found] == ["unmoved"]
    assert "only random cells tell whether this one is more than chance" in found[0].text


def test_the_first_step_of_a_hard_recurrent_search_alarms() -> None:
    rows = [[0.0] * 5] + [[4.0, 0.0, 0.0, 0.0, 0.0]] * 35
    recurrent = record(1, rows, kind="recurrent", cell=next(iter(PUBLISHED_RECURRENT.values())))
    hard = TextSearchConfig()
    soft = dataclasses.replace(hard, sampler=dataclasses.replace(hard.sampler, relaxation="soft"))
    found = alarms([recurrent], hard)
    assert [alarm.kind for alarm in found] == ["noise"]
    assert "step 1 has one incoming term" in found[0].text and "margin 0.0000" in found[0].text
    assert alarms([recurrent], soft) == []


def test_the_figure_has_a_panel_for_every_seed_and_cell(tmp_path: Path) -> None:
    draw = Random(0)

    def history(edges: int, operations: int) -> list[Record]:
        logits = [
            [[draw.gauss(0, t) for _ in range(operations)] for _ in range(edges)] for t in (0, 1)
        ]
        return [record(i + 1, rows) for i, rows in enumerate(logits)]

    two, four, one = tmp_path / "2.png", tmp_path / "4.png", tmp_path / "1.png"
    assert edge_figure(two, {f"seed {i}": history(14, 8) for i in range(2)})
    assert edge_figure(four, {f"seed {i}": history(14, 8) for i in range(4)})
    assert edge_figure(one, {"seed 0": history(36, 5), "seed 1": []})
    heights = [imread(path).shape[:2] for path in (two, four, one)]
    assert heights[1][1] > heights[0][1] > heights[2][1], "wider with every seed that has records"
    assert heights[2][0] > heights[0][0], "taller with more edges"
    assert not edge_figure(tmp_path / "none.png", {"seed 0": []})
    assert not (tmp_path / "none.png").exists()
