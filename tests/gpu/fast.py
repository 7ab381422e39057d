"""Fast: how long the steps take, beside the plain baseline and in every setting for cards.

Every line is of one step: a W step and an alpha step in a search. The settings' defaults are
float32 without TensorFloat32, images channels-last, cuDNN's deterministic algorithms.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch

from tests.bench.timing import ROOT
from tests.gpu import clock, setup
from tests.gpu.arithmetic import tf32
from tests.gpu.findings import Figures, Findings
from tests.gpu.setup import Contender
from tests.gpu.sizes import Sizes

EPOCHS, IMAGES = 240, 25_000
"""The paper's search: epochs, and images of each half."""
WAYS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, channels first": {"channels_last": False},
    "ours, bfloat16": {"precision": "bfloat16"},
}
BOTH = {"plain": True, "ours": False}


def run(of: Findings, device: torch.device, sizes: Sizes) -> None:
    """Searches and trainings first, then settings, kernels, and what compiling gains."""
    batches = sizes.batches
    of.take("search, both cells", lambda: _search(of, device, sizes, batches[-1], "searched"))
    of.take("training, CIFAR", lambda: _training(of, device, sizes, photos=False))
    of.take("training, ImageNet", lambda: _training(of, device, sizes, photos=True))
    of.take("language model", lambda: _language(of, device, sizes))
    of.take("recurrent search", lambda: _recurrent(of, device, sizes))
    of.take("acceleration", lambda: _acceleration(of, device, sizes))
    of.take("settings of the card", lambda: _settings(of, device, sizes))
    of.take("kernels, search", lambda: _search_kernels(of, device, sizes, {}))
    of.take("search, FRC", lambda: _search(of, device, sizes, batches[-1], "fixed"))
    of.take(
        "kernels, search, bfloat16",
        lambda: _search_kernels(of, device, sizes, {"precision": "bfloat16"}),
    )
    for batch in batches[:-1]:
        of.take(
            f"search, both cells, batch {batch}",
            partial(_search, of, device, sizes, batch, "searched"),
        )
    for kind, needs in (("language", 45.0), ("search", 240.0)):
        cuda = device.type == "cuda"
        of.take(
            f"compiled, {kind}",
            partial(_compiled, of, device, kind),
            needs=needs if cuda else 0.0,
        )


def _compare(
    of: Findings,
    device: torch.device,
    sizes: Sizes,
    contenders: Mapping[str, Contender],
    *,
    inner: int = 1,
) -> Figures:
    """Times of all, and how much faster than the baseline each one is.

    Args:
        inner: steps of a repeat; one is enough where it is long or always the same.
    """
    figures: Figures = dict(
        clock.compare(
            contenders,
            device,
            repeats=sizes.repeats,
            inner=inner,
            warm_up=sizes.warm_up,
            limit=sizes.limit,
            left=of.left,
        )
    )
    if "plain" in figures:
        plain = figures["plain"]["ms"]["median"]
        for name in contenders:
            figures[name]["times_faster"] = plain / figures[name]["ms"]["median"]
    return figures


