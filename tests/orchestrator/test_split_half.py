"""Whether the epochs of a search agree: by hand, under pure noise, with a signal, on the pages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gdas.bench201.config import Bench201SearchConfig
from gdas.cnn.config import Derivation, SearchConfig
from gdas.rnn.config import TextSearchConfig
from orchestrator.evidence import main
from orchestrator.report.health import alarms
from orchestrator.report.report import write_report
from orchestrator.report.split_half import split_half
from orchestrator.report.view import Results
from orchestrator.store.recorded import open_recorded, recorded_experiment
from orchestrator.store.results import Record
from tests.orchestrator.test_report import SCORES, report_of
from tests.orchestrator.written import CELL, plain_record

EDGES, OPERATIONS = 14, 8


def records_of(gains_TEK: Sequence[np.ndarray], kind: str = "normal") -> list[Record]:
    """The records of a search whose logits begin at 0.5 and gain this in each epoch."""
    logits_EK = np.full(gains_TEK[0].shape, 0.5)
    found = []
    for position, gain_EK in enumerate(gains_TEK, 1):
        logits_EK = logits_EK + gain_EK
        details = {"genotype": CELL, "logits": {kind: logits_EK.tolist()}}
        found.append(plain_record(position, details=details))  # type: ignore[arg-type]
    return found


def noise(seed: int, epochs: int, edges: int = EDGES, operations: int = OPERATIONS) -> np.ndarray:
    """Moves without a signal; the operations' noise differs by a factor of ten."""
    draw = np.random.default_rng(seed)
    scale_K = np.geomspace(1, 10, operations)
    return draw.normal(size=(epochs, edges, operations)) * scale_K


def test_the_correlation_of_two_halves_by_hand() -> None:
    still = np.zeros((2, 5))
    first, second = still.copy(), still.copy()
    # Gains over their edge's mean: (2, -1, -1, 0, 0) and 0; (1, -1, 0, 0, 0) and (3, -3, 0, 0, 0).
    first[0] = [2.0, -1.0, -1.0, 0.0, 0.0]
    second[0], second[1] = [2.0, 0.0, 1.0, 1.0, 1.0], [3.0, -3.0, 0.0, 0.0, 0.0]
    halves = [still, still, first, still, second, still]
    config = Bench201SearchConfig()
    found = split_half(records_of(halves, "cell"), config)
    assert found is not None and found.epochs == 2
    # The odd half is `first`, the even one `second`: 3 / sqrt(6 x 20), all of it on the first edge.
    assert found.correlation == pytest.approx(3 / np.sqrt(120))
    assert found.edges == pytest.approx((3 / np.sqrt(120), 0.0))
    # The first epoch is left out: no record has the logits before it.
    assert split_half(records_of([second, first, second], "cell"), config) == found
    # A third epoch goes with the first one.
    again = split_half(records_of([still, first, second, first], "cell"), config)
    assert again is not None and again.epochs == 3
    assert again.correlation == pytest.approx(found.correlation)


def test_there_is_none_if_fewer_than_two_epochs_moved() -> None:
    still, move = np.zeros((EDGES, OPERATIONS)), noise(0, 1)[0]
    for gains in ([move], [still, move], [move, move, still], [still] * 5, [move, still, move]):
        assert split_half(records_of(gains), SearchConfig()) is None
    assert split_half([], SearchConfig()) is None
    assert split_half([plain_record(i) for i in range(1, 5)], SearchConfig()) is None
    # The same move of all operations of an edge is no choice.
    alike = np.ones((EDGES, OPERATIONS))
    assert split_half(records_of([still, alike, alike]), SearchConfig()) is None
    other_version = noise(0, 4, operations=OPERATIONS - 1)
    assert split_half(records_of(list(other_version)), SearchConfig()) is None


def test_an_operation_that_no_cell_can_keep_does_not_count() -> None:
    moves = noise(1, 5)
    sinking = moves.copy()
    sinking[:, :, 0] -= 100.0  # `none`
    excluded = SearchConfig()
    kept = dataclasses.replace(excluded, derivation=Derivation(exclude_none=False))
    plain, without = (split_half(records_of(list(m)), excluded) for m in (moves, sinking))
    assert plain is not None and without is not None
    assert without.correlation == pytest.approx(plain.correlation) and without.is_noise
    counted = split_half(records_of(list(sinking)), kept)
    assert counted is not None and counted.correlation > 0.9 and not counted.is_noise


@pytest.mark.parametrize(
    ("config", "kind", "edges", "operations"),
    [
        (SearchConfig(), "normal", 14, 8),
        (TextSearchConfig(), "recurrent", 36, 5),
        (Bench201SearchConfig(), "cell", 6, 5),
    ],
)
def test_noise_alone_is_called_noise_in_nineteen_of_twenty_searches(
    config: SearchConfig | TextSearchConfig | Bench201SearchConfig,
    kind: str,
    edges: int,
    operations: int,
) -> None:
    searches = 60
    found = [
        split_half(records_of(list(noise(s, 4, edges, operations)), kind), config)
        for s in range(searches)
    ]
    correlations = [one.correlation for one in found if one is not None]
    assert len(correlations) == searches and abs(np.mean(correlations)) < 0.1
    # Of 60 searches of which each is called a choice with 5 %, more than 9 have a chance of 0.1 %.
    assert sum(not one.is_noise for one in found if one is not None) <= 9


def test_a_signal_is_found_and_noise_alarms() -> None:
    signal = np.random.default_rng(3).normal(size=(EDGES, OPERATIONS)) * 10
    with_signal = records_of(list(noise(4, 6) + signal))
    found = split_half(with_signal, SearchConfig())
    assert found is not None and found.correlation > 0.7 and found.p < 0.001
    assert "disagreement" not in [alarm.kind for alarm in alarms(with_signal, SearchConfig())]
    alone = alarms(records_of(list(noise(4, 6))), SearchConfig())
    (text,) = (alarm.text for alarm in alone if alarm.kind == "disagreement")
    assert text.startswith("what the logits of the normal cell gained in odd and in even epochs")


def test_report_and_evidence_have_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_of(tmp_path, SCORES)
    out = tmp_path / "out"
    signal = np.random.default_rng(3).normal(size=(EDGES, OPERATIONS)) * 10
    for seed, folder in enumerate(sorted((out / "jobs").glob("search-plain-*"))):
        lines = [json.dumps(record) for record in records_of(list(noise(seed, 6) + signal))]
        (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    store, study = open_recorded(str(out))
    results = Results(recorded_experiment(store), study, store)
    text = write_report(results).with_suffix(".md").read_text()
    _, _, plain = text.partition("## Search plain")
    header, _, *rows = (line for line in plain.splitlines() if line.startswith("|"))
    assert "| split-half correlation, normal cell |" in header
    for row in rows[:4]:
        assert 0.7 < float(row.split(" | ")[-2]) < 1
    capsys.readouterr()
    assert main([str(out)]) == 0
    (line,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| plain chooses by more than noise: its odd and even epochs agree |")
    )
    assert "| 4 | split-half correlation 0." in line and line.endswith("| < 0.0001 | yes |")
