"""The search space of image cells, as Algorithm 1 uses it: a supernet and two halves of images.

Shapes: B batch, C channels, H and W height and width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.architecture import Architecture, draw_architecture
from gdas.checkpoint import State, load_weights
from gdas.cnn.cell import SearchCell
from gdas.cnn.config import SearchConfig
from gdas.cnn.derive import derive_genotype
from gdas.cnn.fused.choice import chosen, use
from gdas.cnn.genotype import Genotype
from gdas.cnn.halves import ImageHalves
from gdas.cnn.smallest_map import check_smallest_map
from gdas.cnn.supernet import Supernet
from gdas.compute import autocast
from gdas.config import SamplerConfig
from gdas.data.source import ImageSource
from gdas.derive import describe
from gdas.field_types import require_kind
from gdas.metrics import BatchLoss, correct_top_k
from gdas.randomness import generator, initial_weights
from gdas.sampler import Pick


def build_supernet(config: SearchConfig, classes: int) -> Supernet:
    """Build a supernet with its initial weights, on the CPU."""
    n = config.network
    with initial_weights(config.seed):
        return Supernet(
            classes,
            channels=n.channels,
            normals_per_block=n.normals_per_block,
            nodes=n.nodes,
            fixed_reduction=n.reduction == "fixed",
            stem=n.stem,
            macro=n.macro,
            pooling_norm=n.pooling_norm,
            bias_without_affine=n.bias_without_affine,
            wiring=n.wiring,
            fixed_affine=n.fixed_affine,
            operations=config.operations,
        )


class ImageSpace:
    """A supernet on a training split; implements gdas.search.SearchSpace.

    Raises:
        InputError: the split is smaller than the settings ask for.
    """

    def __init__(
        self, config: SearchConfig, images: ImageSource, device: torch.device | str
    ) -> None:
        require_kind(config, SearchConfig, "config")
        self.config = config
        self.halves = ImageHalves(config, images, device)
        self.device = self.halves.device
        check_smallest_map(config, images.size, *self.halves.sizes)
        supernet = build_supernet(config, images.classes)
        self.weights: nn.Module = self.halves.place(supernet)
        self.cell_types: Sequence[str] = supernet.kinds
        compiled, on = config.compile, self.device.type
        use(supernet, chosen(config.kernels, on, config.precision, compiled=compiled))
        if compiled:
            supernet.compile_operations()

    def steps(self, epoch: int) -> int:
        """How many W steps see every image of D_T once; the same in every epoch."""
        return self.halves.steps

    def lr_scale(self, epoch: int, step: int) -> float:
        """1: batches of images do not differ in length."""
        return 1.0

    @property
    def supernet(self) -> Supernet:
        """The shared weights, as a `Supernet`."""
        assert isinstance(self.weights, Supernet)
        return self.weights

    def initial_logits(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial logits of the searched cell types, on the CPU."""
        return self.supernet.initial_logits(generator)

    def weight_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        """Cross entropy of the step's batch of D_T."""
        return self.halves.weight_loss(self.weights, architecture, epoch, step)

    def alpha_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        """Cross entropy of the step's batch of D_V."""
        return self.halves.alpha_loss(self.weights, architecture, epoch, step)

    def drawn_parameters(self, picks: Sequence[Sequence[Pick]]) -> Iterator[nn.Parameter]:
        """The parameters of the picked operations in the searched cells."""
        for cell, cell_picks in zip(self.supernet.cells, picks, strict=True):
            if isinstance(cell, SearchCell):
                for edge, operation in cell_picks:
                    yield from cell.edges[edge][operation].parameters()  # type: ignore[index]

    def derived(self, logits: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics and details of the genotype that is derived from the logits."""
        genotype, cells = derive_genotype(self.config, logits)
        return describe(genotype, cells, logits)


class Score(NamedTuple):
    """A cell's result on D_V."""

    loss: float
    top1: float  # percent


def score_with_shared_weights(
    config: SearchConfig, images: ImageSource, state: State, device: torch.device | str
) -> Score:
    """Score the derived cell on D_V with the supernet's weights, batch norm recalibrated on D_T.

    Args:
        state: the state of the search's last segment; it is not changed.
    """
    space = ImageSpace(config, images, device)
    load_weights(space.weights, state)
    genotype, _ = derive_genotype(config, state["logits"])
    picks = [_derived_picks(space.supernet, kind, genotype) for kind in space.cell_types]
    return score_picks(space.weights, space.halves, picks, config.recalibration_batches)


def compare_drawn_with_uniform(
    config: SearchConfig, images: ImageSource, state: State, device: torch.device | str
) -> list[tuple[float, float]]:
    """Compare cells drawn from a search's final logits with uniformly drawn cells, in pairs.

    Both cells of a pair come from the same Gumbel noise, and are scored with the same shared
    weights on the same images of D_V. So only the logits differ.

    Args:
        state: the state of the search's last segment; it is not changed.

    Returns:
        `compared_cells` pairs: the top-1 of the drawn cell and of the uniform one, in percent.
    """
    space = ImageSpace(config, images, device)
    load_weights(space.weights, state)
    uniform = {kind: torch.zeros_like(a) for kind, a in state["logits"].items()}
    pairs = []
    for i in range(config.compared_cells):
        drawn_and_uniform = []
        for logits in (state["logits"], uniform):
            noise = generator(config.seed, "compared cells", i)
            one = draw_architecture(logits, space.cell_types, SamplerConfig(), 1.0, noise)
            score = score_picks(
                space.weights,
                space.halves,
                one.picks,
                config.recalibration_batches,
                config.compared_images,
            )
            drawn_and_uniform.append(score.top1)
        pairs.append((drawn_and_uniform[0], drawn_and_uniform[1]))
    return pairs


def score_picks(
    weights: nn.Module,
    halves: ImageHalves,
    picks: Sequence[Sequence[Pick]],
    recalibration_batches: int,
    images: int | None = None,
) -> Score:
    """Score one architecture on D_V with shared weights, batch norm recalibrated on D_T.

    The search's batch norm statistics are averages over many drawn networks and fit no single one.
    So the statistics of this network are collected again from batches of D_T, never from what is
    scored. There is no augmentation. The result is not the cell's accuracy; call it "shared
    weights, recalibrated".

    Args:
        weights: a supernet. Its batch norm statistics are lost, so that architectures can be scored
            one after the other.
        halves: D_T and D_V.
        picks: for every cell, the operations that it runs.
        recalibration_batches: how many batches of D_T the statistics are collected from.
        images: how many images of D_V, from the first, are scored; None: all.
    """
    config, device = halves.config, halves.device
    norms = [m for m in weights.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    # A cell is scored once: compiling its evaluation would cost more than it saves.
    eager = torch.compiler.set_stance("force_eager")
    with torch.no_grad(), eager, autocast(device, config.precision):
        weights.train()
        rows_T = halves.images.order(halves.train_T, config.seed, "recalibration")
        for rows_B in rows_T.split(config.batch_size)[:recalibration_batches]:
            weights(halves.plain(rows_B).pixels_BCHW, picks)
        weights.eval()
        loss, correct = 0.0, 0
        rows_V = halves.valid_V[:images]
        for rows_B in halves.images.reading_order(rows_V).split(config.batch_size):
            images_BCHW, labels_B = halves.plain(rows_B)
            scores_BK = weights(images_BCHW, picks)
            loss += float(F.cross_entropy(scores_BK, labels_B, reduction="sum"))
            correct += int(correct_top_k(scores_BK, labels_B, 1))
    count = len(rows_V)
    return Score(loss / count, 100.0 * correct / count)


def _derived_picks(supernet: Supernet, kind: str, genotype: Genotype) -> list[Pick]:
    """A derived cell as picks of a search cell: two edges per node, and no others."""
    if kind == "fixed":
        return []
    edges = genotype.normal if kind == "normal" else (genotype.reduce or ())
    first_edge = [sum(range(2, 2 + node)) for node in range(supernet.nodes)]
    return [
        (first_edge[i // 2] + source, supernet.operations.index(operation))
        for i, (operation, source) in enumerate(edges)
    ]
