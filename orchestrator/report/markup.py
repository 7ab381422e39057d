"""The report's parts as one self-contained HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from orchestrator.report.parts import Measured, Part, Shown, Table, measured, table

NOT_RUN = "not run"

TYPES = {"png": "png", "svg": "svg+xml"}


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours, as text."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def lasted(seconds: Sequence[float]) -> Measured:
    """A cell of the mean of some durations; in CSV files the seconds are numbers."""
    return measured(seconds, "s", duration(sum(seconds) / len(seconds)))


def html_page(title: str, parts: Sequence[Part], folder: Path) -> str:
    """Make one HTML file of the report's parts, with a menu, styles, script and figures inside."""
    body, contents = _contents("\n".join(_part(part, folder) for part in parts))
    style, script = (
        Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js")
    )
    return (
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<meta name=color-scheme content='light dark'>"
        f"<title>{escape(title)}</title>"
        f"<style>\n{style}</style></head>\n<body>\n{contents}<main>\n{body}</main>\n"
        f"<script>\n{script}</script></body></html>\n"
    )


def _part(part: Part, folder: Path) -> str:
    """One part as HTML."""
    if isinstance(part, Shown):
        return part.page
    if isinstance(part, Table):
        text = table(part.header, [[str(cell) for cell in row] for row in part.rows])
        html = _rendered(text)
        if not part.folded:
            return html
        return f"<details class=folded><summary>{escape(part.folded)}</summary>{html}</details>"
    return re.sub(
        r'<img src="([\w.-]+)" alt="([^"]*)" ?/?>', partial(_embedded, folder), _rendered(part)
    )


def _rendered(markdown: str) -> str:
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    html = html.replace("<table>", "<div class=wide><table>").replace("</table>", "</table></div>")
    # In a narrow column, a setting's name may break between its parts.
    return re.sub(r"<td><code>(.*?)</code>", lambda m: f"<td><code>{_breakable(m[1])}</code>", html)


def _embedded(folder: Path, match: re.Match[str]) -> str:
    return image(folder / match[1], match[2])


def image(path: Path, alt: str) -> str:
    """An image with a file's content in it."""
    content = base64.b64encode(path.read_bytes()).decode()
    kind = TYPES[path.suffix.removeprefix(".")]
    return f'<img src="data:image/{kind};base64,{content}" alt="{escape(alt)}">'


def _breakable(name: str) -> str:
    return re.sub(r"([._])(?=\w)", r"\1<wbr>", name)


def _contents(body: str) -> tuple[str, str]:
    """The page with an id at every heading of level two, and the list of these headings."""
    titles: list[str] = []

    def number(match: re.Match[str]) -> str:
        titles.append(match[1])
        return f"<h2 id=part{len(titles)}>{match[1]}</h2>"

    body = re.sub(r"<h2>(.*?)</h2>", number, body)
    links = "".join(f"<a href='#part{i + 1}'>{title}</a>" for i, title in enumerate(titles))
    return body, f"<nav>{links}</nav>\n" if links else ""
