"""Faults of MLflow: a tracking server on loopback that the drill starts, stops and kills."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from orchestrator.mlflow_server import ENVIRONMENT, server_command
from tests.drill.faults import INTERRUPT_S
from tests.drill.scene import Scene, Struck, strike
from tests.e2e.driving import end, family_of, wait_for


class TrackingServer:
    """`mlflow server` for one scene, on a port of its own; its database outlives it.

    The scene's end is its end.
    """

    def __init__(self, scene: Scene) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        self.scene = scene
        self.server: subprocess.Popen[bytes] | None = None
        scene.closing.append(self.kill)
        scene.words.append(f"mlflow.tracking_uri=http://127.0.0.1:{self.port}")

    def start(self) -> None:
        """Start it and wait until it answers."""
        folder = self.scene.folder
        command = server_command(folder / "server.db", str(folder / "artifacts"), self.port)
        with (folder / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                command, stdout=log, stderr=log, process_group=0, env=os.environ | ENVIRONMENT
            )
        wait_for(self._answers, "the tracking server")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        if self.server is None:
            return
        end(family_of(self.server.pid))
        self.server.wait()
        self.server = None

    def hang(self, hung: bool) -> None:
        """Make it accept connections and answer none, or go on."""
        assert self.server is not None
        for member in family_of(self.server.pid):
            member.suspend() if hung else member.resume()
        if not hung:
            wait_for(self._answers, "the tracking server")


def dead_at_start(scene: Scene) -> Struck:
    """No MLflow answers: an error; with `mlflow.unreachable: warn` all arrives later."""
    server = TrackingServer(scene)
    refused = scene.start()
    code = refused.wait()
    scene.words.append("mlflow.unreachable=warn")
    running = scene.start()
    label = scene.draw_moment(running, scene.labels("search"), least=1)
    struck = strike(scene, f"dead until {label} has records ({scene.standing()})", [])
    if code != 2 or "no MLflow serves this study" not in refused.output():
        struck.wrong.append(f"without the setting: exit code {code}, expected a refusal, 2")
    server.start()
    _ends_well(running.wait(), struck)
    return struck


def dies(scene: Scene) -> Struck:
    """It dies in the middle and stays dead; the next command sends the rest."""
    server = TrackingServer(scene)
    server.start()
    running = scene.start()
    label = scene.draw_moment(running, scene.labels())
    struck = strike(scene, f"inside a segment of {label} ({scene.standing()})", [])
    server.kill()
    _ends_well(running.wait(), struck)
    if "does not answer" not in running.output():
        struck.wrong.append("the output does not say that MLflow does not answer")
    server.start()
    _ends_well(scene.start().wait(), struck)
    return struck


def comes_back(scene: Scene) -> Struck:
    """It dies in the middle and comes back while the study runs; one command sends all."""
    return _away(scene, "dead")


def hangs(scene: Scene) -> Struck:
    """It accepts connections and answers none for a while."""
    return _away(scene, "hung")


def _away(scene: Scene, how: str) -> Struck:
    server = TrackingServer(scene)
    server.start()
    running = scene.start()
    label = scene.draw_moment(running, scene.labels("search"))
    seconds = scene.rng.uniform(5, 25)
    place = f"{how} for {seconds:.0f} s from inside a segment of {label} ({scene.standing()})"
    struck = strike(scene, place, [])
    if how == "dead":
        server.kill()
        time.sleep(seconds)
        server.start()
    else:
        server.hang(True)
        time.sleep(seconds)
        server.hang(False)
    _ends_well(running.wait(), struck)
    return struck


def interrupted_while_hung(scene: Scene) -> Struck:
    """Ctrl-C while MLflow accepts connections and answers none."""
    server = TrackingServer(scene)
    server.start()
    running = scene.start()
    label = scene.draw_moment(running, scene.labels("search"), least=1)
    server.hang(True)
    time.sleep(scene.rng.uniform(1, 4))
    struck = strike(scene, f"inside a segment of {label} ({scene.standing()})")
    began = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)
    code = running.wait()
    took = time.monotonic() - began
    struck.remarks.append(f"ended after {took:.1f} s")
    if code != 130 or took > INTERRUPT_S:
        struck.wrong.append(f"exit code {code} after {took:.1f} s, expected 130 within 10 s")
    server.hang(False)
    return struck


def _ends_well(code: int, struck: Struck) -> None:
    if code:
        struck.wrong.append(f"exit code {code}, expected 0: training must not stop for MLflow")
