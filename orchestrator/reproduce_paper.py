"""Run an experiment: `python -m orchestrator.reproduce_paper [EXPERIMENT] [key=value ...]`.

Settings and data are checked before anything starts. The same command, run again, goes on where the
last one stopped.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence

from gdas.errors import InputError
from orchestrator.terminal.command import (
    add_address,
    add_data,
    add_experiment,
    add_out,
    add_yes,
    command_parser,
    run_command,
)

MORE = """experiments (experiments/*.yaml; what each needs and takes: experiments/README.md):
  smoke        every kind of job, digits and prose, minutes on 2 cores
  laptop       the real CIFAR-10, PTB and WikiText-2, small: half an hour on 2 cores
  headline     the abstract's claim at the paper's size: 1 GPU or more, days
  paper        every GDAS row of Tables 1 to 5: 1 GPU or more (ImageNet 4), months of one
  published    the authors' cells, trained without a search: GPUs, weeks of one
  random       four searched cells against four random ones: GPUs, days
  ablations    one setting of the search changed at a time: GPUs, weeks of one
  nasbench201  seven ways to search NAS-Bench-201: 4 hours on 2 cores
  carry_over   does what helped there help in the search of laptop: an hour on 2 cores
  power        searched against random cells, enough to tell: some two hours on 2 cores
  recurrent    the same for recurrent cells, longer searched: an hour on 2 cores

examples:
  python -m orchestrator.reproduce_paper                       the smoke experiment
  python -m orchestrator.reproduce_paper laptop --data DIR     small, on the real CIFAR-10
  python -m orchestrator.reproduce_paper headline --dry-run    what the abstract's claim takes
  python -m orchestrator.reproduce_paper paper --dry-run --gpus 4,32,256    on clusters of GPUs
  python -m orchestrator.reproduce_paper smoke search.recipe.epochs=4 --out runs/longer
  python -m orchestrator.reproduce_paper smoke --only search-gdas-frc
  python -m orchestrator.reproduce_paper smoke --report        a report of what is done so far

key=value changes a setting by its dotted name; lists and groups are YAML: 'search.seeds=[0, 1]'.

Stop it with Ctrl-C at any time; the same command, run again, goes on where it stopped. See also
orchestrator.status OUT, orchestrator.doctor EXPERIMENT and orchestrator.compare OUT1 OUT2."""


NEEDS = {"calibrate": "dry_run", "price": "dry_run", "gpus": "dry_run", "faster": "gpus"}
"""Options, each with the option that it needs."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.reproduce_paper",
        "Search, select, train, and report the results beside the paper's numbers.",
        MORE,
        done="all done",
        failed="a job failed",
    )
    add_experiment(parser)
    add_out(parser)
    add_data(parser)
    add_address(parser, None, "a private one here")
    parser.add_argument("--only", metavar="JOB,...", help="run these jobs and those they need")
    parser.add_argument("--dry-run", action="store_true", help="show the jobs, start nothing")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="with --dry-run: time a few real steps of every kind of job here (half a minute)",
    )
    parser.add_argument(
        "--price",
        type=float,
        metavar="N",
        help="with --dry-run: the price of an hour of a GPU, or of a CPU core if no job uses GPUs",
    )
    parser.add_argument(
        "--gpus",
        metavar="N,...",
        help="with --dry-run: estimate the time on clusters of so many GPUs, such as 4,32,256",
    )
    parser.add_argument(
        "--faster",
        type=float,
        metavar="X",
        help="with --gpus: guess for GPUs that are X times as fast as a V100 (default: 1)",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="write the report of what is done so far and start nothing; also while it runs",
    )
    add_yes(parser, "a run of days")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    found = parser()
    found.set_defaults(command=shlex.join(["python", "-m", "orchestrator.reproduce_paper", *words]))
    return run_command(found, _command, words)


def _command(options: argparse.Namespace) -> int:
    _refuse_lone_options(options)
    from orchestrator.driver.reproduce import reproduce  # here, so that the help needs no PyTorch

    return reproduce(options)


def _refuse_lone_options(options: argparse.Namespace) -> None:
    """Refuse an option that has no effect without another one, or an empty one."""
    for name, other in NEEDS.items():
        given = vars(options)
        if given[name] not in (None, False) and not given[other]:
            wanted = f"--{other.replace('_', '-')}"
            raise InputError(f"--{name}: goes with {wanted}; add it, or leave --{name} out")
    if options.only is not None and not all(map(str.strip, options.only.split(","))):
        raise InputError(
            f"--only {options.only}: a name in it is empty, which would stand for all jobs; leave "
            "that comma out"
        )
    if options.price is not None and not 0 <= options.price < math.inf:
        raise InputError(f"--price {options.price:g}: must be 0 or more, such as 2.5")


if __name__ == "__main__":
    from orchestrator.run.process import leave

    leave(main())
