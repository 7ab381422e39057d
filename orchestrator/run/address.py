"""Whether a Ray cluster answers at an address, and if not, why: asked within seconds. No Ray.

Ray itself retries for minutes and then names no cause. So the cluster's head is asked first whether
it is alive (`CheckAlive` of its control store, over gRPC), which it answers with its version, or by
refusing the token.

A cluster wants a token if its head was started by an account that has one: Ray makes one when it
first starts by itself. It sends it only if RAY_AUTH_MODE is "token", so that mode follows.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import grpc

PATIENCE_S = 5.0
ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
MODE = "RAY_AUTH_MODE"
PORT = 6379
"""The port of a head unless it was started with another."""
HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:]+\]|[^:\s/]+):(?P<port>[0-9]{1,5})")


class Unreachable(Exception):
    """No cluster serves this process at an address; the text says why, and what mends it."""


def token_here() -> tuple[str, str]:
    """This account's token for Ray and where it is from; two empty texts if it has none."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text().strip(), str(path)
    except (OSError, UnicodeDecodeError):
        return "", ""


def probe(address: str, version: str, patience_s: float = PATIENCE_S) -> bool:
    """Ask the head at HOST:PORT whether it is alive.

    Args:
        version: the Ray version of this process.

    Returns:
        Whether it wants a token, which this account then has.

    Raises:
        Unreachable: it does not serve this process.
    """
    found = HOST.fullmatch(address)
    if found is None:
        raise Unreachable(f"is not HOST:PORT; write it as 10.0.0.1:{PORT}")
    host, port = found["host"].strip("[]"), int(found["port"])
    _connect(host, port, patience_s)
    theirs, (token, source) = _version(address, "", patience_s), token_here()
    wants = theirs is None
    if wants:
        if os.environ.get(MODE, "token") != "token":
            raise Unreachable(f"it wants a token, and {MODE}={os.environ[MODE]}; unset {MODE}")
        if not token:
            raise Unreachable(
                "it wants a token, and this account has none; copy ~/.ray/auth_token from the head "
                "to the same place here, or set RAY_AUTH_TOKEN"
            )
        theirs = _version(address, token, patience_s)
        if theirs is None:
            raise Unreachable(
                f"it wants a token, and that of {source} is not its own; copy ~/.ray/auth_token "
                "from the head to the same place here"
            )
    if theirs and theirs != version:
        raise Unreachable(
            f"it runs Ray {theirs}, and this is Ray {version}; install the same on both "
            f"(pip install 'ray[default]=={theirs}')"
        )
    return wants


def _connect(host: str, port: int, patience_s: float) -> None:
    """Open a connection and close it."""
    try:
        socket.create_connection((host, port), patience_s).close()
    except socket.gaierror:
        raise Unreachable(f"no machine is called {host}; check its name") from None
    except ConnectionRefusedError:
        raise Unreachable(
            f"{host} refuses port {port}: no Ray is started there; start it (ray start --head "
            f"--port={port}), or leave --address out"
        ) from None
    except (TimeoutError, OSError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else str(error.strerror)
        raise Unreachable(
            f"{why} from {host} within {patience_s:g} s: it is off, or a firewall keeps port "
            f"{port} shut; open it between these machines"
        ) from None


def _version(address: str, token: str, patience_s: float) -> str | None:
    """The head's Ray version; None if it wants another token."""
    # Ray goes around proxies; the channel would not.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary(ALIVE)
        metadata = [("authorization", f"Bearer {token}")] if token else None
        try:
            answer: bytes = ask(b"", timeout=patience_s, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return None
            raise Unreachable(
                f"what listens there is no Ray head ({error.code().name.lower()}); name the port "
                f"that ray start --head printed, usually {PORT}"
            ) from None
    match = re.search(rb"\x12.([0-9]+\.[0-9A-Za-z.+-]+)", answer)  # the second field
    return match[1].decode() if match else ""
