"""The driver process: signals and background work."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def terminate_as_interrupt() -> Iterator[dict[str, bool]]:
    """Make SIGTERM the same clean way out as Ctrl-C; says afterwards which it was."""
    seen = {"terminated": False}

    def forward(*_: object) -> None:
        seen["terminated"] = True
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def repeatedly(action: Callable[[], None], interval_s: float, name: str) -> Iterator[None]:
    """Call `action` every `interval_s` seconds in the background, and once more at the end."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(interval_s):
            action()

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        action()
