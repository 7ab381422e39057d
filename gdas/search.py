"""Algorithm 1: weights and logits in turn, by gradient descent through the sampler.

The loop does not depend on the kind of cell. A `SearchSpace` gives it the shared weights W, the
logits' shapes and the two losses of a drawn architecture. The loop draws, steps, and yields one
segment per epoch. It is a generator, so the caller decides what to do with each segment.

Decisions: the W step computes no gradient of the logits, and the alpha step none of the weights
(first order, Eq. 8, no nested optimisation). Every random draw is seeded from its position.

Shapes: B batch, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from gdas.architecture import Architecture, draw_architecture
from gdas.checkpoint import Segment, State, load_weights
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.errors import InputError
from gdas.method import Gumbel, Learner, method_of
from gdas.metrics import BatchLoss, EpochSums, require_finite
from gdas.optimizer import restore, saved, sgd
from gdas.randomness import generator
from gdas.sampler import Pick
from gdas.schedule import cosine, temperature

MEASURED_EVERY = 10
"""While the logits are held, nothing learns from D_V; one step in so many measures it."""


class SearchSettings(Protocol):
    """The settings that Algorithm 1 reads, and no others.

    The settings classes of this package's spaces have them, and a class of your own may.
    """

    @property
    def seed(self) -> int:
        """The seed of every random stream."""

    @property
    def epochs(self) -> int:
        """How many epochs the search has."""

    @property
    def batch_size(self) -> int:
        """The most images, or columns of text, in a step."""

    @property
    def order(self) -> Literal["weights_first", "alpha_first"]:
        """Which of a step's two updates comes first."""

    @property
    def weights(self) -> WeightUpdate:
        """The optimiser of the shared weights W."""

    @property
    def alpha(self) -> AlphaUpdate:
        """The optimiser of the logits."""

    @property
    def sampler(self) -> SamplerConfig:
        """How architectures are drawn."""


