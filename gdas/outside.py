"""Operations from outside the package, named as text: "module:function".

Importing a module runs its code. So a name counts for nothing by itself: it may stand in a genotype
file that somebody else wrote. It is imported only if it is also among the operations that the
caller names (`SearchConfig.operations`, `TrainConfig.operations`, an option of a command).

The function takes a number of channels, a stride and whether batch norms learn scale and shift, in
this order and by position, as the operations of DARTS do, and returns a `torch.nn.Module`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gdas.errors import InputError, one_line, suggestion
from gdas.files import sha256_of

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
EXAMPLE = "mine:conv_3x3"
TAKES = "(channels, stride, affine)"


def is_outside(name: str) -> bool:
    """Whether an operation's name has the form "module:function"."""
    return NAME.fullmatch(name) is not None


def outside(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that are from outside, each once."""
    return tuple(dict.fromkeys(name for name in names if is_outside(name)))


def short(name: str) -> str:
    """The name for a picture: without its module."""
    return name.rpartition(":")[2]


def check_named(names: Iterable[str], named: Sequence[str], where: str, fix: str) -> None:
    """Refuse operations from outside that the user has not named.

    Args:
        names: operations that a file asks for.
        named: what the user's own settings or command name.
        where: the file.
        fix: how to name an operation there; `{}` stands for its name.

    Raises:
        InputError: one of them is not named.
    """
    for name in outside(names):
        if name not in named:
            raise InputError(
                f"{where}: has the operation {name}, whose module would be run; if you trust it, "
                f"name it yourself: {fix.format(name)}"
            )


def import_named(name: str, key: str) -> Callable[..., Any]:
    """Import the function or class that a name stands for. This runs the code of its module.

    Args:
        key: the setting that names it.

    Raises:
        InputError: the module cannot be imported, or has no such function.
    """
    module, _, function = name.partition(":")
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InputError(f"{key}={name}: {_not_imported(module, error)}") from None
    build = getattr(found, function, None)
    if not callable(build):
        known = [
            key for key, value in vars(found).items() if callable(value) and not key.startswith("_")
        ]
        raise InputError(f"{key}={name}: no such function in it{suggestion(function, known)}")
    found_here: Callable[..., Any] = build
    return found_here


def import_operation(name: str) -> Callable[..., Any]:
    """Import the function of an operation, as import_named does.

    Raises:
        InputError: as import_named, or the function takes other arguments.
    """
    build, function = import_named(name, "operations"), name.rpartition(":")[2]
    try:
        inspect.signature(build).bind(16, 1, False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"operations={name}: must take {TAKES} by position ({one_line(error, 120)}); write "
            f"def {function}{TAKES}:"
        ) from None
    return build


def source_checksum(name: str) -> str:
    """SHA-256 of the file that an operation is written in; nothing is imported.

    What that file imports is not part of it.

    Raises:
        InputError: there is no such file.
    """
    module = name.partition(":")[0]
    if (file := _file_of(module)) is None:
        parts = module.split(".")
        raise InputError(f"{name}: there is no file {parts[-1]}.py to import; {_start(parts[0])}")
    return sha256_of(file)


def _file_of(module: str) -> Path | None:
    """The file that a module is written in; nothing is imported."""
    parts = module.split(".")
    spec = find_spec(parts[0])  # of a module without a dot, which imports nothing
    for i in range(1, len(parts)):
        inside = spec.submodule_search_locations if spec is not None else None
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), inside) if inside else None
    file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return file if file is not None and file.is_file() else None


def _not_imported(module: str, error: BaseException) -> str:
    """Why a module cannot be imported, and the fix: where it is looked for, or what is wrong."""
    said = f"({type(error).__name__}: {one_line(error, 200)})"
    try:
        file = _file_of(module)
    except (ImportError, ValueError):
        file = None
    if file is None:
        return f"its module cannot be imported {said}; {_start(module.partition('.')[0])}"
    where = _place(error, file)
    if isinstance(error, SystemExit):
        return (
            f"{where} ends the program {said} when it is imported; put that under "
            'if __name__ == "__main__":'
        )
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return (
            f"{where} imports {error.name}, which is not there {said}; install it into the "
            "environment of this Python, or mend the line"
        )
    if isinstance(error, SyntaxError):
        where = f"{error.filename or file}, line {error.lineno or 0}"
        return f"{where} is no Python ({type(error).__name__}: {error.msg}); mend it"
    return f"{where} fails when it is imported {said}; mend it"


def _place(error: BaseException, file: Path) -> str:
    """The line of a file at which an error came up, or of what it imports; the file without one."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # after our own
    inside = [frame for frame in frames if not frame.filename.startswith("<")]
    inside = [frame for frame in inside if frame.filename != importlib.__file__]
    last = [frame for frame in inside if Path(frame.filename) == file] or inside
    return f"{last[-1].filename}, line {last[-1].lineno}" if last else str(file)


def _start(module: str) -> str:
    """Where Python looks for modules."""
    return f"start python -m in the folder of {module}.py, or set PYTHONPATH to that folder"
