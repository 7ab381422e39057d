"""NAS-Bench-201: cells as data, read, written, drawn and refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gdas.bench201.genotype import (
    CELL_OPERATIONS,
    CELLS,
    EDGES,
    Bench201Genotype,
    all_bench201_cells,
    bench201_cell,
    bench201_from_json,
    bench201_from_string,
    random_bench201_genotype,
)
from gdas.drawing.draw import draw_bench201
from gdas.errors import InputError
from gdas.files import write_json
from gdas.genotype import load
from tests.gdas.tiny_bench201 import MIXED

# Cells as data


def test_every_cell_is_read_back_from_what_is_written() -> None:
    written = [str(cell) for cell in all_bench201_cells()]
    assert len(set(written)) == len(written) == CELLS == 15_625
    for number, text in enumerate(written):
        cell = bench201_from_string(text)
        assert cell.number == number
        assert str(cell) == text
        assert cell.operations == bench201_cell(number).operations


def test_the_written_form_names_operation_and_source_node_by_node() -> None:
    cell = bench201_from_string(MIXED, "mine")
    assert cell.name == "mine"
    assert dict(zip(EDGES, cell.operations, strict=True)) == {
        (1, 0): "nor_conv_3x3",
        (2, 0): "skip_connect",
        (2, 1): "avg_pool_3x3",
        (3, 0): "none",
        (3, 1): "nor_conv_1x1",
        (3, 2): "nor_conv_3x3",
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "unknown operation ''"),
        (MIXED.replace("none", "zero"), "'zero'"),
        (MIXED.replace("nor_conv_1x1~1", "nor_conv_1x1~2"), "not of the form"),
        (MIXED.replace("none~0", "none"), "not of the form"),
        (MIXED + "+|none~0|none~1|none~2|none~3|", "not of the form"),
        (MIXED.removesuffix("|"), "not of the form"),
        ("|none~0|none~0|none~1|+|none~0|none~1|none~2|", "not of the form"),
        (f" {MIXED}", "unknown operation"),
        ("|none~0|", "not of the form"),
    ],
)
def test_a_malformed_cell_is_refused_with_its_fault(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        bench201_from_string(text, where="here")
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


def test_a_cell_survives_its_json_file(tmp_path: Path) -> None:
    cell = bench201_from_string(MIXED, "mine")
    write_json(tmp_path / "cell.json", cell.to_json())
    assert load(tmp_path / "cell.json") == cell


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([MIXED], "JSON object"),
        ({"cell": MIXED}, "format"),
        ({"cell": 3}, "of the form"),
        ({"cells": MIXED}, "cells"),
        ({"cell": MIXED, "name": 3}, "name"),
        ({"name": "mine"}, "of the form"),
        ({"cell": MIXED.replace("none", "x")}, "'x'"),
    ],
)
def test_malformed_json_is_refused_naming_the_fault(value: Any, fault: str) -> None:
    if isinstance(value, dict) and fault != "format":
        value = {"format": "gdas-bench201-genotype/1"} | value
    with pytest.raises(InputError, match=fault) as caught:
        bench201_from_json(value, "cell.json")
    assert str(caught.value).startswith("cell.json")


def test_a_cell_cannot_be_made_malformed_in_code_either() -> None:
    with pytest.raises(InputError, match="5 operations"):
        Bench201Genotype("mine", ("none",) * 5)
    with pytest.raises(InputError, match="edge 1 to 3: unknown operation 'zero'"):
        Bench201Genotype("mine", ("none",) * 4 + ("zero", "none"))
    for number in (-1, CELLS):
        with pytest.raises(ValueError, match="0 to 15624"):
            bench201_cell(number)


def test_random_cells_are_uniform() -> None:
    cells = [random_bench201_genotype(seed) for seed in range(3000)]
    assert cells[7] == random_bench201_genotype(7)
    total = 0.0
    for e in range(6):
        counts = Counter(cell.operations[e] for cell in cells)
        total += sum((counts[name] - 600) ** 2 / 600 for name in CELL_OPERATIONS)
    # 24 degrees of freedom: chi-square exceeds 73 with probability 1e-6.
    assert total < 73
    assert len({cell.number for cell in cells}) > 2600  # 2730 expected, sd below 15


def test_none_is_drawn_apart(tmp_path: Path) -> None:
    sizes = []
    for text in (MIXED, MIXED.replace("none", "skip_connect")):
        draw_bench201(bench201_from_string(text), tmp_path / "cell.svg")
        drawn = (tmp_path / "cell.svg").read_text()
        sizes.append(drawn.count("#c8d1da"))
    assert sizes[0] > 0 == sizes[1]
