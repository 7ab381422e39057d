"""Which job runs next: the rules of a study, without Ray. Pure.

There is no barrier: a job starts as soon as the jobs it needs are done and its resources are free.
Finals go before searches, and only the head of the queue may start, so that a wide final is not
starved by narrow searches. Selections use no resources and run here.

A failed job is retried, unless its input is bad or its loss has diverged: a retry changes neither,
since it goes on to the same bits. The next command does not try a diverged one either, unless it is
named, for its user may have repaired code or machine; bad input it tries. An exception of the
job's own uses up one of its retries. A lost machine (a spot instance taken back, say) does not. A
process that died without an exception uses one up only if it committed no segment since it started,
so that a job that always dies at the same place comes to an end.

Machines may leave the cluster. A job that the remaining ones have no room for waits, and a line
says what it waits for. Meanwhile other jobs run, and it starts once there is room.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from orchestrator.experiment.kinds import load
from orchestrator.experiment.study import Alike, Job, Study
from orchestrator.store.board import Board
from orchestrator.store.failure import note_failure, read_failure
from orchestrator.store.store import Store

WITHOUT_A_WORD = "its process died without a word (out of memory, or killed)"

FINAL = ("input", "diverged")
"""Causes of failures that a retry would only repeat."""


class ClusterLost(KeyboardInterrupt):
    """This command's own cluster is gone. An interrupt, so that nothing waits for the cluster."""


