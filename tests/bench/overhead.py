"""What a job costs beside its work: `python -m tests.bench.overhead 40 80`.

Runs studies of N searches of one step each (about a second of work) on this machine and prints, for
each N, jobs a minute, the driver's processor seconds and memory, files, and calls of MLflow, each
also a job: a column that grows from one line to the next grows faster than the number of jobs.
"""

from __future__ import annotations

import collections
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPERIMENT = """
search:
  seeds: [{seeds}]
  select_by: shared_weights
  recipe:
    data: {{name: digits}}
    epochs: 1
    batch_size: 16
    train_images: 16
    valid_images: 16
    recalibration_batches: 1
    network: {{channels: 4, normals_per_block: 1, reduction: fixed}}
  resources: {{cpus: 0.5}}
searches: {{empty: {{}}}}
"""


def run(jobs: int, data: Path) -> dict[str, float]:
    """One study, in this process."""
    from mlflow import MlflowClient

    from orchestrator.reproduce_paper import main

    calls: collections.Counter[str] = collections.Counter()
    for name in [name for name in vars(MlflowClient) if not name.startswith("_")]:
        method = getattr(MlflowClient, name)
        if callable(method):

            def counted(*arguments, _name=name, _method=method, **named):  # type: ignore[no-untyped-def]
                calls[_name] += 1
                return _method(*arguments, **named)

            setattr(MlflowClient, name, counted)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        experiment = Path(folder) / "overhead.yaml"
        experiment.write_text(EXPERIMENT.format(seeds=", ".join(map(str, range(jobs)))))
        began = time.monotonic()
        code = main([str(experiment), "--out", str(out), "--data", str(data), "--yes"])
        seconds = time.monotonic() - began
        assert code == 0, f"exit code {code}"
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "jobs": jobs,
            "seconds": seconds,
            "jobs a minute": 60 * jobs / seconds,
            "driver CPU s a job": (used.ru_utime + used.ru_stime) / jobs,
            "driver MiB": used.ru_maxrss / 1024,
            "files a job": sum(1 for _ in out.glob("jobs/**/*")) / jobs,
            "Ray files a job": sum(1 for _ in out.glob("ray/**/*")) / jobs,
            "MLflow calls a job": sum(calls.values()) / jobs,
        }


def main(arguments: list[str]) -> int:
    """Each study in a process of its own, so that memory is its own."""
    if arguments[:1] == ["--one"]:
        print("figures " + json.dumps(run(int(arguments[1]), Path(arguments[2]))))
        return 0
    with tempfile.TemporaryDirectory() as data:
        for i, jobs in enumerate(arguments or ["40", "80"]):
            command = [sys.executable, "-m", "tests.bench.overhead", "--one", jobs, data]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            line = next(x for x in done.stdout.splitlines() if x.startswith("figures "))
            figures = json.loads(line.removeprefix("figures "))
            if i == 0:
                print("| " + " | ".join(figures) + " |\n|" + " --- |" * len(figures))
            print(
                "| " + " | ".join(f"{value:.4g}" for value in figures.values()) + " |", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
