"""A new process for every job, forked in milliseconds from one that has imported PyTorch.

A process of the cluster runs one job after the other. It keeps a fork server beside it: a process
that has imported what jobs need and has done nothing else. Every job runs in a child of the server.
So a job finds the state of a new process, whatever ran before it: threads, generators, flags,
environment, open files and memory of other jobs are in children that have ended.

If the process that asked dies, so do the server and its child; no job outlives its child.

A fork takes over neither threads nor a GPU's context. So if importing has started a thread or
opened a GPU, the server runs the one job by itself and ends.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn, TypedDict

from orchestrator.experiment.kinds import load

SERVER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from orchestrator.work.fork_server import serve; serve(int(sys.argv[2]))"
)
KNOWN = ("orchestrator.", "gdas.", "torch.")
"""What is imported before the fork; importing other modules may do anything."""
MOST_BYTES = 60_000
"""The most of a traceback that is passed on; the pipe for it holds as much without a reader."""
OUTLIVE_A_FORK = ("jemalloc_bg_thd",)
"""Threads whose library starts them again in a child: that of pyarrow's allocator."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""NumPy's OpenBLAS starts its threads when it is imported; jobs compute with PyTorch's."""
DIE_WITH_PARENT = 1
"""Linux's number of prctl's PR_SET_PDEATHSIG."""


class Call(TypedDict):
    """A function to call in a new process.

    Attributes:
        function: named as text, "module:name".
        arguments: what JSON can hold.
        modules: what to import before the fork.
        folder: the working folder.
    """

    function: str
    arguments: list[str | None]
    modules: list[str]
    folder: str


class Answer(TypedDict):
    """How a call ended.

    Attributes:
        status: the process's exit code, or minus the signal that ended it.
        error: its traceback, if it raised.
        last: whether the server ends with it.
    """

    status: int
    error: str
    last: bool


class CallFailed(RuntimeError):
    """The function raised; the text is its traceback."""


class ProcessDied(RuntimeError):
    """The process ended without an exception."""


class ForkServer:
    """The server of this process; it is started at the first call, and again after it has ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None

    def call(self, function: str, *arguments: str | None, modules: Sequence[str] = ()) -> None:
        """Call a function in a new process, and wait for its end.

        Args:
            function: named as text, "module:name".
            arguments: what it is called with.
            modules: what it will import; imported once, before the fork.

        Raises:
            CallFailed: it raised.
            ProcessDied: its process ended by itself, or was killed.
        """
        call: Call = {
            "function": function,
            "arguments": list(arguments),
            "modules": list(modules),
            "folder": str(Path.cwd()),
        }
        answer = self._ask(call)
        if answer is None or answer["last"]:
            self.close()
        if answer is None:
            raise ProcessDied("its process and the one that started it have died")
        if answer["error"]:
            raise CallFailed(answer["error"].strip())
        if answer["status"]:
            raise ProcessDied(how_it_ended(answer["status"]))

    def _ask(self, call: Call) -> Answer | None:
        """Send a call and wait; None if the server died."""
        channel = self._connected()
        line = b""
        with suppress(OSError):
            channel.sendall(json.dumps(call).encode() + b"\n")
            with channel.makefile("rb") as answers:
                line = answers.readline()
        if not line.endswith(b"\n"):
            return None
        answer: Answer = json.loads(line)
        return answer

    def _connected(self) -> socket.socket:
        if self.process is not None and self.process.poll() is not None:
            self.close()
        if self.channel is None:
            self.channel, theirs = socket.socketpair()
            with theirs:
                words = [json.dumps(sys.path), str(theirs.fileno())]
                self.process = subprocess.Popen(
                    [sys.executable, "-c", SERVER, *words],
                    env=ONE_THREAD | os.environ,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # a terminal's Ctrl-C is for the driver alone
                )
        return self.channel

    def close(self) -> None:
        """End the server, and its child if it has one."""
        if self.channel is not None:
            self.channel.close()
        if self.process is not None:
            self.process.wait()
        self.process = self.channel = None


def how_it_ended(status: int) -> str:
    """A process's end in words, from its exit code or minus its signal."""
    if status >= 0:
        return f"its process ended by itself with exit code {status}"
    return f"its process was ended by {signal.Signals(-status).name}"


