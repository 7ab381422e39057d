"""Operations from outside the package: searched, derived, trained, drawn; refused in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from gdas.checkpoint import digest
from gdas.cnn.cell import SearchCell
from gdas.cnn.check_operation import check_operations
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.cnn.derive import derive_genotype
from gdas.cnn.fused.walk import search_plan
from gdas.cnn.genotype import OPERATIONS, from_json, random_genotype
from gdas.cnn.network import Network
from gdas.cnn.operations import Outside
from gdas.cnn.space import ImageSpace, score_with_shared_weights
from gdas.cnn.train import build_network
from gdas.data.arrow import Images
from gdas.drawing.draw import draw
from gdas.errors import InputError
from gdas.outside import is_outside, source_checksum
from gdas.search import search
from tests.gdas.tiny import CPU, run_search, search_config
from tests.own_module import importable

CODE = """
import pathlib
import random
import numpy as np
import torch
from torch import nn

GENERATOR = np.random.default_rng(0)

pathlib.Path(__file__).with_suffix(".ran").touch()

def blur(channels, stride, affine):
    return nn.Sequential(nn.AvgPool2d(3, stride, 1), nn.BatchNorm2d(channels, affine=affine))

def same(channels, stride, affine):
    return nn.Identity()

def changing(channels, stride, affine):
    return nn.Sequential(nn.ReLU(inplace=True), nn.AvgPool2d(3, stride, 1))

def noisy(channels, stride, affine):
    return nn.Sequential(nn.Dropout(0.5), nn.AvgPool2d(3, stride, 1))

def text(channels, stride, affine):
    return "a module"

def fails(channels, stride, affine):
    raise RuntimeError("two\\nlines")

def few(channels):
    return nn.Identity()

class Values(nn.Module):
    def forward(self, x):
        return x * x.detach().mean().item()

def values(channels, stride, affine):
    return nn.Sequential(nn.AvgPool2d(3, stride, 1), Values())

class Skip(nn.Sequential):
    def forward(self, x):
        return x + 1

