"""The oldest packages that pyproject.toml allows: the tests that they could break, run with them.

    python -m tests.ends [--folder DIR]

Each old package is installed into a folder of its own, without its dependencies, and put before
the environment's own; the newest is what the environment has. Needs a package index.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRACKING = (
    *("tests/orchestrator/test_tracking.py", "tests/orchestrator/test_tracking_places.py"),
    *("tests/orchestrator/test_tracking_refusals.py", "tests/orchestrator/test_send_runs.py"),
    *("tests/orchestrator/test_models.py", "tests/cluster/test_mlflow_server.py"),
)
STORES = (
    *("tests/orchestrator/test_storage.py", "tests/orchestrator/test_remote_lease.py"),
    "tests/orchestrator/test_remote_commands.py",
)
ENDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mlflow": (("mlflow", "mlflow-skinny", "mlflow-tracing"), TRACKING),
    "pyarrow": (("pyarrow",), STORES),
}
"""For a dependency, what is released together with it, and the tests."""


def oldest(package: str) -> str:
    """The oldest version of a dependency that pyproject.toml allows."""
    found = re.search(rf'"{package}>=([0-9.]+)', (ROOT / "pyproject.toml").read_text())
    assert found is not None, package
    parts = found[1].split(".")
    return ".".join([*parts, *["0"] * (3 - len(parts))])


def install(package: str, folder: Path) -> bool:
    """Install the oldest version of a dependency into a folder."""
    version, names = oldest(package), ENDS[package][0]
    words = ["--quiet", "--no-deps", "--target", str(folder), *(f"{n}=={version}" for n in names)]
    return subprocess.run([sys.executable, "-m", "pip", "install", *words]).returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests with each old package; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.ends", description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the packages there (default: nowhere)")
    options = parser.parse_args(arguments)
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        for package, (_, tests) in ENDS.items():
            folder = (options.folder or Path(temporary)) / f"{package}-{oldest(package)}"
            if not folder.is_dir() and not install(package, folder):
                failed.append(f"{package} {oldest(package)}: cannot be installed")
                continue
            path = os.pathsep.join([str(folder), str(ROOT)])
            command = [sys.executable, "-m", "pytest", *tests]
            done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path})
            if done.returncode:
                failed.append(f"{package} {oldest(package)}: tests fail")
    print("\n".join(failed or ["the oldest packages do"]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