class SearchSpace(Protocol):
    """What Algorithm 1 needs from a space and its data.

    Attributes:
        weights: the shared network W, on the device.
        cell_types: for every cell of the network, in order, the name of its logits; any other
            name for a cell that is not searched.
        device: the device of the weights.
    """

    weights: nn.Module
    cell_types: Sequence[str]
    device: torch.device

    def steps(self, epoch: int) -> int:
        """How many steps an epoch has, each of one W step and one alpha step."""
        ...

    def lr_scale(self, epoch: int, step: int) -> float:
        """The factor on the W step's learning rate: 1, or a text batch's relative length."""
        ...

    def initial_logits(self, generator: torch.Generator) -> dict[str, Tensor]:
        """E x K logits for every cell type: leaves that require gradients, on the CPU."""
        ...

    def weight_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        """The loss of the step's batch of D_T."""
        ...

    def alpha_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        """The loss of the step's batch of D_V."""
        ...

    def drawn_parameters(self, picks: Sequence[Sequence[Pick]]) -> Iterable[nn.Parameter]:
        """The weights that this architecture uses and another one may not use."""
        ...

    def derived(self, logits: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics and details of the cell that is derived from the logits."""
        ...


Turn = Literal["train", "valid"]
"""The W step, on D_T; the alpha step, on D_V."""


def turns_of(config: SearchSettings, epoch: int, step: int) -> tuple[Turn, ...]:
    """What a step does, in order."""
    if config.alpha.holds(epoch) and step % MEASURED_EVERY:
        return ("train",)
    return ("valid", "train") if config.order == "alpha_first" else ("train", "valid")


class SearchSteps:
    """The two steps of Algorithm 1, and everything that they change, which is checkpointed."""

    def __init__(self, config: SearchSettings, space: SearchSpace) -> None:
        self.config = config
        self.space = space
        self.method = method_of(config.sampler)
        self.parameters = list(space.weights.parameters())
        self.logits = space.initial_logits(generator(config.seed, "logits"))
        w, a = config.weights, config.alpha
        self.weight_optimizer = sgd(
            self.parameters,
            lr=w.lr,
            momentum=w.momentum,
            weight_decay=w.weight_decay,
            nesterov=w.nesterov,
        )
        self.alpha_optimizer = torch.optim.Adam(
            list(self.logits.values()), lr=a.lr, betas=a.betas, weight_decay=a.weight_decay
        )
        self.position = 0
        self.history: list[dict[str, float]] = []

    def state(self) -> State:
        """Everything that a search needs to go on exactly, to be saved before the next step."""
        learned = {"method": self.method.state()} if isinstance(self.method, Learner) else {}
        return learned | {
            "weights": self.space.weights.state_dict(),
            # Whether an operation was ever drawn, since weight decay moves it from then on.
            "has_gradient": [p.grad is not None for p in self.parameters],
            "weight_optimizer": saved(self.weight_optimizer),
            "logits": {kind: a.detach() for kind, a in self.logits.items()},
            # Part of the next W step's gradient norm if clip_scope is "all".
            "logits_gradient": {kind: a.grad for kind, a in self.logits.items()},
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "position": self.position,
            "history": self.history,
        }

    def load(self, state: State) -> None:
        """Continue from a state; the state itself is not changed by later steps."""
        load_weights(self.space.weights, state)
        for p, has_gradient in zip(self.parameters, state["has_gradient"], strict=True):
            p.grad = torch.zeros_like(p) if has_gradient else None
        # Optimisers keep the tensors that they are given, so they get copies.
        restore(self.weight_optimizer, state["weight_optimizer"])
        for kind, a in self.logits.items():
            a.data.copy_(state["logits"][kind])
            a.grad = deepcopy(state["logits_gradient"][kind])
        self.alpha_optimizer.load_state_dict(deepcopy(state["alpha_optimizer"]))
        if isinstance(self.method, Learner):
            self.method.load(deepcopy(state["method"]))
        self.position = state["position"]
        self.history = state["history"]

    def weight_step(self, epoch: int, step: int, tau: float) -> BatchLoss:
        """Update the drawn weights on a batch of D_T."""
        w = self.config.weights
        with_gates = w.clip_scope == "all"
        architecture = draw_architecture(
            self.logits,
            self.space.cell_types,
            self.config.sampler,
            tau,
            generator(self.config.seed, "gumbel of weights", epoch, step),
            gate_device=self.space.device if with_gates or self.method.weighs else None,
            batch=self.config.batch_size,
            method=self.method,
        )
        if architecture.gates is not None and not with_gates:  # the gates' values, without gradient
            gates = [None if gate is None else gate.detach() for gate in architecture.gates]
            architecture = architecture._replace(gates=gates)
        old = [p.grad for p in self.parameters] if w.undrawn != "skip" else []
        self.weight_optimizer.zero_grad()
        batch = self.space.weight_loss(architecture, epoch, step)
        batch.loss.backward()
        self._zero_undrawn(old)
        clipped = [*self.parameters, *self.logits.values()] if with_gates else self.parameters
        nn.utils.clip_grad_norm_(clipped, w.clip)
        self.weight_optimizer.step()
        return batch

    def _zero_undrawn(self, old: Sequence[Tensor | None]) -> None:
        """Give weights that were drawn before, but not now, a gradient of zero.

        The gradients of drawn weights are new tensors; adding each to zeros would be a kernel
        launch more.
        """
        zeros = []
        for p, gradient in zip(self.parameters, old, strict=False):
            if p.grad is None and gradient is not None:
                p.grad = gradient
                zeros.append(gradient)
        if zeros:
            torch._foreach_zero_(zeros)

    def _importance(self, loss: Tensor) -> Tensor | None:
        """What the alpha gradient of a drawn network is multiplied by; None for 1."""
        if not self.config.alpha.risk_seeking or not self.history:
            return None
        gain = self.history[-1]["valid/loss"] - loss.detach()
        return torch.exp(self.config.alpha.risk_seeking * gain)

    def alpha_step(self, epoch: int, step: int, tau: float) -> BatchLoss:
        """Update the logits on a batch of D_V; only measure it while the logits are kept fixed."""
        held = self.config.alpha.holds(epoch)
        method = self.method
        if self.config.alpha.gates == "all" and not held:
            method = Gumbel(all_run=True)
        learner = method if isinstance(method, Learner) else None
        architecture = draw_architecture(
            self.logits,
            self.space.cell_types,
            self.config.sampler,
            tau,
            generator(self.config.seed, "gumbel of alpha", epoch, step),
            gate_device=self.space.device if learner is None or method.weighs else None,
            batch=self.config.batch_size,
            method=method,
        )
        self.alpha_optimizer.zero_grad()
        if learner is not None:
            with torch.no_grad():
                batch = self.space.alpha_loss(architecture, epoch, step)
            if not held:
                ran = dict(zip(self.space.cell_types, architecture.picks, strict=True))
                learner.learn(self.logits, ran, float(batch.loss))
            return batch
        if held:
            with torch.no_grad():
                return self.space.alpha_loss(architecture, epoch, step)
        for p in self.parameters:
            p.requires_grad_(False)
        try:
            batch = self.space.alpha_loss(architecture, epoch, step)
            # There is no gradient if every edge drew `none`. It is not used either if nothing
            # reaches the output while undrawn operations run: batch norm of zeros then gives huge
            # and meaningless gradients.
            cut_off = architecture.drawn is not None and batch.no_path > 0
            if batch.loss.requires_grad and not cut_off:
                batch.loss.backward(self._importance(batch.loss))
        finally:
            for p in self.parameters:
                p.requires_grad_(True)
        for a in self.logits.values():
            if a.grad is None:
                a.grad = torch.zeros_like(a)
        self.alpha_optimizer.step()
        everything_drawn = all(p.grad is not None for p in self.parameters)
        if self.config.weights.undrawn == "decay" and not everything_drawn:
            for p in self.space.drawn_parameters(architecture.picks):
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
        return batch


def check_start(config: SearchSettings, space: SearchSpace, checkpoint: State | None) -> None:
    """Raise InputError unless a search can start here, whichever loop it runs in."""
    _check_settings(config, space)
    if checkpoint is None:
        _check_untrained(space)


def _check_settings(config: object, space: object) -> None:
    """Raise InputError unless these are the settings of a search and a space made with them.

    With others, a space would take some of its own settings and some of these.
    """
    order = "call search(config, space)"
    if not isinstance(getattr(config, "sampler", None), SamplerConfig):
        raise InputError(
            f"config: is a {type(config).__name__}; must be the settings of a search, such as "
            f"SearchConfig of gdas.cnn.config; {order}"
        )
    if not hasattr(space, "weight_loss"):
        raise InputError(
            f"space: is a {type(space).__name__}; must be a search space, such as ImageSpace of "
            f"gdas.cnn.space; {order}"
        )
    own = getattr(space, "config", config)
    if own == config or not hasattr(own, "sampler"):
        return
    if type(own) is not type(config):
        differ = f"{type(config).__name__} and {type(own).__name__}"
    else:
        keys = [k for k, v in vars(own).items() if v != getattr(config, k)]
        differ = ", ".join(keys)
    raise InputError(
        f"config: differs from the settings that the space was made with ({differ}); make the "
        f"space anew with these: {type(space).__name__}(config, ...)"
    )


def _check_untrained(space: SearchSpace) -> None:
    """Raise InputError if a space's weights have gradients, which new ones have not."""
    if any(p.grad is not None for p in space.weights.parameters()):
        raise InputError(
            f"space: has been searched or trained already, so a new search would not start from "
            f"new weights; make it anew with {type(space).__name__}(...), go on with checkpoint="
            "segment.state, or, to start from these weights, call space.weights.zero_grad()"
        )


def search(
    config: SearchSettings,
    space: SearchSpace,
    *,
    checkpoint: State | None = None,
) -> Iterator[Segment]:
    """Run a search; yields one segment per epoch, whose state resumes the search exactly.

    Source: paper Algorithm 1, section 4.2; settings in gdas.config and the folder of the space.

    Args:
        config: a SearchConfig, a TextSearchConfig, a Bench201SearchConfig, or one of your own.
        space: an ImageSpace, TextSpace or Bench201Space, or one of your own.
        checkpoint: the state of the segment to continue after; None: start from the beginning.

    Raises:
        InputError: the checkpoint or the space is of other settings, or the space has been searched
            already.
        FloatingPointError: a loss is not finite; the error names the epoch.
    """
    check_start(config, space, checkpoint)
    run = SearchSteps(config, space)
    if checkpoint is not None:
        run.load(checkpoint)
    s, w = config.sampler, config.weights
    for epoch in range(run.position, config.epochs):
        tau = temperature(
            epoch, config.epochs, s.tau_start, s.tau_end, reaches_end=s.tau_reaches_end
        )
        lr = cosine(epoch, config.epochs, w.lr, w.lr_min)
        rates = f"learning rates weights.lr={lr:g} and alpha.lr={config.alpha.lr:g}"
        space.weights.train()
        sums = {"train": EpochSums(), "valid": EpochSums()}
        for step in range(space.steps(epoch)):
            run.weight_optimizer.param_groups[0]["lr"] = lr * space.lr_scale(epoch, step)
            for turn in turns_of(config, epoch, step):
                take = run.weight_step if turn == "train" else run.alpha_step
                try:
                    sums[turn].add(take(epoch, step, tau))
                except FloatingPointError as error:
                    where = f"search, epoch {epoch + 1}, step {step + 1}, at {rates}"
                    raise FloatingPointError(f"{where}: {error}; lower the rate") from None
        metrics = {"lr": lr, "tau": tau}
        for split, total in sums.items():
            metrics |= total.metrics(split)
        require_finite(metrics, f"search, epoch {epoch + 1}", rates)
        derived_metrics, details = space.derived(run.logits)
        metrics |= derived_metrics
        run.position = epoch + 1
        run.history = [*run.history, metrics]
        yield Segment(run.position, config.epochs, metrics, details, run.state())