def serve(number: int) -> NoReturn:
    """Answer calls until the other end of the socket with this file number is closed."""
    channel = socket.socket(fileno=number)
    wake, noted = os.pipe()
    for end in (wake, noted):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(noted, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # so that the wake-up is written
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with channel.makefile("rb") as calls:
        while line := calls.readline():
            call: Call = json.loads(line)
            _preload(call["modules"])
            if _may_fork():
                answer = _in_child(call, channel, wake)
            else:
                error = _called(call)
                answer = {"status": bool(error), "error": error, "last": True}
            channel.sendall(json.dumps(answer).encode() + b"\n")
            if answer["last"]:
                break
    os._exit(0)


def _preload(modules: Sequence[str]) -> None:
    """Import modules that are known to do nothing else; if one cannot be, the child will say so."""
    for name in modules:
        if name.startswith(KNOWN):
            with suppress(Exception):
                import_module(name)


def _may_fork() -> bool:
    """Whether a child would have all of this process: it has one thread, and no GPU is open."""
    torch = sys.modules.get("torch")
    opened = torch is not None and torch.cuda.is_initialized()
    return not opened and threading.active_count() == 1 and not _other_threads()


def _other_threads() -> list[str]:
    """The names of threads besides this one that a fork would lose, where Linux tells them."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        return []
    others = [task for task in tasks.iterdir() if task.name != str(os.getpid())]
    names = [(task / "comm").read_text().strip() for task in others]
    return [name for name in names if name not in OUTLIVE_A_FORK]


def _in_child(call: Call, channel: socket.socket, wake: int) -> Answer:
    """Run a call in a child and wait for it; if nobody waits for the answer, end both."""
    heard, said = os.pipe()
    os.set_blocking(heard, False)
    gc.collect()
    gc.freeze()  # so that the child's collections do not touch, and copy, the server's memory
    server = os.getpid()
    child = os.fork()
    if child == 0:
        _run_child(call, server, said, [channel.fileno(), heard])
    os.close(said)
    with suppress(OSError):
        os.setpgid(child, child)  # here too, so that it has happened when it is killed
    while True:
        ready = select.select([channel.fileno(), wake], [], [])[0]
        ended, status = os.waitpid(child, os.WNOHANG)
        if channel.fileno() in ready:  # nothing is sent during a call, so the other end was closed
            with suppress(OSError):
                os.killpg(child, signal.SIGKILL)
            os._exit(1)
        if ended:
            break
        with suppress(BlockingIOError):
            os.read(wake, 4096)
    with suppress(OSError):
        os.killpg(child, signal.SIGKILL)  # what it started and left behind
    error = b""
    with suppress(BlockingIOError):
        error = os.read(heard, MOST_BYTES)
    os.close(heard)
    text = error.decode(errors="replace")
    return {"status": os.waitstatus_to_exitcode(status), "error": text, "last": False}


def _run_child(call: Call, server: int, said: int, not_its_own: list[int]) -> NoReturn:
    """Become the process of one call; never returns to the server's code."""
    code = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
            if os.getppid() != server:
                os._exit(1)  # it had died before that was set
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in not_its_own:
            os.close(number)
        error = _called(call)
        os.write(said, error.encode(errors="replace")[-MOST_BYTES:])
        code = bool(error)
    finally:
        os._exit(code)


def _called(call: Call) -> str:
    """Call the function; returns its traceback if it raised, or nothing."""
    error = ""
    try:
        os.chdir(call["folder"])
        load(call["function"])(*call["arguments"])
    except BaseException:
        error = traceback.format_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return error
