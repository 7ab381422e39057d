"""The final trainings on images, and the short ones that score a cell (paper section 4.2).

The loop is a generator; a segment is an epoch, or a part of one if epochs are long. With several
workers (torch.distributed initialised) every batch is divided among them, every worker yields
equally often, and only worker 0's segments have a state.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.checkpoint import Segment, State, load_weights
from gdas.cnn.config import TrainConfig
from gdas.cnn.fused.choice import chosen, use
from gdas.cnn.genotype import Genotype, check_genotype
from gdas.cnn.network import Network, check_auxiliary_input, draw_drop_path
from gdas.compute import autocast, device_of, memory_format
from gdas.data.augment import augment, draw_moves, normalise
from gdas.data.source import Batch, ImageSource, Wanted, require_images, require_rows
from gdas.distributed import Workers, workers
from gdas.errors import InputError
from gdas.field_types import require_kind, require_type
from gdas.metrics import BatchLoss, EpochSums, correct_top_k, require_finite
from gdas.optimizer import restore, saved, sgd
from gdas.randomness import generator, initial_weights
from gdas.schedule import cosine, exponential, warm_up

EVALUATION_BATCH = 500
TOP5_CLASSES = 6
"""Top-5 is only reported from this many classes on; with fewer it is nearly always right."""


def build_network(config: TrainConfig, genotype: Genotype, classes: int) -> Network:
    """Build a network with its initial weights, on the CPU."""
    with initial_weights(config.seed):
        return Network(
            genotype,
            classes,
            channels=config.channels,
            normals_per_block=config.normals_per_block,
            stem=config.stem,
            auxiliary=config.auxiliary_weight > 0,
            macro=config.macro,
            pooling_norm=config.pooling_norm,
            operations=config.operations,
        )


def check_training(config: TrainConfig, genotype: Genotype | None, *, size: int) -> None:
    """Raise InputError if FRC's channels or the auxiliary head's input size do not fit."""
    if genotype is not None:
        check_genotype(genotype)
    if genotype is not None and genotype.reduce is None and config.channels % 4:
        raise InputError(
            f"channels={config.channels}: the fixed reduction cell (FRC) of {genotype.name} needs "
            f"channels divisible by 4, such as {config.channels + -config.channels % 4}"
        )
    if config.auxiliary_weight > 0:
        check_auxiliary_input(size, config.stem)


FEWEST_IMAGES = 2
"""The fewest images in a worker's share of a batch: batch norm needs more than one value."""


