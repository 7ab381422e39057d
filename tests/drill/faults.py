"""The kinds of fault. Each starts the command, strikes at a drawn moment, and says what it did.

What a kill at an exact place leaves behind is arranged on disk: the driver is killed, then the
files that come after that place are taken away.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.drill.scene import Scene, Struck, strike
from tests.e2e import driving
from tests.e2e.driving import Running, alive, process, title, wait_for

Fault = Callable[[Scene], Struck]

INTERRUPT_S = 10.0


def driver_killed(scene: Scene) -> Struck:
    """SIGKILL of the driver."""
    running = scene.start()
    label = scene.draw_moment(running, scene.labels())
    return kill_driver(scene, running, f"inside a segment of {label}")


def kill_driver(
    scene: Scene, running: Running, place: str, labels: list[str] | None = None
) -> Struck:
    """SIGKILL of the driver alone; returns once all that it started is gone.

    Args:
        labels: jobs whose work in flight this ends; None: all that are not done.
    """
    family = running.family()
    struck = strike(scene, f"{place} ({scene.standing()})", labels)
    os.kill(running.pid, signal.SIGKILL)
    running.process.wait()
    by_themselves_or_not(scene, struck, family)
    return struck


def every_job_killed(scene: Scene) -> Struck:
    """SIGKILL of the driver inside every single job, in its first half and in its second."""
    strikes: list[Struck] = []
    # By job and half: after how many records, and how long after its start, it is due.
    due: dict[tuple[str, bool], tuple[int, float]] = {}
    for label, segments in scene.segments.items():
        half = (segments + 1) // 2
        due[label, False] = scene.rng.randint(0, half - 1), scene.rng.uniform(2, 8)
        if half < segments:
            due[label, True] = scene.rng.randint(half, segments - 1), scene.rng.uniform(2, 8)
    drawn = list(due)
    while due:
        running = scene.start()
        began = time.time()
        if not (inside := _first_due(scene, running, due, began)):
            break  # it ended by itself
        time.sleep(scene.rng.uniform(0, 0.4))
        names = list(scene.running_since(began))
        for name in names:
            due.pop((name, _late(scene, name)), None)
        strikes.append(kill_driver(scene, running, f"inside {inside}", names))
    if not strikes:
        strikes.append(strike(scene, "nowhere: the study ended first", []))
    struck = strikes.pop()
    struck.earlier = strikes
    struck.moment = (
        f"{len(strikes) + 1} kills, in {len(drawn) - len(due)} of the {len(drawn)} halves of "
        f"{len(scene.segments)} jobs"
    )
    if missed := [n for n in scene.segments if all(key in due for key in drawn if key[0] == n)]:
        struck.remarks.append(f"never inside {', '.join(missed)}")
    return struck


def _late(scene: Scene, label: str) -> bool:
    """Whether a job is in its second half."""
    return len(scene.records(label)) >= (scene.segments[label] + 1) // 2


def _first_due(
    scene: Scene, running: Running, due: dict[tuple[str, bool], tuple[int, float]], began: float
) -> str | None:
    """Wait for a job of the command that is due; None once the command has ended."""
    while not running.ended():
        for label, since in scene.running_since(began).items():
            records, seconds = due.get((label, _late(scene, label)), (10**9, 0.0))
            if len(scene.records(label)) >= records and time.time() - since >= seconds:
                return label
        time.sleep(0.05)
    return None


def three_times(scene: Scene) -> Struck:
    """Three faults of other kinds in one study, each after the command was started again."""
    ending = [
        *(driver_killed, torn_record, flipped_checkpoint, truncated_checkpoint),
        *(writing_checkpoint, interrupted, terminated),
    ]
    strikes = [fault(scene) for fault in scene.rng.sample(ending, 3)]
    struck = strikes.pop()
    struck.earlier = strikes
    struck.moment = "; then ".join(hit.moment for hit in (*strikes, struck))
    for hit in strikes:
        struck.wrong += hit.wrong
        struck.remarks += hit.remarks
    return struck


def by_themselves_or_not(scene: Scene, struck: Struck, family: list[psutil.Process]) -> None:
    """Jobs must end by themselves within seconds; Ray's own agents may linger and are ended."""
    titles = {member: title(member) for member in family}
    jobs = [m for m, line in titles.items() if line.startswith("ray::") and "Agent" not in line]
    end = time.monotonic() + 30
    while any(map(alive, jobs)) and time.monotonic() < end:
        time.sleep(0.1)
    if left := [titles[member] for member in jobs if alive(member)]:
        struck.wrong.append(f"30 s after the driver's death still there: {', '.join(left)}")
    driving.end(family)


def trial_killed(scene: Scene) -> Struck:
    """SIGKILL of the process of a search."""
    return _recorded_process_killed(scene, scene.labels("search"))


