"""The kinds of job: the name of each, where it runs, its body and its cost.

Each kind is one entry. The functions are named as text, "module:name", and imported where they run,
so that the store and the driver's plans work without PyTorch, and a search never loads the table of
NAS-Bench-201. A new kind is a file in `orchestrator.work` and an entry here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal


@dataclass(frozen=True)
class Kind:
    """One kind of job.

    Attributes:
        title: the kind's name in texts for people.
        runs_in: "driver", which uses no resources of the cluster; "trial", one process of the
            cluster; "workers", as many processes as its resources say, which train together.
        body: the function that runs, named as text. In a trial and in every worker it is called
            with the job folder's address and a callback for each record. In the driver it is called
            with the study, the job and the store, and returns a line to print.
        config: what `config` in the job's recipe holds: settings of a search or of a training.
        work: a function from a job to `orchestrator.cost.work.Work`, named as text; None in the
            driver.
        before: a function that is called once before workers start, with the job's folder, its
            settings and the folder of selection records; named as text.
        section: the section of an experiment's file in which its resources are set.
        start_s: CPU seconds before its first step, in a process that is forked from one that has
            imported PyTorch already.
        first: whether it goes before other jobs that could start too.
        model: whether its network goes to the model registry.
    """

    title: str
    runs_in: Literal["driver", "trial", "workers"]
    body: str
    config: Literal["search", "training"] | None = None
    work: str | None = None
    before: str | None = None
    section: str = "searches"
    start_s: float = 2.0
    first: bool = False
    model: bool = False


KINDS: dict[str, Kind] = {
    "search": Kind(
        title="search",
        runs_in="trial",
        body="orchestrator.work.search:run_search",
        config="search",
        work="orchestrator.cost.work:of_search",
    ),
    "proxy": Kind(
        title="proxy training",
        runs_in="trial",
        body="orchestrator.work.proxy:run_proxy",
        config="training",
        work="orchestrator.cost.work:of_proxy",
    ),
    "select": Kind(
        title="selection",
        runs_in="driver",
        body="orchestrator.work.select:run_select",
        start_s=0.0,
    ),
    "lookup": Kind(
        title="lookup",
        runs_in="trial",
        body="orchestrator.work.lookup:run_lookup",
        config="search",
        work="orchestrator.cost.work:of_lookup",
    ),
    "train": Kind(
        title="final training",
        runs_in="workers",
        body="orchestrator.work.final:train_worker",
        config="training",
        work="orchestrator.cost.work:of_final",
        before="orchestrator.work.final:settle_provenance",
        section="finals",
        first=True,  # a wide final must not be starved by narrow searches
        model=True,
    ),
    "measure": Kind(
        title="measurement",
        runs_in="trial",
        body="orchestrator.work.measure:run_measure",
        config="search",
        work="orchestrator.cost.work:of_measure",
        section="measures",
    ),
}
"""The kinds by the name that is used in labels, job folders and ids, in the order of display."""


def load(named: str | None) -> Any:
    """Import what a text such as "package.module:name" names."""
    assert named is not None, "asked for what this kind of job or search space has not"
    module, _, name = named.partition(":")
    return getattr(import_module(module), name)
