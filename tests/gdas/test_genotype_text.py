"""Genotypes of other projects: every form is read as the same cell, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gdas.bench201.genotype import bench201_cell
from gdas.cnn.genotype import PUBLISHED, Genotype, random_genotype
from gdas.cnn.network import Network, draw_drop_path
from gdas.errors import InputError
from gdas.genotype import AnyGenotype, load, read
from gdas.genotype_text import SMALLEST, darts_text
from gdas.metrics import count_parameters
from gdas.rnn.genotype import PUBLISHED_RECURRENT, RecurrentGenotype, random_recurrent_genotype
from tests.gdas.genotype_forms import (
    AMOEBANET,
    CONCAT,
    FEW_EDGES,
    FORMS,
    NASNET,
    NESTED,
    PAIRS,
    PLAIN,
    TO_NODE,
    V1,
    changed,
    fields,
)
from tests.harm import harmed, read_harmed, tries


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_cell_is_the_same_cell(form: str) -> None:
    found = read(FORMS[form], form)
    assert isinstance(found, Genotype)
    assert (found.normal, found.reduce) == (V1.normal, V1.reduce)
    assert found.normal_concat == found.reduce_concat == (2, 3, 4, 5)


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(recurrent=[('relu', 0), ('tanh', 1), ('identity', 1)], concat=range(1, 4))",
        "Genotype([('relu', 0), ('tanh', 1), ('identity', 1)], range(1, 4))",
        "{'recurrent': [('relu', 0, 0.4), ('tanh', 1, 0.3), ('identity', 1, 0.3)]}",
        '{"recurrent": [["relu", 0], ["tanh", 1], ["identity", 1]], "concat": [1, 2, 3]}',
        '[[["relu", 0], ["tanh", 1], ["identity", 1]], [1, 2, 3]]',
    ],
)
def test_recurrent_cells_are_read(text: str) -> None:
    found = read(text, "x")
    assert isinstance(found, RecurrentGenotype)
    assert found.recurrent == (("relu", 0), ("tanh", 1), ("identity", 1))
    assert found.concat == (1, 2, 3)


def test_cells_of_nas_bench_201_are_read() -> None:
    cell = bench201_cell(12345, "unnamed")
    nodes = [
        [(o, s) for s, o in enumerate(cell.operations[i:j])] for i, j in ((0, 1), (1, 3), (3, 6))
    ]
    for text in (
        str(cell),
        f"{cell}\n",
        f"genotype : Structure(4 nodes with {cell})",
        json.dumps(str(cell)),
        json.dumps({"genotype": str(cell)}),
        str(nodes),
        json.dumps(nodes),
    ):
        assert read(text, "x") == cell, text
    with pytest.raises(InputError, match="unknown operation 'sep_conv_3x3'"):
        read("|sep_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|", "x")


def test_the_smallest_file_that_errors_show_is_read() -> None:
    assert isinstance(read(SMALLEST, "x"), Genotype)
    with pytest.raises(InputError) as caught:
        read("nothing of the kind", "x")
    assert SMALLEST in str(caught.value)


def test_a_file_of_several_needs_a_name(tmp_path: Path) -> None:
    path = tmp_path / "genotypes.py"
    path.write_text(
        "from collections import namedtuple\n"
        "Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')\n"
        f"MINE = {PLAIN}\n\nOTHER = \\\n    {darts_text(PUBLISHED['PDARTS'].to_json())}\n"
    )
    with pytest.raises(InputError, match="2 different genotypes"):
        load(path)
    found = load(f"{path}:MINE")
    assert isinstance(found, Genotype) and found.normal == V1.normal and found.name == "MINE"
    other = load(f"{path}:OTHER")
    assert isinstance(other, Genotype) and other.normal == PUBLISHED["PDARTS"].normal
    with pytest.raises(InputError, match="no genotype NEITHER; those in it are MINE, OTHER"):
        load(f"{path}:NEITHER")


BENCH201 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
IN_LOGS = {
    "its time in brackets": (f"[2019/04/02 03:17] genotype={PLAIN}", PLAIN),
    "a list of one": (f"[{PLAIN}]", PLAIN),
    "something behind it": (f"{BENCH201}   accuracy 93.2", BENCH201),
    "a line an epoch": (f"{BENCH201}\n{BENCH201}\n", BENCH201),
    "tuples": (
        "((('nor_conv_3x3', 0),), (('nor_conv_3x3', 0), ('none', 1)), "
        "(('skip_connect', 0), ('none', 1), ('nor_conv_1x1', 2)))",
        BENCH201,
    ),
}


@pytest.mark.parametrize("case", IN_LOGS)
def test_a_line_of_a_log_is_read_whatever_is_around_it(case: str) -> None:
    text, same = IN_LOGS[case]
    assert read(text, "log.txt").to_json() == read(same, "log.txt").to_json()


def test_several_cells_of_nas_bench_201_are_not_one() -> None:
    other = BENCH201.replace("skip_connect", "avg_pool_3x3")
    with pytest.raises(InputError, match="2 different genotypes"):
        read(f"{BENCH201}\n{other}\n", "log.txt")


def test_a_log_may_hold_other_bytes_and_a_checkpoint_is_no_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"caf\xe9 " + PLAIN.encode())
    assert load(log) == read(PLAIN, "log.txt")
    log.write_bytes(b"PK\0\0" + PLAIN.encode())
    with pytest.raises(InputError, match="is no text"):
        load(log)


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_key_that_is_there_twice_is_refused(quote: str) -> None:
    text = json.dumps(PUBLISHED["GDAS_V1"].to_json()).replace('"reduce"', '"normal"', 1)
    with pytest.raises(InputError, match=r"^cell: normal is there twice; keep one of the two$"):
        read(text.replace('"', quote), "cell")


def test_a_second_name_of_a_genotype_names_it_too(tmp_path: Path) -> None:
    """DARTS's own file ends with `DARTS = DARTS_V2`."""
    file = tmp_path / "genotypes.py"
    other = changed("skip_connect", "sep_conv_5x5")
    file.write_text(f"DARTS_V1 = {PLAIN}\nDARTS_V2 = {other}\n\nDARTS = DARTS_V2  # newest\n")
    assert load(f"{file}:DARTS") == load(f"{file}:DARTS_V2") != load(f"{file}:DARTS_V1")
    with pytest.raises(InputError, match=r"those in it are DARTS_V1, DARTS_V2, DARTS$"):
        load(f"{file}:PDARTS")


