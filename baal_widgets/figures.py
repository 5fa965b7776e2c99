"""What all figures share: colours, axes, a ground that lets the page through."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito's colours: told apart with every common kind of colour vision
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#888888"
RED, PURPLE, SKY = "#D55E00", "#CC79A7", "#56B4E9"
DARK = {
    BLUE: "#56B4E9",
    ORANGE: "#E69F00",
    GREEN: "#2BC79B",
    GREY: "#999999",
    RED: "#FF8A4C",
    PURPLE: "#E3A3C7",
    SKY: "#A6D8F5",
}


def blank(title: str, dark: bool) -> go.Figure:
    """A figure without traces, its legend below."""
    return go.Figure(
        layout={
            "template": go.layout.Template(),  # the named ones weigh more than the figures
            "font": {"color": "#E6E9EF" if dark else "#2A3F5F"},
            "title": {
                "text": title,
                "x": 0,
                "xref": "container",
                "pad": {"l": 12},
                "y": 0.97,
                "yanchor": "top",
                "font": {"size": 15},
                "subtitle": {"font": {"size": 12}},
            },
            "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
            "margin": {"l": 60, "r": 60, "t": 62, "b": 92},
            "height": 350,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hovermode": "closest",
            "xaxis": axis(dark),
            "yaxis": axis(dark),
        }
    )


def axis(dark: bool) -> dict[str, Any]:
    grid = "#39424F" if dark else "#E5EAF2"
    return {"gridcolor": grid, "zerolinecolor": grid}


def short(numbers: Iterable[float]) -> list[float | None]:
    """To four digits, which is more than a screen shows; what is not finite is left out."""
    return [float(f"{float(x):.4g}") if isfinite(x) else None for x in numbers]


def colour_of(colour: str, dark: bool) -> str:
    """The colour, or on a dark page the one that takes its place."""
    return DARK[colour] if dark else colour
