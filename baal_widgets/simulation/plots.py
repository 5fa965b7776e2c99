"""Figures of a study: how methods learned, and what became of each claim. Reports in, plotly `Figure` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import asinh, ceil, log10
from typing import Any, Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from baal_widgets.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, axis, blank, colour_of, short
from baal_widgets.simulation.study.reading import WORDS, Report, difference, verdicts

MARKS = {
    "reproduced": (BLUE, "circle"),
    "not reproduced": (ORANGE, "square"),
    "opposite": (RED, "triangle-left"),
    "inconclusive": (GREY, "diamond-open"),
}
LINES = [
    (GREY, "dot", "circle-open"),
    (BLUE, "solid", "circle"),
    (ORANGE, "dash", "square"),
    (GREEN, "dashdot", "diamond"),
    (PURPLE, "longdash", "triangle-up"),
    (RED, "solid", "x"),
    (SKY, "dash", "triangle-down"),
]
METHODS = ("random", "bald", "entropy", "power_bald", "batch_bald", "logit_entropy", "epig", "typiclust", "coreset")
"""In this order methods take the lines above, so that one looks the same in every figure; the last three share the
lines of methods that they never meet."""
NAMES = {
    "nll_bma": "NLL (nats)",
    "nll_det": "NLL without dropout (nats)",
    "accuracy_bma": "accuracy",
    "f1_rare": "F1 of the rare classes",
    "f1_frequent": "F1 of the frequent class",
    "ece_bma": "ECE",
    "ece_det": "ECE without dropout",
    "ece_logit": "ECE of averaged logits",
}
SCALE = "difference in nats (of F1 and ECE in shares) with its 95 % interval; right of 0 it is as claimed"
LINEAR = 0.02
TICKS = (0.02, 0.1, 0.3, 1.0, 3.0, 10.0)
ROW = 19
COLUMNS = 3


def learning_curves(
    report: Report,
    measure: str = "nll_bma",
    *,
    panels: Literal["setting", "method"] = "setting",
    columns: int = COLUMNS,
    dark: bool = False,
) -> go.Figure:
    """A measure against the labels, the mean over the seeds of each run with the 95 % interval that its seeds leave.

    A panel is a setting with a line for each method, or a method with a line for each setting; all panels have one
    scale. Bands that overlap do not say that two methods are alike: runs are paired by seed, so a difference is surer
    than its two ends, see `forest`.
    """
    told = _called(report)
    place, line = ("place", "method") if panels == "setting" else ("method", "place")
    titles = list(dict.fromkeys(curve[place] for curve in told))
    names = list(dict.fromkeys(curve[line] for curve in told))
    columns = min(columns, len(titles))
    rows = ceil(len(titles) / columns)
    figure = make_subplots(
        rows, columns, shared_xaxes="all", shared_yaxes="all", subplot_titles=[escape(each) for each in titles],
        horizontal_spacing=0.03, vertical_spacing=0.22 / rows, figure=_ground(report["title"], dark),
    )  # fmt: skip
    seen: set[str] = set()
    for curve in told:
        at = titles.index(curve[place])
        where = {"row": 1 + at // columns, "col": 1 + at % columns}
        name = curve[line]
        look = _look(name) if line == "method" else LINES[names.index(name) % len(LINES)]
        _draw(figure, curve, measure, name, look, where, dark, first=name not in seen)
        seen.add(name)
    seeds = _seeds(report)
    figure.update_annotations(font={"size": 13})
    figure.update_xaxes(**axis(dark), rangemode="tozero", nticks=6)
    figure.update_yaxes(**axis(dark), tickformat=".0%" if measure.startswith("accuracy") else None)
    for column in range(min(columns, len(titles))):
        lowest = 1 + (len(titles) - 1 - column) // columns
        figure.update_xaxes(title={"text": "labels", "standoff": 4}, showticklabels=True, row=lowest, col=column + 1)
    for row in range(rows):
        figure.update_yaxes(title=NAMES.get(measure, measure), row=row + 1, col=1)
    figure.update_layout(
        height=160 + 230 * rows,
        title_subtitle_text=f"means of {seeds} seeds with their 95 % intervals (bootstrap)",
        margin={"t": 92, "l": 70, "r": 20, "b": 84},
    )
    return figure


def forest(reports: Mapping[str, Report], *, dark: bool = False) -> go.Figure:
    """What became of each claim: its difference with the 95 % interval, marked by its verdict in colour and shape.

    To the right of 0 it is as claimed; within the grey band it is smaller than the study's margin, 0.02. The scale is
    linear up to there and logarithmic beyond. Claims of a speed-up are below, on the scale of their factors, where the
    stroke is what was claimed.
    """
    rows = verdicts(reports)
    parts = [[row for row in rows if (row["kind"] == "factor") == timed] for timed in (False, True)]
    parts = [part for part in parts if part]
    heights = [len(_listed(part, reports)) + 1 for part in parts]
    figure = make_subplots(
        len(parts), 1, row_heights=heights, vertical_spacing=2 / sum(heights), figure=_ground("The claims", dark)
    )
    for place, part in enumerate(parts, 1):
        _column(figure, part, reports, place, dark)
    for word in WORDS:  # the legend alone: in each part only the verdicts of its own are
        if any(row["verdict"] == word for row in rows):
            count = sum(row["verdict"] == word for row in rows)
            figure.add_scatter(x=[None], y=[None], mode="markers", name=f"{word} ({count})", marker=_mark(word, dark))
    figure.update_layout(
        height=150 + ROW * (sum(heights) + 2),
        title_subtitle_text=SCALE,
        margin={"t": 76, "l": 20, "r": 20, "b": 84},
    )
    return figure


def _column(
    figure: go.Figure, part: Sequence[Mapping[str, Any]], reports: Mapping[str, Report], place: int, dark: bool
) -> None:
    """The claims of one scale: a line for each under the title of its table."""
    timed = part[0]["kind"] == "factor"
    listed = _listed(part, reports)
    for row in part:
        at = listed.index(f"{escape(row['says'])}  <b>{row['id']}</b>")
        mean, low, high = (value if timed else _bent(value) for value in (row["mean"], *row["interval"]))
        hover = f"{row['id']}: {row['verdict']}<br>{difference(row)}<br>{escape(row['source'])}<extra></extra>"
        mark = _mark(row["verdict"], dark)
        figure.add_scatter(
            x=[low, high], y=[at, at], mode="lines", line={"color": mark["color"], "width": 2}, showlegend=False,
            hoverinfo="skip", row=place, col=1,
        )  # fmt: skip
        figure.add_scatter(
            x=[mean], y=[at], mode="markers", marker=mark, showlegend=False, hovertemplate=hover, row=place, col=1
        )
        if timed:
            line = {"color": colour_of(GREY, dark), "width": 2}
            figure.add_shape(
                type="line", x0=row["claimed"], x1=row["claimed"], y0=at - 0.4, y1=at + 0.4, line=line, row=place, col=1
            )
    figure.update_xaxes(**(_factors(part) if timed else _differences(part)), **axis(dark), row=place, col=1)
    if not timed:
        grey = colour_of(GREY, dark)
        within = {"x0": _bent(-LINEAR), "x1": _bent(LINEAR), "fillcolor": grey, "opacity": 0.18, "line_width": 0}
        figure.add_vrect(**within, row=place, col=1)
        figure.add_vline(x=0, line={"color": grey, "width": 1}, row=place, col=1)
    figure.update_yaxes(
        tickvals=list(range(len(listed))), ticktext=listed, range=[len(listed) - 0.4, -0.6], automargin=True,
        showgrid=False, zeroline=False, tickfont={"size": 12}, row=place, col=1,
    )  # fmt: skip


def _differences(part: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The axis of differences, drawn bent and told straight."""
    ticks = [-tick for tick in reversed(TICKS)] + [0.0, *TICKS]
    ends = [_bent(end) for row in part for end in (*row["interval"], -LINEAR, LINEAR)]
    told = {"tickvals": [_bent(tick) for tick in ticks], "ticktext": [f"{tick:+g}" if tick else "0" for tick in ticks]}
    return {**told, "range": _roomy(ends), "zeroline": False, "tickangle": 0}


