"""The README and the pages beside it as their tests read them: their commands and their blocks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = ("recipes", "running", "results", "differences", "in_your_code", "glossary")
PAGES = {name: (ROOT / f"experiments/{name}.md").read_text(encoding="utf-8") for name in NAMES}
EVERYTHING = "\n".join([README, *PAGES.values()])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
PROGRAMS = ("python -m ", "make ", "pip ", "mlflow ", "ray ", "watch ")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for found, text in FENCE.findall(EVERYTHING) if found == language]


def commands() -> list[str]:
    """Every command of these pages, in a block or in a line of text, once, without its comment."""
    found = []
    for block in blocks("sh"):
        lines = re.sub(r"\s*\\\n[ \t]*", " ", block).splitlines()  # as the shell continues them
        found += [re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip()]
    text = FENCE.sub("", EVERYTHING)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    found += [span for span in spans if span.startswith(PROGRAMS)]
    return list(dict.fromkeys(found))


def words(command: str) -> tuple[str, list[str]]:
    """The module that a `python -m` command runs, and its arguments."""
    python, dash_m, module, *rest = shlex.split(command)
    assert (python, dash_m) == ("python", "-m"), command
    return module, rest
