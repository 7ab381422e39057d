"""gdas works without Ray, MLflow, pydantic and the orchestrator: a card needs PyTorch alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALONE = """
import importlib, pkgutil, sys

BLOCKED = ("ray", "mlflow", "pydantic", "orchestrator")

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
try:
    import pydantic
    raise SystemExit("nothing is blocked")
except ModuleNotFoundError:
    pass

import gdas
modules = [found.name for found in pkgutil.walk_packages(gdas.__path__, "gdas.")]
for name in modules:
    importlib.import_module(name)
assert len(modules) > 40, modules

import torch
from tests.gpu import setup
from tests.gpu.sizes import TRIAL

torch.set_num_threads(1)
config = setup.search_config(TRIAL, 4, "fixed")
for step in setup.search_steps(config, setup.search_images(TRIAL, 4), torch.device("cpu")):
    assert torch.isfinite(step(0).loss)

import tests.gpu.__main__
assert not any(name.partition(".")[0] in BLOCKED for name in sys.modules)
"""


def test_every_module_and_a_search_step_without_ray_mlflow_pydantic_and_orchestrator() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
