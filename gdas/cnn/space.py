"""The search space of image cells, as Algorithm 1 sees it: a supernet and two halves of images.

`ImageHalves` is the images' part, for any supernet with the forward pass of gdas.cnn.supernet.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.checkpoint import State
from gdas.cnn.cell import SearchCell
from gdas.cnn.config import SearchConfig
from gdas.cnn.derive import derive_genotype
from gdas.cnn.smallest_map import check_smallest_map
from gdas.cnn.supernet import Supernet
from gdas.compute import autocast, memory_format
from gdas.config import SamplerConfig
from gdas.data.augment import augment, draw_moves, normalise
from gdas.data.images import split_indices
from gdas.data.source import Batch, ImageSource, Wanted
from gdas.derive import describe
from gdas.errors import InputError
from gdas.genotype import OPERATIONS, Genotype
from gdas.metrics import BatchLoss, correct_top_k
from gdas.presets import ImageSearchConfig
from gdas.randomness import generator, initial_weights
from gdas.sampler import Pick
from gdas.search import Architecture, draw_architecture


def build_supernet(config: SearchConfig, classes: int) -> Supernet:
    """The supernet of a configuration with its initial weights, on the CPU."""
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
        )


def search_split(config: ImageSearchConfig, images: int) -> tuple[Tensor, Tensor]:
    """Indices of D_T and D_V among the training images, for this configuration's seed."""
    seed = config.seed if config.split_seed is None else config.split_seed
    return split_indices(images, seed, config.train_images, config.valid_images)


def check_halves(config: ImageSearchConfig, train: int, valid: int) -> None:
    """Raise InputError unless both halves of the training images have a whole batch.

    Args:
        train, valid: images in D_T and in D_V.
    """
    fewest = min(train, valid)
    if config.batch_size > fewest:
        raise InputError(
            f"batch_size={config.batch_size}: larger than a half of the training images (D_T has "
            f"{train}, D_V {valid}); use batch_size={fewest} or less"
        )


