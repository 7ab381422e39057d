"""Evidence: hand-computed tests, the verdicts' rule, and what differs from the paper's recipes."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from random import Random
from typing import Any

import pytest

from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.data.settings import IMAGE_DATA, ImageData
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from orchestrator.paper import tables as paper
from orchestrator.paper.config import IGNORED, papers_final, papers_search, size_differences
from orchestrator.report.comparison import compare
from orchestrator.report.statistics import (
    RANDOM_SPLITS,
    paired_p,
    permutation_p,
    splits_in_words,
    summary,
)
from orchestrator.report.verdict import DIGITS, VERDICT_RULE, verdict
from tests.narrow import narrow, present

# Summaries


@pytest.mark.parametrize(
    ("df", "quantile"),  # printed tables of Student's t, 0.975
    [(2, 4.302653), (3, 3.182446), (9, 2.262157), (30, 2.042272), (1000, 1.962339)],
)
def test_an_interval_is_students(df: int, quantile: float) -> None:
    s = summary([float(i % 7) for i in range(df + 1)])
    assert s.sd is not None and s.high is not None
    assert s.high - s.mean == pytest.approx(quantile * s.sd / (df + 1) ** 0.5, rel=1e-6)


def test_an_interval_needs_three_values() -> None:
    one, two, three = summary([2.8]), summary([2.8, 3.0]), summary([1.0, 2.0, 3.0])
    assert (one.n, one.mean, one.sd, one.low, one.high) == (1, 2.8, None, None, None)
    assert two.sd == pytest.approx(0.1414214) and two.low is None and two.high is None
    assert "n too small" in one.text and "n too small" in two.text
    half = 4.302653 * 1.0 / 3**0.5
    assert (three.mean, three.sd) == (2.0, 1.0)
    assert (three.low, three.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    assert three.text == "2.00 ± 1.00 (n = 3, 95 % interval -0.48 to 4.48)"


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_values_without_a_mean_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        summary(values)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    draw, covered, runs = Random(0), 0, 1000
    for _ in range(runs):
        s = summary([draw.gauss(5, 2) for _ in range(4)])
        assert s.low is not None and s.high is not None
        covered += s.low <= 5 <= s.high
    assert 0.93 <= covered / runs <= 0.97  # 0.95 +- 3 standard errors of 0.007


# Permutation tests


def test_permutation_p_by_hand() -> None:
    # Sums of the 6 pairs of {1, 2, 3, 4}: 3 4 5 5 6 7. {3, 4} is the best of them, {1, 4} ties.
    assert permutation_p([3, 4], [1, 2], "higher") == pytest.approx(1 / 6)
    assert permutation_p([3, 4], [1, 2], "lower") == pytest.approx(6 / 6)
    assert permutation_p([1, 4], [2, 3], "higher") == pytest.approx(4 / 6)
    assert permutation_p([2, 3], [1, 4], "lower") == pytest.approx(4 / 6)
    # Unequal sizes: {9} is the best of 4 singles.
    assert permutation_p([9], [1, 2, 3], "higher") == pytest.approx(1 / 4)
    assert permutation_p([2, 2], [2, 2], "higher") == 1.0


def test_ties_count_whatever_the_rounding() -> None:
    # 0.1 + 0.5 and 0.3 + 0.3 differ in binary; {.1,.5}, {.3,.3} tie, in both directions.
    assert permutation_p([0.1, 0.5], [0.3, 0.3], "higher") == pytest.approx(
        permutation_p([0.3, 0.3], [0.1, 0.5], "higher")
    )
    assert 0.1 + 0.2 != 0.3
    assert permutation_p([0.1, 0.2], [0.3, 0.0], "higher") == pytest.approx(4 / 6)


def test_paired_p_by_hand() -> None:
    # Sums of +-1 +-2 +-3 from 6 down: 6 4 2 0 0 -2 -4 -6.
    assert paired_p([1, 2, 3]) == pytest.approx(1 / 8)
    assert paired_p([-1, 2, 3]) == pytest.approx(2 / 8)
    assert paired_p([1, 2, -3]) == pytest.approx(5 / 8)
    assert paired_p([0, 0]) == 1.0


def test_many_values_are_drawn_and_close_to_the_exact_p(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Random(3)
    a, b = [draw.gauss(0.5, 1) for _ in range(6)], [draw.gauss(0, 1) for _ in range(6)]
    gains = [x - y for x, y in zip(a, b, strict=True)]
    exact, exact_paired = permutation_p(a, b, "higher"), paired_p(gains)
    monkeypatch.setattr("orchestrator.report.statistics.MOST_SPLITS", 10)
    # 4 standard errors of 20,000 draws are 0.014.
    assert permutation_p(a, b, "higher") == pytest.approx(exact, abs=0.014)
    assert paired_p(gains) == pytest.approx(exact_paired, abs=0.014)
    assert permutation_p(a, b, "higher") == permutation_p(a, b, "higher")
    assert permutation_p([9.0] * 6, [1.0] * 6, "higher") >= 1 / (RANDOM_SPLITS + 1)


def test_a_test_is_called_exact_only_if_all_splits_are_counted() -> None:
    # 10 of 20 can be chosen in 184,756 ways, 11 of 22 in 705,432.
    assert splits_in_words(10, 10) == "exact"
    assert splits_in_words(11, 11) == splits_in_words(12, 48) == "20,000 random splits"


def test_a_test_without_values_is_refused() -> None:
    for a, b in (([], [1.0]), ([1.0], [])):
        with pytest.raises(ValueError, match="both sides"):
            permutation_p(a, b, "higher")
    with pytest.raises(ValueError, match="at least one"):
        paired_p([])


def test_false_alarms_under_the_null_are_no_more_than_said() -> None:
    # Exactly: every split of eight distinct values is equally likely under the null.
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
    raised, splits = 0, list(combinations(range(8), 4))
    for split in splits:
        a = [values[i] for i in split]
        b = [v for i, v in enumerate(values) if i not in split]
        raised += permutation_p(a, b, "higher") <= 0.05
    assert raised / len(splits) == pytest.approx(3 / 70)
    draw, found, runs = Random(0), 0, 1000
    for _ in range(runs):
        a, b = ([draw.gauss(0, 1) for _ in range(4)] for _ in range(2))
        found += permutation_p(a, b, "lower") <= 0.05
    assert 0 < found / runs <= 0.05
    found = sum(paired_p([draw.gauss(0, 1) for _ in range(6)]) <= 0.05 for _ in range(runs))
    assert 0 < found / runs <= 0.05


# Searched against random


def test_a_search_that_is_better_is_called_so() -> None:
    c = compare([2.8, 2.9, 2.85, 2.7], [3.2, 3.3, 3.1, 3.4], "lower")
    assert c.difference == pytest.approx(3.25 - 2.8125)
    assert c.p == pytest.approx(1 / 70) == c.smallest_p
    assert 0 < present(c.low) < present(c.difference) < present(c.high)
    assert c.sentence.startswith("search is better than random cells here: mean 2.81 (n = 4)")


def test_welchs_interval_by_hand() -> None:
    # Variances 1 and 4, n = 3: standard error sqrt(5 / 3), df 25 / (1 / 2 + 16 / 2) = 2.941.
    c = compare([11.0, 12.0, 13.0], [8.0, 10.0, 12.0], "higher")
    half = 3.2187586 * (5 / 3) ** 0.5  # the 0.975 quantile
    assert (c.low, c.high) == pytest.approx((2 - half, 2 + half))


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_search_that_is_not_better_is_called_so(better: Any) -> None:
    worse, good = [3.0, 3.1, 3.2, 3.3], [2.0, 2.1, 2.2, 2.3]
    searched, random = (worse, good) if better == "lower" else (good, worse)
    c = compare(searched, random, better)
    assert c.difference == pytest.approx(-1.0)
    assert c.sentence.startswith("search is not better than random cells here: ")
    close = compare([2.0, 2.1, 2.2, 2.35], [2.0, 2.1, 2.2, 2.3], better)
    assert close.sentence.startswith("search is not better than random cells here: ")


def test_few_cells_are_called_too_few() -> None:
    c = compare([2.0, 2.1, 2.2], [3.0, 3.1, 3.2], "lower")
    assert c.p == c.smallest_p == pytest.approx(0.05)
    assert c.sentence.startswith("n too small: with 3 and 3 cells no p below 0.05 is possible")
    assert compare([2.0], [3.0, 3.1], "lower").low is None
    worse = compare([3.0], [2.0], "lower").sentence
    assert "search is not better" in worse and "n too small" in worse


def test_a_side_that_was_not_run_is_called_so() -> None:
    c = compare([], [3.0], "lower")
    assert c.p is None and c.sentence == "not run: there are no results of searched cells."
    assert "searched and random" in compare([], [], "lower").sentence


# Verdicts


@pytest.mark.parametrize(
    ("ours", "word"),
    [
        ([], "not run"),
        ([2.8], "n too small"),
        ([2.8, 2.8], "n too small"),
        ([2.5, 2.51, 2.52], "reproduced"),  # the interval is better
        ([2.82, 2.82, 2.82], "reproduced"),
        ([2.824, 2.824, 2.824], "reproduced"),  # equal as printed
        ([2.826, 2.826, 2.826], "missed"),  # printed, this is 2.83
        ([2.7, 2.8, 2.9], "within noise"),  # better, but the figure is inside
        ([2.8, 2.9, 3.0], "within noise"),
        ([2.82, 2.7, 2.94], "within noise"),  # an equal mean proves nothing with such a spread
        ([3.1, 3.11, 3.12], "missed"),
    ],
)
def test_a_verdict_follows_the_interval(ours: list[float], word: str) -> None:
    found = verdict(ours, 2.82, "lower", size_differences=[])
    assert found.word == word
    assert word.lower() in VERDICT_RULE.lower()
    mirrored = verdict([100 - v for v in ours], 97.18, "higher", size_differences=[])
    assert mirrored.word == word


def test_digits_are_those_that_the_paper_prints() -> None:
    ours = [57.54, 57.54, 57.54]
    assert verdict(ours, 57.5, "lower", size_differences=[], digits=1).word == "reproduced"
    assert verdict(ours, 57.5, "lower", size_differences=[], digits=2).word == "missed"
    for table, measures in paper.MEASURES.items():
        for row in paper.tables()[table]["rows"]:
            for column in measures:
                if row.get(column) is not None:
                    assert round(row[column], DIGITS[table]) == row[column]


def test_another_recipe_than_the_papers_is_never_a_reproduction() -> None:
    found = verdict([2.0, 2.0, 2.0], 2.82, "lower", size_differences=["epochs", "channels"])
    assert found.word == "run too small to compare"
    assert found.why == "2 settings are not the paper's (epochs, channels)."
    many = verdict([2.0], 2.82, "lower", size_differences=list("abcdefgh"))
    assert many.why == "8 settings are not the paper's (a, b, c, d, e, f, ...)."
    one = verdict([2.0], 2.82, "lower", size_differences=["epochs"])
    assert one.why.startswith("1 setting is")
    assert verdict([], 2.82, "lower", size_differences=["epochs"]).word == "not run"


def test_size_differences_are_all_but_those_that_mean_nothing() -> None:
    papers = TrainConfig()
    same = dataclasses.replace(
        papers, seed=7, precision="bfloat16", compile=True, channels_last=False, evaluate_every=9
    )
    assert size_differences(same, papers) == []
    small = dataclasses.replace(papers, epochs=8, data=IMAGE_DATA["digits"])
    found = size_differences(small, papers)
    assert {"epochs", "data.name", "data.flip"} <= set(found)
    assert size_differences(TextTrainConfig(), papers) == ["task"]
    search = dataclasses.replace(SearchConfig(), recalibration_batches=3, seed=1)
    assert size_differences(search, SearchConfig()) == []
    names = {
        f.name
        for kind in (TrainConfig, SearchConfig, TextTrainConfig)
        for f in dataclasses.fields(kind)
    }
    assert set(IGNORED) - names <= {"segments_per_epoch"}, "a key that is no setting"


def test_the_papers_recipes() -> None:
    row = paper.find_row(1, "GDAS (FRC) + CutOut", ["err_c10"])
    final = papers_final(1, row, "cifar10")
    assert isinstance(final, TrainConfig) and final.epochs == 600
    assert narrow(final.data, ImageData).cutout == 16
    plain = papers_final(1, paper.find_row(1, "GDAS", ["err_c10"]), "cifar10")
    assert narrow(plain.data, ImageData).cutout == 0
    fifth = papers_final(5, paper.find_row(5, "FRC-N + FIX-R", ["err_c10"]), "cifar10")
    assert narrow(fifth.data, ImageData).cutout == 16
    text = papers_final(4, paper.find_row(4, "GDAS", ["ppl_test"]), "wikitext2")
    assert isinstance(text, TextTrainConfig) and (text.epochs, text.hidden) == (3000, 700)
    fixed = dataclasses.replace(SearchConfig().network, reduction="fixed")
    search = dataclasses.replace(SearchConfig(), network=fixed, epochs=3)
    assert size_differences(search, papers_search(search)) == ["epochs"]
    assert papers_search(TextSearchConfig(epochs=2)) == TextSearchConfig()
