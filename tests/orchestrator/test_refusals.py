"""What people write into an experiment by mistake: one line, with what must be true and the fix."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from gdas.data.shard_index import conversion_command
from orchestrator import doctor, reproduce_paper
from orchestrator.driver import doctor as examining
from orchestrator.experiment.plain_yaml import plain_yaml

DIGITS = "data: {name: digits}, auxiliary_weight: 0"


def final(recipe: str = "", cell: str = "published: GDAS_F1", more: str = "") -> str:
    return f"finals:\n  a: {{cell: {{{cell}}}, recipe: {{{DIGITS}, {recipe}}}, {more}}}\n"


REFUSED = {
    "a key twice": (final("epochs: 1, epochs: 2"), "own.yaml, line 2: epochs is there twice; keep"),
    "no end of a number": (final("lr: .inf"), "lr=inf: must be finite and more than 0"),
    "text for a number": (final("lr: fast"), "lr='fast': must be a number, such as 0.1"),
    "a number in quotes": (final('epochs: "5"'), "epochs='5': must be a whole number, .* without"),
    "a fraction": (final("epochs: 1.5"), "epochs=1.5: must be a whole number, such as 3"),
    "no cell": (final(cell=""), r"must have exactly one, such as cell: \{published: GDAS_V1\}"),
    "a random cell of no seed": (final(cell="random: -1"), "cell.random=-1: must be 0 or more"),
    "seeds that are one": (
        final(more="seeds: [1, 1]"),
        r"seeds=\[1, 1\]: must be .* such as \[0, 1",
    ),
    "no seed": (final(more="seeds: []"), r"seeds=\[\]: must be one or more different"),
    "a search that is not there": (final(cell="searched: x"), "no such search; there are none"),
    "a value that is missing": (
        "finals: {a: {cell: {published: GDAS_V1}, recipe: {data: {name: x, format: photos}}}}",
        r"finals\.a\.recipe\.data\.classes: is missing; set it in the file, or behind the command",
    ),
    "another format": (
        "finals: {a: {cell: {published: GDAS_V1}, recipe: {data: {name: x, format: csv}}}}",
        "data.format=csv: must be photos or text for your own files",
    ),
    "a format of known data": (
        "finals: {a: {cell: {published: GDAS_V1}, recipe: {data: {name: digits, format: text}}}}",
        "digits is of format arrays; leave it out",
    ),
    "a value for keys": (
        "finals: {a: {cell: {published: GDAS_V1}, recipe: {data: cifar10}}}",
        r"recipe\.data=cifar10: must have keys below it, such as data: \{key: value\}",
    ),
    "a GPU by one of two": (final(more="resources: {device: cuda}"), "gpus_per_worker=1"),
    "random cells of negative seeds": (
        f"searches: {{a: {{cells: random, seeds: [-1], recipe: {{{DIGITS[:20]}}}}}}}",
        r"seeds=\[-1\]: must be one or more different whole numbers of 0 or more",
    ),
    "against itself": (
        f"searches: {{a: {{against: a, recipe: {{{DIGITS[:20]}}}}}}}",
        "searches.a.against=a: is itself; name another search",
    ),
    "a number that YAML 1.1 reads with base 8": (
        final("epochs: 010"),
        "own.yaml, line 2: 010 is read as 8, as YAML 1.1 has it; write the number without a",
    ),
    "a number that YAML 1.1 reads with base 60": (final("epochs: 1:30"), "1:30 is read as 90, as"),
    "a fraction with base 60": (final("lr: 1:30.5"), "1:30.5 is read as 90.5, as YAML 1.1"),
    "a name of 300 letters": (
        final().replace("  a:", f"  {'a' * 300}:"),
        "100 at most, such as gdas-frc",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_in_a_file_is_one_line_with_its_fix(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = REFUSED[case]
    (tmp_path / "own.yaml").write_text(text)
    arguments = [str(tmp_path / "own.yaml"), "--dry-run", "--out", str(tmp_path / "out")]
    assert reproduce_paper.main(arguments) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "expected" not in line
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(line)


def test_numbers_are_what_their_digits_say(capsys: pytest.CaptureFixture[str]) -> None:
    plain = {"0": 0, "-0": 0, "1_000": 1000, "0x10": 16, "10": 10, "0.010": 0.01, "1e-3": 1e-3}
    assert {text: plain_yaml(text, "x") for text in plain} == plain
    assert plain_yaml("[08, '010', 1:99]", "x") == ["08", "010", "1:99"]  # texts, to YAML 1.1 too
    assert reproduce_paper.main(["smoke", "search.recipe.epochs=010", "--dry-run"]) == 2
    assert "error: search.recipe.epochs: 010 is read as 8" in capsys.readouterr().err


def test_the_ending_of_an_own_file_may_not_be_left_out_but_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(final())
    for name in ("own", "./own"):
        assert reproduce_paper.main([name, "--dry-run"]) == 2
        assert capsys.readouterr().err.endswith(f"; did you mean {name}.yaml?\n")


def test_keys_may_still_be_laid_over_one_another(tmp_path: Path) -> None:
    """YAML's merge key gives defaults; that an own key stands beside one is no mistake."""
    text = (
        "finals:\n"
        f"  a: &first {{cell: {{published: GDAS_F1}}, recipe: {{{DIGITS}}}, seeds: [0]}}\n"
        "  b: {<<: *first, seeds: [1]}\n"
    )
    (tmp_path / "own.yaml").write_text(text)
    assert reproduce_paper.main([str(tmp_path / "own.yaml"), "--dry-run"]) == 0


@pytest.mark.parametrize("price", ["-1", "nan", "inf"])
def test_a_price_is_a_number_of_0_or_more(price: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce_paper.main(["smoke", "--dry-run", "--price", price]) == 2
    assert "must be 0 or more, such as 2.5" in capsys.readouterr().err


def test_the_next_command_after_a_plan_starts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options that go with --dry-run alone would be refused there."""
    arguments = ["smoke", "--out", str(tmp_path), "--dry-run", "--price", "2.5"]
    assert reproduce_paper.main(arguments) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next: python -m orchestrator.reproduce_paper smoke --out {tmp_path}"


def test_next_commands_are_quoted_for_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("versions", "storage", "mlflow", "_data", "jobs"):
        monkeypatch.setattr(examining, name, lambda *_: iter(()))
    (tmp_path / "my pets.yaml").write_text(final())
    own, places = str(tmp_path / "my pets.yaml"), ["--data", "my data", "--out", "an out"]
    words = [own, "final.seeds=[0, 1]", *places]
    assert doctor.main(words) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(last)[1:] == ["python", "-m", "orchestrator.reproduce_paper", *words]
    assert shlex.split(conversion_command(tmp_path / "my data"))[-1] == f"{tmp_path}/my data"
