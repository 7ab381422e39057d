"""Genotype files: what is written is read back, what is malformed is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gdas.cnn.genotype import PUBLISHED, Genotype, from_json, random_genotype
from gdas.errors import InputError
from gdas.files import write_json
from gdas.genotype import MAX_BYTES, load


@pytest.mark.parametrize(
    "genotype",
    [*PUBLISHED.values(), random_genotype(3, nodes=5), random_genotype(3, fixed_reduction=True)],
    ids=lambda g: g.name,
)
def test_a_genotype_survives_its_json_file(genotype: Genotype, tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    write_json(path, genotype.to_json())
    assert load(path) == genotype


def changed(**changes: Any) -> dict[str, Any]:
    return PUBLISHED["GDAS_V1"].to_json() | changes


def edges_with(index: int, edge: object) -> list[object]:
    edges: list[object] = list(PUBLISHED["GDAS_V1"].to_json()["normal"])
    edges[index] = edge
    return edges


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in changed().items() if k != key}


MALFORMED: dict[str, tuple[object, str]] = {
    "unknown operation": (changed(normal=edges_with(0, ["conv_9x9", 0])), "conv_9x9"),
    "unknown operation of the reduction": (changed(reduce=[["x", 0], ["x", 1]]), "'x'"),
    "source that comes later": (changed(normal=edges_with(1, ["skip_connect", 2])), "source 2"),
    "source past the last node": (changed(normal=edges_with(7, ["skip_connect", 5])), "source 5"),
    "negative source": (changed(normal=edges_with(0, ["skip_connect", -1])), "source -1"),
    "source that is a truth value": (changed(normal=edges_with(0, ["none", True])), "True"),
    "source that is a fraction": (changed(normal=edges_with(0, ["none", 0.0])), "0.0"),
    "source that is text": (changed(normal=edges_with(0, ["none", "0"])), "'0'"),
    "operation that is a number": (changed(normal=edges_with(0, [3, 0])), r"\[3, 0\]"),
    "edge of three": (changed(normal=edges_with(0, ["none", 0, 0])), "edge 0"),
    "odd number of edges": (changed(normal=edges_with(0, ["none", 0])[:7]), "7 edges"),
    "no edges": (changed(normal=[]), "0 edges"),
    "edges that are no list": (changed(normal={"a": 1}), "list"),
    "no normal cell": (without("normal"), "normal"),
    "no reduction cell": (without("reduce"), "reduce"),
    "reduction by an unknown word": (changed(reduce="searched"), "reduce"),
    "reduction of null": (changed(reduce=None), "reduce"),
    "unknown key": (changed(normals=[]), "normals"),
    "wrong format": (changed(format="gdas-genotype/2"), "gdas-genotype/2"),
    "name that is no text": (changed(name=7), "name"),
    "a list": ([1, 2], "JSON object"),
    "null": (None, "JSON object"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_genotype_is_refused_naming_file_and_fault(case: str, tmp_path: Path) -> None:
    value, fault = MALFORMED[case]
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=fault) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"normal: [[skip_connect, 0]]", b"\xff\xfe\x00", b"[" * 100_000],
    ids=["empty", "torn", "YAML", "not UTF-8", "nested too deep"],
)
def test_a_file_that_is_not_json_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a JSON file|is empty|is no text") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_number_too_long_to_read_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text('{"normal": [["none", ' + "1" * 5000 + "]]}")
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_too_large_is_refused_without_being_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cell.json"
    text = json.dumps(changed())
    path.write_text(text + " " * (MAX_BYTES - len(text)))
    assert load(path) == PUBLISHED["GDAS_V1"], "the limit itself is accepted"
    path.write_text(text + " " * (MAX_BYTES + 1 - len(text)))
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("parsed"))
    with pytest.raises(InputError, match="larger than") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="cannot read") as caught:
            load(path)
        assert str(path) in str(caught.value)


def test_a_genotype_cannot_be_made_malformed_in_code_either() -> None:
    with pytest.raises(InputError, match="'mine', normal cell"):
        Genotype("mine", (("none", 0), ("none", 2)), None)
    with pytest.raises(InputError, match="'mine', reduction cell"):
        Genotype("mine", (("none", 0), ("none", 1)), (("none", 0),))


def test_a_file_may_leave_out_the_name() -> None:
    assert from_json(without("name")).normal == PUBLISHED["GDAS_V1"].normal
