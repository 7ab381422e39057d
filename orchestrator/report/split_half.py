"""Whether the epochs of a search agree which operations are better: a signal, or noise. Pure.

A search's logits are sums of many noisy moves, and its cell is the largest of them, whether or not
another run of the same moves would have made it the largest. So what the logits gained in the odd
and in the even ones of the epochs in which they moved is compared, as the two halves of a test are
in psychometrics (split-half reliability). Halves that agree say that the choice could be repeated,
not that it is good.

Shapes: T epochs, E edges of a cell, K operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gdas.presets import AnySearchConfig
from orchestrator.experiment.spaces import SPACES
from orchestrator.report.statistics import LEVEL, paired_p
from orchestrator.store.results import Record


class Agreement(NamedTuple):
    """How far two halves of a search's epochs agree.

    Attributes:
        edges: each edge's share of the correlation.
        epochs: in how many epochs the logits moved.
    """

    edges: tuple[float, ...]
    epochs: int

    @property
    def correlation(self) -> float:
        """Of what operations gained over the mean of their edge, in both halves, over all edges.

        1 without noise, about 0 if there is nothing but noise.
        """
        return max(-1.0, min(1.0, math.fsum(self.edges)))

    @property
    def p(self) -> float:
        """One-sided, against 0, by flipping the signs of the edges' shares."""
        return paired_p(self.edges)

    @property
    def is_noise(self) -> bool:
        """Whether the halves agree no more than they would by chance."""
        return self.p >= LEVEL


def split_half(
    records: Sequence[Record], config: AnySearchConfig, kind: str | None = None
) -> Agreement | None:
    """The agreement of a search's halves; None if its logits moved in fewer than two epochs.

    What the first epoch changed is left out: no record has the logits with which a search begins.
    Adam's momentum carries a few steps' moves over from one epoch to the next, so that halves of
    epochs of a few steps agree too well.

    Args:
        records: of the search, in order; those without logits are left out.
        kind: the cell type; None: the space's main one.
    """
    space = SPACES[config.task]
    kind = kind or space.main_cell
    found = [r.get("details", {}).get("logits", {}).get(kind) for r in records]
    logits_TEK = np.array([rows for rows in found if rows is not None], dtype=float)
    names, kept = space.operations(config), space.kept(config)
    if len(logits_TEK) < 3 or logits_TEK.shape[2] != len(names):  # or records of another version
        return None
    # What no cell can keep is left out: that `none` makes networks worse, all halves agree.
    columns = [k for k, name in enumerate(names) if name in kept]
    gains_TEK = np.diff(logits_TEK[:, :, columns], axis=0)
    gains_TEK = gains_TEK[np.abs(gains_TEK).max(axis=(1, 2)) > 0]
    if len(gains_TEK) < 2:
        return None
    gains_TEK -= gains_TEK.mean(axis=2, keepdims=True)
    odd_EK, even_EK = gains_TEK[::2].sum(axis=0), gains_TEK[1::2].sum(axis=0)
    lengths = float(np.linalg.norm(odd_EK) * np.linalg.norm(even_EK))
    if not lengths:
        return None
    shares_E = (odd_EK * even_EK).sum(axis=1) / lengths
    return Agreement(tuple(shares_E.tolist()), len(gains_TEK))
