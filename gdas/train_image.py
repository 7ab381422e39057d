"""The final trainings on images, and the short ones that score a cell (paper section 4.2).

A generator, one segment an epoch. With several workers (torch.distributed initialised) every
batch is shared out, every worker yields equally often, and only worker 0's segments carry state.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.checkpoint import Segment, State
from gdas.cnn.network import Network, check_auxiliary_input, draw_drop_path
from gdas.compute import autocast, memory_format
from gdas.config import TrainConfig
from gdas.data.arrow import Images
from gdas.data.augment import augment, draw_moves, normalise
from gdas.distributed import Workers, unwrap, workers
from gdas.errors import InputError
from gdas.genotype import Genotype
from gdas.metrics import BatchLoss, EpochSums, correct_top_k, require_finite
from gdas.randomness import generator, initial_weights
from gdas.search import cosine

EVALUATION_BATCH = 500


def build_network(config: TrainConfig, genotype: Genotype, classes: int) -> Network:
    """The network of a configuration with its initial weights, on the CPU."""
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
        )


def check_training(config: TrainConfig, genotype: Genotype | None, *, size: int) -> None:
    """Raise InputError where a training cannot be built: FRC channels, auxiliary head's input."""
    if genotype is not None and genotype.reduce is None and config.channels % 4:
        raise InputError(
            f"channels={config.channels}: the fixed reduction cell (FRC) of {genotype.name} needs "
            "channels divisible by 4"
        )
    if config.auxiliary_weight > 0:
        check_auxiliary_input(size, config.stem)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The rate of a 0-based epoch: linear warm-up, then cosine or exponential."""
    if epoch < config.warmup_epochs:
        return config.lr * (epoch + 1) / config.warmup_epochs
    later, epochs = epoch - config.warmup_epochs, config.epochs - config.warmup_epochs
    if config.schedule == "cosine":
        return cosine(later, epochs, config.lr, config.lr_min)
    return config.lr * config.lr_decay**later


def train_image(
    config: TrainConfig,
    genotype: Genotype,
    train: Images,
    train_rows: Tensor,
    evaluation: Images,
    evaluation_rows: Tensor,
    *,
    evaluated_on: Literal["test", "valid"],
    device: torch.device,
    checkpoint: State | None = None,
) -> Iterator[Segment]:
    """Train a genotype's network; yields a segment an epoch, whose state resumes exactly.

    Args:
        train, train_rows: images and the indices of those that are trained on.
        evaluation, evaluation_rows: images and the indices of those that are evaluated on,
            without augmentation.
        evaluated_on: the name of the evaluation's metrics.
        device: of this worker.
        checkpoint: the state of a segment, to go on after it.

    Raises:
        InputError: the network cannot be built for these images.
        FloatingPointError: a loss is not finite; names the epoch.
    """
    check_training(config, genotype, size=train.size)
    team = workers()
    if len(train_rows) < 2 * team.size:
        raise InputError(f"{len(train_rows)} training images are too few for {team.size} workers")
    network = build_network(config, genotype, train.classes)
    network = network.to(memory_format=memory_format(config.channels_last)).to(device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    position, history = 0, list[dict[str, float]]()
    if checkpoint is not None:
        network.load_state_dict(checkpoint["weights"])
        # The optimiser keeps the tensors it is given: it gets copies.
        optimizer.load_state_dict(deepcopy(checkpoint["optimizer"]))
        position, history = checkpoint["position"], checkpoint["history"]
    replica = team.wrap(network)
    if config.compile:
        replica = torch.compile(replica)  # type: ignore[assignment]
    train = train.to(device)
    evaluation = evaluation.to(device)
    for epoch in range(position, config.epochs):
        lr = learning_rate(config, epoch)
        optimizer.param_groups[0]["lr"] = lr
        drop_path = config.drop_path * epoch / config.epochs
        replica.train()
        sums = EpochSums()
        draw = generator(config.seed, "order", epoch)
        order_T = train_rows[torch.randperm(len(train_rows), generator=draw)]
        for step, rows_B in enumerate(order_T.split(config.batch_size)):
            if len(rows_B) < 2 * team.size:
                continue  # a last batch too small to share out and to normalise
            sums.add(
                _step(
                    config, network, replica, optimizer, train, rows_B, epoch, step, drop_path, team
                )
            )
        metrics = {"lr": lr, "drop_path": drop_path}
        metrics |= sums.metrics("train", team.add_up(sums.totals()))
        require_finite(metrics, f"training of {genotype.name}, epoch {epoch + 1}")
        team.synchronise(network)
        last = epoch + 1 == config.epochs
        if last or (epoch + 1) % config.evaluate_every == 0:
            metrics |= _evaluate(config, network, evaluation, evaluation_rows, evaluated_on, team)
        history = [*history, metrics]
        state = None
        if team.rank == 0:
            state = {
                "weights": unwrap(network).state_dict(),
                "optimizer": optimizer.state_dict(),
                "position": epoch + 1,
                "history": history,
            }
        yield Segment(epoch + 1, config.epochs, metrics, {}, state)


def _step(
    config: TrainConfig,
    network: Network,
    replica: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Images,
    rows_B: Tensor,
    epoch: int,
    step: int,
    drop_path: float,
    team: Workers,
) -> BatchLoss:
    """One optimiser step on a global batch; returns this worker's share of it."""
    device = train.images_NCHW.device
    batch = len(rows_B)
    share = team.share(batch)
    moves = draw_moves(
        config.data, batch, train.size, generator(config.seed, "augmentation", epoch, step)
    ).share(share)
    keep_DB = draw_drop_path(
        network, batch, drop_path, generator(config.seed, "drop path", epoch, step)
    )
    if keep_DB is not None:
        keep_DB = keep_DB[:, share].to(device, non_blocking=True)
    rows = rows_B[share].to(device, non_blocking=True)
    labels_B = train.labels_N[rows]
    images_BCHW = augment(train.images_NCHW[rows], config.data, moves)
    images_BCHW = images_BCHW.contiguous(memory_format=memory_format(config.channels_last))
    optimizer.zero_grad()
    with autocast(device, config.precision):
        scores_BK, auxiliary_BK = replica(images_BCHW, keep_DB)
        loss = F.cross_entropy(scores_BK, labels_B, label_smoothing=config.label_smoothing)
        total = loss
        if auxiliary_BK is not None:
            total = total + config.auxiliary_weight * F.cross_entropy(
                auxiliary_BK, labels_B, label_smoothing=config.label_smoothing
            )
    # Workers' gradients are averaged: weigh each by its share, so that the mean is the batch's.
    (total * (len(rows) * team.size / batch)).backward()
    nn.utils.clip_grad_norm_(network.parameters(), config.clip)
    optimizer.step()
    return BatchLoss(loss, len(rows), correct_top_k(scores_BK.detach(), labels_B, 1))


def _evaluate(
    config: TrainConfig,
    network: Network,
    images: Images,
    rows_N: Tensor,
    split: str,
    team: Workers,
) -> dict[str, float]:
    """Loss and top-1 on images without augmentation, shared out among the workers."""
    device = images.images_NCHW.device
    network.eval()
    sums = EpochSums()
    with torch.no_grad(), autocast(device, config.precision):
        for rows_B in rows_N[team.share(len(rows_N))].to(device).split(EVALUATION_BATCH):
            if len(rows_B) == 0:  # more workers than images
                continue
            labels_B = images.labels_N[rows_B]
            images_BCHW = normalise(images.images_NCHW[rows_B], config.data)
            scores_BK, _ = network(
                images_BCHW.contiguous(memory_format=memory_format(config.channels_last))
            )
            loss = F.cross_entropy(scores_BK, labels_B)
            sums.add(BatchLoss(loss, len(rows_B), correct_top_k(scores_BK, labels_B, 1)))
    return sums.metrics(split, team.add_up(sums.totals()))
