"""Wait for a Ray cluster to come up: `python -m orchestrator.run.join HOST:PORT`.

For scripts that start a cluster themselves (cluster/slurm.sbatch). With `-- COMMAND`, the command
takes this process's place as soon as the head answers; with `--machines N`, this waits until so
many machines have joined.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib.metadata import version

from orchestrator.run.address import Unreachable, probe

PATIENCE_S = 300.0
"""How long to wait, in seconds: a busy machine may take minutes to start Ray."""


def wait_for_head(address: str, patience_s: float = PATIENCE_S) -> None:
    """Return as soon as the head answers.

    Raises:
        Unreachable: it does not, for so long.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            probe(address, version("ray"), 5.0)
            return
        except Unreachable:
            if time.monotonic() > end:
                raise
        time.sleep(1.0)


def wait_for_machines(address: str, count: int, patience_s: float = PATIENCE_S) -> int:
    """Return how many machines have joined, as soon as they are so many, or when time is up."""
    from orchestrator.run.machines import living_nodes, ray_cluster

    end = time.monotonic() + patience_s
    with ray_cluster(address):
        while (joined := len(living_nodes())) < count and time.monotonic() < end:
            time.sleep(1.0)
    return joined


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.run.join")
    parser.add_argument("address")
    parser.add_argument("--machines", type=int, default=0)
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    try:
        wait_for_head(options.address)
    except Unreachable as why:
        print(f"error: {options.address}: {why}", file=sys.stderr)
        return 2
    if options.machines:
        joined = wait_for_machines(options.address, options.machines)
        if joined < options.machines:
            print(f"note: {joined} of {options.machines} machines have joined", file=sys.stderr)
    if options.command:
        os.execvp(options.command[0], options.command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
