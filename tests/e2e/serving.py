"""MLflow's page, served by a command of the README, and a browser that looks at it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from selenium.webdriver.chrome.webdriver import WebDriver

from orchestrator.mlflow_server import ENVIRONMENT
from tests.e2e.browser import browser, picture

# Its assistant opens over what is looked at.
SETTLED = (
    "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
    "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')"
)


@contextmanager
def served(command: str, folder: Path) -> Iterator[str]:
    """A command of the README that serves MLflow's page, at a free port; yields its address."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    program, what, *words = shlex.split(command)
    assert program == "mlflow"
    if "--port" in words:
        del words[words.index("--port") : words.index("--port") + 2]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", what, *words, "--port", str(port), "--workers", "1"],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 180
        while True:
            assert time.monotonic() < end and server.poll() is None, f"{command}: does not answer"
            try:
                with urlopen(f"{address}/health", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@contextmanager
def looking(tmp_path: Path, size: tuple[int, int] = (1400, 900)) -> Iterator[WebDriver]:
    with browser(tmp_path / "profile", *size) as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SETTLED})
        yield driver


def take(driver: WebDriver, name: str) -> None:
    """The picture of this name, where pictures are wanted."""
    if folder := os.environ.get("GDAS_PICTURES"):
        time.sleep(3)  # animations
        picture(driver, Path(folder) / name)


def click(driver: WebDriver, element: str) -> None:
    driver.execute_script(f"document.querySelector(`{element}`).click()")
