"""The kinds of job: what each is called, where it runs, what runs, and how much that is.

One entry a kind. The functions are named as text, "module:name", and imported where they run: so
that the store and the driver's plans work without PyTorch, and a search never brings the table of
NAS-Bench-201 along. A kind of your own is a file in `orchestrator.work` and an entry here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal


@dataclass(frozen=True)
class Kind:
    """One kind of job.

    Attributes:
        title: for people.
        runs_in: "driver", where it holds nothing; "trial", one process of the cluster; "workers",
            as many processes as its resources say, which train together.
        body: what runs. In a trial, and in every worker, it is called with the job folder's address
            and a function to tell of each record; in the driver with the study, the job and the
            store, and it returns what to say of it.
        config: what `config` in the job's recipe says: the settings of a search or of a training.
        work: how much there is to do, a function from a job to `orchestrator.cost.work.Work`; None
            in the driver.
        before: called once before workers start, with the job's folder, its settings and the folder
            of selection records.
        section: of an experiment's file, where its resources are set.
        start_s: CPU seconds before its first step: its process imports PyTorch, workers find each
            other.
        first: handed out before other jobs that could start too.
        model: its network goes to the model registry.
    """

    title: str
    runs_in: Literal["driver", "trial", "workers"]
    body: str
    config: Literal["search", "training"] | None = None
    work: str | None = None
    before: str | None = None
    section: str = "searches"
    start_s: float = 7.0
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
        start_s=16.0,
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
"""By the name that labels, job folders and ids have of them; in the order that people see."""


def load(named: str | None) -> Any:
    """What a text such as "package.module:name" names; the module is imported now."""
    assert named is not None, "asked for what this kind of job or search space has not"
    module, _, name = named.partition(":")
    return getattr(import_module(module), name)