class ImageHalves:
    """D_T and D_V of a training split: the images of every step and a supernet's loss on them.

    Both halves get the training augmentation, as in the authors' code (whose search has no cutout).

    Raises:
        InputError: the split is smaller than the settings ask for.
    """

    def __init__(
        self, config: ImageSearchConfig, images: ImageSource, device: torch.device
    ) -> None:
        self.config = config
        self.device = device
        self.images = images.to(device)
        # The same images; where they are read from disk, a stream of their own for each half.
        self.valid_images = self.images.to(device)
        self._orders: dict[str, tuple[int, Tensor]] = {}
        self.train_T, self.valid_V = search_split(config, len(images))
        check_halves(config, len(self.train_T), len(self.valid_V))
        check_smallest_map(config, images.size, len(self.train_T), len(self.valid_V))
        self.layout = memory_format(config.channels_last)

    @property
    def steps(self) -> int:
        """W steps that see every image of D_T once."""
        return -(-len(self.train_T) // self.config.batch_size)

    def place(self, supernet: nn.Module) -> nn.Module:
        """Move a supernet to the images' device, in their memory layout."""
        return supernet.to(memory_format=self.layout).to(self.device)

    def weight_loss(
        self, weights: nn.Module, architecture: Architecture, epoch: int, step: int
    ) -> BatchLoss:
        then = partial(self._for_weights, epoch, step + 1) if step + 1 < self.steps else None
        wanted = self._for_weights(epoch, step)
        return self._loss(weights, architecture, wanted, self.images.take(wanted, then))

    def _for_weights(self, epoch: int, step: int) -> Wanted:
        order = self._order(self.images, self.train_T, "order", epoch)
        return self._wanted(order.split(self.config.batch_size)[step], "weights", epoch, step)

    def alpha_loss(
        self, weights: nn.Module, architecture: Architecture, epoch: int, step: int
    ) -> BatchLoss:
        then = partial(self._for_alpha, epoch, step + 1) if step + 1 < self.steps else None
        wanted = self._for_alpha(epoch, step)
        return self._loss(weights, architecture, wanted, self.valid_images.take(wanted, then))

    def _for_alpha(self, epoch: int, step: int) -> Wanted:
        return self._wanted(self._alpha_rows(epoch, step), "alpha", epoch, step)

    def _order(self, images: ImageSource, rows_N: Tensor, stream: str, position: int) -> Tensor:
        """The order of a pass, made once."""
        if stream not in self._orders or self._orders[stream][0] != position:
            order_N = images.order(rows_N, self.config.seed, stream, position)
            self._orders[stream] = position, order_N
        return self._orders[stream][1]

    def _alpha_rows(self, epoch: int, step: int) -> Tensor:
        """The step's images of D_V: shuffled passes that do not end with the epoch, or draws."""
        size, seed = self.config.batch_size, self.config.seed
        if self.config.alpha.images == "replacement":
            draw = generator(seed, "alpha images", epoch, step)
            return self.valid_V[torch.randint(len(self.valid_V), (size,), generator=draw)]
        passed, index = divmod(epoch * self.steps + step, -(-len(self.valid_V) // size))
        order = self._order(self.valid_images, self.valid_V, "alpha order", passed)
        rows_B: Tensor = order.split(size)[index]
        return rows_B

    def _wanted(self, rows_B: Tensor, stream: str, epoch: int, step: int) -> Wanted:
        moves = draw_moves(
            self.config.data,
            len(rows_B),
            self.images.size,
            generator(self.config.seed, f"augmentation of {stream}", epoch, step),
        )
        return Wanted(rows_B, moves)

    def _loss(
        self, weights: nn.Module, architecture: Architecture, wanted: Wanted, batch: Batch
    ) -> BatchLoss:
        assert wanted.moves is not None
        images_BCHW = augment(batch.pixels_BCHW, self.config.data, wanted.moves)
        images_BCHW = images_BCHW.contiguous(memory_format=self.layout)
        labels_B = batch.labels_B
        by_image = () if architecture.samples is None else (architecture.samples,)
        with autocast(self.device, self.config.precision):
            scores_BK = weights(images_BCHW, architecture.picks, architecture.gates, *by_image)
            loss = F.cross_entropy(scores_BK, labels_B)
        return BatchLoss(loss, len(labels_B), correct_top_k(scores_BK.detach(), labels_B, 1))

    def plain(self, rows_B: Tensor) -> Batch:
        """Images as they are scored: normalised, not augmented; and their labels."""
        pixels_BCHW, labels_B = self.images.take(Wanted(rows_B, None))
        images_BCHW = normalise(pixels_BCHW, self.config.data)
        return Batch(images_BCHW.contiguous(memory_format=self.layout), labels_B)


class ImageSpace:
    """A supernet on a training split; implements gdas.search.SearchSpace.

    Raises:
        InputError: the split is smaller than the settings ask for.
    """

    def __init__(self, config: SearchConfig, images: ImageSource, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.halves = ImageHalves(config, images, device)
        supernet = build_supernet(config, images.classes)
        self.weights: nn.Module = self.halves.place(supernet)
        self.cell_types: Sequence[str] = supernet.kinds
        if config.compile:
            supernet.compile_operations()

    def steps(self, epoch: int) -> int:
        return self.halves.steps

    def lr_scale(self, epoch: int, step: int) -> float:
        return 1.0

    @property
    def supernet(self) -> Supernet:
        assert isinstance(self.weights, Supernet)
        return self.weights

    def initial_logits(self, generator: torch.Generator) -> dict[str, Tensor]:
        return self.supernet.initial_logits(generator)

    def weight_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        return self.halves.weight_loss(self.weights, architecture, epoch, step)

    def alpha_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        return self.halves.alpha_loss(self.weights, architecture, epoch, step)

    def drawn_parameters(self, picks: Sequence[Sequence[Pick]]) -> Iterator[nn.Parameter]:
        for cell, cell_picks in zip(self.supernet.cells, picks, strict=True):
            if isinstance(cell, SearchCell):
                for edge, operation in cell_picks:
                    yield from cell.edges[edge][operation].parameters()  # type: ignore[index]

    def derived(self, logits: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
        genotype, cells = derive_genotype(self.config, logits)
        return describe(genotype, cells, logits)


class Score(NamedTuple):
    """A cell's result on D_V."""

    loss: float
    top1: float  # percent


def score_with_shared_weights(
    config: SearchConfig, images: ImageSource, state: State, device: torch.device
) -> Score:
    """Score the derived cell on D_V with the supernet's weights, batch norm recalibrated on D_T.

    Args:
        state: the search's last segment's state; it is not changed.
    """
    space = ImageSpace(config, images, device)
    space.weights.load_state_dict(state["weights"])
    genotype, _ = derive_genotype(config, state["logits"])
    picks = [_derived_picks(space.supernet, kind, genotype) for kind in space.cell_types]
    return score_picks(space.weights, space.halves, picks)


def compare_drawn_with_uniform(
    config: SearchConfig, images: ImageSource, state: State, device: torch.device
) -> list[tuple[float, float]]:
    """Cells drawn from a search's final logits beside cells drawn uniformly, in pairs.

    Both of a pair come from the same Gumbel noise and are scored by the same shared weights on the
    same images of D_V, so that what differs is the logits alone.

    Args:
        state: the search's last segment's state; it is not changed.

    Returns:
        `compared_cells` pairs: top-1 of the drawn cell and of the uniform one, percent.
    """
    space = ImageSpace(config, images, device)
    space.weights.load_state_dict(state["weights"])
    uniform = {kind: torch.zeros_like(a) for kind, a in state["logits"].items()}
    pairs = []
    for i in range(config.compared_cells):
        drawn_and_uniform = []
        for logits in (state["logits"], uniform):
            noise = generator(config.seed, "compared cells", i)
            one = draw_architecture(logits, space.cell_types, SamplerConfig(), 1.0, noise)
            score = score_picks(space.weights, space.halves, one.picks, config.compared_images)
            drawn_and_uniform.append(score.top1)
        pairs.append((drawn_and_uniform[0], drawn_and_uniform[1]))
    return pairs


def score_picks(
    weights: nn.Module,
    halves: ImageHalves,
    picks: Sequence[Sequence[Pick]],
    images: int | None = None,
) -> Score:
    """Score one architecture on D_V with shared weights, batch norm recalibrated on D_T.

    The search's batch-norm statistics are averages over many drawn nets and fit no single one, so
    those of this net are collected anew from batches of D_T, never from what is scored. No
    augmentation. Read the result as "shared weights, recalibrated", not as the cell's accuracy.

    Args:
        weights: a supernet; its batch-norm statistics are lost, so that architectures may be
            scored one after the other.
        picks: for every cell what it runs.
        images: so many of D_V, the first ones; None: all.
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
        for rows_B in rows_T.split(config.batch_size)[: config.recalibration_batches]:
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
    """A derived cell as picks of a search cell: its two edges a node, the others left out."""
    if kind == "fixed":
        return []
    edges = genotype.normal if kind == "normal" else (genotype.reduce or ())
    first_edge = [sum(range(2, 2 + node)) for node in range(supernet.nodes)]
    return [
        (first_edge[i // 2] + source, OPERATIONS.index(operation))
        for i, (operation, source) in enumerate(edges)
    ]
