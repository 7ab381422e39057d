"""CPU time of a search step and of a training step, beside the same written the obvious way.

    python -m tests.bench.search_step [--threads 1 2] [--repeats 5] [--json FILE]

A search step is one W step and one alpha step of Algorithm 1, with both cells searched; a training
step is one of the network of GDAS_V1. The plain baseline (tests.bench.plain) does what the authors
did in 2019: NCHW layout, plain modules, a gate on every edge and all gradients in both steps,
undrawn operations' gradients filled with zeros. Ours is the library's own step, untouched. Both
have the same weights, images, draws and drop-path masks, and take turns in one process, so that
what else the machine does meets both alike. Figures are medians; a ratio is the median over the
repeats of one repeat's ratio. The first steps are not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gdas.train_image
from gdas.cnn.network import draw_drop_path
from gdas.cnn.space import ImageSpace
from gdas.config import (
    IMAGE_DATA,
    AlphaUpdate,
    SearchConfig,
    SupernetConfig,
    TrainConfig,
)
from gdas.data.arrow import Images
from gdas.data.augment import draw_moves
from gdas.data.source import Wanted
from gdas.genotype import PUBLISHED
from gdas.randomness import generator
from gdas.search import SearchSteps, draw_architecture
from tests.bench.plain import PlainNetwork, PlainSupernet

CPU = torch.device("cpu")
CLASSES = 10
TAU = 5.0


def random_images(count: int, size: int = 32) -> Images:
    """Noise: the time does not depend on what is on the images."""
    draw = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(256, (count, 3, size, size), generator=draw, dtype=torch.uint8)
    return Images(images_NCHW, torch.randint(CLASSES, (count,), generator=draw), CLASSES)


def search_settings(
    *, channels: int, normals: int, batch: int, channels_last: bool = True
) -> SearchConfig:
    """The logits stand still (rate 0), so that both contenders' draws are the same throughout."""
    return SearchConfig(
        batch_size=batch,
        network=SupernetConfig(channels=channels, normals_per_block=normals),
        alpha=AlphaUpdate(lr=0.0),
        channels_last=channels_last,
    )


class PlainSearch:
    """Algorithm 1's two steps in the authors' manner, on the plain supernet."""

    def __init__(self, config: SearchConfig, images: Images, weights: dict[str, Tensor]) -> None:
        self.config = config
        self.space = ImageSpace(config, images, CPU)
        self.logits = self.space.initial_logits(generator(config.seed, "logits"))
        n = config.network
        plain = PlainSupernet(
            CLASSES, channels=n.channels, normals_per_block=n.normals_per_block, nodes=n.nodes
        )
        plain.load_state_dict(weights)
        self.space.weights = plain.train()
        w, a = config.weights, config.alpha
        self.weight_optimizer = torch.optim.SGD(
            plain.parameters(), lr=w.lr, momentum=w.momentum, weight_decay=w.weight_decay
        )
        self.alpha_optimizer = torch.optim.Adam(
            list(self.logits.values()), lr=a.lr, betas=a.betas, weight_decay=a.weight_decay
        )

    def weight_step(self, step: int) -> Tensor:
        loss = self._backward("weights", self.space.weight_loss, step)
        nn.utils.clip_grad_norm_(self.space.weights.parameters(), self.config.weights.clip)
        self.weight_optimizer.step()
        return loss

    def alpha_step(self, step: int) -> Tensor:
        loss = self._backward("alpha", self.space.alpha_loss, step)
        self.alpha_optimizer.step()
        return loss

    def _backward(self, stream: str, loss_of: Callable[..., Any], step: int) -> Tensor:
        architecture = draw_architecture(
            self.logits,
            self.space.cell_types,
            self.config.sampler,
            TAU,
            generator(self.config.seed, f"gumbel of {stream}", 0, step),
            gate_device=CPU,
        )
        self.weight_optimizer.zero_grad(set_to_none=False)
        self.alpha_optimizer.zero_grad(set_to_none=False)
        loss: Tensor = loss_of(architecture, 0, step).loss
        loss.backward()
        return loss.detach()


Step = Callable[[int], object]


def search_contenders(
    *, channels: int, normals: int, batch: int, steps: int
) -> dict[str, tuple[Step, Step]]:
    """For each contender its steps, of W and of alpha, to be taken `steps` times at the most."""
    images = random_images(2 * steps * batch)
    config = search_settings(channels=channels, normals=normals, batch=batch)
    space = ImageSpace(config, images, CPU)
    plain_config = search_settings(
        channels=channels, normals=normals, batch=batch, channels_last=False
    )
    plain = PlainSearch(plain_config, images, space.weights.state_dict())
    space.weights.train()
    run = SearchSteps(config, space)
    return {
        "plain": (plain.weight_step, plain.alpha_step),
        "ours": (
            lambda step: run.weight_step(0, step, TAU),
            lambda step: run.alpha_step(0, step, TAU),
        ),
    }


def train_contenders(*, channels: int, normals: int, batch: int) -> dict[str, tuple[Step]]:
    """For each contender its training step."""
    images = random_images(8 * batch)
    genotype = PUBLISHED["GDAS_V1"]
    contenders: dict[str, tuple[Step]] = {}
    weights: dict[str, Tensor] = {}
    for name in ("ours", "plain"):
        config = TrainConfig(
            data=IMAGE_DATA["cifar10"],
            batch_size=batch,
            channels=channels,
            normals_per_block=normals,
            auxiliary_weight=0.0,
            channels_last=name == "ours",
        )
        ours = gdas.train_image.build_network(config, genotype, CLASSES)
        network: nn.Module = ours.to(memory_format=torch.channels_last)
        if name == "plain":
            network = PlainNetwork(
                genotype,
                CLASSES,
                channels=channels,
                normals_per_block=normals,
                drop_sites=ours.drop_sites,
            )
        weights = weights or {k: v.clone() for k, v in network.state_dict().items()}
        network.load_state_dict(weights)
        contenders[name] = (training_step(config, network.train(), images),)
    return contenders


