"""Check every machine of a Ray cluster from itself: `python -m orchestrator.nodes`.

It does what `orchestrator.doctor` does for one machine, with a line for each: whether the machine
has the same code and packages as the head, sees the GPUs that Ray assigns there, and reads and
writes the output folder that the other machines use.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

from gdas.cnn.fused import build
from gdas.errors import InputError, one_line
from orchestrator.store.storage import is_address, join, open_storage
from orchestrator.terminal.command import (
    add_address,
    add_out,
    command_parser,
    run_command,
    say_next,
)
from orchestrator.terminal.words import Finding, counted

MORE = """examples:
  python -m orchestrator.nodes --address auto --out s3://BUCKET/gdas/runs
  python -m orchestrator.nodes --address 10.0.0.1:6379 --out /shared/runs

There is a line for each machine that has joined. An autoscaling cluster has only its head until
jobs wait for machines, so run this again while a study runs."""

GIB = 2**30
PATIENCE_S = 90.0
"""How long a machine may take, in seconds: it may import PyTorch for the first time."""
SAME = ("python", "torch", "ray", "pyarrow", "numpy", "code")
"""Keys of a report that must be equal on all machines."""
Report = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.nodes",
        "Check every machine of a Ray cluster from itself: code, packages, GPUs, storage.",
        MORE,
        done="nothing is bad",
        failed="something is",
    )
    add_address(parser, "auto", "auto")
    add_out(parser, None)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _nodes, arguments)


def _nodes(options: argparse.Namespace) -> int:
    from orchestrator.nodes import report  # imported, so that Ray pickles only its name
    from orchestrator.run.machines import on_every_node, ray_cluster

    address, out = options.address, options.out
    mark = f".gdas-nodes-{uuid.uuid4().hex[:8]}"
    try:
        if not is_address(out):
            Path(out).mkdir(parents=True, exist_ok=True)
        _put(out, mark)
    except OSError as error:
        raise InputError(
            f"--out {out}: cannot be written to ({one_line(error, 200)}); name another"
        ) from None
    try:
        here = report(out, mark)
        with ray_cluster(address):
            answers = on_every_node(report, (out, mark), PATIENCE_S)
    finally:
        _remove(out, mark)
    bad = 0
    for node, answer in answers:
        found = finding(node, answer, here)
        bad += found.level == "BAD"
        print(found.line(), flush=True)
    gpus = sum(node["Resources"].get("GPU", 0) for node, _ in answers)
    cpus = sum(node["Resources"].get("CPU", 0) for node, _ in answers)
    print(
        f"{counted(len(answers), 'machine')}, {cpus:g} CPUs and {gpus:g} GPUs for jobs; {bad} bad"
    )
    there = f"--address {quote(address)} --out {quote(join(out, 'smoke'))}"
    command = f"python -m orchestrator.reproduce_paper smoke {there}"
    say_next("mend what is BAD, then run this again" if bad else command)
    return 1 if bad else 0


def report(out: str, mark: str) -> Report:
    """Describe this machine.

    Args:
        out: the output folder.
        mark: a file that is in the output folder if this machine has the same one as the head.
    """
    import torch

    from orchestrator.driver.doctor import usable_cores, usable_memory

    count = torch.cuda.device_count()
    return {
        "host": platform.node(),
        "cores": usable_cores(),
        "memory": usable_memory(),
        "gpus": count,
        "gpu": torch.cuda.get_device_name(0) if count else "",
        "free": shutil.disk_usage(tempfile.gettempdir()).free,
        "storage": _storage_fault(out, mark),
        "python": platform.python_version(),
        "code": code_digest(),
        "no_kernels": "" if build.library() is not None else build.status(),
        **{name: version(name) for name in ("torch", "ray", "pyarrow", "numpy")},
    }


def code_digest() -> str:
    """A hash of the project's own files on this machine."""
    digest, root = hashlib.sha256(), Path(__file__).resolve().parent.parent
    for path in sorted([*root.glob("gdas/**/*"), *root.glob("orchestrator/**/*.py")]):
        if path.suffix in (".py", ".cpp", ".h"):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:10]


def finding(node: Mapping[str, Any], answer: Report | str, here: Report) -> Finding:
    """The line about one machine.

    Args:
        node: Ray's description of it.
        answer: its report, or why there is none.
        here: the report of the calling machine, which the others must equal.
    """
    name = str(node["NodeManagerAddress"])
    if isinstance(answer, str):
        return Finding("BAD", f"{name}: no answer ({answer})", "see its logs in Ray's dashboard")
    for key in SAME:
        if answer[key] != here[key]:
            return Finding(
                "BAD",
                f"{name}: {key} {answer[key]}, here {here[key]}",
                "install the same on all (ray up copies the project and installs it again)",
            )
    if answer["storage"]:
        return Finding("BAD", f"{name}: {answer['storage']}", "give all machines the same --out")
    promised = node["Resources"].get("GPU", 0)
    if answer["gpus"] < promised:
        return Finding(
            "BAD",
            f"{name}: PyTorch sees {answer['gpus']} GPUs, Ray would hand out {promised:g}",
            "its NVIDIA driver is older than PyTorch needs, or ray start's --num-gpus is wrong",
        )
    gpus = f"{answer['gpus']} x {answer['gpu']}" if answer["gpus"] else "no GPU"
    free = answer["free"] / GIB
    what = (
        f"{name} ({answer['host']}): {answer['cores']} cores, {answer['memory'] / GIB:.1f} GiB "
        f"memory, {gpus}, {free:.0f} GiB free, code {answer['code']}, reads and writes --out"
    )
    if free < 5:
        return Finding("note", what, "little room for data and checkpoints on its way to --out")
    if answer["no_kernels"]:
        return Finding("note", f"{what}, no fused kernels", answer["no_kernels"])
    return Finding("ok", what)


def _storage_fault(out: str, mark: str) -> str:
    """Why this machine does not share the output folder; "" if it does."""
    own = f"{mark}-{uuid.uuid4().hex[:8]}"
    try:
        _put(out, own)
        _remove(out, own)
        return "" if _is_there(out, mark) else f"--out {out} is not the folder that the head has"
    except (OSError, InputError) as error:
        return f"--out {out}: {one_line(error, 200)}"


def _put(out: str, name: str) -> None:
    if is_address(out):
        open_storage(out).write(name, b"", patience=0.0)
    else:
        (Path(out) / name).touch()


def _is_there(out: str, name: str) -> bool:
    if not is_address(out):
        return (Path(out) / name).exists()
    try:
        open_storage(out).read(name, patience=0.0)
    except FileNotFoundError:
        return False
    return True


def _remove(out: str, name: str) -> None:
    if is_address(out):
        open_storage(out).remove(name)
    else:
        (Path(out) / name).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
