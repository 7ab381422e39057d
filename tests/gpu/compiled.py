"""What `compile: true` takes and gains, in a process of its own:

    python -m tests.gpu.compiled language|search --device cuda|cpu

Prints figures as JSON in its last line. On a CPU the graphs are captured, but not compiled.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import torch

from gdas.compute import open_device
from tests.gpu import clock, setup
from tests.gpu.findings import plain
from tests.gpu.setup import Contender
from tests.gpu.sizes import PAPER, TRIAL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["language", "search"])
    parser.add_argument("--device", required=True)
    args = parser.parse_args()
    device = open_device(args.device, threads=1)
    cuda = device.type == "cuda"
    sizes = PAPER if cuda else TRIAL
    if not cuda:
        torch.compile = partial(torch.compile, backend="aot_eager")

    def contender(compile: bool) -> Contender:
        if args.kind == "language":
            return setup.language_steps(sizes, device, plain=False, compile=compile)[0]
        batch = sizes.batches[-1]
        config = setup.search_config(sizes, batch, "searched", compile=compile)
        return setup.search_steps(config, setup.search_images(sizes, batch), device)

    contenders = {"ours": contender(False), "ours, compiled": contender(True)}
    began = time.perf_counter()
    for index in range(sizes.inner):
        for step in contenders["ours, compiled"]:
            step(index)
    clock.wait(device)
    compiling = time.perf_counter() - began
    ways = clock.compare(
        contenders,
        device,
        repeats=5,
        inner=sizes.inner,
        warm_up=sizes.warm_up,
        limit=sizes.limit,
        left=lambda: 1.0,
    )
    print(json.dumps(plain({"ways": ways, "compiling_seconds": compiling})))


if __name__ == "__main__":
    main()