def test_nodes_behind_the_last_edge_are_left_out_as_those_before_it() -> None:
    text = (
        "Genotype(normal=[('sep_conv_3x3', 2, 0), ('skip_connect', 4, 1)], "
        "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0)], reduce_concat=range(2, 6))"
    )
    cell = read(text, "log.txt")
    assert isinstance(cell, Genotype)
    assert (cell.normal_concat, cell.reduce_concat) == ((2, 4), (2,))


def test_a_file_of_powershell_is_read(tmp_path: Path) -> None:
    (tmp_path / "cell.txt").write_bytes(PLAIN.encode("utf-16"))
    assert load(tmp_path / "cell.txt") == read(PLAIN, "x")


def parameters(genotype: Genotype) -> int:
    with torch.device("meta"):
        return count_parameters(Network(genotype, 10, channels=36, normals_per_block=6))


def test_edges_with_their_node_are_never_regrouped() -> None:
    found = read(FEW_EDGES, "x")
    assert isinstance(found, Genotype)
    none = ("none", 0)
    assert found.normal == (
        *(("sep_conv_3x3", 0), ("sep_conv_5x5", 1)),
        *(none, none),
        *(("max_pool_3x3", 0), none),
        *(("sep_conv_3x3", 0), none),
    )
    assert found.normal_concat == (2, 4, 5) and found.reduce_concat == (2, 3, 4, 5)
    # Its authors count 2.83 M, rounded down, with the auxiliary head of as many channels.
    assert parameters(found) + 476_426 == 2_837_208


@pytest.mark.parametrize("text", [NASNET, AMOEBANET, FEW_EDGES], ids=["NASNet", "AmoebaNet", "few"])
def test_a_concatenation_of_some_nodes_is_built_and_learns(text: str) -> None:
    genotype = read(text, "x")
    assert isinstance(genotype, Genotype)
    assert read(json.dumps(genotype.to_json()), "x") == genotype
    network = Network(genotype, 3, channels=4, normals_per_block=1)
    keep_DB = draw_drop_path(network, 2, 0.3, torch.Generator().manual_seed(0))
    scores_BK, _ = network(torch.randn(2, 3, 16, 16), keep_DB)
    scores_BK.sum().backward()
    assert all(p.grad is not None for p in network.parameters()), "every weight learns"
    out = network.cells[1]
    assert out.multiplier == len(genotype.reduce_concat)


def test_parameters_of_nasnet_are_those_that_others_count() -> None:
    genotype = read(NASNET, "x")
    assert isinstance(genotype, Genotype)
    assert f"{parameters(genotype) / 1e6:.2f}" == "3.83"  # FairDARTS's list of others' cells


def test_what_is_read_and_written_again_is_the_same() -> None:
    cells: list[AnyGenotype] = [*PUBLISHED.values(), *PUBLISHED_RECURRENT.values()]
    odd = [read(text, "x") for text in (NASNET, AMOEBANET, FEW_EDGES)]
    drawn: list[AnyGenotype] = [
        random_genotype(1, nodes=5),
        random_recurrent_genotype(2),
        bench201_cell(99),
    ]
    for cell in [*cells, *odd, *drawn]:
        again = read(darts_text(cell.to_json()), "x").to_json()
        assert {**again, "name": ""} == {**cell.to_json(), "name": ""}, cell.name