def _search(
    of: Findings,
    device: torch.device,
    sizes: Sizes,
    batch: int,
    reduction: Literal["searched", "fixed"],
) -> Figures:
    images = setup.search_images(sizes, batch)
    config = setup.search_config(sizes, batch, reduction)
    contenders: dict[str, Contender] = {}
    if reduction == "searched":
        contenders["plain"] = setup.plain_search_steps(config, images, device)
    for name, changes in WAYS.items():
        if reduction == "searched" or "first" not in name:
            own = setup.search_config(sizes, batch, reduction, **changes)
            contenders[name] = setup.search_steps(own, images, device)
    figures = _compare(of, device, sizes, contenders, inner=sizes.inner)
    for name in contenders:
        steps = EPOCHS * -(-IMAGES // batch)
        figures[name]["search_minutes"] = steps * figures[name]["ms"]["median"] / 60e3
    return {"batch": batch, "ways": figures}


def _search_kernels(
    of: Findings, device: torch.device, sizes: Sizes, changes: dict[str, Any]
) -> Figures:
    """Kernels of both parts of a step, and where it waits."""
    batch = sizes.batches[-1]
    images = setup.search_images(sizes, batch)
    config = setup.search_config(sizes, batch, "searched", **changes)
    steps = setup.search_steps(config, images, device)
    timed = _compare(of, device, sizes, {"it": steps}, inner=clock.PROFILED)["it"]
    ms = timed["ms"]["median"]
    figures = {"batch": batch, "ms": ms, "cpu_ms": timed["cpu_ms"]}
    figures |= clock.kernels(steps, device, ms=ms)
    return figures | {"waits": clock.waits(steps, device)["places"]}


def _acceleration(of: Findings, device: torch.device, sizes: Sizes) -> Figures:
    """Paper section 3.2: running only the drawn operation saves a factor of 8."""
    batch = sizes.batches[0]
    images = setup.search_images(sizes, batch)
    contenders = {
        name: setup.search_steps(
            setup.search_config(sizes, batch, "searched", acceleration=accelerated), images, device
        )
        for name, accelerated in (("drawn operations", True), ("all operations", False))
    }
    ways = _compare(of, device, sizes, contenders)
    drawn, every = ways["drawn operations"], ways["all operations"]
    figures = {"batch": batch, "ways": ways, "time": every["ms"]["median"] / drawn["ms"]["median"]}
    if "step_mib" in drawn:
        figures["memory"] = every["step_mib"] / drawn["step_mib"]
    return figures


def _training(of: Findings, device: torch.device, sizes: Sizes, *, photos: bool) -> Figures:
    batch = sizes.imagenet[2] if photos else sizes.final[2]
    contenders = {
        name: setup.training_steps(sizes, device, photos=photos, plain=plain)
        for name, plain in BOTH.items()
    }
    contenders["ours, bfloat16"] = setup.training_steps(
        sizes, device, photos=photos, plain=False, precision="bfloat16"
    )
    ways = _compare(of, device, sizes, contenders)
    for figures in ways.values():
        figures["images_a_second"] = 1e3 * batch / figures["ms"]["median"]
    profiles = {
        name: clock.kernels(contenders[name], device, ms=ways[name]["ms"]["median"])
        for name in ("ours", "ours, bfloat16")
    }
    return {"batch": batch, "ways": ways, "kernels": profiles}


def _language(of: Findings, device: torch.device, sizes: Sizes) -> Figures:
    contenders: dict[str, Contender] = {}
    for name, plain in BOTH.items():
        contenders[name], tokens = setup.language_steps(sizes, device, plain=plain)
    contenders["ours, bfloat16"], _ = setup.language_steps(
        sizes, device, plain=False, precision="bfloat16"
    )
    ways = _compare(of, device, sizes, contenders)
    for figures in ways.values():
        figures["tokens_a_second"] = 1e3 * tokens / figures["ms"]["median"]
    one = clock.kernels(contenders["ours"], device, ms=ways["ours"]["ms"]["median"])
    waits = clock.waits(contenders["ours"], device)["places"]
    return {"tokens": tokens, "ways": ways, "kernels": {"ours": one}, "waits": waits}


def _recurrent(of: Findings, device: torch.device, sizes: Sizes) -> Figures:
    contenders = {
        name: setup.recurrent_steps(sizes, device, plain=plain) for name, plain in BOTH.items()
    }
    contenders["ours, bfloat16"] = setup.recurrent_steps(
        sizes, device, plain=False, precision="bfloat16"
    )
    ways = _compare(of, device, sizes, contenders)
    one = clock.kernels(contenders["ours"], device, ms=ways["ours"]["ms"]["median"])
    waits = clock.waits(contenders["ours"], device)["places"]
    return {"ways": ways, "kernels": {"ours": one}, "waits": waits}


@contextmanager
def _cudnn(*, deterministic: bool, benchmark: bool) -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _settings(of: Findings, device: torch.device, sizes: Sizes) -> Figures:
    """The same search steps under every setting of the process, one setting after the other."""
    batch = sizes.batches[-1]
    images = setup.search_images(sizes, batch)
    steps = setup.search_steps(setup.search_config(sizes, batch, "searched"), images, device)
    settings: dict[str, Callable[[], Any]] = {
        "as it is": nullcontext,
        "TensorFloat32": lambda: tf32(True),
        "deterministic algorithms alone": _deterministic_algorithms,
        "cuDNN may choose any algorithm": lambda: _cudnn(deterministic=False, benchmark=False),
        "cuDNN tries all algorithms": lambda: _cudnn(deterministic=False, benchmark=True),
    }
    figures: Figures = {}
    for name, setting in settings.items():
        if figures and of.left() <= 0:
            break
        with warnings.catch_warnings(), setting():
            warnings.simplefilter("ignore")
            figures |= _compare(of, device, sizes, {name: steps}, inner=min(2, sizes.inner))
    return {"batch": batch, "ways": figures}


def _compiled(of: Findings, device: torch.device, kind: str) -> Figures:
    """In a process of its own, which can be stopped: compiling takes its time."""
    line = [sys.executable, "-m", "tests.gpu.compiled", kind, "--device", device.type]
    try:
        done = subprocess.run(
            line, cwd=ROOT, timeout=max(5.0, of.left()), capture_output=True, text=True
        )
    except subprocess.TimeoutExpired as late:
        return {"not_run": f"not compiled within {late.timeout:.0f} s"}
    if done.returncode:
        return {"error": done.stderr.strip()[-800:]}
    found: Figures = json.loads(done.stdout.strip().split("\n")[-1])
    return found
