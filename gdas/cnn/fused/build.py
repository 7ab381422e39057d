"""The kernels' library: compiled on the machine that runs it, at first use, into a cache folder.

All sources of this folder make one shared library with a plain C interface. It is built for the
very processor that it runs on, so its name is a hash of sources, flags, compiler and processor:
machines of a cluster that share a home and differ in these have a library each. The cache is
`GDAS_CACHE`, else `XDG_CACHE_HOME/gdas`, else `~/.cache/gdas`.

Nothing here fails a run. Without a compiler, without a folder that can be written or with an error
of the compiler there is no library, everything runs in plain PyTorch, and `status` says why.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gdas.errors import one_line

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-pthread")
NATIVE = ("-march=native", "-mcpu=native")
"""Ways to say "for this processor"; the first that the compiler takes is used."""
COMPILERS = ("c++", "g++", "clang++")
INSTALL = "install one (such as apt install g++), or name it in CXX"
BELIEVED_SECONDS = 3600
"""How long an error of the compiler is believed before another process tries again."""
LONGEST_SECONDS = 900
_PROCESSOR = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant")


@dataclass(frozen=True)
class Kernels:
    """The library, if there is one, and in one line where it is from or why there is none."""

    library: ctypes.CDLL | None
    words: str


class _Missing(Exception):
    """Why there is no library, in one line."""


def library() -> ctypes.CDLL | None:
    """The kernels of this machine, compiled now if they were not; None if they cannot be."""
    return kernels().library


def status() -> str:
    """One line: how the library was built, or why there is none and how to get it."""
    return kernels().words


@cache
def kernels() -> Kernels:
    """The kernels of this machine, looked for once in a process."""
    return load(SOURCES, os.environ)


def load(sources: Path, environment: Mapping[str, str]) -> Kernels:
    """Compile all sources in a folder, unless that was done before, and load the library.

    Args:
        sources: a folder with .cpp files and their headers.
        environment: where CXX, GDAS_CACHE, XDG_CACHE_HOME and HOME are looked up, and
            GDAS_KERNEL_FLAGS, which replaces the compiler's flags.
    """
    try:
        compiler, flags, version, target = _plan(sources, environment)
        found = _open(target)
        if found is None:
            with _one_at_a_time(target):
                found = _open(target) or _built(compiler, flags, sources, target)
    except (_Missing, OSError) as error:
        return Kernels(None, one_line(error, 400))
    return Kernels(found, f"compiled by {version} for this processor, {target}")


def pending(sources: Path = SOURCES, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `load` would compile them, which takes about a minute."""
    try:
        target = _plan(sources, environment)[-1]
    except (_Missing, OSError):
        return False
    return not target.exists()


def _plan(
    sources: Path, environment: Mapping[str, str]
) -> tuple[list[str], tuple[str, ...], str, Path]:
    """The compiler's command, its flags, its version, and the library's file."""
    compiler = _compiler(environment)
    version = _run([*compiler, "--version"]).splitlines()[0]
    own = tuple(shlex.split(environment.get("GDAS_KERNEL_FLAGS", "")))
    flags = own or (*FLAGS, *_native(compiler))
    target = cache_folder(environment) / f"kernels-{_key(sources, flags, version)}.so"
    return compiler, flags, version, target


def cache_folder(environment: Mapping[str, str]) -> Path:
    """The folder for compiled kernels; it need not exist."""
    if named := environment.get("GDAS_CACHE"):
        return Path(named)
    if shared := environment.get("XDG_CACHE_HOME"):
        return Path(shared) / "gdas"
    return Path(environment.get("HOME") or Path.home()) / ".cache" / "gdas"


def processor() -> str:
    """The processor's name and features: what code for this very machine depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return " ".join(platform.uname())
    found = [line for line in lines if line.partition(":")[0].strip() in _PROCESSOR]
    return "\n".join([platform.machine(), *found])


def _compiler(environment: Mapping[str, str]) -> list[str]:
    """The command of a C++ compiler."""
    path = environment.get("PATH")
    if named := shlex.split(environment.get("CXX", "")):
        if shutil.which(named[0], path=path) is None:
            raise _Missing(f"CXX={environment['CXX']}: no such command; {INSTALL}")
        return named
    for name in COMPILERS:
        if found := shutil.which(name, path=path):
            return [found]
    raise _Missing(f"there is no C++ compiler; {INSTALL}")


def _run(command: Sequence[str]) -> str:
    """What a command prints; raises _Missing with its first line of an error."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env=os.environ | {"LC_ALL": "C"},
            timeout=LONGEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise _Missing(f"{command[0]}: took longer than {LONGEST_SECONDS} seconds") from None
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        raise _Missing(f"{command[0]}: {next((x for x in lines if 'error:' in x), lines[0])}")
    return done.stdout or "unknown version"


def _native(compiler: Sequence[str]) -> tuple[str, ...]:
    """The flag for the processor that this runs on, if the compiler has one."""
    for flag in NATIVE:
        try:
            _run([*compiler, flag, "-E", "-x", "c++", os.devnull])
        except _Missing:
            continue
        return (flag,)
    return ()


def _key(sources: Path, flags: Sequence[str], version: str) -> str:
    """A hash of all that the library depends on."""
    parts = [*flags, version, processor()]
    for path in sorted([*sources.glob("*.cpp"), *sources.glob("*.h")]):
        parts += [path.name, path.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _open(target: Path) -> ctypes.CDLL | None:
    """The library in this file; None if there is none, or a damaged one."""
    try:
        return ctypes.CDLL(str(target))
    except OSError:
        return None


@contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    """Let one process of this machine compile while the others wait for what it makes.

    Where files cannot be locked, each compiles for itself and the last one's library stays.
    """
    _make_folder(target.parent)
    with target.with_suffix(".lock").open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _Missing(
            f"{folder}: {error.strerror}; name a folder that can be written in GDAS_CACHE"
        ) from None


def _built(
    compiler: Sequence[str], flags: Sequence[str], sources: Path, target: Path
) -> ctypes.CDLL:
    """Compile beside the target and rename; an error is kept for the processes that follow."""
    failed = target.with_suffix(".failed")
    if failed.is_file() and time.time() - failed.stat().st_mtime < BELIEVED_SECONDS:
        error = failed.read_text(encoding="utf-8")
        raise _Missing(f"{error} (after a mend, delete {failed} to try again at once)")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="compiling-") as folder:
        try:
            made = _compile(compiler, flags, sources, Path(folder))
        except _Missing as error:
            failed.write_text(str(error), encoding="utf-8")
            raise
        made.replace(target)
    failed.unlink(missing_ok=True)
    return ctypes.CDLL(str(target))


def _compile(compiler: Sequence[str], flags: Sequence[str], sources: Path, folder: Path) -> Path:
    """Compile every source, side by side, and link them to a library in a folder."""
    paths = sorted(sources.glob("*.cpp"))
    if not paths:
        raise _Missing(f"{sources}: has no .cpp file; install the package again")
    objects = [str(folder / f"{path.stem}.o") for path in paths]
    commands = [
        [*compiler, *flags, "-c", str(path), "-o", made]
        for path, made in zip(paths, objects, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    library = folder / "kernels.so"
    _run([*compiler, *flags, "-shared", *objects, "-o", str(library)])
    return library