def training_step(config: TrainConfig, network: Any, images: Images) -> Step:
    """The library's step on either network."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.025, momentum=0.9, weight_decay=config.weight_decay
    )
    team = gdas.train_image.workers()
    batches = torch.arange(len(images)).split(config.batch_size)

    def step(index: int) -> object:
        rows_B = batches[index % len(batches)]
        moves = draw_moves(
            config.data, len(rows_B), images.size, generator(config.seed, "augmentation", index)
        )
        wanted = Wanted(rows_B, moves)
        keep_DB = draw_drop_path(
            network, len(rows_B), 0.1, generator(config.seed, "drop path", index)
        )
        return gdas.train_image._step(
            config,
            network,
            network,
            optimizer,
            wanted,
            images.take(wanted),
            keep_DB,
            len(rows_B),
            team,
        )

    return step


@dataclass
class Times:
    """Seconds of every repeat, of every part of a step."""

    cpu: list[list[float]] = field(default_factory=list)
    wall: list[list[float]] = field(default_factory=list)

    def medians(self, of: Sequence[Sequence[float]]) -> list[float]:
        return [statistics.median(part) for part in zip(*of, strict=True)]


def compare(
    contenders: dict[str, tuple[Step, ...]], *, repeats: int, warm_up: int
) -> dict[str, Any]:
    """Run the contenders in turn and return all figures."""
    times = {name: Times() for name in contenders}
    for index in range(warm_up + repeats):
        for name, steps in contenders.items():
            cpu, wall = [], []
            for step in steps:
                began = time.process_time(), time.perf_counter()
                step(index)
                cpu.append(time.process_time() - began[0])
                wall.append(time.perf_counter() - began[1])
            if index >= warm_up:
                times[name].cpu.append(cpu)
                times[name].wall.append(wall)
    result: dict[str, Any] = {"repeats": repeats, "threads": torch.get_num_threads()}
    for name, t in times.items():
        result[name] = {
            "cpu_seconds": statistics.median(map(sum, t.cpu)),
            "wall_seconds": statistics.median(map(sum, t.wall)),
            "cpu_seconds_of_parts": t.medians(t.cpu),
            "cpu_seconds_of_repeats": t.cpu,
        }
    pairs = zip(times["plain"].cpu, times["ours"].cpu, strict=True)
    ratios = sorted(sum(plain) / sum(ours) for plain, ours in pairs)
    result["ratio"] = statistics.median(ratios)
    result["ratio_lowest"], result["ratio_highest"] = ratios[0], ratios[-1]
    return result


def show(title: str, parts: Sequence[str], result: dict[str, Any]) -> None:
    """Print a table and the line that is the point of it."""
    print(f"\n{title}; threads {result['threads']}, {result['repeats']} repeats, medians")
    print(
        "".join(f"{head:>16}" for head in ("", *[f"{p} (CPU s)" for p in parts], "CPU s", "wall s"))
    )
    for name in ("plain", "ours"):
        row = result[name]
        figures = [*row["cpu_seconds_of_parts"], row["cpu_seconds"], row["wall_seconds"]]
        print(f"{name:>16}" + "".join(f"{figure:16.3f}" for figure in figures))
    lowest, highest = result["ratio_lowest"], result["ratio_highest"]
    print(f"ratio of the repeats from {lowest:.2f} to {highest:.2f}")
    print(f"{result['name']}: {result['ratio']:.1f}× less CPU time than the plain baseline")  # noqa: RUF001


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--only", choices=("search", "train"))
    parser.add_argument("--channels", type=int, default=16, help="C of the supernet")
    parser.add_argument("--normals", type=int, default=2, help="N of the supernet")
    parser.add_argument("--batch", type=int, default=64, help="of the search")
    parser.add_argument("--train-channels", type=int, default=16, help="paper: 36")
    parser.add_argument("--train-normals", type=int, default=2, help="paper: 6")
    parser.add_argument("--train-batch", type=int, default=64, help="paper's code: 96")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(arguments)
    results: list[dict[str, Any]] = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        if args.only != "train":
            size = {"channels": args.channels, "normals": args.normals, "batch": args.batch}
            contenders = search_contenders(**size, steps=args.warm_up + args.repeats)
            result = compare(contenders, repeats=args.repeats, warm_up=args.warm_up)
            results.append({"name": "search step", **size, **result})
            show(f"search step, {_words(size)}", ("W step", "alpha step"), results[-1])
        if args.only != "search":
            size = {
                "channels": args.train_channels,
                "normals": args.train_normals,
                "batch": args.train_batch,
            }
            result = compare(train_contenders(**size), repeats=args.repeats, warm_up=args.warm_up)
            results.append({"name": "training step", **size, **result})
            show(f"training step of GDAS_V1, {_words(size)}", ("step",), results[-1])
    if args.json is not None:
        about = {"torch": torch.__version__, "results": results}
        args.json.write_text(json.dumps(about, indent=2) + "\n")


def _words(size: dict[str, int]) -> str:
    return f"C={size['channels']}, N={size['normals']}, batch {size['batch']}"


if __name__ == "__main__":
    main()
