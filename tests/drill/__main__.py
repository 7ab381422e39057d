"""The drill's command line, its table, and its exit code."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gdas.errors import InputError
from gdas.files import write_json
from orchestrator.terminal.command import command_parser, run_command, say_next
from tests.drill import faults, leases, services
from tests.drill.faults import Fault
from tests.drill.scene import Scene, Struck, differences, lost, recovery

Row = dict[str, Any]

KINDS: dict[str, Fault] = {
    "driver-killed": faults.driver_killed,
    "every-job-killed": faults.every_job_killed,
    "three-times": faults.three_times,
    "trial-killed": faults.trial_killed,
    "worker-killed": faults.worker_killed,
    "controller-killed": faults.controller_killed,
    "launcher-killed": faults.launcher_killed,
    "raylet-killed": faults.raylet_killed,
    "interrupted": faults.interrupted,
    "terminated": faults.terminated,
    "torn-record": faults.torn_record,
    "truncated-checkpoint": faults.truncated_checkpoint,
    "flipped-checkpoint": faults.flipped_checkpoint,
    "writing-checkpoint": faults.writing_checkpoint,
    "no-result": faults.no_result,
    "during-selection": faults.during_selection,
    "during-report": faults.during_report,
    "disk-full": faults.disk_full,
    "second-command": leases.second_command,
    "stale-lease": leases.stale_lease,
    "mlflow-dead-at-start": services.dead_at_start,
    "mlflow-dies": services.dies,
    "mlflow-comes-back": services.comes_back,
    "mlflow-hangs": services.hangs,
    "interrupted-while-mlflow-hangs": services.interrupted_while_hung,
}


MORE = f"""examples:
  python -m tests.drill                                    20 faults
  python -m tests.drill --seed 7 --faults 40               the same moments again
  python -m tests.drill --only driver-killed,disk-full --faults 2
  python -m tests.drill --experiment drill-all --only every-job-killed --faults 1
                                                                  every kind of training loop
  python -m tests.drill --experiment smoke --only three-times --faults 1

The study runs once undisturbed; then again for each fault: it is struck at a moment that the seed
draws, the same command is given again, and all that it leaves must be equal. The drill's own
command goes on too: faults that OUT/drill.json has are not run again.

