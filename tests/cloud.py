"""AWS on this machine: moto's server on loopback, and environments that can reach nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REGION = "us-west-2"


class Server:
    """Moto, which can be stopped and started again (empty) at the same address.

    Attributes:
        environment: what makes a process talk to it instead of AWS.
    """

    def __init__(self) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < end and self.process.poll() is None, "moto did not start"
                time.sleep(0.1)

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def aws() -> Iterator[Server]:
    """A server with the bucket `bucket`; this process talks to it too while a test runs."""
    server = Server()
    server.start()
    before = dict(os.environ)
    os.environ.update(server.environment)
    try:
        import boto3

        boto3.client("s3").create_bucket(
            Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        yield server
    finally:
        server.stop()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder of commands that only write down what they were asked, in `commands.log`."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    for name in ("ssh", "rsync", "scp"):
        path = folder / name
        path.write_text(
            f'#!/bin/sh\nprintf "%s " {name} "$@" >> "{folder}/commands.log"\n'
            f'echo >> "{folder}/commands.log"\n'
        )
        path.chmod(0o755)
    return folder
