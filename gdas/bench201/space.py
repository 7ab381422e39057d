"""The search space of NAS-Bench-201, as Algorithm 1 uses it: a supernet and two halves of images.

Shapes: E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gdas.architecture import Architecture
from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.derive import derive_bench201_genotype
from gdas.bench201.genotype import CELL_OPERATIONS, EDGES, Bench201Genotype, reaches_output
from gdas.bench201.network import CELL_TYPE, Cell, Network, picks_of
from gdas.checkpoint import State, load_weights
from gdas.cnn.fused.choice import chosen, use
from gdas.cnn.halves import ImageHalves
from gdas.cnn.smallest_map import check_smallest_map
from gdas.cnn.space import Score, score_picks
from gdas.data.source import ImageSource
from gdas.derive import describe
from gdas.field_types import require_kind
from gdas.metrics import BatchLoss
from gdas.randomness import initial_weights
from gdas.sampler import Pick


def build_bench201_supernet(config: Bench201SearchConfig, classes: int) -> Network:
    """Build a supernet with its initial weights, on the CPU."""
    with initial_weights(config.seed):
        return Network(
            classes, channels=config.channels, normals_per_block=config.normals_per_block
        )


class Bench201Space:
    """A supernet on a training split; implements gdas.search.SearchSpace.

    Raises:
        InputError: the split is smaller than the settings ask for.
    """

    def __init__(
        self, config: Bench201SearchConfig, images: ImageSource, device: torch.device | str
    ) -> None:
        require_kind(config, Bench201SearchConfig, "config")
        self.config = config
        self.halves = ImageHalves(config, images, device)
        self.device = self.halves.device
        check_smallest_map(config, images.size, *self.halves.sizes)
        supernet = build_bench201_supernet(config, images.classes)
        self.weights: nn.Module = self.halves.place(supernet)
        self.cell_types: Sequence[str] = supernet.cell_types
        use(supernet, chosen(config.kernels, self.device.type, config.precision))

    @property
    def supernet(self) -> Network:
        """The shared weights, as a `Network`."""
        assert isinstance(self.weights, Network)
        return self.weights

    def steps(self, epoch: int) -> int:
        """How many W steps see every image of D_T once; the same in every epoch."""
        return self.halves.steps

    def lr_scale(self, epoch: int, step: int) -> float:
        """1: batches of images do not differ in length."""
        return 1.0

    def initial_logits(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial logits of the one cell type, on the CPU."""
        return self.supernet.initial_logits(generator)

    def weight_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        """Cross entropy of the step's batch of D_T, with a count of draws without a path."""
        batch = self.halves.weight_loss(self.weights, architecture, epoch, step)
        return self._counted(batch, architecture)

    def alpha_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        """Cross entropy of the step's batch of D_V, with a count of draws without a path."""
        batch = self.halves.alpha_loss(self.weights, architecture, epoch, step)
        return self._counted(batch, architecture)

    def _counted(self, batch: BatchLoss, architecture: Architecture) -> BatchLoss:
        """Add the number of drawn networks, and of those in which a cell's output is zero."""
        one_by_one = all(len(picks) in (0, len(EDGES)) for picks in architecture.picks)
        if not one_by_one and architecture.drawn is None and architecture.samples is None:
            return batch  # all operations count
        drawn_of = architecture.drawn or [[k for _, k in picks] for picks in architecture.picks]
        samples = architecture.samples or [None] * len(self.cell_types)
        by_image = any(operation_BE is not None for operation_BE in samples)
        draws = batch.samples if by_image else 1
        whole = [True] * draws
        for kind, of_cell, operation_BE in zip(self.cell_types, drawn_of, samples, strict=True):
            if kind == CELL_TYPE:
                drawn = [of_cell] if operation_BE is None else operation_BE.tolist()
                for i, operations in enumerate(drawn[:draws]):
                    whole[i] = whole[i] and reaches_output(operations)
        return batch._replace(draws=draws, no_path=whole.count(False))

    def drawn_parameters(self, picks: Sequence[Sequence[Pick]]) -> Iterator[nn.Parameter]:
        """The parameters of the picked operations, `none` excepted."""
        for cell, cell_picks in zip(self.supernet.cells, picks, strict=True):
            if isinstance(cell, Cell):
                for edge, k in cell_picks:
                    if CELL_OPERATIONS[k] != "none":
                        yield from cell.operation(edge, k).parameters()

    def picks(self, genotype: Bench201Genotype) -> list[list[Pick]]:
        """A cell as picks of the whole network."""
        return [picks_of(genotype) if kind == CELL_TYPE else [] for kind in self.cell_types]

    def derived(self, logits: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics and details of the genotype that is derived from the logits."""
        genotype, cell = derive_bench201_genotype(self.config, logits)
        return describe(genotype, {CELL_TYPE: cell}, logits)


def score_with_shared_weights(
    config: Bench201SearchConfig,
    images: ImageSource,
    state: State,
    genotypes: Sequence[Bench201Genotype],
    device: torch.device | str,
) -> list[Score]:
    """Score cells on D_V with the supernet's weights, batch norm recalibrated on D_T for each.

    With uniformly drawn cells, this is a random search with the search's shared weights.

    Args:
        state: the state of a segment; it is not changed.
    """
    space = Bench201Space(config, images, device)
    load_weights(space.weights, state)
    return [
        score_picks(
            space.weights, space.halves, space.picks(genotype), config.recalibration_batches
        )
        for genotype in genotypes
    ]
