import plotly.graph_objects as go
import pytest

from baal_widgets.figures import colour_of
from baal_widgets.simulation import plots
from baal_widgets.simulation.study.reading import WORDS


def answer(name, word, mean, kind="better", **more):
    words = {"id": name, "says": f"That {name} <is>", "source": "us", "kind": kind, "verdict": word}
    if kind == "factor":
        return {**words, "factor": mean, "interval": [mean - 0.1, mean + 0.1], "claimed": 3.0}
    reading = {"at": "area", "mean": mean, "interval": [mean - 0.01, mean + 0.01], "wins": 15, "seeds": 20, "p": 0.04}
    return {**words, "p_holm": 0.04, "readings": [reading], **more}


def curve(setting, method, nll):
    ends = [[value - 0.1, value + 0.1] for value in nll]
    told = {"setting": setting, "case": "plain", "method": method, "n_labelled": [50, 100]}
    return told | {"nll_bma": nll, "nll_bma_interval": ends, "macro_f1_bma": [0.4, 0.5]}


def report(answers=(), curves=()):
    settings = {"base": {"epochs": 150, "lr": 0.1}, "under": {"epochs": 2, "lr": 0.1}}
    told = {"seeds": [100, 119], "settings": settings}
    return {"table": "t", "title": "T & U", "answers": list(answers), "curves": list(curves), "provenance": told}


EVERY = report(
    [*(answer(f"C{at}", word, 0.1 * at) for at, word in enumerate(WORDS)), answer("C9", WORDS[1], 1.2, "factor")]
)
CURVES = report(
    curves=[curve(s, m, [1.0, 0.5 + at]) for s in ("base", "under") for at, m in enumerate(["random", "bald"])]
)


def marks(figure):
    """Colour, shape and place of each claim, by its id."""
    shown = [trace for trace in figure.data if trace.hovertemplate]
    return {trace.hovertemplate.split(":")[0]: (trace.marker.color, trace.marker.symbol, trace.x[0]) for trace in shown}


@pytest.mark.parametrize("dark", [False, True])
def test_no_two_verdicts_look_alike_in_colour_or_in_shape(dark):
    found = marks(plots.forest({"t": EVERY}, dark=dark))
    some = [found[f"C{at}"] for at in range(4)]
    assert len({colour for colour, _, _ in some}) == len({shape for _, shape, _ in some}) == 4
    assert found["C9"][:2] == found["C1"][:2]  # the same word


def test_a_claim_stands_where_its_difference_is_and_the_axis_tells_it_straight():
    figure = plots.forest({"t": EVERY})
    axis = figure.layout.xaxis
    straight = dict(zip(axis.ticktext, axis.tickvals, strict=True))
    assert marks(figure)["C1"][2] == straight["+0.1"]
    assert marks(figure)["C3"][2] == pytest.approx(straight["+0.3"])
    assert marks(figure)["C9"][2] == 1.2
    assert figure.layout.xaxis2.type == "log"


def test_every_claim_is_named_and_every_verdict_counted():
    figure = plots.forest({"t": EVERY})
    names = [*figure.layout.yaxis.ticktext, *figure.layout.yaxis2.ticktext]
    assert names[0] == "<i>T &amp; U</i>"
    assert [name.split("<b>")[1] for name in names if "<b>" in name] == [f"C{at}</b>" for at in (0, 1, 2, 3, 9)]
    assert all("&lt;is&gt;" in name for name in names if "<b>" in name)  # a name is not markup
    legend = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert legend == ["reproduced (1)", "not reproduced (2)", "opposite (1)", "inconclusive (1)"]


def test_every_end_of_an_interval_is_inside_the_figure():
    figure = plots.forest({"t": EVERY})
    low, high = figure.layout.xaxis.range
    ends = [x for trace in figure.data if trace.mode == "lines" and trace.xaxis == "x" for x in trace.x]
    assert ends
    assert all(low < end < high for end in ends)


def test_without_claims_of_speed_there_is_one_axis():
    assert "xaxis2" not in plots.forest({"t": report([answer("C1", WORDS[0], 0.1)])}).to_dict()["layout"]


@pytest.mark.parametrize(
    ("panels", "titles", "lines"),
    [
        ("setting", ["epochs 150", "epochs 2"], ["random", "bald"]),
        ("method", ["random", "bald"], ["epochs 150", "epochs 2"]),
    ],
)
def test_panels_are_settings_or_methods_and_lines_the_others(panels, titles, lines):
    figure = plots.learning_curves(CURVES, panels=panels)
    assert [each.text for each in figure.layout.annotations] == titles
    assert [trace.name for trace in figure.data if trace.showlegend] == lines
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == 4
    assert list(bands[0].x) == [50, 100, 100, 50]
    assert list(bands[0].y) == [1.1, 0.6, 0.4, 0.9]


def test_a_method_looks_the_same_in_every_figure():
    both = plots.learning_curves(CURVES)
    alone = plots.learning_curves(report(curves=[curve("base", "bald", [1.0, 0.5])]))
    looks = [
        {(trace.line.color, trace.line.dash, trace.marker.symbol) for trace in figure.data if trace.name == "bald"}
        for figure in (both, alone)
    ]
    assert looks[0] == looks[1]
    assert len(looks[0]) == 1


def test_a_measure_without_intervals_is_a_bare_line():
    figure = plots.learning_curves(CURVES, "macro_f1_bma")
    assert isinstance(figure, go.Figure)
    assert len(figure.data) == 4


def test_lines_have_another_colour_on_a_dark_page():
    colours = {colour for colour, _, _ in plots.LINES} | {colour for colour, _ in plots.MARKS.values()}
    assert len({colour_of(colour, True) for colour in colours}) == len(colours)
