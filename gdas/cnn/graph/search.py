"""Algorithm 1 on a card: what gdas.search.search yields, from graphs that are replayed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import nn

from gdas.checkpoint import Segment, State
from gdas.cnn.cell import FixedReductionCell, Preprocess, SearchCell
from gdas.cnn.config import SearchConfig
from gdas.cnn.fused.layers import runs_as
from gdas.cnn.norm import BatchNorm
from gdas.cnn.operations import Depthwise, FactorizedReduce, Pool, Zero
from gdas.cnn.pooling import AveragePool
from gdas.cnn.space import ImageSpace
from gdas.cnn.supernet import Supernet
from gdas.compute import device_of
from gdas.data.settings import ImageData
from gdas.data.source import ImageSource
from gdas.errors import InputError
from gdas.metrics import require_finite
from gdas.presets import AnySearchConfig
from gdas.schedule import cosine, temperature
from gdas.search import check_start, turns_of

WIDEST = 64
"""Most initial channels: the last cells have four times as many, and a tile holds them all."""

KERNELS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The operations that the kernels have branches for, by the numbers in gdas.cnn.graph.tiles."""


BUILT = (
    SearchCell,
    FixedReductionCell,
    Preprocess,
    FactorizedReduce,
    Pool,
    AveragePool,
    Zero,
    Depthwise,
    BatchNorm,
    nn.Conv2d,
    nn.MaxPool2d,
    nn.ReLU,
    nn.Identity,
    nn.Sequential,
    nn.ModuleList,
)
"""What a supernet's cells are built of."""


def covered(
    config: AnySearchConfig, device: torch.device, *, elsewhere: bool = False
) -> str | None:
    """Why a search cannot run as graphs, in words; None if it can.

    Args:
        elsewhere: it will run on another machine, which may have what is not installed here.
    """
    if not isinstance(config, SearchConfig) or not isinstance(config.data, ImageData):
        return "only searches of image cells on arrays of images are covered"
    s, n, a = config.sampler, config.network, config.alpha
    reasons = {
        "device: graphs need a CUDA device": device.type != "cuda",
        "triton is not installed": not elsewhere and find_spec("triton") is None,
        f"sampler.relaxation={s.relaxation}: only hard": s.relaxation != "hard",
        f"sampler.method={s.method}: only null": s.method is not None,
        "sampler.acceleration=false: all operations run": not s.acceleration,
        "sampler.scope=data_sample: every image draws": s.scope == "data_sample",
        f"alpha.gates={a.gates}: only drawn": a.gates != "drawn",
        f"alpha.risk_seeking={a.risk_seeking:g}: only 0": a.risk_seeking > 0,
        "weights.clip_scope=all: only weights": config.weights.clip_scope == "all",
        "network.pooling_norm=false": not n.pooling_norm,
        "network.bias_without_affine=true": n.bias_without_affine,
        f"network.channels={n.channels}: at most {WIDEST // 2}": n.channels > WIDEST // 2,
        f"precision={config.precision}: only float32": config.precision != "float32",
        f"operations: only {', '.join(KERNELS)}": config.operations != KERNELS,
        "channels_last=false": not config.channels_last,
        "compile=true": config.compile,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def search_on_card(
    config: SearchConfig,
    images: ImageSource,
    device: torch.device | str,
    *,
    checkpoint: State | None = None,
    precision: str = "tf32x3",
) -> Iterator[Segment]:
    """Search as gdas.search.search does on an ImageSpace, each step a CUDA graph.

    The draws, images and augmentation are the same; sums are rounded in another order, so that the
    results are those of the plain search to rounding, and equal bit for bit from run to run.

    Args:
        images: in memory; they are copied to the device.
        checkpoint: the state of a segment of either kind of search, to go on after it.
        precision: of matrix products, see gdas.cnn.graph.cell.GraphCell.

    Raises:
        InputError: the settings or the device are not covered.
        FloatingPointError: a loss or a logit is not finite; names the epoch.
    """
    device = device_of(device)
    reason = covered(config, device)
    if reason is not None:
        raise refusal(reason)
    yield from search_by_graphs(
        config, ImageSpace(config, images, device), checkpoint=checkpoint, precision=precision
    )


def changed(supernet: Supernet) -> str | None:
    """What of a supernet's cells is not as this package builds it, in words; None if nothing is.

    The kernels call no module of a cell, so they would pass by whatever somebody put there.
    """
    for i, cell in enumerate(supernet.cells):
        for name, module in cell.named_modules(prefix=f"cells.{i}"):
            if type(module) not in BUILT or not runs_as(module, type(module)):
                return f"{name} ({type(module).__name__}) is changed or has hooks"
    return None


def refusal(reason: str) -> InputError:
    """The error of a search that is not `covered`."""
    return InputError(f"execution=graph: this search cannot run as CUDA graphs: {reason}")


def search_by_graphs(
    config: SearchConfig,
    space: ImageSpace,
    *,
    checkpoint: State | None = None,
    precision: str = "tf32x3",
) -> Iterator[Segment]:
    """`search_on_card` on a space that is there already.

    Raises:
        InputError, FloatingPointError: as search_on_card.
    """
    check_start(config, space, checkpoint)
    reason = covered(config, space.device) or changed(space.supernet)
    if reason is not None:
        raise refusal(reason)
    from gdas.cnn.graph.step import GraphSteps  # here, because Triton may be missing

    steps = GraphSteps(config, space, precision=precision)
    if checkpoint is not None:
        steps.load(checkpoint)
    yield from run_epochs(config, space, steps)


def run_epochs(config: SearchConfig, space: ImageSpace, steps: object) -> Iterator[Segment]:
    """The epochs that are left; see `search_on_card`."""
    from gdas.cnn.graph.step import GraphSteps

    assert isinstance(steps, GraphSteps)
    run, s, w = steps.run, config.sampler, config.weights
    space.weights.train()
    drawn = steps.draw_epoch(run.position) if run.position < config.epochs else {}
    for epoch in range(run.position, config.epochs):
        tau = temperature(
            epoch, config.epochs, s.tau_start, s.tau_end, reaches_end=s.tau_reaches_end
        )
        lr = cosine(epoch, config.epochs, w.lr, w.lr_min)
        held = config.alpha.holds(epoch)
        steps.begin_epoch(drawn, lr, tau)
        for step in range(space.steps(epoch)):
            steps.take(step, turns_of(config, epoch, step), held=held)
        if epoch + 1 < config.epochs:  # while the device works
            drawn = steps.draw_epoch(epoch + 1)
        metrics = {"lr": lr, "tau": tau} | steps.end_epoch()
        where = f"search, epoch {epoch + 1}"
        require_finite(
            metrics, where, f"learning rates weights.lr={lr:g}, alpha.lr={config.alpha.lr:g}"
        )
        if not torch.isfinite(steps.logits.values_TEK).all():
            raise FloatingPointError(f"{where}: logits are not finite: the run has diverged")
        state = steps.state(lr, held=held)
        derived, details = space.derived(run.logits)
        metrics |= derived
        run.position = epoch + 1
        run.history = [*run.history, metrics]
        state |= {"position": run.position, "history": run.history}
        yield Segment(run.position, config.epochs, metrics, details, state)
