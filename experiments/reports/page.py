"""A page of text, tables and figures, as one self-contained HTML file and as Markdown.

Everything that is put on a page is plain text and is escaped here, once, whatever file it came from.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6472; --paper: #ffffff; --card: #f6f7f9; --line: #dfe3e8;
  --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b2; --paper: #14181f; --card: #1c222b;
  --line: #313a47; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: .6rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.lead { color: var(--soft); }
.wide { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th { background: var(--card); color: var(--soft); font-weight: 600; white-space: nowrap; }
.n { text-align: right; white-space: nowrap; }
td.v { overflow-wrap: anywhere; }
.caption { color: var(--soft); font-size: .87rem; }
figure { margin: 1.2rem 0; }
figure img { display: block; width: 100%; max-width: 52rem; height: auto; background: #fff; padding: .5rem;
  border: 1px solid var(--line); border-radius: 8px; }
figcaption { color: var(--soft); font-size: .87rem; margin-top: .4rem; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); padding: .25rem 0; }
@media (max-width: 36rem) { body { padding: 1.25rem .9rem 3rem; } th, td { padding: .38rem .55rem; } }
@media print { details > * { display: block; } body { max-width: none; } }
""".strip()


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header.

    Attributes:
        header: the columns' names.
        rows: as many cells each as there are columns.
        words: how many columns from the left hold words; the others hold numbers and are set flush right.
        caption: what the columns mean, below the table.
        fold: words to unfold a long table with; "" shows it at once.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    caption: str = ""
    fold: str = ""


@dataclass(frozen=True)
class Figure:
    """A PNG file, and in words what it shows."""

    path: Path
    caption: str


Block = Text | Table | Figure


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A title, what the page is about in a sentence, and its sections."""

    title: str
    lead: str
    sections: tuple[Section, ...]


def html(page: Page) -> str:
    """The page as one HTML file: styles and figures inside, no scripts, nothing is loaded from anywhere.

    Raises:
        OSError: a figure cannot be read.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    body = [f"<h1>{escape(page.title)}</h1>", f'<p class="lead">{escape(page.lead)}</p>']
    for section in page.sections:
        body.append(f"<section>\n<h2>{escape(section.title)}</h2>")
        body.extend(map(_html_block, section.blocks))
        body.append("</section>")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(page.title)}</title>",
            f"<style>\n{_STYLE}\n</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )


def markdown(page: Page, folder: Path) -> str:
    """The page as Markdown to be kept in ``folder``, with links to the figures."""
    parts = [f"# {_plain(page.title)}", _plain(page.lead)]
    for section in page.sections:
        parts.append(f"## {_plain(section.title)}")
        parts.extend(_markdown_block(block, folder) for block in section.blocks)
    return "\n\n".join(parts) + "\n"


def narrow(table: Table) -> Table:
    """The table with hard spaces in its intervals: in columns too narrow for a cell these keep on one line each."""
    rows = tuple(tuple(re.sub(r"\[(\S+), ", "[\\1,\u00a0", cell) for cell in row) for row in table.rows)
    return dataclasses.replace(table, rows=rows)


def markdown_table(table: Table) -> str:
    """The table as GitHub's Markdown, with its caption."""
    rule = ["---" if column < table.words else "---:" for column in range(len(table.header))]
    lines = [_markdown_row(table.header), _markdown_row(rule, plain=False), *map(_markdown_row, table.rows)]
    return "\n".join(lines) + (f"\n\n{_plain(table.caption)}" if table.caption else "")


def _html_block(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Figure):
        image = base64.b64encode(block.path.read_bytes()).decode()
        caption = escape(block.caption)
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{image}"><figcaption>{caption}</figcaption>'
            "</figure>"
        )
    head = "".join(f"<th{_kind(block, i)}>{escape(cell)}</th>" for i, cell in enumerate(block.header))
    rows = [
        "<tr>" + "".join(f"<td{_kind(block, i)}>{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in block.rows
    ]
    grid = [f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>', *rows, "</tbody>\n</table></div>"]
    if block.caption:
        grid.append(f'<p class="caption">{escape(block.caption)}</p>')
    if block.fold:
        grid = [f"<details><summary>{escape(block.fold)}</summary>", *grid, "</details>"]
    return "\n".join(grid)


def _kind(table: Table, column: int) -> str:
    """The class of a cell: a number, or a value that may be long (the last of the words)."""
    if column >= table.words:
        return ' class="n"'
    return ' class="v"' if 0 < column == len(table.header) - 1 else ""


def _markdown_block(block: Block, folder: Path) -> str:
    if isinstance(block, Text):
        return _plain(block.text)
    if isinstance(block, Figure):
        place = quote(Path(os.path.relpath(block.path.resolve(), folder.resolve())).as_posix())
        return f"![{_plain(block.caption)}]({place})"
    return (f"{_plain(block.fold)}:\n\n" if block.fold else "") + markdown_table(block)


def _markdown_row(cells: Sequence[str], plain: bool = True) -> str:
    return "| " + " | ".join(_literal(cell) if plain else cell for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text on a line of its own that Markdown takes literally."""
    return re.sub(r"^[>#]", r"\\\g<0>", _literal(text))


def _literal(text: str) -> str:
    """Text within a line that Markdown takes literally; signs that mean nothing where they stand stay as they are."""
    line = re.sub(r"[^\S\u00a0]+", " ", text).strip()  # a hard space keeps words together on purpose
    return re.sub(r"[\\`*|]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|\](?=[(\[:])", r"\\\g<0>", line)
