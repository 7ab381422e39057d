"""Which job is next: the rules of a study, without Ray. Pure.

There is no barrier: a job is handed out as soon as what it needs is done and what it costs is
free, finals before searches, and only the head of that queue, so that a wide final is not starved
by narrow searches. Selections cost nothing and run here.

A job that failed is tried again, but not if its input is bad: it would fail again. Its own
exceptions use up its retries; a machine that was lost (a spot machine taken back, say) does not; a
process that died without a word does only where it committed no segment since it started, so that
what kills itself at the same place ends.

Machines leave. A job that those left have no room for waits, and it is said for what; it holds
nothing up meanwhile, and starts when a machine is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.experiment.kinds import load
from orchestrator.experiment.study import Alike, Job, Study
from orchestrator.store.board import Board
from orchestrator.store.failure import note_failure, read_failure
from orchestrator.store.store import Store

WITHOUT_A_WORD = "its process died without a word (out of memory, or killed)"


class ClusterLost(KeyboardInterrupt):
    """The command's own cluster is gone. An interrupt, so that nothing waits for what is gone."""


class Scheduler:
    """Hands out jobs and keeps the board.

    Args:
        budget: CPUs and GPUs that jobs may hold together; set once the cluster is known.
        announce: told one line about what happens.
        retries: how often a failed job is tried again.

    Attributes:
        nodes: what every living machine has; None where that is not known.
        grows: an autoscaler starts machines when jobs wait for them.
        private: the cluster is this command's own: one machine, and no other will come.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        budget: dict[str, float],
        announce: Callable[[str], None],
        retries: int = 0,
    ) -> None:
        self.study = study
        self.store = store
        self.budget = budget
        self.announce = announce
        self.retries = retries
        self.nodes: list[Resources] | None = None
        self.grows = False
        self.private = False
        self.waits: dict[str, str] = {}  # what was said of a job without room, by its id
        self.used: dict[str, int] = {}  # retries, by job id
        self.begun_at: dict[str, int] = {}  # records when a job last started, by its id
        self.board = Board({job.id: "done" if store.done(job) else "waiting" for job in study.jobs})

    def settle(self) -> None:
        """Run selections that are ready and mark what can no longer run."""
        states, notes = self.board.states, self.board.notes
        for job in self.study:
            if states[job.id] != "waiting":
                continue
            lost = [need for need in job.needs if states[need] in ("failed", "blocked")]
            if lost:
                states[job.id] = "blocked"
                needed = ", ".join(self.study.job(need).label for need in lost)
                notes[job.id] = f"needs {needed}, which did not finish"
                self.announce(f"{job.label}: cannot run, {notes[job.id]}")
            elif job.in_driver and self._ready(job):
                try:
                    said = load(job.of.body)(self.study, job, self.store)
                except Exception as error:  # a raise here would end the whole experiment
                    states[job.id] = "failed"
                    notes[job.id] = f"{type(error).__name__}: {error}"
                else:
                    states[job.id] = "done"
                    self.announce(f"{job.label}: {said}")

    def next_job(self) -> Job | None:
        """The head of the queue, if it fits what is free.

        A job without room goes to the cluster, where it waits, only when nothing else can go.
        """
        self.settle()
        ready = [job for job in self.study.in_cluster if self._ready(job)]
        handed = [job for job in self.study if self.board.states[job.id] == "running"]
        room = self._room_for({job.alike: job for job in [*ready, *handed]})
        running = [job for job in handed if room[job.alike]]
        fitting = [job for job in ready if room[job.alike]]
        head = head_that_fits(fitting or ([] if handed else ready), running, self.budget)
        if head is not None:
            self.board.states[head.id] = "running"
            self.begun_at[head.id] = len(self.store.folder(head).records())
            handed.append(head)
        self._say_what_waits(handed)
        return head

    def finished(self, job: Job, *, node_lost: bool = False) -> None:
        """A job's trial is over; its record decides how it went.

        Args:
            node_lost: a machine of the cluster was lost while the job ran.
        """
        if self.store.done(job):
            self.board.states[job.id] = "done"
        else:
            self._failed(job, node_lost)
        self.settle()

    def failed(self, job: Job, why: str) -> None:
        """Give a job up."""
        self.board.states[job.id] = "failed"
        self.board.notes[job.id] = why

    def _failed(self, job: Job, node_lost: bool) -> None:
        folder, board = self.store.folder(job), self.board
        failure = read_failure(folder.place)
        cause = failure.cause if failure else "node" if node_lost else "process"
        heard = board.notes.pop(job.id, None)  # what Ray knew of a process that left no word
        silent = "its machine was lost" if cause == "node" else heard or WITHOUT_A_WORD
        why = failure.error if failure else silent
        went_on = len(folder.records()) > self.begun_at.get(job.id, 0)
        counts = cause in ("own", "input") or (cause == "process" and not went_on)
        board.failures[job.id] = board.failures.get(job.id, 0) + 1
        self.used[job.id] = self.used.get(job.id, 0) + counts
        again = cause != "input" and self.used[job.id] <= self.retries
        note_failure(folder.place, why, cause, board.failures[job.id], again=again)
        if again:
            board.states[job.id] = "waiting"
            then = "tried again from its newest checkpoint"
            then += "" if counts else ", which is no retry of its own"
        else:
            self.failed(job, why)
            then = "given up, for it would fail again" if cause == "input" else "given up"
        self.announce(f"{job.label}: failed ({why}); {then}")

    def _lack(self, job: Job) -> str | None:
        """What the living machines lack for a job, in words; None where they can hold it."""
        return None if self.nodes is None else missing(job, self.nodes)

    def _room_for(self, jobs: Mapping[Alike, Job]) -> dict[Alike, bool]:
        """Whether the living machines can hold a job, by what it holds: thousands are alike."""
        return {key: self.grows or self._lack(job) is None for key, job in jobs.items()}

    def _say_what_waits(self, handed: Sequence[Job]) -> None:
        """Say, once, of jobs that the cluster was given and cannot hold now, what they wait for."""
        then = "more are being started" if self.grows else "it starts when there is room"
        waits = {job.id: lack for job in handed if (lack := self._lack(job)) is not None}
        for job in handed:
            if job.id in waits and self.waits.get(job.id) != waits[job.id]:
                self.announce(f"{job.label}: waits, {waits[job.id]} now; {then}")
        self.waits = waits

    def _ready(self, job: Job) -> bool:
        states = self.board.states
        return states[job.id] == "waiting" and all(states[need] == "done" for need in job.needs)


def head_that_fits(
    ready: Sequence[Job], running: Sequence[Job], budget: Mapping[str, float]
) -> Job | None:
    """The first in the queue, finals before others, if it fits beside what runs.

    Args:
        ready: jobs whose needs are done, in the study's order.
    """
    head = min(ready, key=lambda job: not job.of.first, default=None)
    if head is None or not running:
        return head
    for resource, total in budget.items():
        held = sum(job.cost[resource] for job in running)
        if held + head.cost[resource] > total + 1e-9:
            return None
    return head


Resources = dict[str, float]


def missing(job: Job, nodes: list[Resources]) -> str | None:
    """What a cluster of these nodes lacks to ever run a job, in words; None where it can.

    A trial, and each worker of a final, needs its share on one node.
    """
    count = job.workers
    for resource, needed in job.cost.items():
        total = sum(node.get(resource, 0.0) for node in nodes)
        if needed > total + 1e-9:
            return f"needs {needed:g} {resource}s and the cluster has {total:g}"
    share = {resource: cost / count for resource, cost in job.cost.items() if cost}
    if not share:
        return None
    places = sum(
        min(int((node.get(resource, 0.0) + 1e-9) / cost) for resource, cost in share.items())
        for node in nodes
    )
    if places >= count:
        return None
    each = " and ".join(f"{cost:g} {resource}s" for resource, cost in share.items())
    return (
        f"needs {count} x {each}, each on one machine, and the cluster's {len(nodes)} machines "
        f"have room for {places}"
    )