def worker_killed(scene: Scene) -> Struck:
    """SIGKILL of a training worker of the final."""
    return _recorded_process_killed(scene, scene.labels("train"))


def _recorded_process_killed(scene: Scene, labels: list[str]) -> Struck:
    running = scene.start()
    label = scene.draw_moment(running, labels, least=1)
    victim = process(int(scene.records(label)[-1]["pid"]))
    return _killed_within(scene, running, label, victim)


def controller_killed(scene: Scene) -> Struck:
    """SIGKILL of the Train controller, a descendant of the driver."""
    return _final_process_killed(scene, "ray::TrainController")


def launcher_killed(scene: Scene) -> Struck:
    """SIGKILL of the Tune trial that started the final, a descendant of the driver."""
    return _final_process_killed(scene, "ray::ImplicitFunc")


def _final_process_killed(scene: Scene, role: str) -> Struck:
    running = scene.start()
    label = scene.draw_moment(running, scene.labels("train"), least=1)
    # Whoever runs a loop is known by its records.
    wait_for(lambda: all(f.records() or f.result() for f in scene.jobs().values()), "records")
    recorded = {record["pid"] for name in scene.jobs() for record in scene.records(name)}
    found = [
        member
        for member in running.family()
        if title(member).startswith(role) and member.pid not in recorded
    ]
    return _killed_within(scene, running, label, found[0] if found else None)


def raylet_killed(scene: Scene) -> Struck:
    """SIGKILL of Ray's own process on the command's only machine: it cannot go on, and says so."""
    running = scene.start()
    label = scene.draw_moment(running, scene.labels())
    struck = strike(scene, f"inside a segment of {label} ({scene.standing()})")
    raylets = [m for m in running.family() if title(m).partition(" ")[0].endswith("/raylet")]
    driving.end(raylets)
    if not raylets:
        struck.wrong.append("the process was not found")
        kill_driver(scene, running, "")
        return struck
    must_end(running, struck, 1)
    if "lost its hold of this machine" not in running.output():
        struck.wrong.append("the output does not say that Ray is gone")
    return struck


def _killed_within(
    scene: Scene, running: Running, label: str, victim: psutil.Process | None
) -> Struck:
    """Kill one process of a command that goes on and must end well."""
    struck = strike(scene, f"inside a segment of {label} ({scene.standing()})", [label])
    if victim is None or not alive(victim):
        struck.wrong.append("the process was not found")
        kill_driver(scene, running, "")
        return struck
    driving.end([victim])
    must_end(running, struck, 0)
    if f"{label}: failed" not in running.output():
        struck.wrong.append("the output does not say that the job failed")
    return struck


def must_end(running: Running, struck: Struck, expected: int) -> None:
    code = running.wait()
    if code != expected:
        tail = " / ".join(running.output().splitlines()[-3:])
        struck.wrong.append(f"exit code {code}, expected {expected}: {tail}")


def interrupted(scene: Scene) -> Struck:
    """Ctrl-C: SIGINT to the whole process group."""
    return _stopped(scene, scene.start(), signal.SIGINT, 130)


def terminated(scene: Scene) -> Struck:
    """SIGTERM to the driver."""
    return _stopped(scene, scene.start(), signal.SIGTERM, 143)


def _stopped(scene: Scene, running: Running, number: signal.Signals, expected: int) -> Struck:
    label = scene.draw_moment(running, scene.labels())
    family = running.family()
    struck = strike(scene, f"inside a segment of {label} ({scene.standing()})")
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(running.pid, number)
    else:
        os.kill(running.pid, number)
    must_end(running, struck, expected)
    took = time.monotonic() - began
    struck.remarks.append(f"ended after {took:.1f} s")
    if took > INTERRUPT_S:
        struck.wrong.append(f"ended after {took:.1f} s, not {INTERRUPT_S:g}")
    time.sleep(1)
    if left := [title(member) for member in family if alive(member)]:
        struck.wrong.append(f"left running: {', '.join(left)}")
        driving.end(family)
    if "same command" not in running.output():
        struck.wrong.append("the output does not say how to go on")
    return struck


def torn_record(scene: Scene) -> Struck:
    """The driver is killed and a job's last record line is torn."""
    running = scene.start()
    label = scene.draw_moment(running, scene.labels(), least=1)
    struck = kill_driver(scene, running, f"last record of {label} torn")
    driving.tear_the_last_line(scene.jobs()[label].path / "records.jsonl", scene.rng)
    return struck


def truncated_checkpoint(scene: Scene) -> Struck:
    """The driver is killed and a job's newest checkpoint is cut short."""
    return _damaged_checkpoint(scene, "truncated", driving.cut_short)


def flipped_checkpoint(scene: Scene) -> Struck:
    """The driver is killed and one bit of a job's newest checkpoint is flipped."""
    return _damaged_checkpoint(scene, "flipped", driving.flip_a_bit)


