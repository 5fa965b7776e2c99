"""Figures of what a session measured: rows in, plotly `Figure` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from baal_widgets.figures import BLUE, GREEN, GREY, ORANGE, axis, blank, colour_of, short
from baal_widgets.metrics import wilson_interval

NO_TEST_SET = "Nothing to measure on: give the session<br>labelled images, LabellingSession(..., test_set=...)"
MOST_CLASSES, LONGEST_NAME = 20, 20


def learning_curve(
    history: Sequence[Mapping[str, Any]],
    *,
    others: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    dark: bool = False,
) -> go.Figure:
    """Accuracy and calibration error (left axis) and negative log-likelihood in nats (right) against the labels.

    Accuracy and ECE share an axis since both are shares of the test set. `history` is a session's. `others` are
    further histories to compare the accuracy with, by name. Whiskers are 95 % Wilson intervals of the accuracy, for
    the size of the test set.
    """
    figure = blank("Learning curve", dark)
    rows = [row for row in history if "accuracy" in row]
    n_labelled = [row["n_labelled"] for row in rows]
    for (name, other), dash in zip((others or {}).items(), ("dot", "dash", "dashdot") * 10, strict=False):
        figure.add_scatter(
            x=[row["n_labelled"] for row in other if "accuracy" in row],
            y=short(row["accuracy"] for row in other if "accuracy" in row),
            name=name,
            mode="lines+markers",
            line={"color": colour_of(GREY, dark), "dash": dash},
            hovertemplate="%{x} labels: %{y:.1%}",
        )
    accuracy = [row["accuracy"] for row in rows]
    spans = [wilson_interval(row["accuracy"], row["n_test"]) for row in rows]
    figure.add_scatter(
        x=n_labelled,
        y=short(accuracy),
        name="accuracy",
        mode="lines+markers",
        line={"color": colour_of(BLUE, dark), "width": 3},
        marker={"size": 8},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": short(high - a for (_, high), a in zip(spans, accuracy, strict=True)),
            "arrayminus": short(a - low for (low, _), a in zip(spans, accuracy, strict=True)),
            "thickness": 1,
            "width": 3,
        },
        hovertemplate="%{x} labels: accuracy %{y:.1%}<extra></extra>",
    )
    figure.add_scatter(
        x=n_labelled,
        y=short(row["nll"] for row in rows),
        name="NLL",
        yaxis="y2",
        mode="lines+markers",
        line={"color": colour_of(ORANGE, dark), "width": 2, "dash": "dash"},
        marker={"symbol": "square", "size": 7},
        hovertemplate="%{x} labels: NLL %{y:.3f} nats<extra></extra>",
    )
    calibrated = [row for row in rows if row.get("ece") is not None]
    if calibrated:
        figure.add_scatter(
            x=[row["n_labelled"] for row in calibrated],
            y=short(row["ece"] for row in calibrated),
            name="ECE",
            mode="lines+markers",
            line={"color": colour_of(GREEN, dark), "width": 2, "dash": "dot"},
            marker={"symbol": "diamond", "size": 7},
            hovertemplate="%{x} labels: ECE %{y:.3f}<extra></extra>",
        )
    figure.update_layout(
        xaxis={"title": "labels", "rangemode": "tozero"},
        yaxis={"title": "accuracy, ECE" if calibrated else "accuracy", "tickformat": ".0%", "range": [0, 1.02]},
        yaxis2={
            "title": "NLL (nats)",
            "overlaying": "y",
            "side": "right",
            "rangemode": "tozero",
            "tickmode": "auto",
            "nticks": 6,
            **axis(dark),
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
    Wilson intervals, so that bins of few images are not over-read. The title holds the ECE, its bootstrap interval
    and what a perfectly calibrated model would show by chance, as far as the row has them.
    """
    bins = None if row is None else row.get("reliability", row)
    figure = blank("Calibration", dark)
    if bins is None or "count" not in bins:
        _say(figure, NO_TEST_SET if row else "Retrain to see how far<br>the model's confidence can be trusted")
        bins = {"count": [], "confidence": [], "accuracy": []}
    n_bins, total = len(bins["count"]), sum(bins["count"])
    middles = [(place + 0.5) / n_bins for place in range(n_bins)]
    shown = [place for place in range(n_bins) if bins["count"][place]]
    rates = [bins["accuracy"][place] for place in shown]
    spans = [wilson_interval(bins["accuracy"][place], bins["count"][place]) for place in shown]
    figure.add_bar(
        x=middles,
        y=short(count / total for count in bins["count"]) if total else [],
        width=1 / max(n_bins, 1),
        name="share of images",
        marker={"color": colour_of(GREY, dark), "opacity": 0.3, "line": {"width": 0}},
        customdata=bins["count"],
        hovertemplate="%{customdata} images<extra></extra>",
    )
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name="perfect",
        line={"color": colour_of(GREY, dark), "dash": "dot"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=short(bins["confidence"][place] for place in shown),
        y=short(rates),
        name="model",
        mode="lines+markers",
        line={"color": colour_of(BLUE, dark), "width": 3},
        marker={"size": 8},
        customdata=[bins["count"][place] for place in shown],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": short(high - rate for (_, high), rate in zip(spans, rates, strict=True)),
            "arrayminus": short(rate - low for (low, _), rate in zip(spans, rates, strict=True)),
            "thickness": 1,
            "width": 3,
        },
        hovertemplate="sure to %{x:.0%}, right in %{y:.0%} of %{customdata}<extra></extra>",
    )
    if row is not None and "ece" in row:
        figure.update_layout(
            title_text=f"Calibration: ECE {row['ece']:.3f} after {row['n_labelled']} labels",
            title_subtitle_text=_about_ece(row, total),
        )
    figure.update_layout(
        bargap=0,
        xaxis={"title": "confidence", "tickformat": ".0%", "range": [0, 1.02]},
        yaxis={"title": "accuracy", "tickformat": ".0%", "range": [0, 1.02]},
    )
    return figure


