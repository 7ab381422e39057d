"""The oldest packages that pyproject.toml allows: `python -m tests.floor` tries them for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gdas.cnn import supernet
from tests.floor import TESTS, commands, floors
from tests.readme import ROOT


def test_what_would_be_installed_is_the_lowest_that_is_allowed() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (torch_is, vision_is) = floors(("torch", "torchvision"))
    for pinned in (torch_is, vision_is):
        name, _, version = pinned.partition("==")
        assert f'"{name}>={version.removesuffix(".*")}"' in text
    installed = commands(Path("/venv"), TESTS)[1]
    assert torch_is in installed and f"{ROOT}[dev]" in installed
    assert all((ROOT / path).is_file() for path in TESTS)


def test_operations_are_compiled_before_pytorch_2_14_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then torch.compile has no argument `recompile_limit`: the limit is one for the process."""
    seen: list[dict[str, Any]] = []

    def older(
        model: Any = None,
        *,
        fullgraph: bool = False,
        dynamic: bool | None = None,
        backend: Any = "inductor",
        mode: str | None = None,
        options: Any = None,
        disable: bool = False,
    ) -> Any:
        seen.append({"dynamic": dynamic})
        return model

    monkeypatch.setattr(torch, "compile", older)
    for name in ("recompile_limit", "accumulated_recompile_limit"):
        monkeypatch.setattr(torch._dynamo.config, name, 8)
    piece = nn.ReLU()
    supernet._compile(piece)
    assert seen == [{"dynamic": False}]
    assert torch._dynamo.config.recompile_limit == supernet.COMPILED_GRAPHS
    assert torch._dynamo.config.accumulated_recompile_limit >= supernet.COMPILED_GRAPHS
    assert torch.equal(piece(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))
