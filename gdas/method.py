"""How a search chooses: what a step draws, what of it runs, and who moves the logits.

Algorithm 1 (gdas.search) asks a method twice a step. By default the loss's gradient, through the
draw's gate, moves the logits by Adam, as in GDAS and DARTS. A method that is a `Learner` gets the
loss on D_V instead and moves them itself; what it remembers is checkpointed.

The methods of this module: `Gumbel` (GDAS, and the 2019 recurrent search), `Mixture` (first-order
DARTS), `Uniform` (random search: the logits stay as they were) and `Evolution`. Another is a class
of yours, named in the settings as `sampler.method: module:name` (experiments/extending.md).

Shapes: E edges of one cell, K operations, P members of a population.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from gdas.config import SamplerConfig
from gdas.errors import InputError
from gdas.outside import import_named
from gdas.sampler import Draw, Pick, draw_operations, mix_operations

Logits = Mapping[str, Tensor]
"""E x K for every cell type, on the CPU."""
Drawn = Mapping[str, list[Pick]]
"""The (edge, operation) pairs that ran in the cells of every type."""


class Method(Protocol):
    """A way to search."""

    @property
    def weighs(self) -> bool:
        """Whether what runs is weighted by the draw's gate, in W steps too.

        Else the gate is 1 wherever something runs, and only its gradient is used.
        """
        ...

    def draw(
        self, cell_type: str, logits_EK: Tensor, tau: float, generator: torch.Generator
    ) -> Draw:
        """Draw an operation for every edge, and the gates.

        Args:
            cell_type: whose logits these are.
            tau: the temperature of this epoch.
            generator: the only source of randomness.
        """
        ...

    def runs(self, draw: Draw) -> list[Pick]:
        """What of a draw runs: pairs of an edge and an operation."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A method that moves the logits itself; the cell is derived from them as ever."""

    def learn(self, logits: Logits, drawn: Drawn, loss: float) -> None:
        """Learn from the loss of a drawn network on a batch of D_V.

        Args:
            logits: to be changed in place, through `.data`.
            drawn: what ran; with `sampler.scope: cell_type` in all cells of a type.
            loss: of the batch, without a gradient.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on exactly: tensors, numbers, and lists and dictionaries."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Go on after `state`."""
        ...


def drawn_ones(draw: Draw) -> list[Pick]:
    """One operation on every edge."""
    return list(enumerate(draw.operations))


def all_of_them(draw: Draw) -> list[Pick]:
    """All operations on every edge."""
    edges, operations = draw.gate_EK.shape
    return [(e, k) for e in range(edges) for k in range(operations)]


@dataclass(frozen=True)
class Gumbel:
    """GDAS: Gumbel-max draws with straight-through gradients (paper Eq. 4-7).

    Attributes:
        soft: whether the gate is the relaxed sample itself (the authors' recurrent search).
        all_run: whether undrawn operations run too, times 0 (without section 3.2, "Acceleration").
    """

    soft: bool = False
    all_run: bool = False

    @property
    def weighs(self) -> bool:
        """Whether gates are other than 1 anywhere."""
        return self.soft or self.all_run

    def draw(
        self, cell_type: str, logits_EK: Tensor, tau: float, generator: torch.Generator
    ) -> Draw:
        """Draw by softmax(logits)."""
        return draw_operations(logits_EK, tau, generator=generator, soft=self.soft)

    def runs(self, draw: Draw) -> list[Pick]:
        """The drawn operations, or all."""
        return all_of_them(draw) if self.weighs else drawn_ones(draw)


@dataclass(frozen=True)
class Mixture:
    """First-order DARTS: all operations run, weighted by softmax(logits)."""

    weighs: bool = True

    def draw(
        self, cell_type: str, logits_EK: Tensor, tau: float, generator: torch.Generator
    ) -> Draw:
        """Draw nothing."""
        return mix_operations(logits_EK)

    def runs(self, draw: Draw) -> list[Pick]:
        """All operations."""
        return all_of_them(draw)


def _uniform(logits_EK: Tensor, generator: torch.Generator) -> Tensor:
    edges, operations = logits_EK.shape
    return torch.randint(operations, (edges,), generator=generator)


def _one_hot(operation_E: Tensor, logits_EK: Tensor) -> Draw:
    gate_EK = F.one_hot(operation_E, logits_EK.shape[1]).to(logits_EK.dtype)
    return Draw(operation_E.tolist(), gate_EK)


@dataclass(frozen=True)
class Uniform:
    """Random search: W learns on uniform draws, and nothing is learned of the operations.

    The derived cell is that of the initial logits, which are random and almost equal.
    """

    weighs: bool = False

    def draw(
        self, cell_type: str, logits_EK: Tensor, tau: float, generator: torch.Generator
    ) -> Draw:
        """Draw every operation equally often."""
        return _one_hot(_uniform(logits_EK, generator), logits_EK)

    def runs(self, draw: Draw) -> list[Pick]:
        """The drawn operations."""
        return drawn_ones(draw)

    def learn(self, logits: Logits, drawn: Drawn, loss: float) -> None:
        """Learn nothing."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing is remembered."""


