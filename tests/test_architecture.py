"""Who may import whom: an import goes down the list of folders only, and libraries have owners."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from orchestrator.experiment.kinds import KINDS, Kind, load
from orchestrator.experiment.spaces import SPACES, Space

ROOT = Path(__file__).resolve().parent.parent
GDAS_MAY_IMPORT = {
    "torch",
    "torchvision",
    "PIL",
    "numpy",
    "scipy",
    "pyarrow",
    "matplotlib",
    "sklearn",
    "triton",
    "onnxruntime",
    "onnxscript",
    "safetensors",
    "gdas",
}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's tree."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> Iterator[str]:
    """Every imported module's full name, at the top of a file and inside its functions."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def third_party(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sorted((ROOT / "gdas").rglob("*.py")), ids=lambda p: p.name)
def test_the_algorithm_stands_alone(path: Path) -> None:
    assert third_party(path) <= GDAS_MAY_IMPORT


def test_triton_is_imported_by_the_graphs_kernels_alone() -> None:
    users = {p.parent.name for p in (ROOT / "gdas").rglob("*.py") if "triton" in third_party(p)}
    assert users == {"graph"}
    code = "import sys; sys.modules['triton'] = None; import gdas.cnn.graph.search, gdas.search"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


FAMILIES = ("cnn", "rnn", "bench201")
SHARED = (
    *("search", "sampler", "schedule", "config", "settings", "cell_json", "checkpoint", "metrics"),
    *("randomness", "compute", "distributed", "files", "errors"),
)
"""Modules of the root that know no search space."""


def test_every_search_space_is_a_folder_with_the_same_file_names() -> None:
    for family in FAMILIES:
        files = {path.stem for path in (ROOT / "gdas" / family).glob("*.py")}
        assert {"config", "genotype", "derive", "space"} <= files, family
        assert family == "bench201" or "train" in files, family


@pytest.mark.parametrize("module", SHARED)
def test_what_all_search_spaces_share_imports_none_of_them(module: str) -> None:
    spaces = tuple(f"gdas.{name}" for name in (*FAMILIES, "presets", "genotype"))
    found = imports(ROOT / "gdas" / f"{module}.py")
    assert [name for name in found if name.startswith(spaces)] == []


def test_matplotlib_is_for_drawing_only() -> None:
    users = {p.name for p in (ROOT / "gdas").rglob("*.py") if "matplotlib" in third_party(p)}
    assert users == {"draw.py"}


def test_what_is_not_installed_with_the_package_is_for_exports_only() -> None:
    extra = {"onnxruntime", "onnxscript", "safetensors"}
    users = {p.name for p in (ROOT / "gdas").rglob("*.py") if extra & third_party(p)}
    users |= {p.name for p in (ROOT / "orchestrator").rglob("*.py") if extra & third_party(p)}
    assert users == {"export.py"}


def test_triton_is_for_the_static_graph_only() -> None:
    users = {p.parent.name for p in (ROOT / "gdas").rglob("*.py") if "triton" in third_party(p)}
    assert users == {"graph"}


def test_mlflow_is_imported_where_runs_and_models_are_logged_alone() -> None:
    users = {p.name for p in (ROOT / "orchestrator").rglob("*.py") if "mlflow" in third_party(p)}
    assert users == {"connection.py", "points.py", "registry.py", "served_model.py", "tracker.py"}


def test_ray_is_imported_by_the_runner_alone() -> None:
    users = {p.name for p in (ROOT / "orchestrator").rglob("*.py") if "ray" in third_party(p)}
    assert users == {"ray_study.py", "trial.py", "machines.py"}


def test_writes_to_object_stores_alone_go_through_obstore() -> None:
    users = {p.name for p in (ROOT / "orchestrator").rglob("*.py") if "obstore" in third_party(p)}
    assert users == {"bucket.py", "conditional.py"}


FLOORS = (
    ("commands",),
    ("driver",),
    ("tracking",),
    ("cost",),
    ("run",),
    ("terminal", "report"),
    ("work",),
    ("store",),
    ("experiment",),
    ("paper",),
)
"""The folders of the orchestrator from top to bottom: an import goes down, or stays in its folder.
The commands are the files at the top."""
LEVEL = {folder: level for level, folders in enumerate(FLOORS) for folder in folders}
MODULES = sorted((ROOT / "orchestrator").rglob("*.py"))


def folder_of(module: str) -> str:
    """The folder that a module of the orchestrator, by its dotted name, belongs to."""
    name = module.split(".")[1]
    return name if name in LEVEL else "commands"


