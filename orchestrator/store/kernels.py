"""Which kernels a job runs with on this machine, and whether its records say otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gdas.cnn.fused import build
from gdas.cnn.fused.choice import available
from gdas.config import Kernels
from orchestrator.experiment.study import asks_for_fused
from orchestrator.store.results import Record

NAMES = {"fused": "fused kernels", "plain": "plain PyTorch"}


def kernels_here(recipe: Mapping[str, Any], resources: Mapping[str, Any]) -> Kernels | None:
    """Which kernels a job runs with on this machine; None if it has no such setting."""
    asked = asks_for_fused(recipe, resources)
    return None if asked is None else available(asked=asked)


def other_kernels(records: Sequence[Record], kernels: Kernels | None) -> str | None:
    """A warning if a job with these records goes on with other kernels than before; else None.

    The bits then are not those of a run on one machine.

    Args:
        kernels: those that it goes on with.
    """
    before = records[-1].get("kernels", kernels) if records else kernels
    if kernels is None or before == kernels:
        return None
    line = (
        f"segment {len(records)} ran with {NAMES.get(str(before), 'other kernels')}, what follows "
        f"runs with {NAMES[kernels]}: the same numbers but for rounding, other bits"
    )
    return f"{line}; for the same bits: {build.status()}" if kernels == "plain" else line