def class_balance(counts: Mapping[str, int], *, dark: bool = False) -> go.Figure:
    """How many labels each class has, the fewest on top, so that what is missing is seen.

    Of many classes the rarest twenty.
    """
    rarest = sorted(counts.items(), key=lambda pair: pair[1])[:MOST_CLASSES]
    figure = blank("Labels per class", dark)
    if len(counts) > MOST_CLASSES:
        figure.update_layout(title_subtitle_text=f"the {MOST_CLASSES} rarest of {len(counts)}")
    values = [count for _, count in rarest]
    figure.add_bar(
        x=values,
        y=list(range(len(rarest))),
        orientation="h",
        marker={"color": colour_of(BLUE, dark), "line": {"width": 0}},
        text=values,
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    size = 12 if len(rarest) <= 12 else 10
    figure.update_layout(
        margin={"r": 40, "b": 50},
        bargap=0.3,
        xaxis={"title": "labels", "range": [0, 1.08 * max([*values, 1])], "nticks": 6, "tickformat": "d"},
        yaxis={
            "tickvals": list(range(len(rarest))),
            "ticktext": [_name(name) for name, _ in rarest],
            "tickfont": {"size": size},
            "range": [len(rarest) - 0.5, -0.5],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
    )
    return figure


def pool_uncertainty(history: Sequence[Mapping[str, Any]], *, dark: bool = False) -> go.Figure:
    """What the model is unsure of in the pool, in nats: what labels could teach it upon what they could not.

    Both are means over the pool. The one below (aleatoric) is noise; asking is worth its while as long as there is
    something above it (epistemic).
    """
    figure = blank("Uncertainty of the pool", dark)
    rows = [row for row in history if row.get("pool")]
    for name, said, colour in (
        ("aleatoric", "noise (aleatoric)", GREY),
        ("epistemic", "labels can teach (epistemic)", ORANGE),
    ):
        figure.add_scatter(
            x=[row["n_labelled"] for row in rows],
            y=short(row["pool"][name] for row in rows),
            name=said,
            mode="lines+markers",
            stackgroup="nats",
            line={"color": colour_of(colour, dark), "width": 2},
            marker={"size": 6},
            hovertemplate="%{x} labels: %{y:.3f} nats<extra></extra>",
        )
    last = max((row["n_labelled"] for row in rows), default=1)
    figure.update_layout(
        xaxis={"title": "labels", "range": [0, 1.05 * last]},
        yaxis={"title": "mean entropy (nats)", "rangemode": "tozero"},
    )
    if not rows:
        _say(figure, "Retrain to see what<br>the model is unsure of")
    return figure


def _about_ece(row: Mapping[str, Any], total: int) -> str:
    told = [f"{total} test images"]
    low, high = row.get("ece_interval") or (None, None)
    if low is not None and high is not None:
        told.append(f"95 %: {low:.3f} to {high:.3f}")
    if row.get("ece_calibrated") is not None:
        told.append(f"by chance alone {row['ece_calibrated']:.3f}")
    return "; ".join(told)


def _name(name: str) -> str:
    """A name as plotly is to show it: short, and not read as markup."""
    return escape(name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…", quote=False)


def _say(figure: go.Figure, text: str) -> None:
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14})
