"""Markdown tables, and the conversion of Markdown to one self-contained HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

NOT_RUN = "not run"

TYPES = {"png": "png", "svg": "svg+xml"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)]) + "\n"


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours, as text."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def html_page(title: str, markdown: str, folder: Path) -> str:
    """Convert Markdown to one HTML file, with a menu and the figures of `folder` inside."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)

    def embed(match: re.Match[str]) -> str:
        content = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/{TYPES[match[2]]};base64,{content}"'

    body = re.sub(r'src="([\w.-]+\.(png|svg))"', embed, body)
    body = body.replace("<table>", "<div class=wide><table>").replace("</table>", "</table></div>")
    # In a narrow column, a setting's name may break between its parts.
    body = re.sub(r"<td><code>(.*?)</code>", lambda m: f"<td><code>{_breakable(m[1])}</code>", body)
    body, contents = _contents(body)
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title>"
        f"<style>\n{style}</style></head>\n<body>\n{contents}<main>\n{body}</main></body></html>\n"
    )


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
