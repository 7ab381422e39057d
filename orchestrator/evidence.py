"""The page of evidence: `python -m orchestrator.evidence OUT1 OUT2`. From records alone, no Ray.

It prints Markdown: every claim that these studies bear on, with what was run, how often, the
figure, and the verdict; then the figures of the paper that none of them bears on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.store.recorded import open_recorded, recorded_experiment
from orchestrator.terminal.command import command_parser, run_command

MORE = """examples:
  python -m orchestrator.evidence runs/nasbench201 runs/laptop
  python -m orchestrator.evidence experiments/evidence/*.json runs/mine > experiments/EVIDENCE.md
  python -m orchestrator.evidence runs/mine --keep experiments/evidence

A study that still runs may be named too: what is not done reads "not run". --keep writes what a
study shows to a small file, which this command reads as it reads the study, on any machine and
when the study's folder is gone."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.evidence",
        "What studies show, claim by claim, as one page in Markdown.",
        MORE,
        done="whatever they show",
    )
    parser.add_argument(
        "studies",
        nargs="+",
        metavar="OUT or FILE",
        help="the studies' output folders, or their addresses, or files that --keep wrote",
    )
    parser.add_argument(
        "--keep", metavar="DIR", help="write what each study shows to DIR as well, a file a study"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _evidence, arguments)


def _evidence(options: argparse.Namespace) -> int:
    from orchestrator.experiment.load import load_experiment  # these take seconds to import
    from orchestrator.report.evidence import evidence_page, section_of
    from orchestrator.report.kept_section import keep, read_section
    from orchestrator.report.view import Results

    sections = []
    for place in options.studies:
        if place.endswith(".json"):
            sections.append(read_section(Path(place)))
        else:
            store, study = open_recorded(place)
            sections.append(section_of(Results(recorded_experiment(store), study, store)))
    if options.keep is not None:
        keep(sections, Path(options.keep))
    print(evidence_page(sections, load_experiment("paper", [])), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
