"""The cost of searches of NAS-Bench-201."""

from __future__ import annotations

from gdas.bench201.genotype import CELL_OPERATIONS, EDGES
from gdas.bench201.space import Bench201Space, build_bench201_supernet
from orchestrator.cost.images import ImageSearches

SEARCH = ImageSearches(
    build_bench201_supernet, Bench201Space, lambda _: (len(CELL_OPERATIONS), len(EDGES))
).cost()
