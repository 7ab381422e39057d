"""The README: its Python runs as it is written, and every command is run by some test."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from gdas.cnn.genotype import PUBLISHED
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from orchestrator import cell, compare, evidence, log, reproduce_paper, status
from orchestrator.experiment.build import AnyConfig
from orchestrator.experiment.load import load_experiment
from orchestrator.paper.deviations import deviations
from orchestrator.store.failure import write_failure
from orchestrator.store.place import open_place
from tests.gdas.photo_folder import convert_tiny, make_folder
from tests.orchestrator.fake_study import fake_study, select
from tests.readme import EVERYTHING, README, ROOT, blocks, commands, words
from tests.readme import PAGES as PAGE_TEXTS

PYTHON = [block for block in blocks("python") if '"net.' not in block]  # others need that file
HERE, PAGES = "tests/test_readme.py", "tests/e2e/test_pages.py"
COMMANDS = "tests/orchestrator/test_commands.py"
DOCTOR = "tests/orchestrator/test_doctor.py"
EXPORT = "tests/orchestrator/test_export.py"

# Which test runs each command. What is not run as it stands says why in a comment.
RUN_BY = {
    "python -m orchestrator.reproduce_paper": f"{PAGES}::smoke",
    "python -m orchestrator.status OUT": f"{HERE}::test_looking_at_a_study",
    "python -m orchestrator.compare OUT1 OUT2": f"{HERE}::test_looking_at_a_study",
    "python -m orchestrator.evidence OUT1 OUT2": f"{HERE}::test_looking_at_a_study",
    "python -m orchestrator.doctor [EXPERIMENT]": (
        f"{DOCTOR}::test_doctor_of_the_smoke_experiment_is_content"
    ),
    # Not with a GPU: what each check finds is tested with the smoke experiment.
    "python -m orchestrator.doctor headline": (
        f"{DOCTOR}::test_doctor_of_the_smoke_experiment_is_content"
    ),
    "python -m orchestrator.log OUT JOB": f"{HERE}::test_looking_at_a_study",
    "python -m orchestrator.log OUT JOB --traceback": f"{HERE}::test_looking_at_a_study",
    "python -m orchestrator.log runs/smoke search-gdas-frc-seed0": (
        f"{HERE}::test_looking_at_a_study"
    ),
    "python -m orchestrator.status runs/smoke --json": f"{HERE}::test_looking_at_a_study",
    "python -m orchestrator.compare runs/smoke runs/other --json": (
        f"{HERE}::test_looking_at_a_study"
    ),
    "python -m orchestrator.export OUT:FINAL --to net.onnx": f"{EXPORT}::test_the_page_loads_them",
    "python -m orchestrator.export runs/smoke:gdas-frc-digits --to net.onnx --pixels": (
        f"{EXPORT}::test_the_page_loads_them"
    ),
    "python -m orchestrator.export runs/smoke:gdas-frc-digits --to net.pt2": (
        f"{EXPORT}::test_the_page_loads_them"
    ),
    "python -m orchestrator.predict OUT:FINAL FOLDER": f"{EXPORT}::test_photos_get_labels",
    "python -m orchestrator.predict runs/smoke:gdas-frc-digits photos --to labels.csv": (
        f"{EXPORT}::test_photos_get_labels"
    ),
    "python -m orchestrator.reproduce_paper smoke --report": f"{HERE}::test_looking_at_a_study",
    "python -m orchestrator.reproduce_paper flowers.yaml": f"{HERE}::test_own_photos_end_to_end",
    "python -m orchestrator.reproduce_paper novels.yaml text_search.recipe.epochs=3 "
    "text_search.recipe.hidden=100 text_search.recipe.batch_size=32 text_proxy.recipe.epochs=2 "
    "text_proxy.recipe.hidden=100 text_proxy.recipe.batch_size=32 text_final.recipe.epochs=4 "
    "text_final.recipe.hidden=150 text_final.recipe.batch_size=32": (
        f"{HERE}::test_own_text_end_to_end"
    ),
    "python -m gdas.data.shards SOURCE data/flowers": f"{HERE}::test_photos_are_converted",
    "python -m orchestrator.cell show CELL": f"{HERE}::test_cells",
    "python -m orchestrator.jobs list OUT": (
        f"{COMMANDS}::test_old_job_folders_are_listed_and_removed_and_needed_ones_stay"
    ),
    "python -m orchestrator.send_runs OUT --to URI": (
        "tests/orchestrator/test_send_runs.py"
        "::test_runs_sent_to_another_mlflow_are_equal_and_sending_twice_doubles_nothing"
    ),
    "python -m tests.drill": f"{PAGES}::test_the_drill_of_one_fault",
    # Not on a GPU: all parts, tiny, on the CPU.
    "python -m tests.gpu --minutes 8 --out DIR": (
        "tests/gpu/test_pack.py::test_all_parts_run_within_their_time_and_write_the_page"
    ),
    # Not on a real cluster: on several nodes of this machine, and a store that moto plays.
    "python -m orchestrator.reproduce_paper headline --address auto --out "
    "s3://BUCKET/runs/headline --yes": (
        "tests/cluster/test_study.py"
        "::test_a_study_that_loses_nodes_and_its_store_ends_with_the_undisturbed_ones_digests"
    ),
    "python -m orchestrator.nodes --address auto --out s3://BUCKET/runs": (
        "tests/cluster/test_nodes.py::test_all_machines_of_a_cluster_report"
    ),
    "python -m orchestrator.status s3://BUCKET/runs/headline": (
        "tests/orchestrator/test_remote_commands.py::test_status_tells_what_a_folder_would"
    ),
    "python -m orchestrator.reproduce_paper paper --dry-run --gpus 4,32,256": (
        "tests/orchestrator/test_clusters.py"
        "::test_the_page_of_the_repository_is_what_the_command_prints"
    ),
    "ray up cluster/aws.yaml": (
        "tests/cluster/test_ray_up.py::test_up_starts_the_head_alone_and_down_ends_it"
    ),
    "mlflow ui --backend-store-uri sqlite:///runs/smoke/mlflow.db": f"{PAGES}::pages",
    "mlflow server --host 127.0.0.1 --port 5000": f"{PAGES}::test_runs_sent_to_a_server",
    "python -m orchestrator.send_runs runs/smoke --to http://127.0.0.1:5000": (
        f"{PAGES}::test_runs_sent_to_a_server"
    ),
    "python -m gdas.data.shards SOURCE DIR/imagenet": f"{HERE}::test_photos_are_converted",
    "python -m tests.bench fused": (
        "tests/bench/test_parts.py::test_all_rows_of_fused_kernels_and_waiting_threads_run"
    ),
    "python -m tests.bench waiting": (
        "tests/bench/test_parts.py::test_all_rows_of_fused_kernels_and_waiting_threads_run"
    ),
    # Not installed: that takes gigabytes.
    "python -m tests.floor": (
        "tests/test_floor.py::test_what_would_be_installed_is_the_lowest_that_is_allowed"
    ),
    # Of make and pip only what they would run is looked at: tests install nothing and do not run
    # themselves. CI runs `make test`, and through it the installation, from a clean checkout.
    "make reproduce": f"{HERE}::test_what_make_runs",
    "make test": f"{HERE}::test_what_make_runs",
    "make test-all": f"{HERE}::test_what_make_runs",
    "make check": f"{HERE}::test_what_make_runs",
    "make bench": f"{HERE}::test_what_make_runs",
    "make drill": f"{HERE}::test_what_make_runs",
    "make reproduce TORCH_INDEX=https://download.pytorch.org/whl/cpu": (
        f"{HERE}::test_what_make_runs"
    ),
    "pip install -e .": f"{HERE}::test_what_make_runs",
    "pip install .": (
        "tests/test_package.py::test_an_installed_package_plans_an_experiment_from_another_folder"
    ),
    "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu": (
        f"{HERE}::test_what_make_runs"
    ),
}
PLANS = [command for command in commands() if "reproduce_paper " in command]
PLANS = [command for command in PLANS if command not in RUN_BY and "[EXPERIMENT]" not in command]
CELLS = [command for command in commands() if "orchestrator.cell " in command]
SYNOPSIS = next(" ".join(text.split()) for text in blocks("text") if "[EXPERIMENT]" in text)


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the README's reader is: with `runs/smoke`, and data in ~/data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()


# Python


def test_the_readme_has_python_to_run() -> None:
    assert PYTHON


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_a_python_block_of_the_readme_runs_by_itself(number: int) -> None:
    exec(compile(PYTHON[number], f"README.md, block {number + 1}", "exec"), {"__name__": "readme"})


# Commands


def test_every_command_of_the_readme_is_run_by_a_test_that_exists() -> None:
    found = set(commands())
    assert len(found) > 25
    assert found - {SYNOPSIS, *PLANS, *CELLS} - set(RUN_BY) == set(), "not run by any test"
    assert set(RUN_BY) - found == set(), "no longer in the README"
    for where in RUN_BY.values():
        file, _, name = where.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), where


def test_the_synopsis_has_all_options() -> None:
    known = {
        option
        for action in reproduce_paper.parser()._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    assert set(re.findall(r"--[\w-]+", SYNOPSIS)) == known - {"--help"}


@pytest.mark.parametrize("command", [plan for plan in PLANS if "--calibrate" not in plan])
def test_an_experiments_command_is_accepted_and_planned(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rest = words(command)
    rest = [word.replace("~", str(Path.home())) for word in rest]
    assert reproduce_paper.main([*rest, *(["--dry-run"] if "--dry-run" not in rest else [])]) == 0
    out = capsys.readouterr().out
    assert "in all: about" in out and ("search-gdas-frc-seed3" in out or "--only" in command)


@pytest.mark.slow
@pytest.mark.parametrize("command", [plan for plan in PLANS if "--calibrate" in plan])
def test_a_plan_from_steps_timed_here(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, rest = words(command)
    assert reproduce_paper.main([word.replace("~", str(Path.home())) for word in rest]) == 0
    out = capsys.readouterr().out
    assert "timed" in out and "a guess may be wrong" not in out


def study(out: Path) -> None:
    _, jobs, store = fake_study(out, of="smoke")
    select(store, jobs)


def test_looking_at_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("smoke", "other"):
        study(tmp_path / "runs" / name)
    assert status.main(["runs/smoke"]) == 0
    assert "search: 0 of 8 done, 8 waiting" in capsys.readouterr().out
    assert compare.main(["runs/smoke", "runs/other"]) == 0
    assert "settings: equal" in capsys.readouterr().out
    assert evidence.main(["runs/smoke", "runs/other"]) == 0
    page = capsys.readouterr().out
    assert (
        page.count("\n## smoke\n") == 2 and "gdas-frc finds better cells than cells drawn" in page
    )
    assert status.main(["runs/smoke", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["jobs"]) > 20
    assert compare.main(["runs/smoke", "runs/other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {}
    (folder,) = Path("runs/smoke/jobs").glob("search-gdas-frc-seed0-*")
    write_failure(open_place(folder), "RuntimeError: no", "a\ntraceback")
    (folder / "log.txt").write_text("what it said\n")
    assert log.main(["runs/smoke", "search-gdas-frc-seed0"]) == 0
    assert "what it said\n" in capsys.readouterr().out
    assert log.main(["runs/smoke", "search-gdas-frc-seed0", "--traceback"]) == 0
    assert capsys.readouterr().out == "a\ntraceback\n"
    assert reproduce_paper.main(["smoke", "--report"]) == 0
    assert "What failed" in Path("runs/smoke/report/report.md").read_text()


def test_own_photos_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe's settings are accepted for photos of so many classes, and its jobs planned."""
    six, settings = (block for block in blocks("yaml") if "photos" in block)
    assert six.count("\n") == 6
    few = settings.replace("classes: 102", "classes: 7").replace("batch_size: 32", "batch_size: 4")
    convert_tiny(make_folder(tmp_path / "SOURCE"), tmp_path / "data" / "flowers")
    for text in (six.replace("classes: 102", "classes: 7"), few):
        (tmp_path / "flowers.yaml").write_text(text)
        for_tiny = ["search.recipe.batch_size=4", "proxy.recipe.batch_size=4"]
        assert reproduce_paper.main(["flowers.yaml", "--dry-run", *for_tiny]) == 0
        out = capsys.readouterr().out
        assert "search-mine-seed3" in out and "train-best" in out and "in all: about" in out


