"""What people look at, in a browser: a smoke study's report, and its runs on MLflow's own page.

The study is the README's first command; GDAS_SMOKE names the folder of one that is finished, to
look at that one instead. With GDAS_PICTURES=FOLDER the pictures of the README and its pages are
taken there.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gdas.data.images import open_images
from orchestrator.experiment.study import Job
from orchestrator.store.store import Store
from tests.e2e.browser import printed, text_of, wait_for
from tests.e2e.driving import folders, result
from tests.e2e.serving import click, looking, served, take
from tests.orchestrator.sent_runs import everything
from tests.readme import commands

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = [f"search gdas-frc seed {seed}" for seed in range(4)]
ALL_CARDS = "[...document.querySelectorAll('[data-testid=\"experiment-view-compare-runs-card\"]')]"
# Charts that show a metric.
CARDS = f"{ALL_CARDS}.filter(c => c.innerText.includes('valid/top1'))"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/smoke` in it, made by the README's first command."""
    folder = tmp_path_factory.mktemp("home")
    if finished := os.environ.get("GDAS_SMOKE"):
        (folder / "runs").mkdir()
        (folder / "runs" / "smoke").symlink_to(Path(finished).resolve())
        return folder
    smoke(folder)
    return folder


def smoke(folder: Path) -> None:
    """Run it."""
    python, *words = shlex.split(
        next(c for c in commands() if c.endswith("orchestrator.reproduce_paper"))
    )
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("next: python -m orchestrator.status ")
    assert any(line.startswith("MLflow: mlflow ui --backend-store-uri ") for line in lines)


@pytest.fixture(scope="session")
def pages(home: Path) -> Iterator[str]:
    """The address of MLflow's page of the study's runs."""
    with served(next(c for c in commands() if c.startswith("mlflow ui")), home) as address:
        yield address


