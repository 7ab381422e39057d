"""Select the best seed by validation, and write the record that a final's provenance points to.

Pure. It reads results of searches and proxy trainings, which never see the test split.
"""

from __future__ import annotations

import time
from statistics import fmean

from gdas.files import write_json
from orchestrator.experiment.spaces import SPACES
from orchestrator.experiment.study import Job, Study
from orchestrator.store.results import Candidate, GenotypeJson, ProxyResult, SearchResult, Selection
from orchestrator.store.store import Store

METHODS = {
    "proxy": "each seed's cell trained from scratch for a short while on D_T, scored on D_V",
    "shared_weights": "shared weights, recalibrated: top-1 on D_V of the derived cell with the "
    "search's own weights and batch norm collected anew on D_T",
}


def run_select(study: Study, job: Job, store: Store) -> str:
    """Make the selection; returns a line about it."""
    record = select(study, job, store)
    winner = record["winner"]
    return (
        f"seed {winner['seed']} of {len(record['candidates'])} by {record['by']}, "
        f"{record['metric']} {winner['score']:.2f}"
    )


def select(study: Study, job: Job, store: Store) -> Selection:
    """Compare the seeds, write the record and return it.

    The highest top-1 on D_V wins (for recurrent cells the lowest validation perplexity); a tie
        goes to the lower loss, then to the earlier seed. The score of a cell that is trained
        several times is the mean over its trainings.
    """
    space = SPACES[job.recipe["task"]]
    metric, best = space.metric, space.best
    by, candidates = job.recipe["by"], list[Candidate]()
    cells = study.cells(job.name)
    for trainings in cells:
        search = study.search_of(trainings[0])
        genotype, _ = _scored(by, trainings[0], store)
        found = [_scored(by, training, store)[1] for training in trainings]
        scores = [score[metric] for score in found]
        candidate: Candidate = {
            "seed": trainings[0].seed,
            "search": search.id if search else None,
            "score": fmean(scores),
            "loss": fmean(score["valid/loss"] for score in found),
            "genotype": genotype,
        }
        if len(scores) > 1:
            candidate["trainings"] = scores
        candidates.append(candidate)
    times = max(map(len, cells))
    sign = -1 if best == "highest" else 1
    winner = min(candidates, key=lambda c: (sign * c["score"], c["loss"]))
    record: Selection = {
        "id": job.id,
        "track": job.name,
        "by": by,
        "method": METHODS[by] + (f", the mean of {times} trainings" if times > 1 else ""),
        "metric": metric,
        "best": best,
        "candidates": candidates,
        "winner": winner,
        "time": time.time(),
    }
    write_json(store.selection_path(job), record)
    store.publish(f"selections/{job.name}.json")
    return record


def _scored(by: str, job: Job, store: Store) -> tuple[GenotypeJson, dict[str, float]]:
    """The genotype that a search (by shared weights) or a proxy training scored, and its score."""
    folder = store.folder(job)
    if by == "shared_weights":
        searched = folder.result(SearchResult)
        assert searched is not None, "a selection runs after what it needs"
        return searched["genotype"], searched["shared_weights"]
    trained = folder.result(ProxyResult)
    assert trained is not None, "a selection runs after what it needs"
    return trained["genotype"], trained["metrics"]
