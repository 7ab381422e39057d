"""The search space of recurrent cells, as Algorithm 1 uses it: a supernet and two texts.

W learns from the training text, the logits from the validation text (authors' code). Each text has
its own hidden state, which is zero at the start of an epoch and carried, detached, from step to
step.

Shapes: T time steps, B batch, N hidden, V words, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.architecture import Architecture
from gdas.checkpoint import State, load_weights
from gdas.compute import autocast, device_of
from gdas.data.text import Tokens, batch_tokens, bptt_lengths, require_tokens
from gdas.derive import describe
from gdas.field_types import require_kind
from gdas.metrics import BatchLoss
from gdas.randomness import generator, initial_weights
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.derive import CELL_TYPE, derive_recurrent_genotype, first_edge
from gdas.rnn.genotype import RECURRENT_OPERATIONS, RecurrentGenotype, check_recurrent_genotype
from gdas.rnn.regularisation import draw_masks, temporal_penalty
from gdas.rnn.supernet import RecurrentSupernet
from gdas.sampler import Pick
from gdas.settings import require


def build_recurrent_supernet(config: TextSearchConfig, vocabulary: int) -> RecurrentSupernet:
    """Build a supernet with its initial weights, on the CPU."""
    with initial_weights(config.seed):
        return RecurrentSupernet(vocabulary, hidden=config.hidden, steps=config.steps)


class TextSpace:
    """A supernet on a training and a validation text; implements gdas.search.SearchSpace.

    Raises:
        InputError: a text is smaller than the settings ask for.
    """

    def __init__(
        self, config: TextSearchConfig, train: Tokens, valid: Tokens, device: torch.device | str
    ) -> None:
        require_kind(config, TextSearchConfig, "config")
        require_tokens(train, valid, names=("train", "valid"))
        self.config = config
        self.device = device = device_of(device)
        train_N = train.first(config.train_tokens, "train_tokens").ids_N
        valid_N = valid.first(config.valid_tokens, "valid_tokens").ids_N
        self.train_TB = batch_tokens(train_N, config.batch_size).to(device)
        self.valid_TB = batch_tokens(valid_N, config.batch_size).to(device)
        self.vocabulary = train.vocabulary
        supernet = build_recurrent_supernet(config, train.vocabulary)
        self.weights: nn.Module = supernet.to(device)
        self.cell_types: Sequence[str] = [CELL_TYPE]
        self._hidden: dict[str, Tensor] = {}
        self._lengths: tuple[int, list[int]] = (-1, [])

    @property
    def supernet(self) -> RecurrentSupernet:
        """The shared weights, as a `RecurrentSupernet`."""
        assert isinstance(self.weights, RecurrentSupernet)
        return self.weights

    def lengths(self, epoch: int) -> list[int]:
        """How many time steps each W step of an epoch has."""
        if self._lengths[0] != epoch:
            drawn = bptt_lengths(
                len(self.train_TB) - 1,
                self.config.bptt,
                seed=self.config.seed,
                epoch=epoch,
                varied=False,
            )
            self._lengths = (epoch, drawn)
        return self._lengths[1]

    def steps(self, epoch: int) -> int:
        """How many sequences the training text is cut into in this epoch."""
        return len(self.lengths(epoch))

    def lr_scale(self, epoch: int, step: int) -> float:
        """The length of the step's sequence, relative to `bptt`."""
        return self.lengths(epoch)[step] / self.config.bptt

    def initial_logits(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial logits of the one cell type, on the CPU."""
        return self.supernet.initial_logits(generator)

    def weight_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        """Cross entropy of the step's sequence of the training text, with the temporal penalty."""
        lengths = self.lengths(epoch)
        start = sum(lengths[:step])
        return self._loss(architecture, self.train_TB, start, lengths[step], "weights", epoch, step)

    def alpha_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        """Cross entropy of the step's sequence of the validation text, repeated if it is short."""
        targets = len(self.valid_TB) - 1
        length = min(self.config.bptt, targets)
        start = step % (targets // length) * length
        return self._loss(architecture, self.valid_TB, start, length, "alpha", epoch, step)

    def _loss(
        self,
        architecture: Architecture,
        text_TB: Tensor,
        start: int,
        length: int,
        stream: str,
        epoch: int,
        step: int,
    ) -> BatchLoss:
        """Cross entropy of a sequence; in a W step, with the temporal penalty."""
        config, batch = self.config, text_TB.shape[1]
        masks = draw_masks(
            config.dropouts,
            vocabulary=self.vocabulary,
            batch=batch,
            hidden=config.hidden,
            generator=generator(config.seed, f"dropout of {stream}", epoch, step),
            device=self.device,
        )
        hidden_BN = self.supernet.initial_hidden(batch) if step == 0 else self._hidden[stream]
        gate_EK = architecture.gates[0] if architecture.gates is not None else None
        with autocast(self.device, config.precision):
            scores_TBV, outputs_TBN, last_BN = self.weights(
                text_TB[start : start + length], hidden_BN, architecture.picks[0], gate_EK, masks
            )
            targets_TB = text_TB[start + 1 : start + 1 + length]
            entropy = F.cross_entropy(scores_TBV.flatten(0, 1), targets_TB.flatten())
            loss = entropy
            if stream == "weights" and config.temporal > 0:
                loss = entropy + config.temporal * temporal_penalty(outputs_TBN)
        self._hidden[stream] = last_BN.detach()
        return BatchLoss(loss, length * batch, None, entropy)

    def drawn_parameters(self, picks: Sequence[Sequence[Pick]]) -> Iterator[nn.Parameter]:
        """Nothing: all operations of a step share one matrix."""
        yield from ()

    def derived(self, logits: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics and details of the genotype that is derived from the logits."""
        genotype, cell = derive_recurrent_genotype(self.config, logits)
        return describe(genotype, {CELL_TYPE: cell}, logits)


def picks_of(genotype: RecurrentGenotype) -> list[Pick]:
    """A derived cell as picks of a search cell: one edge a step, and no others."""
    return [
        (first_edge(step) + source, RECURRENT_OPERATIONS.index(operation))
        for step, (operation, source) in enumerate(genotype.recurrent, start=1)
    ]


@torch.no_grad()
def score_with_shared_weights(
    config: TextSearchConfig,
    train: Tokens,
    valid: Tokens,
    state: State,
    genotypes: Sequence[RecurrentGenotype],
    device: torch.device | str,
) -> list[float]:
    """Score cells on D_V with the supernet's weights: the cross entropy of each, without dropout.

    Every state is normalised by its own batch, as in an alpha step: the running statistics of the
    one batch norm that all steps share fit none of them. So a cell's score depends on
    `config.batch_size`. The result is not the loss of a trained cell, and need not rank as that.

    Args:
        config: the search's settings; `valid_tokens` says how much of D_V is read.
        state: the state of a segment; it is not changed.

    Raises:
        InputError: a cell has another number of steps than the supernet.
    """
    for genotype in genotypes:
        check_recurrent_genotype(genotype)
        require(
            len(genotype.recurrent) == config.steps,
            f"steps={config.steps}: the cell {genotype.name} has {len(genotype.recurrent)}; "
            "score it with a search of as many steps",
        )
    space = TextSpace(config, train, valid, device)
    load_weights(space.weights, state)
    space.weights.train()
    return [_score(space, picks_of(genotype)) for genotype in genotypes]


def _score(space: TextSpace, picks: Sequence[Pick]) -> float:
    """The cross entropy of D_V, carrying the hidden state along."""
    text_TB, bptt = space.valid_TB, space.config.bptt
    hidden_BN = space.supernet.initial_hidden(text_TB.shape[1])
    total = 0.0
    for start in range(0, len(text_TB) - 1, bptt):
        tokens_TB = text_TB[start : min(start + bptt, len(text_TB) - 1)]
        targets_TB = text_TB[start + 1 : start + 1 + len(tokens_TB)]
        with autocast(space.device, space.config.precision):
            scores_TBV, _, hidden_BN = space.supernet(tokens_TB, hidden_BN, picks)
            loss = F.cross_entropy(scores_TBV.flatten(0, 1), targets_TB.flatten(), reduction="sum")
        total += float(loss)
    return total / text_TB[1:].numel()
