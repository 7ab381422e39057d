"""A cluster that wants a token, as an account has it on which Ray ever started by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
OURS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")


def account(home: Path, short: str) -> dict[str, str]:
    """The environment of an account with this home."""
    kept = {key: value for key, value in os.environ.items() if key not in OURS}
    home.mkdir(exist_ok=True)
    return kept | {"HOME": str(home), "RAY_TMPDIR": short, "RAY_USAGE_STATS_ENABLED": "0"}


def module(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)


@pytest.fixture
def cluster(tmp_path: Path, free_port: int) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a head that wants a token, and the environment of its account."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:
        env = account(tmp_path / "home", short)
        subprocess.run([*RAY, "get-auth-token", "--generate"], env=env, check=True, timeout=120)
        words = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=1"]
        words += [f"--port={free_port}", "--include-dashboard=false"]
        head = subprocess.Popen([*RAY, *words], env=env | {"RAY_AUTH_MODE": "token"})
        address = f"127.0.0.1:{free_port}"
        try:
            joined = module(env, "orchestrator.run.join", address, "--machines", "1")
            assert joined.returncode == 0, joined.stderr
            yield address, env
        finally:
            head.send_signal(signal.SIGTERM)
            head.wait(120)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_accounts_token_is_sent_and_another_account_is_told(
    cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, env = cluster
    words = ["orchestrator.nodes", "--address", address, "--out", str(tmp_path / "out")]
    done = module(env, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 machines, 1 CPUs" in done.stdout
    other = account(tmp_path / "other", env["RAY_TMPDIR"])
    done = module(other, *words)
    assert done.returncode == 2 and "it wants a token, and this account has none" in done.stderr
    done = module(other | {"RAY_AUTH_TOKEN": "another's"}, *words)
    assert done.returncode == 2 and "RAY_AUTH_TOKEN is not its own" in done.stderr
