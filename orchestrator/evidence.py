"""The page of evidence: `python -m orchestrator.evidence OUT1 OUT2`. From records alone, no Ray.

It prints Markdown: every claim that these studies bear on, with what was run, how often, the
figure, and the verdict; then the figures of the paper that none of them bears on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestrator.store.recorded import open_recorded, recorded_experiment
from orchestrator.terminal.command import add_study, command_parser, run_command

MORE = """examples:
  python -m orchestrator.evidence runs/nasbench201 runs/laptop > experiments/EVIDENCE.md

A study that still runs may be named too: what is not done reads "not run"."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.evidence",
        "What studies show, claim by claim, as one page in Markdown.",
        MORE,
        done="whatever they show",
    )
    add_study(parser, several=True)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _evidence, arguments)


def _evidence(options: argparse.Namespace) -> int:
    from orchestrator.experiment.load import load_experiment  # these take seconds to import
    from orchestrator.report.evidence import evidence_page
    from orchestrator.report.view import Results

    opened = [open_recorded(out) for out in options.outs]
    studies = [Results(recorded_experiment(store), study, store) for store, study in opened]
    print(evidence_page(studies, load_experiment("paper", [])), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
