"""List or remove old job folders: `python -m orchestrator.jobs list|remove OUT`. No Ray.

A changed setting gives a job a new id and a new folder. The old folder stays, so that changing the
setting back costs nothing. This command can remove the folders that no job of the study's present
settings needs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from gdas.errors import InputError
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.study import Study
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.recorded import driver, open_recorded
from orchestrator.store.storage import Stamp, is_address
from orchestrator.store.store import Store
from orchestrator.terminal.command import (
    add_study,
    add_yes,
    command_parser,
    run_command,
    say_next,
)
from orchestrator.terminal.words import columns, counted

MORE = """examples:
  python -m orchestrator.jobs list runs/smoke           lists the old folders
  python -m orchestrator.jobs remove runs/smoke         asks, then removes the old folders
  python -m orchestrator.jobs remove runs/smoke --yes   does not ask

A folder is old if no job of the study's settings (OUT/study.json) needs it, with or without --only.
Removing it frees its disk space; if a setting is changed back, its jobs run again."""


@dataclass(frozen=True)
class Old:
    """A job folder that no job of the study's settings needs.

    Attributes:
        name: the folder's name.
        bytes: its size.
        done: whether it has a result.
        written: when a file in it was last written, in seconds since 1970.
    """

    name: str
    bytes: int
    done: bool
    written: float


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.jobs",
        "List or remove job folders of a study that its present settings do not need.",
        MORE,
        done="done",
    )
    parser.add_argument("what", choices=("list", "remove"), help="list them, or remove them")
    add_study(parser)
    add_yes(parser, "folders are removed")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _jobs, arguments)


def _jobs(options: argparse.Namespace) -> int:
    out: str = options.out
    store, study = open_recorded(out)
    there = store.job_files()
    old = old_folders(store, study, there)
    print(f"{out}: {counted(len(there), 'job folder')}, {len(old)} of them old")
    if not old:
        say_next(f"python -m orchestrator.status {quote(out)}")
        return 0
    rows = [
        (folder.name, "done" if folder.done else "not done", _size(folder.bytes), _age(folder))
        for folder in old
    ]
    print("\n".join(columns([("old folder", "state", "size", "last written"), *rows])))
    freed = _size(sum(folder.bytes for folder in old))
    if options.what == "list":
        say_next(f"python -m orchestrator.jobs remove {quote(out)}   # frees {freed}")
        return 0
    if (holder := driver(store)) is not None:
        raise InputError(
            f"{out}: driven by process {holder.pid} on {holder.host}; wait for it, or stop it, "
            "before folders are removed"
        )
    if not options.yes:
        if not sys.stdin.isatty():
            raise InputError("nothing is removed without a word: add --yes")
        if input(f"Remove {counted(len(old), 'folder')} ({freed})? [y/N] ").strip().lower() not in (
            "y",
            "yes",
        ):
            raise InputError("nothing was removed")
    for folder in old:
        store.remove_job(folder.name)
    print(f"removed {counted(len(old), 'folder')}, {freed}")
    say_next(f"python -m orchestrator.status {quote(out)}")
    return 0


def old_folders(store: Store, study: Study, there: Mapping[str, Mapping[str, Stamp]]) -> list[Old]:
    """Job folders whose ids the study's whole settings do not have.

    Args:
        there: as `Store.job_files` returns them.

    Raises:
        InputError: it cannot be known which folders are needed, so none is safe to remove.
    """
    kept = {job.id for job in whole_plan(store, study)}
    if any(job.id not in kept for job in study):
        raise InputError(
            f"{store.address_of('study.json')}: of another version of the algorithm; run it again "
            "first, so that it is known which folders are needed"
        )
    return [
        Old(
            name,
            sum(size for size, _ in files.values()),
            JobFolder.open(store.out / "jobs" / name).result() is not None,
            max((when for _, when in files.values()), default=0) / 1e9,
        )
        for name, files in there.items()
        if name.rpartition("-")[2] not in kept
    ]


def whole_plan(store: Store, study: Study) -> Study:
    """All jobs of the settings in study.json, which lists only a part of them after --only."""
    from orchestrator.experiment.decode import decode
    from orchestrator.run.checks import unchecked_study  # here: it needs PyTorch, the help does not

    settings = store.study().get("settings")
    try:
        experiment = decode(Experiment, settings, "settings")
        return unchecked_study(experiment, study, _data_folder(store, study))
    except InputError as problem:
        raise InputError(
            f"{store.address_of('study.json')}: cannot tell which folders are needed ({problem}); "
            "run the study again first"
        ) from None


def _data_folder(store: Store, study: Study) -> Path:
    """Where the study's jobs found their data; for an address, the files that identify the data."""
    for job in study:
        try:
            address = str(store.folder(job).settings()["environment"]["data"])
        except (OSError, ValueError, KeyError):
            continue
        from orchestrator.store.data import described

        return described(address) if is_address(address) else Path(address)
    return Path("data").resolve()


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _age(folder: Old) -> str:
    when = time.localtime(folder.written)
    return time.strftime("%Y-%m-%d %H:%M", when) if folder.written else "-"


if __name__ == "__main__":
    sys.exit(main())
