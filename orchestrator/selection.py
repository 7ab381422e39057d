"""The best seed by validation, written as a record that a final's provenance points to.

Pure. Reads results of searches and proxy trainings, which never see the test split.
"""

from __future__ import annotations

import time
from typing import Any

from gdas.files import write_json
from orchestrator.store import Store
from orchestrator.study import Job, Study

METHODS = {
    "proxy": "each seed's cell trained from scratch for a short while on D_T, top-1 on D_V",
    "shared_weights": "shared weights, recalibrated: top-1 on D_V of the derived cell with the "
    "search's own weights and batch norm collected anew on D_T",
}


def select(study: Study, job: Job, store: Store) -> dict[str, Any]:
    """Compare the seeds, write the record and return it.

    The highest top-1 on D_V wins; a tie goes to the lower loss, then to the earlier seed.
    """
    candidates = []
    for need in job.needs:
        scored = study.job(need)
        search = scored if scored.kind == "search" else study.job(scored.needs[0])
        result = store.folder(scored).result()
        found = store.folder(search).result()
        assert result is not None and found is not None, "a selection runs after what it needs"
        score = result["shared_weights"] if scored.kind == "search" else result["metrics"]
        candidates.append(
            {
                "seed": search.recipe["config"]["seed"],
                "search": search.id,
                "valid/top1": score["valid/top1"],
                "valid/loss": score["valid/loss"],
                "genotype": found["genotype"],
            }
        )
    winner = min(
        range(len(candidates)),
        key=lambda i: (-candidates[i]["valid/top1"], candidates[i]["valid/loss"], i),
    )
    record = {
        "id": job.id,
        "track": job.name,
        "by": job.recipe["by"],
        "method": METHODS[job.recipe["by"]],
        "candidates": candidates,
        "winner": candidates[winner],
        "time": time.time(),
    }
    write_json(store.selection_path(job), record)
    return record
