"""Drawings: every edge of every published cell once, no label on another, and in order."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import nn

from gdas.cell_json import Edge
from gdas.cnn.cell import FixedReductionCell
from gdas.cnn.genotype import PUBLISHED, Genotype, random_genotype
from gdas.cnn.operations import Style
from gdas.drawing.draw import FIXED_REDUCTION, draw, draw_fixed_reduction
from gdas.drawing.layout import label_box, lay_out_cell, node_box, overlaps, points
from gdas.rnn.genotype import PUBLISHED_RECURRENT

CELLS = {
    f"{genotype.name} {kind}": edges
    for genotype in (*PUBLISHED.values(), *(random_genotype(seed) for seed in range(20)))
    for kind, edges in (("normal", genotype.normal), ("reduce", genotype.reduce))
    if edges is not None
}


def expected(kind: str, edges: tuple[Edge, ...]) -> list[str]:
    """The ids that the edges of a cell have in its drawing."""
    ids = [f"{kind}-{s}-to-{2 + i // 2}-{o}-{i % 2}" for i, (o, s) in enumerate(edges)]
    out = 2 + len(edges) // 2
    return ids + [f"{kind}-{node}-to-{out}-output" for node in range(2, out)]


@pytest.mark.parametrize("genotype", PUBLISHED.values(), ids=lambda genotype: genotype.name)
def test_every_edge_of_a_published_cell_is_in_its_svg_once(
    genotype: Genotype, tmp_path: Path
) -> None:
    path = tmp_path / "cell.svg"
    draw(genotype, path)
    svg = path.read_text()
    ids = re.findall(r'<g id="((?:normal|reduce)-[^"]+)"', svg)
    cells = {"normal": genotype.normal} | ({"reduce": genotype.reduce} if genotype.reduce else {})
    assert Counter(ids) == Counter(name for kind in cells for name in expected(kind, cells[kind]))
    labels = Counter(re.findall(r"<text[^>]*>(\w+_\w+)</text>", svg))
    assert labels == Counter(operation for edges in cells.values() for operation, _ in edges)
    fixed = re.findall(r'<g id="(fixed-[^"]+)"', svg)
    assert bool(fixed) == (genotype.reduce is None)


@pytest.mark.parametrize("name", CELLS)
def test_no_label_lies_on_another_or_on_a_box(name: str) -> None:
    layout = lay_out_cell(CELLS[name])
    boxes = [label_box(curve.operation, curve.label) for curve in layout.curves if curve.operation]
    boxes += [node_box(i, layout.places) for i in range(len(layout.places))]
    assert not [pair for pair in combinations(boxes, 2) if overlaps(*pair)]


@pytest.mark.parametrize("name", CELLS)
def test_inputs_are_left_nodes_in_order_and_the_output_right(name: str) -> None:
    layout = lay_out_cell(CELLS[name])
    across = [x for x, _ in layout.places]
    assert across[0] == across[1] < across[2]
    assert across[1:] == sorted(across[1:]) and len(set(across[1:])) == len(across) - 1
    for curve in layout.curves:
        begin, end = points(curve)[0], points(curve)[-1]
        assert tuple(begin) == layout.places[curve.source]
        left, bottom, right, top = node_box(curve.target, layout.places)
        assert left - 0.05 <= end[0] <= right and bottom - 0.05 <= end[1] <= top + 0.05
        assert begin[0] < end[0], "an edge goes right"


def test_only_concatenated_nodes_lead_to_the_output(tmp_path: Path) -> None:
    cell = PUBLISHED["PDARTS"]
    some = Genotype("some", cell.normal, cell.reduce, normal_concat=(5, 2))
    draw(some, tmp_path / "some.svg")
    text = (tmp_path / "some.svg").read_text()
    for kind, nodes in (("normal", {2, 5}), ("reduce", {2, 3, 4, 5})):
        drawn = {node for node in range(2, 6) if f'id="{kind}-{node}-to-6-output"' in text}
        assert drawn == nodes


@pytest.mark.parametrize("name", [name for name in CELLS if name.split()[0] in PUBLISHED])
def test_edges_of_a_published_cell_do_not_run_along_one_another(name: str) -> None:
    layout = lay_out_cell(CELLS[name])
    curves = [curve for curve in layout.curves if curve.operation]
    for one, other in combinations(curves, 2):
        middle, line = points(one)[24], points(other)
        assert min(((line - middle) ** 2).sum(axis=1)) > 0.1**2, f"{one} and {other}"


def layers(module: nn.Module) -> tuple[str, ...]:
    """A branch's layers, in the words of its drawing."""

    def word(layer: nn.Module) -> str:
        match layer:
            case nn.Conv2d():
                high, wide = layer.kernel_size
                stride = f" /({layer.stride[0]},{layer.stride[1]})".replace(" /(1,1)", "")
                groups = f", {layer.groups} groups" if layer.groups > 1 else ""
                return f"conv {high}x{wide}{stride}{groups}"
            case nn.MaxPool2d():
                return f"max pool {layer.kernel_size}x{layer.kernel_size} /{layer.stride}"
            case nn.BatchNorm2d():
                return "BN"
            case _:
                return type(layer).__name__

    return tuple(word(layer) for layer in module.modules() if layer is not module)


def test_the_fixed_reduction_cell_is_drawn_as_it_is_built(tmp_path: Path) -> None:
    with torch.device("meta"):
        cell = FixedReductionCell(8, 8, 8, Style(affine=True), last_reduced=False)
    built = {
        "X0": (0, layers(cell.convolutions[0])),
        "X1": (1, layers(cell.convolutions[1])),
        "X2": (0, layers(cell.poolings[0])),
        "X3": (1, layers(cell.poolings[1])),
    }
    assert {name: (source, words) for name, source, words in FIXED_REDUCTION} == built
    draw_fixed_reduction(tmp_path / "fixed.svg")
    svg = (tmp_path / "fixed.svg").read_text()
    for name, source, words in FIXED_REDUCTION:
        for part in (f"{source}-to-{name}", *(f"{name}-{i}" for i in range(1, len(words)))):
            assert svg.count(f'id="fixed-{part}"') == 1
        assert svg.count(f'id="fixed-{name}-to-output"') == 1
    drawn = Counter(word for _, _, words in FIXED_REDUCTION for word in words)
    assert Counter(re.findall(r"<text[^>]*>((?:ReLU|BN|conv|max)[^<]*)</text>", svg)) == drawn


@pytest.mark.parametrize("genotype", PUBLISHED_RECURRENT.values(), ids=lambda g: g.name)
def test_every_edge_of_a_published_recurrent_cell_is_in_its_svg_once(
    genotype: object, tmp_path: Path
) -> None:
    draw(genotype, tmp_path / "cell.svg")  # type: ignore[arg-type]
    svg = (tmp_path / "cell.svg").read_text()
    edges = genotype.recurrent  # type: ignore[attr-defined]
    wanted = [f"recurrent-{source}-to-{i + 1}-{name}" for i, (name, source) in enumerate(edges)]
    assert Counter(re.findall(r'<g id="(recurrent-[^"]+)"', svg)) == Counter(wanted)


def test_the_same_cell_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(PUBLISHED["GDAS_V1"], tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
