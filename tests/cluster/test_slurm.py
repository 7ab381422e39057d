"""The sbatch file: shellcheck, and its body run with Slurm's commands standing in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SBATCH = Path(__file__).resolve().parents[2] / "cluster" / "slurm.sbatch"


def stub(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment as a Slurm job of two nodes has it; everything asked for is in `log`."""
    bin_ = tmp_path / "bin"
    log = tmp_path / "log"
    stub(
        bin_,
        "scontrol",
        f'echo "scontrol $*" >> {log}; if [ "$1" = show ]; then printf "n1\\nn2\\n"; fi',
    )
    stub(bin_, "getent", 'echo "127.0.0.1 STREAM n1"; echo "10.0.0.7 STREAM n1"')
    # srun runs the rest of its line, here as on every node.
    stub(
        bin_,
        "srun",
        f'echo "srun $*" >> {log}\nwhile [ "${{1#--}}" != "$1" ]; do shift; done\nexec "$@"',
    )
    venv = tmp_path / "venv" / "bin"
    # A Ray holds on until it is ended, with nobody else's.
    stub(
        venv,
        "ray",
        # What is in the log can be ended: the trap stands before the line is written.
        f'trap "echo ended $* >> {log}; exit 0" TERM\necho "ray $*" >> {log}\n'
        '[ "$1" = start ] || exit 0\nwhile true; do sleep 0.05; done',
    )
    stub(
        venv,
        "python",
        f'echo "python $*" >> {log}\ncase "$*" in\n'
        '*run.join*--\\ *) while [ "$1" != -- ]; do shift; done; shift; exec "$@";;\n'
        '*--machines*) eval "$JOIN_DOES";;\n'
        '*reproduce_paper*) eval "$STUDY_DOES";;\nesac',
    )
    return os.environ | {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "VENV": str(tmp_path / "venv"),
        "RAY_TMPDIR": str(tmp_path / "ray"),
        "JOIN_DOES": "true",
        "STUDY_DOES": "true",
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_GPUS_ON_NODE": "a100:1",
    }


def until_told(process: subprocess.Popen[bytes], log: Path) -> int:
    """Slurm's signal as soon as the job is under way; the job's exit code."""
    end = time.monotonic() + 120
    while not log.exists() or "under way" not in log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    return process.wait(timeout=120)


def until_joined(log: Path) -> str:
    """Shell that waits until both Rays run and can be ended."""
    return f'until [ "$(grep -c "^ray start" {log})" = 2 ]; do sleep 0.05; done'


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, SBATCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_starts_ray_on_every_node_and_the_command_on_the_first(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    words = ["smoke", "--out", "/shared/with space"]
    log_file = tmp_path / "log"
    # The study lasts until both nodes have joined, as it does in a cluster.
    env = slurm | {"STUDY_DOES": until_joined(log_file)}
    subprocess.run(["bash", SBATCH, *words], env=env, check=True, timeout=300)
    log = log_file.read_text().splitlines()
    share = "--num-cpus=8 --num-gpus=1"
    head = "ray start --head --node-ip-address=10.0.0.7 --port=20042 --include-dashboard=false"
    worker = f"ray start --address=10.0.0.7:20042 --block {share}"
    assert log.index("ray get-auth-token --generate") < log.index(f"{head} --block {share}")
    assert worker in log
    (srun,) = (line for line in log if line.startswith("srun "))
    assert srun.startswith("srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --exclude=n1 ")
    joined = log.index("python -m orchestrator.run.join 10.0.0.7:20042 --machines 2")
    python = "python -m orchestrator.reproduce_paper --address 10.0.0.7:20042"
    assert joined < log.index(f"{python} {' '.join(words)}")
    ended = [line for line in log if line.startswith("ended ")]
    assert len(ended) == 2, "both Rays, by the processes that hold them"
    assert not any("ray stop" in line for line in log)


def test_its_exit_code_is_the_studys(slurm: dict[str, str]) -> None:
    done = subprocess.run(["bash", SBATCH], env=slurm | {"STUDY_DOES": "exit 3"}, timeout=120)
    assert done.returncode == 3


def test_a_node_without_an_outside_address_is_refused(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    stub(tmp_path / "bin", "getent", 'echo "127.0.1.1 STREAM n1"')
    done = subprocess.run(["bash", SBATCH], env=slurm, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "n1 has no address" in done.stderr


def test_when_time_is_nearly_up_it_goes_back_into_the_queue(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    study = [
        f'trap "echo told >> {log}; exit 143" TERM',
        until_joined(log),
        f"echo under way >> {log}",
        "for i in $(seq 1200); do sleep 0.1; done",
    ]
    process = subprocess.Popen(["bash", SBATCH], env=slurm | {"STUDY_DOES": "; ".join(study)})
    assert until_told(process, log) == 0
    said = log.read_text()
    assert "told" in said and "scontrol requeue 42" in said
    assert said.count("ended ") == 2, "the Rays too"


def test_time_that_ends_before_all_nodes_have_joined_goes_back_too(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    join = f"{until_joined(log)}; echo under way >> {log}; sleep 1"
    process = subprocess.Popen(["bash", SBATCH], env=slurm | {"JOIN_DOES": join})
    assert until_told(process, log) == 0
    said = log.read_text()
    assert "scontrol requeue 42" in said and "reproduce_paper" not in said
    assert said.count("ended ") == 2
