"""What tests of commands share: captured output, and the one line of a refusal."""

from __future__ import annotations

import pytest

Capture = pytest.CaptureFixture[str]


def refused(capsys: Capture, code: int) -> str:
    """The one line on standard error of a command that refused its input."""
    assert code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]
