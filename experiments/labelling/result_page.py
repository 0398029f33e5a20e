"""The page of results: tables and plots of what ``results.summary`` found, drawn as SVG with plain strings."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#7F7F7F")
ROW, LEFT, WIDE, TOP = 26, 150, 270, 6
NAME, LETTER = 20, 6.8  # letters of a name in a plot, and how wide one is, about
Interval = dict[str, float] | None


def page(found: dict[str, Any]) -> str:
    """The results as an HTML page."""
    annotators = [
        (
            one["name"],
            str(sum(one["answers"].values())),
            str(one["answers"]["equal"]),
            str(one["answers"]["skip"]),
            f"{one['median_seconds']:.1f} s",
            _told(one["first"]),
            _told(one["repeated"]),
            _told(one["mirrored"]),
        )
        for one in found["annotators"]
    ]
    agreement = [
        (
            " and ".join(one["annotators"]),
            str(one["pairs"]),
            f"{one['same'] / one['pairs']:.0%}",
            _interval(one["kappa"]),
        )
        for one in found["agreement"]
    ]
    overall = found["overall"]
    together = (
        f"All annotators together: Fleiss' kappa {_interval(overall['kappa'])} on {overall['pairs']} pairs that "
        "several have answered. 1: all agree; 0: no more than by chance."
        if overall["pairs"]
        else "Nobody has answered a pair that somebody else has answered, too."
    )
    who = ("annotator", "answers", "equal", "can't tell", "median time", "left preferred")
    figures = answer_bars(found) + agreement_plot(found) + consistency_plot(found) if annotators else ""
    return _PAGE.format(
        question=html.escape(found["question"] or "Results"),
        answers=found["answers"],
        annotators=_table("Annotators", (*who, "same when repeated", "turned when mirrored"), annotators),
        together=html.escape(together),
        agreement=_table("Agreement", ("annotators", "pairs", "same answer", "kappa"), agreement),
        figures=figures,
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Results of labelling</title><link rel="stylesheet" href="/page/results.css"></head>
<body><main><h1>{question}</h1><p>{answers} answers. <a href="/">Label</a> ·
<a href="/api/results">the numbers as JSON</a></p>
<h2>Annotators</h2>{annotators}<h2>Agreement</h2><p>{together}</p>{agreement}
<p>In brackets: intervals of 95 %. Unknown: both gave one and the same
answer throughout, which may be chance.</p>{figures}</main></body></html>
"""


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p>None yet.</p>"
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    region = f'class="wide" tabindex="0" role="region" aria-label="{html.escape(title)}"'  # so that keys may scroll it
    return f"<div {region}><table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table></div>"


def _told(share: dict[str, Any]) -> str:
    return f"{share['count']} of {share['of']}: {_interval(share['share'], percent=True)}" if share["of"] else "-"


def _interval(value: Interval, *, percent: bool = False) -> str:
    form = ".0%" if percent else ".2f"
    if value is None:
        return "unknown"
    ends = f" ({value['low']:{form}} to {value['high']:{form}})" if "low" in value else ""
    return f"{value['point']:{form}}{ends}"


def answer_bars(found: dict[str, Any]) -> str:
    """How often each annotator said what."""
    words = (("first", "left better"), ("second", "right better"), ("equal", "equal"), ("skip", "can't tell"))
    annotators = found["annotators"]
    most = max(sum(one["answers"].values()) for one in annotators)
    marks = []
    for row, one in enumerate(annotators):
        at = float(LEFT)
        for (word, _), colour in zip(words, COLOURS):
            width = WIDE * one["answers"][word] / most
            marks.append(f'<rect x="{at:.1f}" y="{_y(row) - 8}" width="{width:.1f}" height="16" fill="{colour}"/>')
            at += width
    marks += _axis(len(annotators), ((0.0, "0"), (1.0, str(most))))
    names = [one["name"] for one in annotators]
    return _svg("Answers of each annotator", names, marks, [title for _, title in words])


def agreement_plot(found: dict[str, Any]) -> str:
    """Kappa of each two annotators, and of all together, from -1 to 1."""
    rows = [(" and ".join(one["annotators"]), one["kappa"]) for one in found["agreement"]]
    rows.append(("all together", found["overall"]["kappa"]))
    marks = _axis(len(rows), ((0.0, "-1"), (0.5, "0: chance"), (1.0, "1")))
    for row, (_, value) in enumerate(rows):
        marks += _whisker(value, _y(row), COLOURS[0], lambda kappa: (kappa + 1.0) / 2.0)
    return _svg("Agreement between annotators: kappa, with intervals of 95 %", [name for name, _ in rows], marks)


def consistency_plot(found: dict[str, Any]) -> str:
    """How often each annotator's answers fit the earlier ones."""
    annotators, marks = (
        found["annotators"],
        _axis(len(found["annotators"]), ((0.0, "0 %"), (0.5, "50 %"), (1.0, "100 %"))),
    )
    for row, one in enumerate(annotators):
        marks += _whisker(one["repeated"]["share"], _y(row) - 4, COLOURS[0], lambda share: share)
        marks += _whisker(one["mirrored"]["share"], _y(row) + 4, COLOURS[1], lambda share: share)
    titles = ["same when repeated", "turned when mirrored"]
    return _svg(
        "Consistency of each annotator, with intervals of 95 %", [one["name"] for one in annotators], marks, titles
    )


def _y(row: int) -> int:
    return TOP + ROW * row + ROW // 2


def _axis(rows: int, ticks: Sequence[tuple[float, str]]) -> list[str]:
    """Lines across all rows at shares of the width, with words under them."""
    low = TOP + ROW * rows
    lines = []
    for share, text in ticks:
        x = LEFT + WIDE * share
        lines.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{low}" stroke="#BBBBBB"/>')
        lines.append(f'<text x="{x:.1f}" y="{low + 16}" text-anchor="middle">{html.escape(text)}</text>')
    return lines


def _whisker(value: Interval, y: int, colour: str, place: Callable[[float], float]) -> list[str]:
    """A dot, and a line from end to end of its interval; nothing where nothing is known."""
    if value is None:
        return []
    low, middle, high = (LEFT + WIDE * place(value.get(part, value["point"])) for part in ("low", "point", "high"))
    return [
        f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
        f'<circle cx="{middle:.1f}" cy="{y}" r="4.5" fill="{colour}"/>',
    ]


def _svg(title: str, rows: Sequence[str], marks: Sequence[str], legend: Sequence[str] = ()) -> str:
    """A plot with the names of its rows on the left; its numbers are in the tables, for those who cannot see it."""
    height = TOP + ROW * len(rows) + 26 + (22 if legend else 0)
    names = [
        f'<text x="{LEFT - 10}" y="{_y(row) + 4}" text-anchor="end">{html.escape(_short(name))}</text>'
        for row, name in enumerate(rows)
    ]
    colours, at = [], 10.0
    for colour, name in zip(COLOURS, legend):
        colours.append(f'<rect x="{at:.0f}" y="{height - 16}" width="12" height="12" fill="{colour}"/>')
        colours.append(f'<text x="{at + 17:.0f}" y="{height - 5}">{html.escape(name)}</text>')
        at += 35 + LETTER * len(name)
    body = "".join([*marks, *names, *colours])
    size = f'viewBox="0 0 {LEFT + WIDE + 30} {height}"'
    described = html.escape(f"{title}; the tables have the numbers")
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    return f'<figure>{caption}<svg {size} role="img" aria-label="{described}">{body}</svg></figure>'


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