def check_batches(config: TrainConfig, images: int, workers: int) -> None:
    """Raise InputError unless an epoch has a batch for every worker and for every segment.

    Args:
        images: how many images are trained on.
        workers: how many workers share every batch.
    """
    fewest = FEWEST_IMAGES * workers
    share = f"{workers} workers, each of which needs {FEWEST_IMAGES} of a batch"
    if images < fewest:
        raise InputError(
            f"{images} training images are too few for {share}; use {max(1, images // 2)} worker"
            f"{'s' if images >= 4 else ''} or more images"
        )
    if config.batch_size < fewest:
        raise InputError(
            f"batch_size={config.batch_size}: too small for {share}; use batch_size={fewest} or "
            f"more, or {config.batch_size // FEWEST_IMAGES} workers or fewer"
        )
    whole, rest = divmod(images, config.batch_size)
    batches = whole + (rest >= fewest)
    if batches < config.segments_per_epoch:
        raise InputError(
            f"segments_per_epoch={config.segments_per_epoch}: an epoch has only {batches} batches "
            f"({images} images in batches of {config.batch_size}); use {batches} or fewer"
        )


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of a 0-based epoch: linear warm-up, then cosine or exponential."""
    if epoch < config.warmup_epochs:
        return warm_up(epoch, config.warmup_epochs, config.lr)
    later, epochs = epoch - config.warmup_epochs, config.epochs - config.warmup_epochs
    if config.schedule == "cosine":
        return cosine(later, epochs, config.lr, config.lr_min)
    return exponential(later, config.lr, config.lr_decay)


class _Run:
    """Everything that changes during a training and is checkpointed.

    Args:
        network: the network, on the images' device.
        images, rows_T: images, and the indices of those to train on.
        team: the workers that share every batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: Network,
        images: ImageSource,
        rows_T: Tensor,
        team: Workers,
    ) -> None:
        self.config = config
        self.network = network
        self.images = images
        self.rows_T = rows_T
        self.team = team
        self.optimizer = sgd(
            network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )
        self.replica = team.wrap(network)
        if config.compile:
            self.replica = torch.compile(self.replica)  # type: ignore[assignment]
        self.position = 0
        self.history: list[dict[str, float]] = []
        self._batches: tuple[int, list[Tensor]] = (-1, [])

    def state(self) -> State:
        return {
            "weights": self.network.state_dict(),
            "optimizer": saved(self.optimizer),
            "position": self.position,
            "history": self.history,
        }

    def load(self, state: State) -> None:
        load_weights(self.network, state)
        restore(self.optimizer, state["optimizer"])
        self.position, self.history = state["position"], state["history"]

    def batches(self, epoch: int) -> list[Tensor]:
        """The rows of an epoch's global batches, computed once."""
        if self._batches[0] != epoch:
            order_T = self.images.order(self.rows_T, self.config.seed, "order", epoch)
            # A last batch that is too small to divide and to normalise is left out.
            fewest = FEWEST_IMAGES * self.team.size
            batches = [b for b in order_T.split(self.config.batch_size) if len(b) >= fewest]
            self._batches = epoch, batches
        return self._batches[1]

    def wanted(self, epoch: int, step: int) -> Wanted:
        """This worker's rows of a step's global batch, and their augmentation."""
        rows_B = self.batches(epoch)[step]
        share = self.team.share(len(rows_B))
        draw = generator(self.config.seed, "augmentation", epoch, step)
        moves = draw_moves(self.config.data, len(rows_B), self.images.size, draw)
        return Wanted(rows_B[share], moves.share(share))

    def train(self, epoch: int, part: int) -> dict[str, float]:
        """Take the optimiser steps of a segment: an epoch, or a part of one."""
        config, batches = self.config, self.batches(epoch)
        lr = learning_rate(config, epoch)
        self.optimizer.param_groups[0]["lr"] = lr
        drop_path = config.drop_path * epoch / config.epochs
        self.replica.train()
        sums, segments = EpochSums(), config.segments_per_epoch
        steps = range(part * len(batches) // segments, (part + 1) * len(batches) // segments)
        for step in steps:
            then = partial(self.wanted, epoch, step + 1) if step + 1 in steps else None
            wanted, batch = self.wanted(epoch, step), len(batches[step])
            read = self.images.take(wanted, then)
            draw = generator(config.seed, "drop path", epoch, step)
            keep_DB = draw_drop_path(self.network, batch, drop_path, draw)
            sums.add(self.step(wanted, read, keep_DB, batch))
        metrics = {"lr": lr, "drop_path": drop_path}
        return metrics | sums.metrics("train", self.team.add_up(sums.totals()))

    def step(self, wanted: Wanted, read: Batch, keep_DB: Tensor | None, batch: int) -> BatchLoss:
        """Take one optimiser step on a global batch.

        Args:
            wanted, read: this worker's share.
            keep_DB: drop-path factors of the global batch.
            batch: size of the global batch.

        Returns:
            The loss of this worker's share.
        """
        config, team = self.config, self.team
        pixels_BCHW, labels_B = read
        device = pixels_BCHW.device
        if keep_DB is not None:
            keep_DB = keep_DB[:, team.share(batch)].to(device, non_blocking=True)
        assert wanted.moves is not None
        images_BCHW = augment(pixels_BCHW, config.data, wanted.moves)
        images_BCHW = images_BCHW.contiguous(memory_format=memory_format(config.channels_last))
        self.optimizer.zero_grad()
        with autocast(device, config.precision):
            scores_BK, auxiliary_BK = self.replica(images_BCHW, keep_DB)
            loss = F.cross_entropy(scores_BK, labels_B, label_smoothing=config.label_smoothing)
            total = loss
            if auxiliary_BK is not None:
                total = total + config.auxiliary_weight * F.cross_entropy(
                    auxiliary_BK, labels_B, label_smoothing=config.label_smoothing
                )
        # Workers' gradients are averaged. Weighted by its share, each gives the batch's gradient.
        (total * (len(labels_B) * team.size / batch)).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.optimizer.step()
        return BatchLoss(loss, len(labels_B), correct_top_k(scores_BK.detach(), labels_B, 1))


def _check_arguments(
    config: TrainConfig,
    train: ImageSource,
    train_rows: Tensor,
    evaluation: ImageSource,
    rows: Tensor,
    split: str,
) -> None:
    """Raise InputError unless these are settings, and images of the same classes with indices."""
    require_kind(config, TrainConfig, "config")
    require_images(train, "train")
    require_images(evaluation, "evaluation")
    require_rows(train_rows, len(train), "train_rows")
    require_rows(rows, len(evaluation), "evaluation_rows")
    require_type(split, Literal["test", "valid"], "evaluated_on")
    if evaluation.classes != train.classes:
        raise InputError(
            f"evaluation: has {evaluation.classes} classes and train {train.classes}; must be the "
            "same, numbered alike"
        )


def train_image(
    config: TrainConfig,
    genotype: Genotype,
    train: ImageSource,
    train_rows: Tensor,
    evaluation: ImageSource,
    evaluation_rows: Tensor,
    *,
    evaluated_on: Literal["test", "valid"],
    device: torch.device | str,
    checkpoint: State | None = None,
) -> Iterator[Segment]:
    """Train a genotype's network; yields segments, whose states resume exactly.

    Positions count segments, of which an epoch has `segments_per_epoch`. A segment's metrics are
    those of its own steps. Learning rates depend on the epoch only, and the last segment of an
    epoch evaluates.

    Args:
        train, train_rows: images, and the indices of those to train on.
        evaluation, evaluation_rows: images, and the indices of those to evaluate on, without
            augmentation.
        evaluated_on: the name of the evaluation's metrics.
        device: this worker's device.
        checkpoint: the state of the segment to continue after; None: start from the beginning.

    Raises:
        InputError: the network cannot be built for these images, or the checkpoint is of other
            settings.
        FloatingPointError: a loss is not finite; the error names the epoch.
    """
    _check_arguments(config, train, train_rows, evaluation, evaluation_rows, evaluated_on)
    device = device_of(device)
    check_training(config, genotype, size=train.size)
    team = workers()
    check_batches(config, len(train_rows), team.size)
    network = build_network(config, genotype, train.classes)
    network = network.to(memory_format=memory_format(config.channels_last)).to(device)
    compiled, on = config.compile, device.type
    use(network, chosen(config.kernels, on, config.precision, compiled=compiled))
    run = _Run(config, network, train.to(device), train_rows, team)
    if checkpoint is not None:
        run.load(checkpoint)
    evaluation = evaluation.to(device)
    segments = config.segments_per_epoch
    for position in range(run.position, config.epochs * segments):
        epoch, part = divmod(position, segments)
        metrics = run.train(epoch, part)
        where = f"training of {genotype.name}, epoch {epoch + 1}"
        rates = f"learning rate lr={metrics['lr']:g}"
        require_finite(metrics, where, rates)
        team.synchronise(network)
        last = epoch + 1 == config.epochs
        if part + 1 == segments and (last or (epoch + 1) % config.evaluate_every == 0):
            metrics |= evaluate(config, network, evaluation, evaluation_rows, evaluated_on, device)
            require_finite(metrics, where, rates)  # weights may overflow in the last step
        run.position = position + 1
        run.history = [*run.history, metrics]
        state = run.state() if team.rank == 0 else None
        yield Segment(run.position, config.epochs * segments, metrics, {}, state)


def evaluate(
    config: TrainConfig,
    network: Network,
    images: ImageSource,
    rows_N: Tensor,
    split: str,
    device: torch.device,
) -> dict[str, float]:
    """Loss, top-1 and top-5 on images without augmentation, divided among the workers."""
    team = workers()
    network.eval()
    sums = EpochSums(top5=images.classes >= TOP5_CLASSES)
    batches = images.reading_order(rows_N)[team.share(len(rows_N))].split(EVALUATION_BATCH)
    with torch.no_grad(), autocast(device, config.precision):
        for i, rows_B in enumerate(batches):
            if len(rows_B) == 0:  # more workers than images
                continue
            then = partial(Wanted, batches[i + 1], None) if i + 1 < len(batches) else None
            pixels_BCHW, labels_B = images.take(Wanted(rows_B, None), then)
            images_BCHW = normalise(pixels_BCHW, config.data)
            scores_BK, _ = network(
                images_BCHW.contiguous(memory_format=memory_format(config.channels_last))
            )
            loss = F.cross_entropy(scores_BK, labels_B)
            top1 = correct_top_k(scores_BK, labels_B, 1)
            top5 = correct_top_k(scores_BK, labels_B, 5) if sums.top5 else None
            sums.add(BatchLoss(loss, len(rows_B), top1, correct5=top5))
    return sums.metrics(split, team.add_up(sums.totals()))
