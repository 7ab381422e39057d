"""The alias `best` of a registered model follows the score of the selection, never the test set."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.store.job_folder import JobFolder
from orchestrator.tracking.registry import SCORE, SCORE_OF, mark_best, selection_tags

HIGHEST = "valid/top1 by proxy, the highest wins"
LOWEST = "valid/perplexity by proxy, the lowest wins"


class Registry:
    """What of an MlflowClient is asked."""

    def __init__(self, *tags: dict[str, str]) -> None:
        self.versions = [SimpleNamespace(version=str(i + 1), tags=t) for i, t in enumerate(tags)]
        self.alias: tuple[str, str] = ("", "")
        self.said = ""

    def search_model_versions(self, query: str) -> list[Any]:
        assert query == "name = 'one'"
        return self.versions

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.alias = alias, version

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self.said = value


def scored(score: float, error: float, of: str = HIGHEST) -> dict[str, str]:
    return {SCORE: str(score), SCORE_OF: of, "test_error": str(error)}


@pytest.mark.parametrize(
    ("tags", "best"),
    [
        ([scored(60, 5.0), scored(70, 9.0), scored(65, 1.0)], "2"),
        ([scored(60, 1.0), scored(60, 9.0)], "2"),
        ([scored(80, 1.0, LOWEST), scored(70, 9.0, LOWEST), scored(75, 0.5, LOWEST)], "2"),
        ([scored(99, 1.0, "valid/top1 by shared_weights, the highest wins"), scored(6, 9)], "2"),
        ([{"test_error": "1"}, scored(6, 9.0), {"test_error": "2"}], "2"),
        ([{"test_error": "1"}, {"test_error": "9"}], "2"),
    ],
)
def test_best_is_the_best_selected_and_never_the_best_tested(
    tags: list[dict[str, str]], best: str
) -> None:
    """In every case the version with the least error on the test set is another one."""
    client = Registry(*tags)
    assert mark_best(client, "one") == best and client.alias == ("best", best)
    assert "never by the test set" in client.said


def test_ten_versions_are_ordered_as_numbers() -> None:
    client = Registry(*[{} for _ in range(10)])
    assert mark_best(client, "one") == "10"


def test_a_finals_score_is_that_of_its_own_selection(tmp_path: Path) -> None:
    job = tmp_path / "jobs" / "train-best-1"
    job.mkdir(parents=True)
    folder = JobFolder.open(str(job))
    assert selection_tags(folder) == {}, "there is no provenance"
    provenance = {"source": "searched", "selection": "id1", "track": "own"}
    (job / "provenance.json").write_text(json.dumps(provenance))
    (tmp_path / "selections").mkdir()
    record: dict[str, Any] = {"id": "id1", "by": "proxy", "metric": "valid/top1"}
    record |= {"best": "highest", "winner": {"score": 61.25}}
    (tmp_path / "selections" / "own.json").write_text(json.dumps(record))
    assert selection_tags(folder) == {SCORE: "61.2500", SCORE_OF: HIGHEST}
    (tmp_path / "selections" / "own.json").write_text(json.dumps(record | {"id": "other"}))
    assert selection_tags(folder) == {}, "the selection of other settings"
    (job / "provenance.json").write_text(json.dumps({"source": "published"}))
    assert selection_tags(folder) == {}
