"""The trainings of language models (paper section 4.3; if it is silent, the authors' 2019 code).

The loop is a generator with one segment per epoch. SGD at a constant rate, scaled by each
sequence's length, becomes averaged SGD once the validation loss stops falling; from then on, the
running mean of the weights is evaluated. The state keeps the weights of the best validation epoch.
After a NaN the run goes back to them, and only they are evaluated on the test text, once, after the
last epoch.

With several workers (torch.distributed initialised) the columns of every text are divided among
them, every worker yields equally often, and only worker 0's segments have a state.

Decision: after going back, the epoch is repeated from the best epoch's weights, with new draws. If
averaging was on it stays on, and its mean begins anew.

Shapes: T time steps, B batch, N hidden, V words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.checkpoint import Segment, State, load_weights
from gdas.compute import autocast, device_of
from gdas.data.text import Tokens, batch_tokens, bptt_lengths, require_tokens
from gdas.distributed import Workers, workers
from gdas.errors import InputError
from gdas.field_types import require_kind
from gdas.metrics import BatchLoss, EpochSums, diverged, require_finite
from gdas.optimizer import sgd
from gdas.randomness import generator, initial_weights
from gdas.rnn.config import TextTrainConfig
from gdas.rnn.genotype import RecurrentGenotype
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.regularisation import draw_masks, temporal_penalty

PATIENCE = 5
"""Epochs before averaging may begin, and epochs that its `non_monotonic` rule leaves out."""


def build_language_model(
    config: TextTrainConfig, genotype: RecurrentGenotype, vocabulary: int
) -> LanguageModel:
    """Build a language model with its initial weights, on the CPU."""
    with initial_weights(config.seed):
        return LanguageModel(genotype, vocabulary, config.hidden)


def averaging_begins(config: TextTrainConfig, earlier: Sequence[float], loss: float) -> bool:
    """Whether plain SGD ends after an epoch with this validation `loss`, given those `earlier`."""
    if len(earlier) <= PATIENCE:
        return False
    return loss > min(earlier if config.averaging == "all" else earlier[:-PATIENCE])


class RunningMean:
    """The mean of the weights over the steps of averaged SGD, and the rate of the next step.

    The mean equals that of torch.optim.ASGD with t0 = 0 and lambd = 0, which also leaves the first
    step out. That optimiser makes the rate of a step at the end of the step before, so a rate that
    is set anew for every step arrives one step late (seen in 2.9 to 2.14.1). `asgd_rate=authors`
    does the same; `step` uses each rate in its own step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.steps = 0
        self.earlier_rate: float | None = None

    def rate(self, rate: float, rule: Literal["step", "authors"]) -> float:
        """The rate of a step for which `rate` was set: that one, or the one of the step before."""
        earlier, self.earlier_rate = self.earlier_rate, rate
        return rate if rule == "step" or earlier is None else earlier

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Add the weights after a step."""
        self.steps += 1
        share = 1 / max(1, self.steps - 1)
        for name, p in model.named_parameters():
            mean = self.weights[name]
            mean.add_(p.sub(mean).mul_(share)) if share < 1 else mean.copy_(p)

    def state(self) -> State:
        """The mean, the number of steps and the last rate, to be saved before the next step."""
        return {"weights": self.weights, "steps": self.steps, "earlier_rate": self.earlier_rate}

    def load(self, state: State) -> None:
        """Continue from a state."""
        for name, mean in self.weights.items():
            mean.copy_(state["weights"][name])
        self.steps, self.earlier_rate = state["steps"], state["earlier_rate"]


@contextmanager
def _holding(model: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """Give the model other weights inside this block."""
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    _copy(model, weights)
    try:
        yield
    finally:
        _copy(model, own)


@torch.no_grad()
def _copy(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        p.copy_(weights[name])


class _Run:
    """Everything that changes during a training and is checkpointed."""

    def __init__(
        self,
        config: TextTrainConfig,
        genotype: RecurrentGenotype,
        vocabulary: int,
        device: torch.device,
        team: Workers,
    ) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.device = device
        self.team = team
        self.model = build_language_model(config, genotype, vocabulary).to(device)
        if config.compile:
            self.model.cell.compile_time_step()
        self.replica = team.wrap(self.model)
        self.optimizer = sgd(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.mean: RunningMean | None = None
        self.best: dict[str, Tensor] | None = None
        self.best_epoch = 0  # counted from 1; 0: none yet
        self.best_loss: float | None = None
        self.restarts = 0
        self.position = 0
        self.history: list[dict[str, float]] = []

    def state(self) -> State:
        return {
            "weights": self.model.state_dict(),
            "mean": self.mean.state() if self.mean else None,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "restarts": self.restarts,
            "position": self.position,
            "history": self.history,
        }

    def load(self, state: State) -> None:
        load_weights(self.model, state)
        if state["mean"] is not None:
            self.mean = RunningMean(self.model)
            self.mean.load(state["mean"])
        best = state["best"]
        self.best = best and {name: w.to(self.device) for name, w in best.items()}
        self.best_epoch, self.best_loss = state["best_epoch"], state["best_loss"]
        self.restarts = state["restarts"]
        self.position, self.history = state["position"], state["history"]

    def evaluated_weights(self) -> dict[str, Tensor]:
        """The averaged weights, or the weights themselves before averaging begins."""
        return self.mean.weights if self.mean else dict(self.model.named_parameters())

    def train(self, text_TB: Tensor, epoch: int) -> dict[str, float]:
        """Take the optimiser steps of one epoch on this worker's columns of the text."""
        config, model, team = self.config, self.model, self.team
        share, batch = team.share(config.batch_size), text_TB.shape[1]
        # Workers' gradients are averaged. Weighted by its share, each gives the batch's gradient.
        weight = batch * team.size / config.batch_size
        lengths = bptt_lengths(
            len(text_TB) - 1,
            config.bptt,
            seed=config.seed,
            epoch=epoch,
            varied=True,
            attempt=self.restarts,
        )
        model.train()
        sums, start = EpochSums(), 0
        hidden_BN = model.initial_hidden(batch)
        for step, length in enumerate(lengths):
            masks = draw_masks(
                config.dropouts,
                vocabulary=self.vocabulary,
                batch=config.batch_size,
                hidden=config.hidden,
                generator=generator(config.seed, "dropout", epoch, step, self.restarts),
                device=self.device,
            ).share(share)
            rate = config.lr * length / config.bptt
            if self.mean is not None:
                rate = self.mean.rate(rate, config.asgd_rate)
            self.optimizer.param_groups[0]["lr"] = rate
            self.optimizer.zero_grad()
            with autocast(self.device, config.precision):
                scores_TBV, outputs_TBN, hidden_BN = self.replica(
                    text_TB[start : start + length], hidden_BN.detach(), masks
                )
                targets_TB = text_TB[start + 1 : start + 1 + length]
                entropy = F.cross_entropy(scores_TBV.flatten(0, 1), targets_TB.flatten())
                loss = entropy
                if config.temporal > 0:
                    loss = entropy + config.temporal * temporal_penalty(outputs_TBN)
            (loss * weight).backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            self.optimizer.step()
            if self.mean is not None:
                self.mean.add(model)
            sums.add(BatchLoss(loss, length * batch, None, entropy))
            start += length
        return sums.metrics("train", team.add_up(sums.totals()))

    def finite_epoch(
        self, train_TB: Tensor, evaluation_TB: Tensor | None, epoch: int
    ) -> dict[str, float]:
        """Train and evaluate an epoch; if a loss is not finite, go back and repeat it.

        Raises:
            FloatingPointError: the settings' `restarts` are used up.
        """
        config = self.config
        while True:
            metrics = {"lr": config.lr, "averaging": float(self.mean is not None)}
            metrics |= self.train(train_TB, epoch)
            if evaluation_TB is not None:
                with _holding(self.model, self.evaluated_weights()):
                    metrics |= evaluate(config, self.model, evaluation_TB, "valid")
            bad = [name for name, value in metrics.items() if not math.isfinite(value)]
            if not bad:
                return metrics
            if self.restarts >= config.restarts:
                raise FloatingPointError(
                    f"training of {self.model.cell.genotype.name}, epoch {epoch + 1}: {bad[0]} is "
                    f"{metrics[bad[0]]} after {self.restarts} restarts"
                    f"{diverged(f'learning rate lr={config.lr:g}')}"
                )
            self.go_back()

    def go_back(self) -> None:
        """Return to the best epoch's weights, or to the initial ones if there is none."""
        self.restarts += 1
        if self.best is not None:
            _copy(self.model, self.best)
        else:
            initial = build_language_model(self.config, self.model.cell.genotype, self.vocabulary)
            self.model.load_state_dict(initial.state_dict())
        if self.mean is not None:
            self.mean = RunningMean(self.model)

    def keep_best(self, epoch: int, loss: float | None) -> None:
        """Keep these weights if they are the best so far; without validation, the last ones are."""
        if loss is None or self.best_loss is None or loss < self.best_loss:
            self.best = {name: w.detach().clone() for name, w in self.evaluated_weights().items()}
            self.best_epoch, self.best_loss = epoch + 1, loss


