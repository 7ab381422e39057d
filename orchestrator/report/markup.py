"""Markdown tables, and the Markdown as one self-contained HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

NOT_RUN = "not run"

TYPES = {"png": "png", "svg": "svg+xml"}

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; margin: 0; }
main { max-width: 76rem; margin: 0 auto; padding: 1rem; }
nav { position: sticky; top: 0; background: #fffffff2; border-bottom: 1px solid #d1d9e0;
  padding: .4rem 1rem; font-size: .85rem; white-space: nowrap; overflow-x: auto; z-index: 1; }
nav a { color: #0969da; text-decoration: none; margin-right: 1.1rem; display: inline-block; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; border-bottom: 1px solid #d1d9e0;
  padding-bottom: .3rem; margin-top: 2.5rem; scroll-margin-top: 2.5rem; }
h3 { font-size: 1.05rem; margin-top: 1.8rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { border: 1px solid #d1d9e0; padding: .35rem .6rem; text-align: left;
  font-variant-numeric: tabular-nums; vertical-align: top; overflow-wrap: break-word; }
td { min-width: 3.5rem; max-width: 24rem; }
th { background: #f6f8fa; } img { max-width: 100%; height: auto; }
tr:has(strong) { background: #ddf4ff66; }
code { font-size: .9em; overflow-wrap: anywhere; } td code { overflow-wrap: normal; }
blockquote { margin: 1rem 0; padding: .6rem 1rem; background: #fff8c5;
  border-left: 4px solid #d4a72c; }
blockquote p { margin: 0; }
@media (max-width: 40rem) { body { font-size: 14px; } main { padding: .6rem; }
  th, td { padding: .25rem .4rem; } p:has(> img) { overflow-x: auto; }
  p > img { min-width: 34rem; } }
@media (min-width: 60rem) { nav { white-space: normal; } h2 { scroll-margin-top: 4rem; } }
@page { margin: 12mm; }
@media print { nav { display: none; } .wide { overflow: visible; }
  body { font-size: 10pt; print-color-adjust: exact; } main { max-width: none; padding: 0; }
  table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; min-width: 0; }
  img, tr, blockquote { break-inside: avoid; }
  h2, h3, p:has(+ p > img), p:has(+ .wide) { break-after: avoid; } }
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)]) + "\n"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, in words."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def html_page(title: str, markdown: str, folder: Path) -> str:
    """The Markdown as one file: figures of `folder` become data URIs, headings a menu."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)

    def embed(match: re.Match[str]) -> str:
        content = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/{TYPES[match[2]]};base64,{content}"'

    body = re.sub(r'src="([\w.-]+\.(png|svg))"', embed, body)
    body = body.replace("<table>", "<div class=wide><table>").replace("</table>", "</table></div>")
    # A setting's name in a narrow column breaks between its words.
    body = re.sub(r"<td><code>(.*?)</code>", lambda m: f"<td><code>{_breakable(m[1])}</code>", body)
    body, contents = _contents(body)
    return (
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title>"
        f"<style>{STYLE}</style></head>\n<body>\n{contents}<main>\n{body}</main></body></html>\n"
    )


def _breakable(name: str) -> str:
    return re.sub(r"([._])(?=\w)", r"\1<wbr>", name)


def _contents(body: str) -> tuple[str, str]:
    """The page with an id at every second heading, and the list of them."""
    titles: list[str] = []

    def number(match: re.Match[str]) -> str:
        titles.append(match[1])
        return f"<h2 id=part{len(titles)}>{match[1]}</h2>"

    body = re.sub(r"<h2>(.*?)</h2>", number, body)
    links = "".join(f"<a href='#part{i + 1}'>{title}</a>" for i, title in enumerate(titles))
    return body, f"<nav>{links}</nav>\n" if links else ""
