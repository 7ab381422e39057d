"""Who may import whom: the algorithm knows nothing of the cluster, pure modules nothing of Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PURE = (
    *("experiment", "estimate", "study", "selection", "store", "scheduler"),
    *("process", "paper", "report", "console", "plan", "checks", "evidence", "search_health"),
    *("mending", "drill"),
    *("recorded", "status", "compare", "cell", "jobs", "doctor", "memory", "workload"),
    *("run_words", "scale"),
    *("final_model", "settings_page"),
)
GDAS_MAY_IMPORT = {
    "torch",
    "torchvision",
    "PIL",
    "numpy",
    "pyarrow",
    "matplotlib",
    "sklearn",
    "triton",
    "gdas",
}


def imports(path: Path) -> Iterator[str]:
    """Every imported module's full name, at the top of a file and inside its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_matplotlib_is_for_drawing_only() -> None:
    users = {p.name for p in (ROOT / "gdas").rglob("*.py") if "matplotlib" in third_party(p)}
    assert users == {"draw.py"}


def test_mlflow_is_imported_where_runs_and_models_are_logged_alone() -> None:
    users = {p.name for p in (ROOT / "orchestrator").rglob("*.py") if "mlflow" in third_party(p)}
    assert users == {"tracking.py", "models.py", "served_model.py"}


def test_ray_is_imported_by_the_runner_alone() -> None:
    users = {p.name for p in (ROOT / "orchestrator").rglob("*.py") if "ray" in third_party(p)}
    assert users == {"runner.py"}


def reachable(module: str, seen: set[str]) -> set[str]:
    """Modules of the orchestrator that importing `module` brings along."""
    if module in seen:
        return seen
    seen.add(module)
    for path in files_of(module):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "orchestrator" and len(parts) > 1 and files_of(parts[1]):
                reachable(parts[1], seen)
    return seen


def files_of(module: str) -> list[Path]:
    """The files of one of the orchestrator's modules or packages."""
    one = ROOT / "orchestrator" / f"{module}.py"
    return [one] if one.exists() else sorted((ROOT / "orchestrator" / module).glob("*.py"))


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_bring_along_neither_ray_nor_mlflow(module: str) -> None:
    assert not reachable(module, set()) & {"runner", "tracking", "reproduce_paper"}


def test_the_store_works_without_pytorch() -> None:
    brought = {
        name
        for module in reachable("store", set())
        for path in files_of(module)
        for name in third_party(path)
    }
    assert "torch" not in brought
