"""What is said of an MLflow server that does not serve this account: real sockets and HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from orchestrator.driver import doctor
from orchestrator.tracking.reach import fault_of


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD", "TOKEN", "URI"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def server(code: int, kind: str = "application/json", wants: str = "") -> Iterator[str]:
    """The address of a server that answers so, unless it is told what it wants."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = bool(wants) and self.headers.get("Authorization") == wants
            self.send_response(200 if known or self.path == "/health" else code)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def test_a_server_that_serves_is_no_fault() -> None:
    with server(200) as uri:
        assert fault_of(uri) is None and fault_of(uri + "/") is None
    assert fault_of("sqlite:///x.db") is None


def test_a_password_that_is_wanted_or_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(401, wants="Basic bWU6Z2VoZWlt") as uri:  # me:geheim
        assert "a password, which are not set (401)" in str(fault_of(uri))
        (found,) = doctor.mlflow(uri, "out")
        assert found.level == "BAD" and "MLFLOW_TRACKING_USERNAME" in found.fix
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        assert "which are wrong (401)" in str(fault_of(uri))
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
        assert fault_of(uri) is None
        (found,) = doctor.mlflow(uri, "out")
        assert found.level == "ok"


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (403, "text/plain", "--allowed-hosts"),
        (200, "text/html", "is no MLflow (text/html)"),
        (404, "text/html", "it answers 404, as MLflow does not"),
        (502, "text/html", "what stands before it answers 502"),
    ],
)
def test_what_is_no_mlflow_is_told_apart(code: int, kind: str, said: str) -> None:
    with server(code, kind) as uri:
        assert said in str(fault_of(uri))


def test_a_dead_server_and_a_dead_proxy_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{s.getsockname()[1]}"
        assert str(fault_of(f"http://{dead}")).startswith(
            "[Errno 111] Connection refused; start it"
        )
        with server(200) as uri:
            monkeypatch.setenv("http_proxy", f"http://me:geheim@{dead}")
            fault = str(fault_of(uri))
            assert f"through the proxy {dead}; set NO_PROXY=127.0.0.1" in fault
            assert "geheim" not in fault
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert fault_of(uri) is None


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        assert "timed out" in str(fault_of(f"http://127.0.0.1:{s.getsockname()[1]}", 0.2))


def test_what_the_environment_says_about_mlflow_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    noted, where = doctor.mlflow(None, "out")
    assert noted.level == "note" and "MLFLOW_TRACKING_URI: not followed" in noted.what
    assert where.level == "ok"
