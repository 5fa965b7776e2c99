"""Figures of what a session measured: rows in, plotly `Figure` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito's colours: told apart with every common kind of colour vision
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#888888"
NO_TEST_SET = "Nothing to measure on: give the session<br>labelled images, LabellingSession(..., test_set=...)"
DARK = {BLUE: "#56B4E9", ORANGE: "#E69F00", GREEN: "#2BC79B", GREY: "#999999"}


def learning_curve(
    history: Sequence[Mapping[str, Any]],
    *,
    others: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    dark: bool = False,
) -> go.Figure:
    """Accuracy (left axis) and negative log-likelihood in nats (right axis) against the number of labels.

    `history` is a session's. `others` are further histories to compare the accuracy with, by name. Whiskers are
    95 % Wilson intervals of the accuracy, for the size of the test set.
    """
    figure = _figure("Learning curve", dark)
    rows = [row for row in history if "accuracy" in row]
    n_labelled = [row["n_labelled"] for row in rows]
    for (name, other), dash in zip((others or {}).items(), ("dot", "dash", "dashdot") * 10, strict=False):
        figure.add_scatter(
            x=[row["n_labelled"] for row in other if "accuracy" in row],
            y=[row["accuracy"] for row in other if "accuracy" in row],
            name=name,
            mode="lines+markers",
            line={"color": _colour(GREY, dark), "dash": dash},
        )
    accuracy = [row["accuracy"] for row in rows]
    low, high = zip(*(_wilson(row["accuracy"], row["n_test"]) for row in rows), strict=True) if rows else ((), ())
    figure.add_scatter(
        x=n_labelled,
        y=accuracy,
        name="accuracy",
        mode="lines+markers",
        line={"color": _colour(BLUE, dark), "width": 3},
        marker={"size": 8},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [h - a for h, a in zip(high, accuracy, strict=True)],
            "arrayminus": [a - lo for lo, a in zip(low, accuracy, strict=True)],
            "thickness": 1,
            "width": 3,
        },
        hovertemplate="%{x} labels: accuracy %{y:.1%}<extra></extra>",
    )
    figure.add_scatter(
        x=n_labelled,
        y=[row["nll"] for row in rows],
        name="NLL",
        yaxis="y2",
        mode="lines+markers",
        line={"color": _colour(ORANGE, dark), "width": 2, "dash": "dash"},
        marker={"symbol": "square", "size": 7},
        hovertemplate="%{x} labels: NLL %{y:.3f} nats<extra></extra>",
    )
    figure.update_layout(
        xaxis={"title": "labels", "rangemode": "tozero"},
        yaxis={"title": "accuracy", "tickformat": ".0%", "range": [0, 1.02]},
        yaxis2={
            "title": "NLL (nats)",
            "overlaying": "y",
            "side": "right",
            "rangemode": "tozero",
            "tickmode": "auto",
            "nticks": 6,
            "showgrid": False,
            "zeroline": False,
        },
    )
    if not rows:
        first = "Label some images and retrain:<br>the curve begins with the first lesson"
        _say(figure, NO_TEST_SET if history else first)
    return figure


def reliability(row: Mapping[str, Any] | None, *, dark: bool = False) -> go.Figure:
    """How often the model is right (bars) when it is this sure of itself; the diagonal is perfect calibration.

    `row` is one of a session's history, or the mapping with `count`, `confidence`, `accuracy` of equal-width
    bins that `row["reliability"]` holds. The faint bars below count the images of each bin; whiskers are 95 %
    Wilson intervals, so that bins of few images are not over-read.
    """
    bins = None if row is None else row.get("reliability", row)
    figure = _figure("Calibration", dark)
    if bins is None or "count" not in bins:
        _say(figure, NO_TEST_SET if row else "Retrain to see how far<br>the model's confidence can be trusted")
        bins = {"count": [], "confidence": [], "accuracy": []}
    n_bins, total = len(bins["count"]), sum(bins["count"])
    middles = [(place + 0.5) / n_bins for place in range(n_bins)]
    shown = [place for place in range(n_bins) if bins["count"][place]]
    rates = [bins["accuracy"][place] for place in shown]
    spans = [_wilson(bins["accuracy"][place], bins["count"][place]) for place in shown]
    figure.add_bar(
        x=middles,
        y=[count / total for count in bins["count"]] if total else [],
        width=1 / max(n_bins, 1),
        name="share of images",
        marker={"color": _colour(GREY, dark), "opacity": 0.3, "line": {"width": 0}},
        customdata=bins["count"],
        hovertemplate="%{customdata} images<extra></extra>",
    )
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name="perfect",
        line={"color": _colour(GREY, dark), "dash": "dot"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[bins["confidence"][place] for place in shown],
        y=rates,
        name="model",
        mode="lines+markers",
        line={"color": _colour(BLUE, dark), "width": 3},
        marker={"size": 8},
        customdata=[bins["count"][place] for place in shown],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - rate for (_, high), rate in zip(spans, rates, strict=True)],
            "arrayminus": [rate - low for (low, _), rate in zip(spans, rates, strict=True)],
            "thickness": 1,
            "width": 3,
        },
        hovertemplate="sure to %{x:.0%}, right in %{y:.0%} of %{customdata}<extra></extra>",
    )
    if row is not None and "ece" in row:
        figure.update_layout(
            title_text=f"Calibration: ECE {row['ece']:.3f} after {row['n_labelled']} labels ({total} test images)"
        )
    figure.update_layout(
        bargap=0,
        xaxis={"title": "confidence", "tickformat": ".0%", "range": [0, 1.02]},
        yaxis={"title": "accuracy", "tickformat": ".0%", "range": [0, 1.02]},
    )
    return figure


def _figure(title: str, dark: bool) -> go.Figure:
    return go.Figure(
        layout={
            "template": "plotly_dark" if dark else "plotly_white",
            "title": {"text": title, "x": 0, "xref": "paper", "font": {"size": 15}},
            "legend": {"orientation": "h", "x": 0, "y": -0.24, "yanchor": "top"},
            "margin": {"l": 60, "r": 60, "t": 44, "b": 90},
            "height": 340,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hovermode": "closest",
        }
    )


def _say(figure: go.Figure, text: str) -> None:
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14})


def _colour(colour: str, dark: bool) -> str:
    return DARK[colour] if dark else colour


def _wilson(rate: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a rate seen in n trials (Wilson 1927)."""
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return min(rate, max(0.0, middle - reach)), max(rate, min(1.0, middle + reach))
