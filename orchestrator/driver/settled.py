"""Whether nothing is left of a study: neither a job, nor its report, nor a run in its MLflow.

A command that ends with all of it done writes a key of what that was. If the key is still the same,
the same command has nothing to do, and says so at once, with the lines that it ended with then.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import orchestrator
from gdas.files import write_json
from orchestrator.experiment.study import Study
from orchestrator.store.storage import is_address
from orchestrator.store.store import Store

FILE = "settled.json"
"""In a study's folder, not with its report, which is sent to MLflow before."""
REPORT = ("report.html", "report.md")


def settled(study: Study, store: Store, settings: dict[str, Any]) -> list[str] | None:
    """The last lines of the command that settled exactly this study, here, with this code.

    A study on an object store, or whose runs are on a server, is always looked at anew.

    Args:
        settings: the experiment's.

    Returns:
        None if something may be left to do.
    """
    if is_address(store.address) or settings["mlflow"]["tracking_uri"] is not None:
        return None
    report = store.out / "report"
    there = all((report / name).is_file() for name in REPORT)
    if not there or not (store.tracking_folder / "mlflow.db").is_file():
        return None
    try:
        found = json.loads((store.out / FILE).read_text())
        key, lines = found["key"], [str(line) for line in found["lines"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return lines if key == _key(study, store, settings) else None


def settle(study: Study, store: Store, settings: dict[str, Any], lines: list[str]) -> None:
    """Write down that everything of this study is done, reported and sent.

    Args:
        lines: what the command found, for the next one to print.
    """
    found = {"key": _key(study, store, settings), "lines": lines}
    write_json(store.out / FILE, found)


def _key(study: Study, store: Store, settings: dict[str, Any]) -> str:
    """A hash of settings, results, place and code; of no result if a job has none."""
    sha = hashlib.sha256(json.dumps([settings, store.address], sort_keys=True).encode())
    for job in study:
        path = (
            store.selection_path(job) if job.in_driver else store.folder(job).path / "result.json"
        )
        content = path.read_bytes() if store.done(job) else b""
        sha.update(f"{job.id} {hashlib.sha256(content).hexdigest()}".encode())
    code = Path(orchestrator.__file__).parent
    for file in sorted(code.rglob("*.*")):
        if file.suffix in (".py", ".css", ".js", ".yaml"):
            stamp = file.stat()
            sha.update(f"{file.relative_to(code)} {stamp.st_size} {stamp.st_mtime_ns}".encode())
    return sha.hexdigest()