def _factors(part: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The axis of what is so many times as fast."""
    ends = [log10(end) for row in part for end in (*row["interval"], 1.0, row["claimed"])]
    told = {"title": {"text": "times as fast", "standoff": 4}, "type": "log", "zeroline": False}
    return {**told, "tickvals": [0.5, 1, 2, 3, 4, 5], "ticktext": ["½", *"12345"], "range": _roomy(ends)}


def _roomy(ends: Sequence[float]) -> list[float]:
    low, high = min(ends), max(ends)
    room = 0.04 * (high - low)
    return [low - room, high + room]


def _listed(part: Sequence[Mapping[str, Any]], reports: Mapping[str, Report]) -> list[str]:
    """The lines beside an axis: the titles of tables, and under each its claims."""
    lines: dict[str, None] = {}
    for row in part:
        lines[f"<i>{escape(reports[row['table']]['title'].split(';')[0])}</i>"] = None
        lines[f"{escape(row['says'])}  <b>{row['id']}</b>"] = None
    return list(lines)


def _draw(
    figure: go.Figure, curve: Mapping[str, Any], measure: str, name: str, look: tuple[str, str, str],
    where: dict[str, int], dark: bool, first: bool,
) -> None:  # fmt: skip
    colour, dash, symbol = colour_of(look[0], dark), *look[1:]
    n, mean = curve["n_labelled"], short(curve[measure])
    interval = curve.get(f"{measure}_interval")
    if interval:
        low, high = (short(bounds) for bounds in zip(*interval, strict=True))
        figure.add_scatter(
            x=[*n, *reversed(n)], y=[*high, *reversed(low)], fill="toself", mode="lines", line={"width": 0},
            opacity=0.2, fillcolor=colour, legendgroup=name, showlegend=False, hoverinfo="skip", **where,
        )  # fmt: skip
    figure.add_scatter(
        x=n, y=mean, mode="lines+markers", name=name, legendgroup=name, showlegend=first,
        line={"color": colour, "dash": dash, "width": 2}, marker={"symbol": symbol, "size": 7},
        hovertemplate=f"{escape(name)}, %{{x}} labels: %{{y:.3f}}<extra></extra>", **where,
    )  # fmt: skip


def _called(report: Report) -> list[dict[str, Any]]:
    """The curves, each with what its setting and case differ in from the others of the table, as "place"."""
    settings = report["provenance"]["settings"]
    varied = [key for key in next(iter(settings.values())) if len({str(one[key]) for one in settings.values()}) > 1]
    cases = {curve["case"] for curve in report["curves"]}
    told = []
    for curve in report["curves"]:
        words = [f"{key.replace('_', ' ')} {settings[curve['setting']][key]}" for key in varied]
        words += [curve["case"].replace("=", " ")] if len(cases) > 1 else []
        told.append({**curve, "place": ", ".join(words)})
    return told


def _look(method: str) -> tuple[str, str, str]:
    return LINES[METHODS.index(method) % len(LINES)] if method in METHODS else LINES[-1]


def _mark(word: str, dark: bool) -> dict[str, Any]:
    colour, symbol = MARKS[word]
    return {
        "color": colour_of(colour, dark),
        "symbol": symbol,
        "size": 10,
        "line": {"width": 2, "color": colour_of(colour, dark)},
    }


def _bent(value: float) -> float:
    """Linear up to the margin, logarithmic beyond."""
    return asinh(value / LINEAR)


def _seeds(report: Report) -> int:
    first, last = report["provenance"]["seeds"]
    return int(last - first + 1)


def _ground(title: str, dark: bool) -> go.Figure:
    """An empty figure of any height: its title is so many pixels below the edge, not a share of the height."""
    figure = blank(escape(title), dark)
    return figure.update_layout(title={"y": 1, "pad": {"l": 12, "t": 14}}, legend={"xref": "container", "x": 0.01})
