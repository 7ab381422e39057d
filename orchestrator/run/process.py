"""The driver process: signals, background work, and its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn


@dataclass
class Signals:
    """What the driver was sent.

    Attributes:
        terminated: SIGTERM, and not Ctrl-C.
    """

    terminated: bool = False


@contextmanager
def interruptible(signals: Signals) -> Iterator[None]:
    """Make Ctrl-C and SIGTERM the same clean way out, a KeyboardInterrupt.

    Also if a script's background job was told to ignore Ctrl-C.
    """

    def terminate(*_: object) -> None:
        signals.terminated = True
        raise KeyboardInterrupt

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def leave(code: int) -> NoReturn:
    """End this process now: with PyTorch, Ray and MLflow loaded, taking it down takes seconds."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # such as `... | head`
            stream.flush()
    os._exit(code)
