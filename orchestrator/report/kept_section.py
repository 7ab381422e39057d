"""What a study shows, kept as a small file: for the page of evidence once its folder is gone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gdas.errors import InputError, one_line
from gdas.files import named_object, write_json
from orchestrator.report.evidence import Section

FORMAT = "gdas-evidence/1"
_FORM = TypeAdapter(Section)
_BEGAN = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d):(\d\d)")


def keep(sections: Sequence[Section], folder: Path) -> None:
    """Write each section to a file of its own, named by its experiment and when that began.

    The file of the same study is replaced, so that a study which goes on is kept once.

    Raises:
        InputError: two sections would have the same file, or the folder cannot be made.
    """
    files = [file_name(section) for section in sections]
    for name in files:
        if files.count(name) > 1:
            raise InputError(f"--keep: two of these studies are {name}; name each study once")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"--keep {folder}: is no folder; name one or a new one") from None
    for name, section in zip(files, sections, strict=True):
        claims = [claim._asdict() for claim in section.claims]
        write_json(folder / name, {"format": FORMAT} | section._asdict() | {"claims": claims})


def file_name(section: Section) -> str:
    """Such as `laptop-2026-11-28-0113.json`; without a date, if nothing of the study ran yet."""
    began = _BEGAN.match(section.facts.get("when", ""))
    when = f"-{began[1]}-{began[2]}{began[3]}" if began else ""
    return f"{Path(section.name).name}{when}.json"  # a name from a file is no path


def read_section(path: Path) -> Section:
    """Read what `keep` wrote.

    Raises:
        InputError: the file is not there, or is not one of these.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `--keep DIR` of this command writes one") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({one_line(error)})") from None
    keys = [name for name in Section._fields if name != "name"]
    name, fields = named_object(value, FORMAT, keys, str(path))
    try:
        return _FORM.validate_python({"name": name} | {key: fields[key] for key in keys})
    except (KeyError, ValidationError) as error:
        raise InputError(
            f"{path}: not what `--keep` writes ({one_line(error)}); write it anew from the study"
        ) from None
