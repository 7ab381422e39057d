"""A language model's training step and a recurrent search step, beside a loop from the equations.

The training step is the library's own epoch (gdas.rnn.train) on a text that is one sequence long,
with GDAS's published cell; the search step is one W step and one alpha step. The plain baseline has
another cell in the same place (tests.bench.plain_text): embedding, decoder, dropout masks and
optimisers are the same, and so are draws and weights. In the search it computes the gates and all
gradients in both steps, as the authors did.

Shapes: T time steps, B batch.
"""

from __future__ import annotations

from itertools import count, islice

import torch

import gdas.rnn.train
from gdas.config import AlphaUpdate
from gdas.data.text import Tokens, batch_tokens, bptt_lengths
from gdas.distributed import workers
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from gdas.rnn.space import TextSpace
from gdas.search import SearchSteps
from tests.bench.plain_text import PlainDerivedCell, PlainSearchCell
from tests.bench.search_step import CPU, PlainSearch, steps_of, steps_of_search
from tests.bench.timing import Step


def random_text(count: int, vocabulary: int) -> Tokens:
    """Noise: the time does not depend on what the words are."""
    draw = torch.Generator().manual_seed(0)
    ids_N = torch.randint(vocabulary, (count,), generator=draw, dtype=torch.int32)
    return Tokens(ids_N, vocabulary)


def language_contenders(
    *, hidden: int, vocabulary: int, batch: int, bptt: int, steps: int
) -> dict[str, tuple[Step]]:
    """For each contender its training step: one sequence of `bptt` words a column."""
    config = TextTrainConfig(hidden=hidden, batch_size=batch, bptt=bptt)
    text_TB = batch_tokens(random_text((bptt + 1) * batch, vocabulary).ids_N, batch)
    # A training's sequences vary in length: epochs of which the first takes the whole text.
    whole = (
        epoch
        for epoch in count()
        if bptt_lengths(bptt, bptt, seed=config.seed, epoch=epoch, varied=True) == [bptt]
    )
    epochs = list(islice(whole, steps))
    contenders: dict[str, tuple[Step]] = {}
    for name in ("plain", "ours"):
        genotype = PUBLISHED_RECURRENT["RNN_GDAS"]
        run = gdas.rnn.train._Run(config, genotype, vocabulary, CPU, workers())
        if name == "plain":
            run.model.cell = PlainDerivedCell(run.model.cell)  # type: ignore[assignment]

        def step(index: int, run: gdas.rnn.train._Run = run) -> object:
            return run.train(text_TB, epochs[index])

        contenders[name] = (step,)
    return contenders


def recurrent_contenders(
    *, hidden: int, vocabulary: int, batch: int, bptt: int, steps: int
) -> dict[str, tuple[Step, Step]]:
    """For each contender its steps, of W and of alpha.

    Of the steps' lengths one in twenty is a half; both contenders have the same.
    """
    config = TextSearchConfig(
        hidden=hidden, batch_size=batch, bptt=bptt, alpha=AlphaUpdate(lr=0.0, betas=(0.9, 0.999))
    )
    text = random_text((bptt * steps + 1) * batch, vocabulary)
    space, plain_space = (TextSpace(config, text, text, CPU) for _ in range(2))
    plain_space.supernet.cell = PlainSearchCell(plain_space.supernet.cell)  # type: ignore[assignment]
    ours = SearchSteps(config, space)
    plain = PlainSearch(config, plain_space, plain_space.weights)
    return {"plain": steps_of(plain), "ours": steps_of_search(ours)}
