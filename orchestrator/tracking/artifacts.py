"""Uploads files to MLflow's runs. What MLflow refuses is said once, and everything else goes on.

MLflow keeps metrics in a database and files in another place, which may be a bucket without
credentials, a full disk, or behind a proxy that takes no large files. So a file that cannot be
uploaded says nothing about the server, which is asked before it is taken for gone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from gdas.errors import one_line
from gdas.files import write_json, write_text
from orchestrator.experiment.study import Job
from orchestrator.store.failure import FAILURE
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import GenotypeJson, Trained

GIVE_UP_AFTER = 3
"""If so many files were refused and none was taken, the others are not tried."""


class Artifacts:
    """Uploads files to runs, and remembers what was refused.

    Args:
        uri: the server or database, for what is said.

    Attributes:
        refused: what was refused, such as "search-frc-seed0: result.json".
        taken: how many files were uploaded.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.refused: list[str] = []
        self.taken = 0
        self.said: set[str] = set()

    def forget(self) -> None:
        """Try what was refused again from now on."""
        self.refused.clear()

    def file(self, client: Any, run_id: str, whose: str, path: Path, folder: str = "") -> None:
        """Upload a file.

        Args:
            client: an MlflowClient.
            whose: the job's label, or "study".
            folder: the run's folder that it goes into.

        Raises:
            Exception: the server does not answer.
        """
        what = f"{whose}: {path.name}"
        if not self.taken and len(self.refused) >= GIVE_UP_AFTER:
            self.refused.append(what)
            return
        try:
            client.log_artifact(run_id, str(path), folder or None)
            self.taken += 1
        except Exception as error:  # MLflow and what it stores files with raise many kinds
            client.get_run(run_id)  # raises if it is the server that is gone
            self.refuse(what, error)

    def job(self, client: Any, run_id: str, job: Job, folder: JobFolder) -> None:
        """Upload the files of a job that has ended: its result, cell, settings and error."""
        result = folder.result(Trained)
        if result is not None:
            self.json(client, run_id, job.label, result, "result.json")
            if "genotype" in result:  # measurements have none
                self.json(client, run_id, job.label, result["genotype"], "genotype.json")
                self._picture(client, run_id, job.label, result["genotype"])
        for name in ("settings.json", FAILURE, "log.txt"):
            if (folder.path / name).is_file():
                self.file(client, run_id, job.label, folder.path / name)

    def _picture(self, client: Any, run_id: str, whose: str, genotype: GenotypeJson) -> None:
        from orchestrator.report.figures.curves import draw

        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "cell.png"
            draw(genotype, path)
            self.file(client, run_id, whose, path, "figures")

    def json(self, client: Any, run_id: str, whose: str, value: object, name: str) -> None:
        """Upload a value as a JSON file."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            write_json(path, value)
            self.file(client, run_id, whose, path)

    def text(self, client: Any, run_id: str, whose: str, text: str, name: str) -> None:
        """Upload a text as a file; `name` may have folders."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / Path(name).name
            write_text(path, text)
            self.file(client, run_id, whose, path, str(Path(name).parent).removeprefix("."))

    def folder(self, client: Any, run_id: str, whose: str, path: Path, folder: str) -> None:
        """Upload every file below a folder, each for itself."""
        for file in sorted(path.rglob("*")):
            if file.is_file():
                parent = (Path(folder) / file.relative_to(path)).parent
                self.file(client, run_id, whose, file, parent.as_posix())

    def refuse(self, what: str, error: Exception) -> None:
        """Remember that something was refused, and say each reason once."""
        self.refused.append(what)
        kind = f"{type(error).__name__} {getattr(error, 'errno', '')} {_status(error)}"
        if kind not in self.said:
            print(
                f"MLflow at {self.uri} refuses a file, {what} ({one_line(error, 200)}); runs and "
                "metrics go on",
                file=sys.stderr,
            )
        self.said.add(kind)


def _status(error: Exception) -> str:
    """The HTTP status or MLflow's code of an error."""
    response = getattr(error, "response", None)
    return str(getattr(response, "status_code", getattr(error, "error_code", "")))