def test_own_text_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The six lines are accepted as they stand, and with the smaller settings beside them."""
    (six,) = (block for block in blocks("yaml") if "text" in block)
    assert six.count("\n") == 6
    (tmp_path / "novels.yaml").write_text(six)
    (tmp_path / "data" / "novels").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "data" / "novels" / f"{split}.txt").write_text("the cat sat on a mat\n" * 2000)
    (command,) = (command for command in commands() if "novels.yaml" in command)
    _, rest = words(command)
    for more in (rest[1:], []):
        assert reproduce_paper.main(["novels.yaml", *more, "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert "proxy-mine-seed3" in out and "train-best" in out and "in all: about" in out


@pytest.mark.parametrize("command", CELLS)
def test_cells(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path / "runs" / "smoke")
    _, rest = words(command.replace("CELL", "GDAS_V1"))
    assert cell.main(rest) == 0
    out = capsys.readouterr().out
    expected = {
        "show": "node 3  =  ",
        "draw": "drawn: cell.svg",
        "count": "496,734,952",
        "convert": "Genotype(normal=[",
    }
    assert expected[rest[0]] in out
    if rest[0] == "draw":
        assert Path("cell.svg").read_text().startswith("<?xml")


def test_photos_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "SOURCE")
    found = [command for command in commands() if "gdas.data.shards" in command]
    for command in found:
        module, rest = words(command)
        assert importlib.import_module(module).main(rest) == 0
        assert "classes" in capsys.readouterr().err
        assert list(Path(rest[1]).rglob("*.parquet"))
    assert len(found) == 2


def test_what_make_runs() -> None:
    def made(*target: str) -> str:
        command = ["make", "-n", "--no-print-directory", "VENV=there", *target]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
        ).stdout

    python = "there/bin/python -m"
    for target, line in {
        "reproduce": f"{python} orchestrator.reproduce_paper smoke",
        "test": f'{python} pytest -m "not slow"',
        "test-all": f"{python} pytest",
        "check": f"{python} mypy",
        "bench": f"{python} tests.bench",
        "drill": f"{python} tests.drill",
    }.items():
        lines = made(target).splitlines()
        assert any(found.startswith(line) for found in lines), target
        assert any("pip install" in found and "-e '.[dev]'" in found for found in lines)
    (index,) = [command for command in commands() if command.startswith("make reproduce TORCH")]
    (pip,) = [command for command in commands() if command.startswith("pip install torch")]
    url = index.partition("TORCH_INDEX=")[2]
    assert pip.endswith(f"--index-url {url}")
    assert f"--index-url {url} torch torchvision" in made(*index.split()[1:])
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


# What it says


def test_the_sections_come_in_the_order_of_use() -> None:
    sections = re.findall(r"^## (.+)$", README, re.M)
    wanted = [
        *("Try it", "Results so far", "Reproduce the paper", "Commands", "On a cluster"),
        *("When something fails", "What you may rely on", "Further"),
    ]
    assert sections == wanted
    assert len(README.splitlines()) <= 150


def test_what_differs_from_the_paper_is_all_there() -> None:
    lines = PAGE_TEXTS["differences"].splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
    paper = load_experiment("paper", [])
    # The search without the acceleration is there to be another than the paper's.
    recipes: list[AnyConfig] = [
        s.recipe for n, s in paper.searches.items() if n != "not-accelerated-frc"
    ]
    recipes += [final.recipe for final in paper.finals.values()]
    differ = {line.key for recipe in recipes for line in deviations(recipe) if line.differs}
    assert named == differ


def test_the_pictures_and_pages_that_it_shows_exist() -> None:
    texts = {ROOT / "README.md": README}
    texts |= {ROOT / f"experiments/{name}.md": text for name, text in PAGE_TEXTS.items()}
    pictures = 0
    for page, text in texts.items():
        for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (page.parent / path).is_file(), f"{page.name}: {path}"
            pictures += path.endswith(".png")
    assert pictures == 5
    assert all(f"(experiments/{name}.md)" in README for name in PAGE_TEXTS)


def test_every_published_cell_is_named() -> None:
    assert [name for name in {**PUBLISHED, **PUBLISHED_RECURRENT} if name not in EVERYTHING] == []
