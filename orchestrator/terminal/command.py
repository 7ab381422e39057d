"""What all commands share: their help, their options, and their exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from gdas.errors import InputError
from gdas.files import without_surrogates
from orchestrator.store.job_folder import NO_SPACE
from orchestrator.terminal.line import refuse_line, refuse_place, unknown

CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says of another user's files, and of a file system that is mounted read only."""
WIDTH = 100
"""The width of a help text's lines."""


def command_parser(
    module: str, description: str, more: str, *, done: str, failed: str | None = None
) -> argparse.ArgumentParser:
    """Make a command's parser, whose `--help` has examples and the exit codes.

    Args:
        module: the module that `python -m` runs.
        more: examples, and what else the reader should know.
        done: what exit code 0 means.
        failed: what exit code 1 means, if there is one.
    """
    one = f", 1 {failed}" if failed else ""
    codes = f"Exit code: 0 {done}{one}, 2 bad input, 130 interrupted, 143 terminated."
    return argparse.ArgumentParser(
        prog="gdas" if module == "orchestrator" else f"python -m {module}",
        description=textwrap.fill(description, WIDTH),
        epilog=f"{more.strip()}\n\n{textwrap.fill(codes, WIDTH)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Add `words`: an experiment, and settings to change."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="EXPERIMENT or key=value",
        help="a name in experiments/ or a YAML file (default: smoke), and settings to change",
    )


def add_study(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add `out`: a study that was started before; or `outs`: two or more of them."""
    if several:
        text = "the studies' output folders, or their addresses"
        parser.add_argument("outs", nargs="+", metavar="OUT", help=text)
    else:
        text = "the study's output folder, or its address"
        parser.add_argument("out", metavar="OUT", help=text)


def add_operations(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `--operations`: the user's own operations, which a file from elsewhere cannot name."""
    parser.add_argument(
        "--operations",
        metavar="MODULE:FUNCTION",
        action="append",
        default=[],
        help="an operation of your own that the cell has; its module is run (give it for each)",
    )


def add_out(parser: argparse.ArgumentParser, default: str | None = "runs/EXPERIMENT") -> None:
    """Add `--out`; if it has no default, it is required."""
    text = "output folder, or s3://BUCKET/PREFIX"
    parser.add_argument(
        "--out",
        metavar="DIR",
        required=default is None,
        help=text if default is None else f"{text} (default: {default})",
    )


def add_data(
    parser: argparse.ArgumentParser,
    default: str = "data, made and filled by download as needed",
) -> None:
    """Add `--data`, with what the help says about its default."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        help=f"folder with the data sets, such as cifar-10-batches-py (default: {default}), or "
        "s3://BUCKET/PREFIX",
    )


def add_address(parser: argparse.ArgumentParser, default: str | None, meaning: str) -> None:
    """Add `--address`.

    Args:
        meaning: what the help says about the default.
    """
    parser.add_argument(
        "--address",
        default=default,
        help=f"a running Ray cluster's address, or auto for this machine's (default: {meaning})",
    )


def add_yes(parser: argparse.ArgumentParser, before: str) -> None:
    """Add `--yes`.

    Args:
        before: the action that the command otherwise asks about.
    """
    parser.add_argument("--yes", action="store_true", help=f"do not ask before {before}")


def run_command(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None,
) -> int:
    """Run a command's body on its options.

    Args:
        parser: parses the options.
        body: takes the options and returns the exit code.
        arguments: the command line; None: that of this process.

    Returns:
        The exit code.

    Raises:
        SystemExit: 2 if the parser refuses the options; 0 after `--help`.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # so that a path that is not UTF-8 can be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        refuse_line(words, parser)
        options, extra = parser.parse_known_intermixed_args(words)
        if extra:
            raise InputError(unknown(extra[0], parser))
        _settle_places(options)
        return body(options)
    except InputError as problem:
        error(str(problem))
        return 2
    except KeyboardInterrupt:
        error("interrupted")
        return 130
    except BrokenPipeError:  # the reader has gone, as in `... | head`
        sys.stderr.close()
        return 141
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        if problem.errno in CLOSED:
            error(
                f"{where}{problem.strerror}; name a folder that you may read and write, or ask its "
                "owner for the right"
            )
            return 2
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        error(f"{where}{NO_SPACE}; nothing that was written is harmed, run the same command again")
        return 1


def _settle_places(options: argparse.Namespace) -> None:
    """Refuse malformed addresses, and read a `~` that the shell has left, as in `--out=~/x`."""
    for name in ("out", "data", "to", "backup", "address", "final", "cell"):
        value = getattr(options, name, None)
        if isinstance(value, str):
            plain = {"out": "OUT", "final": "OUT:FINAL", "cell": "CELL"}
            refuse_place(plain.get(name, f"--{name}"), value)
            if value.startswith("~"):
                setattr(options, name, str(Path(value).expanduser()))
    for value in getattr(options, "outs", ()):
        refuse_place("OUT", value)


def refuse_no_folder(path: Path) -> None:
    """Refuse a file of `--to` that could not be written, before anything is spent on it.

    Raises:
        InputError: its folder is not there, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise InputError(f"--to {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise InputError(f"--to {path}: is a folder; name a file, such as {path}/{path.name}")


def error(message: str) -> None:
    """Print the one line on standard error with which every command fails."""
    print(without_surrogates(f"error: {message}"), file=sys.stderr, flush=True)


def say_next(command: str) -> None:
    """Print a command's last line: what to run next."""
    print(without_surrogates(f"next: {command}"), flush=True)