def test_every_folder_of_the_orchestrator_is_on_the_list() -> None:
    folders = {path.parent.name for path in (ROOT / "orchestrator").glob("*/__init__.py")}
    assert folders == set(LEVEL) - {"commands"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_the_list_of_folders(path: Path) -> None:
    mine = folder_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in imports(path):
        if name.startswith("orchestrator."):
            other = folder_of(name)
            assert other == mine or LEVEL[other] > LEVEL[mine], f"{mine} imports {name}"


def brought_along(*modules: str) -> dict[str, set[str]]:
    """The libraries that are there after each import of these modules, in one new process."""
    after = "print(*{{name.partition('.')[0] for name in sys.modules}})"
    code = ["import sys", *(f"import {module}; {after.format()}" for module in modules)]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = map(str.split, done.stdout.splitlines())
    return {module: set(line) for module, line in zip(modules, lines, strict=True)}


def test_looking_at_a_study_brings_along_neither_ray_nor_mlflow() -> None:
    """Nor does the store, and what asks it, bring PyTorch; these come first."""
    asking = ("experiment.load", "store.recorded", "run.scheduler", "terminal.console")
    looking = ("report.report", "cost.plan")
    found = brought_along(*(f"orchestrator.{name}" for name in (*asking, *looking)))
    assert [name for name, there in found.items() if there & {"ray", "mlflow"}] == []
    assert [name for name in asking if "torch" in found[f"orchestrator.{name}"]] == []
    assert "torch" in found["orchestrator.report.report"], "what is there is seen"


def test_a_command_with_nothing_to_do_imports_nothing_that_draws_or_runs() -> None:
    slow = {"ray", "mlflow", "matplotlib", "pandas", "scipy", "sklearn", "torchvision"}
    command = "orchestrator.driver.reproduce"
    assert not brought_along(command)[command] & slow


SETTINGS = {
    *("SearchConfig", "TextSearchConfig", "Bench201SearchConfig", "TrainConfig"),
    *("TextTrainConfig", "TextData"),
}
"""Classes that say which search space, or which kind of training, settings are of."""
MOST_QUESTIONS = 15


def asks(node: ast.AST) -> bool:
    """Whether a node asks of which kind a job is, or of which space its settings are."""
    if isinstance(node, ast.Compare):
        return any(
            (isinstance(side, ast.Attribute) and side.attr in ("kind", "task"))
            or (isinstance(side, ast.Name) and side.id == "task")
            or (
                isinstance(side, ast.Subscript)
                and isinstance(side.slice, ast.Constant)
                and side.slice.value in ("kind", "task")
            )
            for side in (node.left, *node.comparators)
        )
    if isinstance(node, ast.MatchClass):
        return isinstance(node.cls, ast.Name) and node.cls.id in SETTINGS
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        named = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        return node.func.id == "isinstance" and bool(named & SETTINGS)
    return False


def test_kinds_of_job_and_search_spaces_are_entries_and_not_questions() -> None:
    """An assertion asks nothing: it says what the entry has settled."""
    found = []
    for path in MODULES:
        if path.name in ("kinds.py", "spaces.py"):
            continue
        asserted = {
            id(inner)
            for node in nodes(path)
            if isinstance(node, ast.Assert)
            for inner in ast.walk(node)
        }
        found += [
            f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
            for node in nodes(path)
            if asks(node) and id(node) not in asserted
        ]
    assert len(found) <= MOST_QUESTIONS, "\n".join(found)


def test_what_kinds_and_spaces_name_as_text_is_there() -> None:
    entries: list[Kind | Space] = [*KINDS.values(), *SPACES.values()]
    fields = [getattr(entry, f.name) for entry in entries for f in dataclasses.fields(entry)]
    named = [text for text in fields if isinstance(text, str) and text.startswith("orchestrator.")]
    assert len(named) > 30
    assert all(callable(load(text)) or isinstance(load(text), tuple) for text in named)


LONGEST_FILE, LONGEST_FUNCTION = 400, 60
STILL_LONG = {
    "gdas/cnn/graph/backward.py: pointwise_gradient",
    "gdas/cnn/graph/cell.py: run_backward",
    "gdas/cnn/graph/step.py: __init__",
    "gdas/data/shards.py: convert",
    "gdas/data/shards.py: main",
}
"""To be shortened, not to be added to."""


def too_long(path: Path) -> bool:
    """Whether a file has more lines than are read at once."""
    return path.read_text().count("\n") > LONGEST_FILE


def longer(path: Path) -> Iterator[str]:
    """A file that is too long, and its functions that are."""
    name = str(path.relative_to(ROOT))
    if too_long(path):
        yield name
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno >= LONGEST_FUNCTION:
                yield f"{name}: {node.name}"


def test_files_and_functions_are_of_a_size_that_is_read_at_once() -> None:
    paths = [*MODULES, *(ROOT / "gdas").rglob("*.py")]
    assert {found for path in paths for found in longer(path)} <= STILL_LONG


def test_files_of_tests_are_of_the_same_size() -> None:
    paths = [p for folder in ("tests", "cluster") for p in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 200
    assert [str(path.relative_to(ROOT)) for path in paths if too_long(path)] == []
