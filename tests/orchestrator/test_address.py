"""What is said of an address within seconds: a fake head over real gRPC, and real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from orchestrator.run.address import ALIVE, Unreachable, probe, token_here

OURS = "2.60.0"


class Head(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers as a Ray head does."""

    def __init__(self, version: str, token: str) -> None:
        self.version, self.token = version, token

    def service(self, details: Any) -> Any:
        given = dict(details.invocation_metadata).get("authorization", "")

        def answer(request: bytes, context: Any) -> bytes:
            if details.method != ALIVE:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
            if self.token and given != f"Bearer {self.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: ...")
            version = self.version.encode()
            return b"\n\x00\x12" + bytes([len(version)]) + version + b" \x01"

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def head(version: str = OURS, token: str = "") -> Iterator[str]:
    """The address of a head."""
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Head(version, token)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account without a token; gives where its token would be."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    return tmp_path / ".ray" / "auth_token"


def said(address: str, patience_s: float = 5.0) -> str:
    with pytest.raises(Unreachable) as refusal:
        probe(address, OURS, patience_s)
    return str(refusal.value)


def test_a_head_without_a_token_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with head() as address:
        assert probe(address, OURS) is False


def test_a_token_is_sent_only_where_it_is_wanted(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with head(token="ours") as address:
        assert "this account has none; copy ~/.ray/auth_token from the head" in said(address)
        account.write_text("another's\n")
        assert f"that of {account} is not its own" in said(address)
        account.write_text("ours\n")
        assert probe(address, OURS) is True
        monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
        assert "that of RAY_AUTH_TOKEN is not its own" in said(address)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "ours")
        assert probe(address, OURS) is True and token_here() == ("ours", "RAY_AUTH_TOKEN")
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert "RAY_AUTH_MODE=disabled; unset RAY_AUTH_MODE" in said(address)


def test_another_version_is_named_with_the_line_that_installs_it() -> None:
    with head(version="2.61.1") as address:
        assert "runs Ray 2.61.1, and this is Ray 2.60.0" in said(address)


def test_refused_silent_foreign_and_unknown_are_told_apart() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        assert f"refuses port {port}: no Ray is started there" in said(f"127.0.0.1:{port}")
        s.listen()  # takes connections, and never answers
        assert "is no Ray head (deadline_exceeded)" in said(f"127.0.0.1:{port}", 0.3)
    assert "is not HOST:PORT; write it as 10.0.0.1:6379" in said("somewhere")
    assert "no machine is called" in said("nowhere.invalid:6379")


def test_an_address_that_swallows_everything_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def swallowed(address: Any, timeout: float) -> Any:
        raise TimeoutError(f"after {timeout}")

    monkeypatch.setattr(socket, "create_connection", swallowed)
    assert "no answer from 10.255.255.1 within 5 s: it is off, or a firewall" in said(
        "10.255.255.1:6379"
    )
