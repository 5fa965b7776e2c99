"""The notebook of the study shows what the repository holds: it computes none of it, and is quick."""

import io
import time
from contextlib import redirect_stdout
from pathlib import Path

import nbformat
import plotly.graph_objects as go
import pytest

from baal_widgets.simulation import engine, plots, study
from baal_widgets.simulation.study.reading import PLACE

ROOT = Path(__file__).parents[2]
CELLS = [cell for cell in nbformat.read(ROOT / "notebooks" / "10_the_study.ipynb", 4).cells if cell.cell_type == "code"]
REPORTS = study.read(ROOT / PLACE)


@pytest.fixture
def drawn(monkeypatch):
    """Run the cells that are not tagged "live" where nothing can be simulated; figures, text, CPU seconds."""

    def refuse(*given, **named):
        raise AssertionError("a simulation in a cell that only shows results")

    figures = []
    for module, name in ((engine, "train"), (engine, "evaluate"), (study.runner, "simulate")):
        monkeypatch.setattr(module, name, refuse)
    for name in ("forest", "learning_curves"):
        make = getattr(plots, name)
        monkeypatch.setattr(plots, name, lambda *given, make=make, **named: figures.append(make(*given, **named)))
    namespace, began = {"__name__": "notebook"}, time.process_time()
    with redirect_stdout(io.StringIO()) as printed:
        for cell in CELLS:
            if "live" not in cell.metadata.get("tags", []):
                exec(compile(cell.source, "cell", "exec"), namespace)
    return figures, printed.getvalue(), time.process_time() - began


def test_results_are_shown_without_a_simulation_and_at_once(drawn):
    figures, _, seconds = drawn
    assert all(isinstance(figure, go.Figure) for figure in figures)
    titles = [figure.layout.title.text for figure in figures]
    assert titles.count("The claims") == 1
    for report in REPORTS.values():
        assert not report["curves"] or report["title"].replace("&", "&amp;") in titles
    assert seconds < 15


def test_the_verdicts_are_counted_and_the_provenance_told(drawn):
    _, printed, _ = drawn
    assert study.summary(REPORTS) in printed
    assert study.fingerprint() in printed
    for name, report in REPORTS.items():
        assert f"{name:9} {report['provenance']['date']}" in printed


def test_one_cell_simulates_and_none_but_it():
    live = [cell for cell in CELLS if "live" in cell.metadata.get("tags", [])]
    assert ["simulate(" in cell.source for cell in live] == [True]


def test_the_shown_outputs_are_those_of_the_results():
    shown = "".join(str(cell.outputs) for cell in CELLS)
    assert study.summary(REPORTS) in shown
    for row in study.verdicts(REPORTS):
        assert f"| {row['id']} | {row['says']}" in shown.replace("\\'", "'")