class Scheduler:
    """Decides which job is next, and keeps the board.

    Args:
        budget: CPUs and GPUs that running jobs may use together; set once the cluster is known.
        announce: called with one line about each event.
        retries: how often a failed job is retried.
        anyway: ids of jobs that are tried even if they diverged in an earlier command.

    Attributes:
        nodes: the resources of every living machine; None if they are not known.
        grows: whether an autoscaler starts machines when jobs wait for them.
        private: whether the cluster is this command's own: one machine, which no other can join.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        budget: dict[str, float],
        announce: Callable[[str], None],
        retries: int = 0,
        anyway: Collection[str] = (),
    ) -> None:
        self.study = study
        self.store = store
        self.budget = budget
        self.announce = announce
        self.retries = retries
        self.nodes: list[Resources] | None = None
        self.grows = False
        self.private = False
        self.waits: dict[str, str] = {}  # what a job without room lacks, as announced, by job id
        self.used: dict[str, int] = {}  # retries, by job id
        self.begun_at: dict[str, int] = {}  # how many records a job had when it last started, by id
        self.damaged: dict[str, int] = {}  # how many damaged checkpoints were announced, by job id
        self.traces: dict[str, str] = {}  # what Ray said of a job's last failure, by job id
        self.board = Board({job.id: "done" if store.done(job) else "waiting" for job in study.jobs})
        self._keep_diverged(anyway)

    def _keep_diverged(self, anyway: Collection[str]) -> None:
        """Mark what diverged in an earlier command as failed, but for `anyway`."""
        for job in self.study.in_cluster:
            failure = None if self.store.done(job) else read_failure(self.store.folder(job).place)
            if failure is not None and failure.settled and job.id not in anyway:
                self.failed(job, failure.error)
                self.board.failures[job.id] = failure.times
                self.announce(f"{job.label}: failed before; {failure.then(job.label)}")

    def may_run(self) -> bool:
        """Whether any job for the cluster is left that can run."""
        lost = set[str]()
        for job in self.study:
            if self.board.states[job.id] in ("failed", "blocked") or lost.intersection(job.needs):
                lost.add(job.id)
        return any(
            self.board.states[job.id] == "waiting" and job.id not in lost
            for job in self.study.in_cluster
        )

    def settle(self) -> None:
        """Run the selections that are ready, and mark jobs that can no longer run as blocked."""
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
        """Take the head of the queue, if its resources are free.

        A job that no machine has room for is handed to the cluster, to wait there, only if no other
        job can start.
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
            folder = self.store.folder(head)
            self.begun_at[head.id] = len(folder.records())
            self.damaged.setdefault(head.id, len(folder.damage()))
            handed.append(head)
        self._say_what_waits(handed)
        return head

    def finished(self, job: Job, *, node_lost: bool = False, began: bool = True) -> None:
        """Record how a job went, from its folder, after its trial has ended.

        Args:
            node_lost: whether a machine of the cluster was lost while the job ran.
            began: whether the job had a process; one that was kept for it may have died before.
        """
        self.say_damage(job)
        if self.store.done(job):
            self.board.states[job.id] = "done"
        else:
            self._failed(job, node_lost, began)
        self.settle()

    def say_damage(self, job: Job) -> None:
        """Announce the damaged checkpoints that a job has passed over since it was last asked."""
        lines = self.store.folder(job).damage()
        for line in lines[self.damaged.get(job.id, 0) :]:
            self.announce(f"{job.label}: {line}")
        self.damaged[job.id] = len(lines)

    def failed(self, job: Job, why: str) -> None:
        """Mark a job as failed for good, without a retry."""
        self.board.states[job.id] = "failed"
        self.board.notes[job.id] = why

    def _failed(self, job: Job, node_lost: bool, began: bool) -> None:
        folder, board = self.store.folder(job), self.board
        failure = read_failure(folder.place)
        cause = failure.cause if failure else "node" if node_lost else "process"
        heard = board.notes.pop(job.id, None)  # Ray's reason, if the process left no error record
        silent = "its machine was lost" if cause == "node" else heard or WITHOUT_A_WORD
        why = failure.error if failure else silent
        went_on = len(folder.records()) > self.begun_at.get(job.id, 0)
        excused = not began and not board.failures.get(job.id)  # once, so that it comes to an end
        counts = cause in ("own", *FINAL) or (cause == "process" and not went_on and not excused)
        board.failures[job.id] = board.failures.get(job.id, 0) + 1
        self.used[job.id] = self.used.get(job.id, 0) + counts
        again = cause not in FINAL and self.used[job.id] <= self.retries
        trace = self.traces.pop(job.id, "")
        note_failure(folder.place, why, cause, board.failures[job.id], again=again, trace=trace)
        if again:
            board.states[job.id] = "waiting"
            then = "tried again from its newest checkpoint"
            then += "" if counts else ", and uses up no retry"
        else:
            self.failed(job, why)
            then = "given up, for it would fail again" if cause in FINAL else "given up"
        self.announce(f"{job.label}: failed ({why}); {then}")

    def _lack(self, job: Job) -> str | None:
        """What the living machines lack for a job, in words; None if they have room for it."""
        return None if self.nodes is None else missing(job, self.nodes)

    def _room_for(self, jobs: Mapping[Alike, Job]) -> dict[Alike, bool]:
        """Whether the living machines have room, by `Job.alike`, which many jobs may share."""
        return {key: self.grows or self._lack(job) is None for key, job in jobs.items()}

    def _say_what_waits(self, handed: Sequence[Job]) -> None:
        """Announce once what each job waits for that was handed out and has no room now."""
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
    """The first job in the queue, finals before others, if it fits beside those running.

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
    """What a cluster of these nodes lacks to ever run a job, in words; None if it can.

    Each trial, and each worker of a final, must fit on one node.
    """
    count, kind = job.workers, ""
    if job.machines:
        nodes, kind = [node for node in nodes if node.get(job.machines)], f" of {job.machines}"
    for resource, needed in job.cost.items():
        total = sum(node.get(resource, 0.0) for node in nodes)
        if needed > total + 1e-9:
            return f"needs {needed:g} {resource}s{kind} and the cluster has {total:g}"
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
        f"needs {count} x {each}, each on one machine, and the cluster's {len(nodes)} machines"
        f"{kind} have room for {places}"
    )