def run_ids(home: Path) -> dict[str, str]:
    """Name to run id."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{(home / 'runs/smoke/mlflow.db').resolve()}")
    experiment = client.get_experiment_by_name("gdas")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return {run.info.run_name: run.info.run_id for run in runs}


# MLflow


def test_a_study_is_one_line_that_opens_to_its_jobs(pages: str, home: Path, tmp_path: Path) -> None:
    names = [name for name in run_ids(home) if not name.startswith("smoke ")]
    with looking(tmp_path, (1400, 760)) as driver:
        driver.get(f"{pages}/#/experiments/1?workflowType=machine_learning")

        def lines() -> list[str]:
            found = driver.execute_script(
                "return [...document.querySelectorAll('.ag-row a[href*=\"/runs/\"]')]"
                ".map(a => a.innerText.trim())"
            )
            return [str(line) for line in found]

        wait_for(lambda: len(lines()) == 1, "the study's line")
        assert lines()[0].startswith("smoke "), "and no job beside it"
        click(driver, ".ag-row a[href*='/runs/']")  # its page, and back
        wait_for(lambda: "Child runs" in text_of(driver), "the study's page")
        driver.back()
        wait_for(lambda: len(lines()) == 1, "the study's line")
        click(driver, ".ag-row .ag-cell button")
        wait_for(lambda: len(lines()) > 10, "its jobs")
        studies = [line for line in lines() if line.startswith("smoke ")]
        assert len(studies) == 1 and set(lines()) - set(studies) <= set(names)
        labelled = "return document.querySelector('[aria-label^=\"digits (\"]') != null"
        wait_for(
            lambda: "digits (" in text_of(driver) or driver.execute_script(labelled),
            "the data that they used",
        )
        take(driver, "mlflow-runs.png")


def test_the_four_seeds_of_a_search_are_in_one_chart(
    pages: str, home: Path, tmp_path: Path
) -> None:
    parent = next(run for name, run in run_ids(home).items() if name.startswith("smoke "))
    with looking(tmp_path, (1400, 760)) as driver:
        # By the link in the study's description, as its reader would.
        driver.get(f"{pages}/#/experiments/1/runs/{parent}?workflowType=machine_learning")
        wait_for(lambda: "Selected by validation" in text_of(driver), "the description")
        link = wait_for(
            lambda: driver.execute_script(
                "return [...document.querySelectorAll('a')]"
                ".find(a => a.innerText == 'gdas-frc')?.href"
            ),
            "the link to the chart",
        )
        driver.get("about:blank")
        driver.get(str(link))

        strokes = (
            f"return [...({CARDS}[0]?.querySelectorAll('.trace.scatter .lines path') ?? [])]"
            ".map(p => p.style.stroke)"
        )

        def drawn() -> bool:
            # Charts further down are made when they come into view.
            driver.execute_script(f"({CARDS}[0] ?? {ALL_CARDS}.at(-1))?.scrollIntoView()")
            return len(driver.execute_script(strokes)) >= len(SEEDS)

        wait_for(drawn, "four curves in the chart of valid/top1")
        legend = str(driver.execute_script(f"return {CARDS}[0].innerText")).splitlines()
        assert all(any(line.startswith(name) for line in legend) for name in SEEDS)
        assert len(set(driver.execute_script(strokes))) == len(SEEDS), "told apart"
        assert "Request error" not in text_of(driver)
        take(driver, "mlflow-seeds.png")


def test_the_drawing_and_the_tables_are_seen(pages: str, home: Path, tmp_path: Path) -> None:
    runs = run_ids(home)
    parent = next(run for name, run in runs.items() if name.startswith("smoke "))
    with looking(tmp_path) as driver:
        where = f"{pages}/#/experiments/1/runs/{runs[SEEDS[2]]}/artifacts/figures/cell.png"
        driver.get(f"{where}?workflowType=machine_learning")
        wait_for(
            lambda: driver.execute_script(
                "return [...document.querySelectorAll('img')]"
                ".some(i => i.complete && i.naturalWidth > 600 && i.width > 300)"
            ),
            "the cell's drawing",
        )
        driver.get("about:blank")
        table = "tables/table-1-cifar-10-and-cifar-100.json"
        where = f"{pages}/#/experiments/1/runs/{parent}/artifacts/{table}"
        driver.get(f"{where}?workflowType=machine_learning")
        wait_for(lambda: "DARTS (2nd) + CutOut" in text_of(driver), "Table 1")
        assert "test error, CIFAR-10, %" in text_of(driver), "as a table, with its columns"
        assert '"columns"' not in text_of(driver), "not as JSON"
        second = "[...document.querySelectorAll('li')].find(e => e.innerText.trim() == '2')"
        driver.execute_script(f"(({second})?.querySelector('button, a') ?? {second})?.click()")
        wait_for(lambda: "GDAS (FRC) + CutOut" in text_of(driver), "the rows on its second page")


# A server


def test_runs_sent_to_a_server(home: Path, tmp_path: Path) -> None:
    import mlflow

    server = next(c for c in commands() if c.startswith("mlflow server"))
    send = next(c for c in commands() if c.startswith("python -m orchestrator.send_runs runs/"))
    data = Path(
        Store(home / "runs" / "smoke").folder(_any_job(home)).settings()["environment"]["data"]
    )
    with served(server, tmp_path) as address:
        words = shlex.split(send.replace("http://127.0.0.1:5000", address))[1:]
        for _ in range(2):  # the second adds nothing
            done = subprocess.run(
                [sys.executable, *words], cwd=home, capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, done.stderr
            last = done.stdout.splitlines()[-1]
            assert last == f"next: {address}/#/experiments/1?workflowType=machine_learning"
        here = f"sqlite:///{(home / 'runs/smoke/mlflow.db').resolve()}"
        sent, kept = everything(address, tmp_path / "a"), everything(here, tmp_path / "b")
        for runs in (sent, kept):
            for run in runs.values():  # made anew, with the time in them
                run["files"] = {k: v for k, v in run["files"].items() if not k.startswith("model/")}
                if run["child of"] is None:  # the study's begins with its command, or first record
                    run["times"] = run["times"][1]
        assert sent == kept
        final = result(folders(home / "runs" / "smoke")["train-gdas-frc-digits"])
        mlflow.set_tracking_uri(address)
        try:
            model = mlflow.pyfunc.load_model("models:/smoke-gdas-frc-digits/1")
            test = open_images("digits", "test", data)
            scores = model.predict(test.images_NCHW.numpy())
        finally:
            mlflow.set_tracking_uri("")
        top1 = float(100 * (np.asarray(scores).argmax(axis=1) == test.labels_N.numpy()).mean())
        assert top1 == final["metrics"]["test/top1"]


def _any_job(home: Path) -> Job:
    from orchestrator.store.recorded import recorded_study

    return next(
        job for job in recorded_study(Store(home / "runs" / "smoke")) if job.kind == "train"
    )


# The report


def report_of(home: Path) -> str:
    return (home / "runs/smoke/report/report.html").resolve().as_uri()


@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_fits_a_window_of_any_width(home: Path, tmp_path: Path, width: int) -> None:
    with looking(tmp_path, (width, 900)) as driver:
        driver.get(report_of(home))
        assert driver.execute_script("return window.innerWidth") == width
        first = driver.execute_script(
            "return [...document.querySelectorAll('h1, .tile')].map(e => {"
            " const b = e.getBoundingClientRect(); return [e.className, b.width, b.bottom] })"
        )
        assert [name for name, *_ in first[:3]] == ["", "tile", "tile"], "name, then figures"
        assert all(across > 120 for _, across, _ in first), "figures have room"
        assert first[2][2] < 900, "two figures are seen without scrolling"
        page = "document.documentElement"
        assert driver.execute_script(f"return {page}.scrollWidth") <= width, "no scrolling sideways"
        # What is wider scrolls within itself, and nothing else sticks out.
        out = driver.execute_script(
            "return [...document.querySelectorAll('main *')].filter(e =>"
            " e.getBoundingClientRect().right > innerWidth + 1"
            " && !e.closest('.wide, p:has(> img)')).map(e => e.outerHTML.slice(0, 120))"
        )
        assert out == []
        broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert driver.execute_script(broken) == 0
        assert driver.execute_script("return document.images.length") >= 9
        assert driver.execute_script("return document.querySelectorAll('svg').length") >= 12
        small = driver.execute_script(
            "return [...document.images].filter(i => i.getBoundingClientRect().width < 300).length"
        )
        assert small == 0, "a figure too small to read"


def test_the_report_answers_to_the_pointer_and_the_slider(home: Path, tmp_path: Path) -> None:
    with looking(tmp_path) as driver:
        driver.get(report_of(home))
        take(driver, "report.png")
        shown = driver.execute_script(
            "const s = document.querySelector('svg.curves'), b = s.getBoundingClientRect();"
            "s.dispatchEvent(new PointerEvent('pointermove', {clientX: b.left + b.width / 2}));"
            "return document.querySelector('.values').innerText"
        )
        assert shown.startswith("epoch 2\nseed 0: ") and len(shown.splitlines()) == 5
        before, after = driver.execute_script(
            "const f = document.querySelector('figure.over'), i = f.querySelector('input');"
            "const state = () =>"
            " f.querySelector('.at').innerText + f.querySelector('.both').innerHTML;"
            "const first = state(); i.value = 0; i.dispatchEvent(new Event('input'));"
            "return [first, state()]"
        )
        assert (
            before.startswith("epoch 3") and after.startswith("epoch 1") and before[7:] != after[7:]
        )
        driver.execute_script(
            "Object.defineProperty(navigator, 'clipboard',"
            " {value: {writeText: async text => { window.copied = text }}});"
            "const b = document.querySelector('button.copy'); if (!b.hidden) b.click()"
        )
        copied = wait_for(lambda: driver.execute_script("return window.copied"), "the copy")
        records = (home / "runs" / "smoke" / "selections").glob("*.json")
        found = [json.loads(path.read_text())["winner"]["genotype"] for path in records]
        assert json.loads(str(copied)) in found
        assert driver.execute_script("return document.querySelector('.copy').innerText") == "copied"


def test_other_methods_rows_are_folded_below_ours(home: Path, tmp_path: Path) -> None:
    with looking(tmp_path) as driver:
        driver.get(report_of(home))
        before, after, above = driver.execute_script(
            "const f = [...document.querySelectorAll('details.folded')]"
            " .find(d => d.textContent.includes('DARTS (2nd) + CutOut'));"
            "const tall = () => f.getBoundingClientRect().height, first = tall();"
            "f.querySelector('summary').click();"
            "const ours = [...document.querySelectorAll('td')]"
            " .find(td => td.innerText.startsWith('ours'));"
            "return [first, tall(),"
            " !f.contains(ours) && (ours.compareDocumentPosition(f) & 4) > 0]"
        )
        assert before < 60 < 300 < after, "one line, which opens to the paper's table"
        assert above


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_read_by_day_and_by_night(home: Path, tmp_path: Path, scheme: str) -> None:
    """Words and their ground differ as WCAG asks for, 4.5 to 1."""
    with looking(tmp_path) as driver:
        feature = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
        driver.get(report_of(home))
        ground, faint = driver.execute_script(
            """
            const rgba = c => (c.match(/[0-9.]+/g) ?? [0, 0, 0, 0]).map(Number);
            const light = c => c.slice(0, 3).map(v => v / 255)
              .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
              .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = e => {
              for (; e; e = e.parentElement) {
                const c = rgba(getComputedStyle(e).backgroundColor);
                if (c.length < 4 || c[3] > 0.5) return light(c);
              }
              return 1;
            };
            const faint = [];
          const words = 'h1, h2, .tile *, p, td, th, li, a, dt, dd, summary, figcaption, svg text';
            for (const e of document.querySelectorAll(words)) {
              if (!e.textContent.trim() || !e.getClientRects().length) continue;
              const style = getComputedStyle(e);
              const ink = light(rgba(e.matches('svg *') ? style.fill : style.color));
              const back = behind(e);
              const ratio = (Math.max(ink, back) + .05) / (Math.min(ink, back) + .05);
              if (ratio < 4.5) faint.push(e.outerHTML.slice(0, 100) + ' ' + ratio.toFixed(2));
            }
            return [behind(document.body), faint];
            """
        )
        assert ground < 0.1 if scheme == "dark" else ground > 0.9
        assert faint == []


def test_the_report_is_printed_whole(home: Path, tmp_path: Path) -> None:
    with looking(tmp_path) as driver:
        driver.get(report_of(home))
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        paper = {"width": 720, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)  # a page, in CSS pixels
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 720
        assert not driver.execute_script("return document.querySelector('nav').offsetParent")
        printed(driver, tmp_path / "report.pdf")
        assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


# The drill


def test_the_drill_of_one_fault(tmp_path: Path) -> None:
    words = ["--seed", "3", "--only", "driver-killed", "--faults", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.drill", *words],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 1 | driver-killed |" in done.stdout and "| equal |" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("next: python -m tests.drill --seed 4")
