"""A kind of job of one's own: how much a searched cell has in common with uniformly drawn ones."""

from __future__ import annotations

from collections.abc import Iterator

from gdas.checkpoint import Segment, State
from gdas.genotype import any_from_json
from orchestrator.cost.work import Cost, Work
from orchestrator.experiment.decode import decode_search
from orchestrator.experiment.kinds import Kind
from orchestrator.experiment.spaces import SPACES
from orchestrator.experiment.study import Job
from orchestrator.store.results import Result, SearchResult
from orchestrator.work.body import Report, open_job, run_to_end

KIND = Kind(
    title="comparison with chance",
    runs_in="trial",
    body="tests.examples.own_kind:run",
    config="search",
    work="tests.examples.own_kind:work",
)


def work(job: Job, cost: Cost) -> Work:
    return Work(0, 0, passes=0)  # no network runs


def run(path: str, on_record: Report = lambda record: None) -> None:
    with open_job(path) as job:
        config, draws = decode_search(job.recipe["config"]), job.recipe["draws"]
        found = job.needed().result(SearchResult)
        assert found is not None
        ours = any_from_json(found["genotype"]).normal  # type: ignore[union-attr]

        def loop(*, checkpoint: State | None) -> Iterator[Segment]:
            shared: list[int] = checkpoint["shared"] if checkpoint else []
            while len(shared) < draws:
                drawn = SPACES[config.task].random(config, len(shared)).normal  # type: ignore[union-attr]
                shared.append(len(set(ours) & set(drawn)))
                metrics = {"shared": sum(shared) / len(shared)}
                yield Segment(len(shared), draws, metrics, {}, {"shared": list(shared)})

        end = run_to_end(job.folder, loop, on_record)
        result: Result = {"metrics": end.metrics, "seconds": end.seconds}
        job.finish(result)