REFUSED = {
    "a call": (changed("('skip_connect', 0)", "__import__('os').getcwd()"), "is not read"),
    "a name": (changed("'skip_connect'", "skip"), "skip"),
    "a long range": (changed(CONCAT, "range(2, 10**9)"), "is not read"),
    "a range beyond reason": (changed(CONCAT, "range(999999)"), "more than 1000"),
    "a range that stands": (changed(CONCAT, "range(2, 6, 0)"), "step of 0"),
    "two of a field": (changed("reduce=", "normal="), "repeated|twice"),
    "torn": (PLAIN[:80], "no closing bracket"),
    "an unknown operation": (changed("skip_connect", "conv_9x9"), "unknown operation 'conv_9x9'"),
    "a later source": (changed("'skip_connect', 0", "'skip_connect', 4"), "source 4"),
    "an odd number of edges": (changed("('skip_connect', 0), ", ""), "7 edges"),
    "the source first": ("Genotype(normal=[(0, 'none'), (1, 'none')])", "must be an operation"),
    "numbers of operations": ("[[0, 2, 1], [1, 0]]", "is no cell"),
    "a concat beyond the nodes": (changed(CONCAT, "range(2, 7)"), "normal_concat"),
    "a concat of a node twice": (changed(CONCAT, "[2, 3, 4, 5, 5]"), "normal_concat"),
    "a concat that is a number": (changed(CONCAT, "4"), "normal_concat"),
    "an empty concat": (changed(CONCAT, "[]"), "normal_concat"),
    "a node that leads nowhere": (changed(CONCAT, "[2, 3, 4]"), "leaves out node 5"),
    "an unknown field": (PLAIN.replace("reduce_concat", "concats"), "unknown field 'concats'"),
    "authors' field in use": (PLAIN[:-1] + ", connects=[1])", "unknown field 'connects'"),
    "no normal cell": ("Genotype(reduce=[('none', 0), ('none', 1)])", "no normal cell"),
    "three edges a node": (
        "{'normal': [[('none', 0), ('none', 1), ('none', 0)]], 'reduce': None}",
        "3 edges",
    ),
    "a node that reads a node without edges": (
        FEW_EDGES.replace("('sep_conv_3x3', 5, 0)", "('sep_conv_3x3', 5, 3)"),
        "reads node 3",
    ),
    "nodes and sources in no order": (
        FEW_EDGES.replace("('sep_conv_3x3', 5, 0)", "('sep_conv_3x3', 0, 5)"),
        "in one order",
    ),
    "a node of a large number": (FEW_EDGES.replace("5, 0)", "999999, 0)"), "numbered"),
    "a source of a large number": (PLAIN.replace("0)", "9" * 20 + ")"), "is not read"),
    "a weight that is a node": (
        "{'normal': [[('none', 0, 2), ('none', 1, 2)]], 'reduce': None}",
        "with a weight",
    ),
    "another format": ('{"format": "gdas-genotype/9", "normal": []}', "gdas-genotype/9"),
    "starred": ("Genotype(*[1], normal=[('none', 0), ('none', 1)])", "no Genotype|not read"),
    "of two stars": ("Genotype(normal=[('none', 0), ('none', 1)], **{})", "not read"),
    "nothing": ("", "is empty"),
    "words": ("no cell here", "not a JSON file"),
    "a list of numbers": ("[1, 2]", "is no cell"),
    "deep": ("Genotype(normal=" + "[" * 500 + "]" * 500 + ")", "too many nested"),
    "long": ("Genotype(normal=[" + "('none', 0)," * 6000 + "])", "characters"),
    "bytes": (changed("'skip_connect'", "b'skip_connect'"), "is not read"),
    "a set": (changed(CONCAT, "{2, 3, 4, 5}"), "is not read"),
    "a truth value as a source": (
        changed("'skip_connect', 0", "'skip_connect', True"),
        "is not read",
    ),
    "a key that is a number": ("{'normal': [('none', 0), ('none', 1)], 2: 3}", "no text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(case: str) -> None:
    text, fault = REFUSED[case]
    with pytest.raises(InputError, match=fault) as caught:
        read(text, "cell.txt")
    message = str(caught.value)
    assert "cell.txt" in message or "genotype 'unnamed'" in message
    assert "\n" not in message and len(message) < 600


@settings(tries, max_examples=40)
@given(st.data())
def test_a_harmed_text_is_refused_or_a_cell(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "harmed" / "cell.txt"
    path.parent.mkdir(exist_ok=True)
    whole = data.draw(st.sampled_from(sorted(FORMS.values())))
    read_harmed(path, data.draw(harmed(whole.encode())), lambda: load(path), InputError)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["none", "x", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=6,
)


@settings(tries, max_examples=60)
@given(st.sampled_from(sorted(fields((0, 0)))), VALUES)
@example("normal_concat", [[], 2])
@example("reduce", [[], []])
def test_any_value_in_a_fields_place_is_a_cell_or_refused(key: str, value: object) -> None:
    of_few = {"normal": TO_NODE[0][:4], "normal_concat": [2, 3], "reduce": None}
    for whole in (fields(PAIRS), fields(NESTED), of_few):
        changed = {**whole, key: value}
        call = ", ".join(f"{name}={inner!r}" for name, inner in changed.items())
        for text in (json.dumps(changed), str(changed), f"Genotype({call})"):
            try:
                read(text, "x")
            except InputError as error:
                assert "\n" not in str(error)