class Late(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.number, self.calls = number, 0
        self.register_buffer("kept", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.kept += 1
        return x * self.number(self)

def late(number):
    return lambda channels, stride, affine: nn.Sequential(nn.AvgPool2d(3, stride, 1), Late(number))

of_numpy = late(lambda its: np.random.rand())
of_numpy_itself = late(lambda its: GENERATOR.random())
of_python = late(lambda its: random.random())
counts = late(lambda its: its.calls)
keeps_count = late(lambda its: its.kept)
divides = late(lambda its: torch.zeros(()) / 0)

def builds_by_numpy(channels, stride, affine):
    np.random.rand()
    return nn.AvgPool2d(3, stride, 1)

def leaves(channels, stride, affine):
    raise SystemExit(3)

def disguised(channels, stride, affine):
    return Skip(nn.ReLU()) if stride == 1 else nn.AvgPool2d(3, stride, 1)
"""
BLURRED = ("none", "skip_connect", "sep_conv_3x3", "own_ops:blur")


@pytest.fixture(autouse=True)
def own_ops(tmp_path: Path) -> Iterator[Path]:
    """A module `own_ops`, and the file that it leaves if it is run."""
    with importable(tmp_path, "own_ops", CODE) as module:
        yield module.with_suffix(".ran")


def test_an_own_operation_is_drawn_derived_scored_and_trained(
    small_digits: Images, tmp_path: Path
) -> None:
    config = search_config(operations=BLURRED, epochs=1)
    space = ImageSpace(config, small_digits, CPU)
    (segment,) = search(config, space)
    assert segment.state is not None and segment.details["logits"]["normal"][0][3] != 0
    assert {kind: a.shape for kind, a in segment.state["logits"].items()} == {
        kind: torch.Size([14, 4]) for kind in ("normal", "reduce")
    }
    state = dict(segment.state)
    state["logits"] = {kind: a.clone() for kind, a in state["logits"].items()}
    for a_EK in state["logits"].values():
        a_EK[:, 3] = 5.0
    genotype, cells = derive_genotype(config, state["logits"])
    assert {name for name, _ in genotype.normal} == {"own_ops:blur"}
    assert min(cells["normal"].margins) > 0.5
    assert score_with_shared_weights(config, small_digits, state, CPU).loss > 0
    trained = TrainConfig(channels=4, normals_per_block=1, auxiliary_weight=0)
    with pytest.raises(InputError, match="name it yourself"):
        build_network(trained, genotype, 10)
    named = dataclasses.replace(trained, operations=("own_ops:blur",))
    scores, _ = build_network(named, genotype, 10)(torch.randn(2, 3, 16, 16))
    scores.sum().backward()
    draw(genotype, tmp_path / "cell.svg")
    drawn = (tmp_path / "cell.svg").read_text()
    assert "blur" in drawn and "own_ops" not in drawn, "without its module"


@pytest.mark.slow
def test_resume_with_an_own_operation_is_exact(small_digits: Images) -> None:
    config = search_config(operations=BLURRED, epochs=2)
    whole = run_search(config, small_digits)
    half = deepcopy(next(whole).state)
    (last,), (again,) = whole, run_search(config, small_digits, checkpoint=half)
    assert digest(again.state) == digest(last.state)


def test_a_part_of_the_eight_without_none_is_a_search_too(small_digits: Images) -> None:
    config = search_config(operations=("dil_conv_3x3", "max_pool_3x3"), epochs=1)
    (segment,) = run_search(config, small_digits)
    genotype = from_json(segment.details["genotype"])
    assert {name for name, _ in genotype.normal} <= set(config.operations)
    drawn = {name for seed in range(9) for name, _ in random_genotype(
        seed, operations=config.operations).normal}  # fmt: skip
    assert drawn == set(config.operations)


def test_named_in_their_usual_order_the_eight_are_the_default_bit_for_bit(
    small_digits: Images,
) -> None:
    usual = [digest(s.state) for s in run_search(search_config(epochs=1), small_digits)]
    named = search_config(epochs=1, operations=tuple(OPERATIONS))
    assert [digest(s.state) for s in run_search(named, small_digits)] == usual


def test_fused_kernels_never_take_what_is_inside_an_own_operation_for_layers_of_ours(
    small_digits: Images,
) -> None:
    """A subclass of Sequential that does something else than its layers."""
    names = ("none", "skip_connect", "sep_conv_3x3", "own_ops:disguised")
    scores = []
    for kernels in ("fused", "plain"):
        config = search_config(operations=names, kernels=kernels)
        space = ImageSpace(config, small_digits, CPU)
        cell = space.supernet.cells[0]
        assert isinstance(cell, SearchCell) and isinstance(cell.edges[0][3], Outside)  # type: ignore[index]
        picks = [[(e, 3 if e % 2 else 2) for e in range(14)]] * len(space.cell_types)
        assert search_plan(cell, picks[0], None) is None
        assert search_plan(cell, [(e, 2) for e in range(14)], None) is not None, "the others fused"
        images = torch.linspace(-1, 1, 4 * 3 * 16 * 16).view(4, 3, 16, 16)
        scores.append(space.supernet(images, picks))
    torch.testing.assert_close(*scores)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_ops:blurr", "no such function in it; did you mean blur?"),
        ("no_such_module:f", "cannot be imported (ModuleNotFoundError"),
        ("own_ops:few", "must take (channels, stride, affine)"),
        ("own_ops:same", "turns (2, 4, 16, 16) into (2, 4, 16, 16); must be (2, 4, 8, 8)"),
        ("own_ops:changing", "changes its input"),
        ("own_ops:noisy", "draws random numbers"),
        ("own_ops:text", "returns str; it must return a torch.nn.Module"),
        ("own_ops:fails", "fails, RuntimeError: two lines"),
        ("own_ops:of_numpy", "puts out other numbers when it runs again"),
        ("own_ops:of_numpy_itself", "puts out other numbers when it runs again"),
        ("own_ops:of_python", "puts out other numbers when it runs again"),
        ("own_ops:counts", "puts out other numbers when it runs again"),
        ("own_ops:divides", "2048 of the 2048 numbers that it puts out are not finite"),
        ("own_ops:builds_by_numpy", "draws from random or numpy.random"),
        ("own_ops:leaves", "fails, SystemExit: 3"),
        ("own_ops:values", "does not run on PyTorch's meta device"),
    ],
)
def test_what_a_network_would_misread_is_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        check_operations([*OPERATIONS, name], 4, 16, "cifar")
    assert str(refused.value).startswith(f"operations={name}: ")
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_good_operation_passes_and_the_check_leaves_no_trace() -> None:
    before, of_numpy = torch.get_rng_state(), [*np.random.get_state()][1:3]
    check_operations([*BLURRED, "own_ops:keeps_count"], 4, 15, "cifar")
    with pytest.raises(InputError):
        check_operations(["own_ops:of_numpy"], 4, 15, "cifar")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(np.array_equal, of_numpy, [*np.random.get_state()][1:3]))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\nif x\n", "{file}, line 2 is no Python (SyntaxError: expected ':'); mend it"),
        ("\nimport no_such_thing\n", "{file}, line 2 imports no_such_thing, which is not there"),
        ("import sys\n\nsys.exit(3)\n", "{file}, line 3 ends the program (SystemExit: 3)"),
        ("def f():\n    1 / 0\n\nf()\n", "{file}, line 2 fails when it is imported (ZeroDiv"),
    ],
)
def test_a_broken_module_is_named_with_the_line_to_mend(
    tmp_path: Path, code: str, said: str
) -> None:
    with importable(tmp_path, "own_broken", code) as file, pytest.raises(InputError) as refused:
        check_operations(["own_broken:f"], 4, 16, "cifar")
    assert f"operations=own_broken:f: {said.format(file=file)}" in str(refused.value)
    assert "PYTHONPATH" not in str(refused.value)


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        (("sep_conv_3",), "unknown; did you mean sep_conv_3x3?"),
        (("skip_connect", "skip_connect", "max_pool_3x3"), "skip_connect is named twice"),
        (("none", "skip_connect"), "two or more besides none"),
        (("own_ops:", "skip_connect"), "unknown; known are"),
    ],
)
def test_names_are_refused_without_an_import(operations: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match="operations=") as refused:
        SearchConfig(operations=operations)
    assert said in str(refused.value)


def test_a_name_in_a_file_runs_nothing(own_ops: Path) -> None:
    """A genotype, settings and a checksum are read without the module that they name."""
    edges = [["own_ops:blur", 0], ["skip_connect", 1]]
    value = {"format": "gdas-genotype/1", "name": "theirs", "normal": edges, "reduce": edges}
    genotype = from_json(value)
    assert genotype.to_json() == value
    SearchConfig(operations=BLURRED)
    with pytest.raises(InputError, match="whose module would be run"):
        Network(genotype, 10, channels=4, normals_per_block=1)
    checksum = source_checksum("own_ops:blur")
    assert checksum == hashlib.sha256(own_ops.with_suffix(".py").read_bytes()).hexdigest()
    assert not own_ops.exists(), "its code ran"
    Network(genotype, 10, channels=4, normals_per_block=1, operations=["own_ops:blur"])
    assert own_ops.exists()


def test_the_checksum_of_a_module_in_a_package_runs_nothing_either(tmp_path: Path) -> None:
    package = tmp_path / "own_package" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("raise SystemExit('ran')")
    (package / "ops.py").write_text("x = 1")
    with patch.dict(sys.modules):
        found = source_checksum("own_package.inner.ops:f")
    assert found == hashlib.sha256(b"x = 1").hexdigest()
    with pytest.raises(InputError, match=r"there is no file nothing\.py"):
        source_checksum("own_package.inner.nothing:f")


@pytest.mark.parametrize(
    ("name", "outside"),
    [("a:b", True), ("a.b_c:D", True), ("a", False), ("a:b:c", False), (".a:b", False), ("a:1", 0)],
)
def test_the_form_of_a_name(name: str, outside: bool) -> None:
    assert is_outside(name) == outside
