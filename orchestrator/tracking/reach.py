"""Whether an MLflow server serves this process, and if not, why and what mends it. Pure.

The server is asked what a study asks it first, with the same credentials: its health page answers
everybody.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from base64 import b64encode
from urllib.parse import urlsplit

from gdas.errors import one_line

ASK = "/api/2.0/mlflow/experiments/search?max_results=1"
TIMEOUT_S = 5.0
START = "start it (mlflow server --host HOST --port PORT)"
OTHERS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
)
"""Variables that MLflow itself reads and a study does not: its settings say where its runs go."""


def fault_of(uri: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Why a server does not serve this process, then "; " and the fix; None if it does.

    A database is not asked.
    """
    if not uri.startswith(("http://", "https://")):
        return None
    request = urllib.request.Request(f"{uri.rstrip('/')}{ASK}", headers=_credentials())
    try:
        with urllib.request.build_opener().open(request, timeout=timeout_s) as answer:
            kind = answer.headers.get("Content-Type", "")
            return (
                None if "json" in kind else f"what answers is no MLflow ({kind}); check the address"
            )
    except urllib.error.HTTPError as error:
        return _refusal(error.code, uri)
    except (OSError, ValueError) as error:
        why = one_line(getattr(error, "reason", error), 150)
    through = proxy_of(uri)
    if through:
        host = urlsplit(uri).hostname
        return f"{why}, through the proxy {through}; set NO_PROXY={host} to go around it"
    return f"{why}; {START}"


def _refusal(code: int, uri: str) -> str:
    if code == 401:
        given = "are wrong" if _credentials() else "are not set"
        return (
            f"it wants a user and a password, which {given} (401); set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if code == 403:
        return (
            "it forbids this (403); ask for the right to write there, or start it with "
            "--allowed-hosts if it refuses this name of its machine"
        )
    if code in (502, 503, 504):
        through = proxy_of(uri)
        whose = f"the proxy {through}" if through else "what stands before it"
        return f"{whose} answers {code}, since it does not reach the server; {START}"
    return f"it answers {code}, as MLflow does not; check the address"


def proxy_of(uri: str) -> str:
    """The proxy that a request goes through, without its password; "" if none."""
    parts = urlsplit(uri)
    found = urllib.request.getproxies().get(parts.scheme, "")
    if not found or urllib.request.proxy_bypass(parts.netloc):
        return ""
    return found.rpartition("@")[2] if "@" in found else found


def _credentials() -> dict[str, str]:
    """The header that MLflow's own client would send."""
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if name and password:
        return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    return {}


def unheeded(named: str | None) -> list[str]:
    """A line for what the environment says about MLflow and a study does not follow.

    Args:
        named: the setting `mlflow.tracking_uri`.
    """
    found = [key for key in OTHERS if os.environ.get(key) and os.environ[key] != named]
    if not found:
        return []
    return [
        f"note: {', '.join(found)}: not followed; a study's runs go where its settings say "
        "(mlflow.tracking_uri=URI mlflow.experiment=NAME)"
    ]
