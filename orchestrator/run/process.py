"""The driver process: its signals, its background threads, and its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn


@dataclass
class Signals:
    """The signals that the driver received.

    Attributes:
        terminated: whether it was SIGTERM or SIGHUP, not Ctrl-C.
    """

    terminated: bool = False


@contextmanager
def interruptible(signals: Signals) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into KeyboardInterrupt, so that they end it in one way.

    SIGHUP comes when a terminal or a connection closes; under `nohup` it stays ignored. Ctrl-C
    ends it even if the shell started the command in the background and made it ignore Ctrl-C.
    """

    def terminate(*_: object) -> None:
        signals.terminated = True
        raise KeyboardInterrupt

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def repeatedly(
    action: Callable[[], None], interval_s: float, name: str, *, rests: float = 0.0
) -> Iterator[None]:
    """Call `action` every `interval_s` seconds in the background, and once more at the end.

    Args:
        rests: how many times as long as the last call took the next one is put off, at least.
    """
    stop = threading.Event()

    def loop() -> None:
        took = 0.0
        while not stop.wait(max(interval_s, rests * took)):
            began = time.monotonic()
            action()
            took = time.monotonic() - began

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        action()


def meanwhile(action: Callable[[], None], name: str) -> None:
    """Call `action` in the background, once; nobody waits for it or hears of its errors."""

    def call() -> None:
        with suppress(Exception):
            action()

    threading.Thread(target=call, name=name, daemon=True).start()


def leave(code: int) -> NoReturn:
    """End this process at once: a regular exit with PyTorch, Ray and MLflow takes seconds."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader has gone, as in `... | head`
            stream.flush()
    os._exit(code)
