"""Faults of who drives a study: a second command, and a lease that a dead host left."""

from __future__ import annotations

import json
import threading
import time

from tests.drill.faults import kill_driver, must_end
from tests.drill.scene import Scene, Struck, strike


def second_command(scene: Scene) -> Struck:
    """A second command on the same folder."""
    running = scene.start()
    label = scene.draw_moment(running, scene.labels("search"))
    struck = strike(scene, f"inside a segment of {label} ({scene.standing()})", [])
    second = scene.start()
    must_end(second, struck, 2)
    if str(running.pid) not in second.output():
        struck.wrong.append("the refusal does not name the first command's process")
    must_end(running, struck, 0)
    return struck


def stale_lease(scene: Scene) -> Struck:
    """The driver is killed; its lease stands there, of another host whose heart beats no more."""
    running = scene.start()
    label = scene.draw_moment(running, scene.labels())
    struck = kill_driver(scene, running, f"inside a segment of {label}, lease left behind")
    holder = {"host": "elsewhere", "pid": running.pid, "kernel": "of another machine"}
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(1.0):
            now = holder | {"heartbeat": time.time() - 600}  # its clock is behind
            (scene.out / "lease.json").write_text(json.dumps(now))

    (scene.out / "lease.json").write_text(json.dumps(holder | {"heartbeat": time.time()}))
    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    must_end(refused := scene.start(), struck, 2)
    ended.set()
    heart.join()
    if "elsewhere" not in refused.output():
        struck.wrong.append("the refusal does not name the host")
    return struck