@dataclass
class Evolution:
    """Aging evolution (Real et al., AAAI 2019) in which cells are scored by the shared weights.

    A step draws a child: the best of a few random members of the population, with another operation
    on one edge. In a W step it trains; in an alpha step its loss on a batch of D_V is its score,
    and it takes the oldest member's place. The logits are the logarithms of how often each
    operation is on each edge of the population.

    Attributes:
        population: P.
        tournament: from how many members the parent is the best.
        members: P x E operations for every cell type, the oldest first.
        losses: their scores.
    """

    population: int = 32
    tournament: int = 8
    members: dict[str, list[list[int]]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    weighs: bool = False

    def draw(
        self, cell_type: str, logits_EK: Tensor, tau: float, generator: torch.Generator
    ) -> Draw:
        """Draw a child; uniformly as long as the population is not complete."""
        if len(self.losses) < self.population:
            return _one_hot(_uniform(logits_EK, generator), logits_EK)
        some = torch.randperm(len(self.losses), generator=generator)[: self.tournament].tolist()
        best = min(some, key=self.losses.__getitem__)
        child_E = torch.tensor(self.members[cell_type][best])
        edges, operations = logits_EK.shape
        edge = int(torch.randint(edges, (), generator=generator))
        step = 1 + int(torch.randint(operations - 1, (), generator=generator))
        child_E[edge] = (child_E[edge] + step) % operations
        return _one_hot(child_E, logits_EK)

    def runs(self, draw: Draw) -> list[Pick]:
        """The drawn operations."""
        return drawn_ones(draw)

    def learn(self, logits: Logits, drawn: Drawn, loss: float) -> None:
        """Take in a child with its loss, and give up the oldest member."""
        self.losses = [*self.losses, loss][-self.population :]
        for cell_type, a_EK in logits.items():
            child = [k for _, k in drawn[cell_type]]
            members = [*self.members.get(cell_type, []), child][-self.population :]
            self.members[cell_type] = members
            count_EK = F.one_hot(torch.tensor(members), a_EK.shape[1]).sum(0)
            a_EK.data.copy_((count_EK + 1.0).log())

    def state(self) -> dict[str, Any]:
        """The population."""
        return {"members": dict(self.members), "losses": self.losses}

    def load(self, state: dict[str, Any]) -> None:
        """Go on with a population."""
        self.members, self.losses = dict(state["members"]), list(state["losses"])


def method_of(config: SamplerConfig) -> Method:
    """The method that the settings name; one of the user's own is imported, which runs its code.

    Raises:
        InputError: it cannot be imported, or is no method.
    """
    match config.method:
        case None if config.relaxation == "softmax":
            return Mixture()
        case None:
            soft = config.relaxation == "soft"
            return Gumbel(soft, all_run=not soft and not config.acceleration)
        case "random":
            return Uniform()
        case "evolution":
            return Evolution()
    name = config.method
    make = import_named(name, "sampler.method")
    try:
        method: Method = make()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InputError(
            f"sampler.method={name}: {type(error).__name__} when it is called without arguments "
            f"({' '.join(str(error).split())[:200]}); it must return a gdas.method.Method"
        ) from None
    for needed in ("draw", "runs", "weighs"):
        if not hasattr(method, needed):
            raise InputError(
                f"sampler.method={name}: has no {needed}; it must return a gdas.method.Method"
            )
    return method


def check_method(config: SamplerConfig) -> None:
    """Try the user's own method before a search begins; the others need no check.

    Raises:
        InputError: it cannot be imported, or does not do as it must.
    """
    if config.method is None or ":" not in config.method:
        return
    where = f"sampler.method={config.method}"
    edges, operations = 3, 4
    a_EK = torch.zeros(edges, operations, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        noise = torch.get_rng_state()
        found = []
        for _ in range(2):
            method = method_of(config)
            try:
                draw = method.draw("normal", a_EK, 1.0, torch.Generator().manual_seed(0))
                runs = method.runs(draw)
                if isinstance(method, Learner):
                    method.learn({"normal": a_EK}, {"normal": runs}, 1.0)
                    method_of(config).load(method.state())  # type: ignore[attr-defined]
            except (Exception, SystemExit) as error:
                said = " ".join(str(error).split())[:200]
                raise InputError(f"{where}: fails, {type(error).__name__}: {said}") from None
            found.append((list(draw.operations), sorted(runs)))
        if found[0] != found[1] or not torch.equal(noise, torch.get_rng_state()):
            raise InputError(
                f"{where}: draws otherwise from the same generator, so that a resumed search would "
                "end otherwise; draw with the generator that it is given, and nothing else"
            )
    pairs = {(e, k) for e in range(edges) for k in range(operations)}
    if len(draw.operations) != edges or draw.gate_EK.shape != a_EK.shape or not set(runs) <= pairs:
        raise InputError(
            f"{where}: of {edges} edges and {operations} operations it draws "
            f"{list(draw.operations)} with gates {tuple(draw.gate_EK.shape)} and runs {runs[:4]}; "
            "must be an operation an edge, gates edges x operations, and pairs of both"
        )
    if not isinstance(method, Learner) and not draw.gate_EK.requires_grad:
        raise InputError(
            f"{where}: its gates have no gradient for the logits, and it has no learn, state and "
            "load to move them itself; see gdas.method.Learner"
        )