kinds:
{
    textwrap.fill(
        ", ".join(KINDS), 96, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
}"""


def draw(seed: int, count: int, kinds: list[str]) -> list[str]:
    """`count` kinds of fault: every kind once in a drawn order before any comes twice."""
    rng = random.Random(f"{seed}/kinds")
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += rng.sample(kinds, len(kinds))
    return drawn[:count]


def run_fault(number: int, kind: str, seed: int, experiment: str, out: Path, data: Path) -> Row:
    """One fault: strike, resume by the same command until it ends, compare."""
    folder = out / f"{number:02d}-{kind}"
    if folder.exists():
        _remove(folder)
    folder.mkdir(parents=True)
    rng = random.Random(f"{seed}/{number}/{kind}")
    whole = untouched(out, experiment) / "out"
    scene = Scene(folder, data, rng, experiment, whole)
    row: Row = {"number": number, "seed": seed, "fault": kind, "experiment": experiment}
    began = time.monotonic()
    try:
        struck = KINDS[kind](scene)
        row |= _recovered(scene, struck, whole)
    except PermissionError as reason:
        row |= {"moment": f"not run: {reason}", "equal": None, "differences": []}
    except Exception as error:  # the drill goes on and counts it as a difference
        row |= {
            "moment": f"the drill itself failed: {' '.join(str(error).split())[:300]}",
            "equal": False,
            "differences": [traceback.format_exc()],
        }
    finally:
        scene.end()
    row |= {"commands": len(scene.started), "seconds": round(time.monotonic() - began, 1)}
    if row["equal"] is not False:
        _remove(folder)  # kept where there is something to look at
    return row


def _recovered(scene: Scene, struck: Struck, undisturbed: Path) -> Row:
    code = 0
    if scene.open_jobs() or not (scene.out / "report" / "report.md").exists() or struck.labels:
        code = scene.start().wait()
    found = list(struck.wrong)
    if code:
        log = (scene.folder / "commands.log").read_text(errors="replace").splitlines()
        found.append(f"the same command again: exit code {code}: {' / '.join(log[-3:])}")
    found += differences(scene, undisturbed)
    finished = [pair for hit in (*struck.earlier, struck) for pair in hit.finished.items()]
    for label, when in finished:
        path = scene.jobs()[label].path / "result.json"
        if not path.exists() or path.stat().st_mtime_ns != when:
            found.append(f"{label}: finished work was done again")
    segments, seconds = lost(scene, struck)
    back = recovery(scene, struck)
    return {
        "moment": struck.moment,
        "lost_segments": segments,
        "lost_seconds": round(seconds, 1),
        "recovery_seconds": None if back is None else round(back, 1),
        "remarks": struck.remarks,
        "equal": not found,
        "differences": found,
    }


def _remove(folder: Path) -> None:
    if (folder / "out").is_mount():
        subprocess.run(["umount", "-l", str(folder / "out")], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def untouched(out: Path, experiment: str) -> Path:
    """The folder of the run that nothing struck."""
    return out / f"undisturbed-{experiment}"


def undisturbed(experiment: str, out: Path, data: Path) -> float:
    """Run the study once as it is, unless that was done; returns its seconds."""
    folder = untouched(out, experiment)
    seconds = folder / "seconds.json"
    if not seconds.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scene = Scene(folder, data, random.Random(0), experiment)
        began = time.monotonic()
        if scene.start().wait():
            raise SystemExit(f"the undisturbed run failed: {folder / 'commands.log'}")
        if found := differences(scene, scene.out):
            raise SystemExit(f"the undisturbed run: {'; '.join(found)}")
        write_json(seconds, round(time.monotonic() - began, 1))
    return float(json.loads(seconds.read_text()))


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| # | fault | moment | work lost | to recover | digests, records, MLflow, report |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        equal = {True: "equal", False: "DIFFERENT", None: "-"}[row["equal"]]
        work = "-"
        if "lost_segments" in row:
            work = f"{row['lost_seconds']:.1f} s, {row['lost_segments']} segments"
        back = row.get("recovery_seconds")
        moment = "; ".join([row["moment"], *row.get("remarks", [])])
        lines.append(
            f"| {row['number']} | {row['fault']} | {moment} | {work} | "
            f"{'-' if back is None else f'{back:.1f} s'} | {equal} |"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "tests.drill",
        "Strike a small study with faults; does it end with the same bits?",
        MORE,
        done="all equal",
        failed="a difference",
    )
    parser.add_argument("--seed", type=int, help="of kinds and moments (default: drawn, printed)")
    parser.add_argument("--faults", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--only", metavar="KIND,...", help="these kinds of fault")
    parser.add_argument(
        "--experiment", default="drill", metavar="NAME", help="what is struck (default: drill)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("runs/drill"),
        help="output folder (default: runs/drill)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill; returns the exit code."""
    return run_command(parser(), _drill, arguments)


def _drill(options: argparse.Namespace) -> int:
    kinds = options.only.split(",") if options.only else list(KINDS)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InputError(f"--only {unknown[0]}: no such fault; there are {', '.join(KINDS)}")
    out = options.out.resolve()
    path = out / "drill.json"
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    seed = options.seed
    if seed is None:
        seed = rows[-1]["seed"] if rows else random.SystemRandom().randrange(10_000)
    print(f"seed {seed}", flush=True)
    data = out / "data"
    data.mkdir(parents=True, exist_ok=True)
    experiment: str = options.experiment
    print(f"{experiment}, undisturbed: {undisturbed(experiment, out, data):.0f} s", flush=True)
    for number, kind in enumerate(draw(seed, options.faults, kinds), 1):
        this = {"number": number, "seed": seed, "fault": kind, "experiment": experiment}
        if any(this.items() <= row.items() for row in rows):
            continue
        row = run_fault(number, kind, seed, experiment, out, data)
        rows.append(row)
        write_json(path, rows)
        print(table([row]).splitlines()[-1], flush=True)
        for line in row["differences"]:
            print(f"    {line}", flush=True)
    print(f"\n{table(rows)}\n\nas JSON: {path}")
    different = [row for row in rows if row["equal"] is False]
    if different:
        kept = out / f"{different[0]['number']:02d}-{different[0]['fault']}"
        whole = untouched(out, different[0].get("experiment", experiment)) / "out"
        say_next(f"python -m orchestrator.compare {whole} {kept / 'out'}")
    else:
        which = "" if experiment == "drill" else f" --experiment {experiment}"
        say_next(f"python -m tests.drill{which} --seed {seed + 1} --out {out}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
