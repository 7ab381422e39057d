"""Find what would go wrong in advance: `python -m orchestrator.doctor [EXPERIMENT]`. No Ray.

It only reads and measures, except for a probe file in the output folder, which it removes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestrator.terminal.command import (
    add_data,
    add_experiment,
    add_out,
    command_parser,
    run_command,
)

MORE = """examples:
  python -m orchestrator.doctor                             for the smoke experiment
  python -m orchestrator.doctor paper --data ~/data --out /scratch/paper
  python -m orchestrator.doctor laptop search.resources.cpus=1

Each line begins with ok, note or BAD; a line that is not ok ends with the fix."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.doctor",
        "Check versions, devices, storage, MLflow, data, and what each job needs.",
        MORE,
        done="nothing is bad",
        failed="something is",
    )
    add_experiment(parser)
    add_data(parser)
    add_out(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _doctor, arguments)


def _doctor(options: argparse.Namespace) -> int:
    from orchestrator.driver.doctor import examine  # here, so that the help needs no PyTorch

    return examine(options)


if __name__ == "__main__":
    sys.exit(main())
