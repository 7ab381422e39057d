"""All commands under one name: `gdas COMMAND ...`, or `python -m orchestrator COMMAND ...`.

Each is a module of its own, such as `python -m orchestrator.status`, which this only starts.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from gdas.errors import InputError, suggestion
from orchestrator.terminal.command import command_parser, run_command
from orchestrator.terminal.words import columns

COMMANDS = {
    "reproduce": ("reproduce_paper", "run an experiment, plan it, or write its report"),
    "status": ("status", "where every job of a study stands"),
    "log": ("log", "what a job printed, and the traceback of its error"),
    "compare": ("compare", "what differs between studies, in settings and in results"),
    "evidence": ("evidence", "what studies show, claim by claim, as one page"),
    "doctor": ("doctor", "what would go wrong on this machine, each line with its fix"),
    "cell": ("cell", "show, draw, count or convert a cell"),
    "export": ("export", "a trained network as ONNX, .pt2 or .safetensors"),
    "predict": ("predict", "labels for the photos of a folder"),
    "jobs": ("jobs", "list or remove old job folders"),
    "send": ("send_runs", "a study's runs to another MLflow"),
    "nodes": ("nodes", "check every machine of a Ray cluster"),
}
"""A command's module, and what it does."""

MORE = "\n".join(
    [
        "commands:",
        *(f"  {line}" for line in columns([(name, what) for name, (_, what) in COMMANDS.items()])),
        "",
        "examples:",
        "  python -m orchestrator reproduce laptop --data DIR",
        "  python -m orchestrator status runs/laptop",
        "  gdas log runs/laptop search-gdas-frc-seed0 --follow",
        "",
        "gdas COMMAND --help says more of each.",
    ]
)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator",
        "GDAS from search to table: one command for all of it.",
        MORE,
        done="as the command says",
    )
    parser.add_argument("name", metavar="COMMAND", help="see below")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named first with the options behind it; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    modules = {module: module for module, _ in COMMANDS.values()}  # as `python -m` names them
    modules |= {name: module for name, (module, _) in COMMANDS.items()}
    if not words or words[0].replace("-", "_") not in modules:
        return run_command(parser(), _unknown, words[:1] or ["--help"])
    module = importlib.import_module(f"orchestrator.{modules[words[0].replace('-', '_')]}")
    code: int = module.main(words[1:])
    return code


def _unknown(options: argparse.Namespace) -> int:
    raise InputError(f"{options.name}: no such command{suggestion(options.name, list(COMMANDS))}")


def console() -> None:
    """Run `gdas`, and leave as a command that may have started Ray must."""
    code = main()
    if "orchestrator.run.process" in sys.modules:
        sys.modules["orchestrator.run.process"].leave(code)
    sys.exit(code)


if __name__ == "__main__":
    console()