def _check_columns(batch_size: int, team_size: int) -> None:
    """Raise InputError if some workers would have no column of the text."""
    if batch_size < team_size:
        raise InputError(
            f"batch_size={batch_size}: too few columns for {team_size} workers; use "
            f"batch_size={team_size} or more, or fewer workers"
        )


def train_text(
    config: TextTrainConfig,
    genotype: RecurrentGenotype,
    train: Tokens,
    evaluation: Tokens | None,
    test: Tokens | None = None,
    *,
    device: torch.device | str,
    checkpoint: State | None = None,
) -> Iterator[Segment]:
    """Train a genotype's language model; yields one segment per epoch, whose state resumes exactly.

    Args:
        train: the training text, of which the first `train_tokens` of the settings are used.
        evaluation: the validation text; None: no averaging, and the last weights are the best.
        test: the test text, read only after the last epoch, with the best epoch's weights; None: no
            test.
        device: this worker's device.
        checkpoint: the state of the segment to continue after; None: start from the beginning.

    Raises:
        InputError: a text, a batch, the genotype or the checkpoint does not suit the settings.
        FloatingPointError: a loss is not finite and the settings' `restarts` are used up; the error
            names the epoch.
    """
    require_kind(config, TextTrainConfig, "config")
    require_tokens(train, evaluation, test, names=("train", "evaluation", "test"))
    device = device_of(device)
    team = workers()
    _check_columns(config.batch_size, team.size)
    train_N = train.first(config.train_tokens).ids_N
    share = team.share(config.batch_size)
    train_TB = batch_tokens(train_N, config.batch_size)[:, share].to(device)
    evaluation_TB = None
    if evaluation is not None:
        evaluation_TB = batch_tokens(evaluation.ids_N, config.evaluation_batch_size).to(device)
    run = _Run(config, genotype, train.vocabulary, device, team)
    if checkpoint is not None:
        run.load(checkpoint)
    for epoch in range(run.position, config.epochs):
        metrics = run.finite_epoch(train_TB, evaluation_TB, epoch)
        loss = metrics.get("valid/loss")
        run.keep_best(epoch, loss)
        earlier = [passed["valid/loss"] for passed in run.history if "valid/loss" in passed]
        if run.mean is None and loss is not None and averaging_begins(config, earlier, loss):
            run.mean = RunningMean(run.model)
        if test is not None and epoch + 1 == config.epochs:
            assert run.best is not None
            test_TB = batch_tokens(test.ids_N, config.test_batch_size).to(device)
            with _holding(run.model, run.best):
                metrics |= evaluate(config, run.model, test_TB, "test")
            where = f"training of {genotype.name}, epoch {epoch + 1}"
            require_finite(metrics, where, f"learning rate lr={config.lr:g}")
        run.position = epoch + 1
        run.history = [*run.history, metrics]
        details = {"best_epoch": run.best_epoch, "restarts": run.restarts}
        state = run.state() if team.rank == 0 else None
        yield Segment(run.position, config.epochs, metrics, details, state)


@torch.no_grad()
def evaluate(
    config: TextTrainConfig, model: LanguageModel, text_TB: Tensor, split: str
) -> dict[str, float]:
    """Loss and perplexity of a whole text, carrying the hidden state along; without dropout.

    The columns are divided among the workers.
    """
    model.eval()
    team = workers()
    text_TB = text_TB[:, team.share(text_TB.shape[1])]
    sums = EpochSums(classifies=False)
    hidden_BN = model.initial_hidden(text_TB.shape[1])
    # If there are more workers than columns, some workers have none.
    steps = len(text_TB) if text_TB.shape[1] else 0
    for start in range(0, steps - 1, config.bptt):
        tokens_TB = text_TB[start : min(start + config.bptt, len(text_TB) - 1)]
        targets_TB = text_TB[start + 1 : start + 1 + len(tokens_TB)]
        with autocast(model.words.weight_VN.device, config.precision):
            scores_TBV, _, hidden_BN = model(tokens_TB, hidden_BN)
            loss = F.cross_entropy(scores_TBV.flatten(0, 1), targets_TB.flatten())
        sums.add(BatchLoss(loss, targets_TB.numel()))
    return sums.metrics(split, team.add_up(sums.totals()))