def _damaged_checkpoint(
    scene: Scene, how: str, harm: Callable[[Path, random.Random], None]
) -> Struck:
    running = scene.start()
    label = scene.draw_moment(running, scene.labels(), least=2)
    file = scene.rng.choice(["state.pt", "manifest.json"])
    struck = kill_driver(scene, running, f"newest {file} of {label} {how}")
    harm(driving.newest_checkpoint(scene.jobs()[label].path) / file, scene.rng)
    return struck


def writing_checkpoint(scene: Scene) -> Struck:
    """Killed while a checkpoint is written: half of the next one lies there."""
    running = scene.start()
    label = scene.draw_moment(running, scene.labels(), least=1)
    struck = kill_driver(scene, running, f"a checkpoint of {label} half-written")
    newest = driving.newest_checkpoint(scene.jobs()[label].path)
    half = newest.parent / f"{int(newest.name) + 1:06d}"
    half.mkdir(exist_ok=True)
    content = (newest / "state.pt").read_bytes()
    cut = scene.rng.randrange(len(content))
    (half / "state.pt.partial").write_bytes(content[:cut])
    if scene.rng.random() < 0.5:  # the state was whole, its manifest not yet there
        (half / "state.pt.partial").unlink()
        (half / "state.pt").write_bytes(content)
        (half / "manifest.json.4194305.partial").write_text('{"position": ')
    return struck


def no_result(scene: Scene) -> Struck:
    """Killed between a job's last record and its result."""
    running = scene.start()
    label = scene.rng.choice(scene.labels())
    wait_for(
        lambda: label in scene.jobs() and scene.jobs()[label].result() is not None,
        f"the result of {label}",
        running,
    )
    struck = kill_driver(scene, running, f"last record of {label} written, result not")
    _undo(scene, struck, label)
    return struck


def _undo(scene: Scene, struck: Struck, label: str) -> None:
    """Take away a job's result and all that came after it."""
    (scene.jobs()[label].path / "result.json").unlink()
    struck.finished.pop(label, None)
    struck.labels = [*struck.labels, label]
    _forget(scene, struck, scene.dependents(label))


def _forget(scene: Scene, struck: Struck, labels: set[str]) -> None:
    """Take away selections, and jobs that the kill would not have let begin."""
    for label in labels:
        kind, _, name = label.partition("-")
        if kind == "select":
            (scene.out / "selections" / f"{name}.json").unlink(missing_ok=True)
        elif label in scene.jobs():
            shutil.rmtree(scene.jobs()[label].path)
        struck.before.pop(label, None)
        struck.finished.pop(label, None)


def during_selection(scene: Scene) -> Struck:
    """Killed while a selection's record is written."""
    running = scene.start()
    name = scene.rng.choice(scene.selections())
    record = scene.out / "selections" / f"{name}.json"
    wait_for(record.exists, "a selection", running)
    struck = kill_driver(scene, running, f"selections/{name}.json half-written")
    content = record.read_bytes()
    record.unlink()
    record.with_name(f"{name}.json.{running.pid}.partial").write_bytes(
        content[: scene.rng.randrange(len(content))]
    )
    _forget(scene, struck, scene.dependents(f"select-{name}"))
    return struck


def during_report(scene: Scene) -> Struck:
    """Killed while the report is written."""
    running = scene.start()
    wait_for(lambda: _all_there(scene), "the last result", running)
    time.sleep(scene.rng.uniform(0, 1.5))
    struck = kill_driver(scene, running, "all results there, report half-written")
    report = scene.out / "report" / "report.md"
    if report.exists():
        report.unlink()
        report.with_name(f"report.html.{running.pid}.partial").write_text("<html>")
    return struck


def _all_there(scene: Scene) -> bool:
    """Whether every job has its result and every selection its record."""
    selected = len(list(scene.out.glob("selections/*.json"))) == len(scene.selections())
    return scene.segments.keys() <= scene.jobs().keys() and not scene.open_jobs() and selected


def disk_full(scene: Scene) -> Struck:
    """The disk under the output folder fills up while it runs, and has room again later."""
    scene.out.mkdir(parents=True)
    size = ["-o", "size=96m", "tmpfs", str(scene.out)]
    mounted = subprocess.run(["mount", "-t", "tmpfs", *size], capture_output=True)
    if mounted.returncode:
        raise PermissionError("a file system of limited size cannot be mounted here")
    running = scene.start()
    label = scene.draw_moment(running, scene.labels())
    struck = strike(scene, f"inside a segment of {label} ({scene.standing()})")
    ballast = scene.out / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            pass
    must_end(running, struck, 1)
    output = running.output()
    if "No space left" not in output:
        struck.wrong.append("the output does not say that the disk is full")
    if "Traceback" in output:
        struck.wrong.append("the output has a traceback")
    ballast.unlink()
    return struck
