"""Every benchmark runs, its ways agree, and a table comes out; no times are judged here."""

import json

import pytest

from benchmarks.harness import OURS, Clock, Comparison, Growth, Quality
from benchmarks.run import declared, machine, measured, merged, told
from benchmarks.table import markdown, plain

DECLARED = declared()


@pytest.mark.parametrize("key", DECLARED)
def test_a_benchmark_runs_and_its_ways_agree(key):
    comparison = DECLARED[key]
    result = told(key, comparison, measured(comparison, "cpu", 1, True), "cpu", True, machine("cpu", 1))
    page = markdown([json.loads(json.dumps(result))])
    assert page.count(f"| {result['work']} |") == 1
    assert page.count("\n|") == 2 + len(result["bars"]) + bool(result["note"])
    assert key in plain(result)


def comparison(**options):
    ways = {OURS: lambda: 1.0, "theirs": lambda: 3.0}
    return Comparison("name", "work", "theirs", 2, lambda device: ways, measures="told", **options)


def test_ways_that_disagree_are_refused():
    with pytest.raises(AssertionError, match="theirs"):
        comparison().measure("cpu", 1, {})


@pytest.mark.parametrize(("least", "kept"), [(2.9, True), (3.1, False)])
def test_a_promise_is_kept_from_its_ratio_on(least, kept):
    one = comparison(also={"theirs": least}, agree=lambda results: None)
    (bar,) = one.told(one.measure("cpu", 3, {}), "told")["bars"]
    assert (bar["ratio"], bar["kept"]) == (3, kept)


@pytest.mark.parametrize(("slack", "kept"), [(0.0, False), (0.7, True)])
def test_a_quality_below_the_others_is_no_promise_kept(slack, kept):
    one = comparison(agree=lambda results: None, quality=Quality(name="it", of=lambda result: result, slack=slack))
    assert one.told(one.measure("cpu", 1, {}), "told")["bars"][-1]["kept"] is kept


def test_a_note_is_printed_below_its_row_with_as_many_cells():
    one = comparison(note="Theirs does less.", agree=lambda results: None)
    result = told("key", one, one.measure("cpu", 1, {}), "cpu", True, machine("cpu", 1))
    *_, row, note = markdown([result]).splitlines()
    assert row.startswith("| work |")
    assert note.startswith("| *Theirs does less.* |")
    assert note.count("|") == row.count("|")
    assert plain(result).endswith("\n  Theirs does less.")


def test_growth_finds_the_exponent():
    one = Growth("name", "work", [1, 2, 4], lambda device, size: lambda: None, at_most=1.9)
    figures = {str(size): {"seconds": [size**2.0]} for size in (10, 100, 1000)}
    (bar,) = one.told({"figures": figures}, "seconds")["bars"]
    assert bar["exponent"] == pytest.approx(2)
    assert not bar["kept"]


def test_memory_taken_and_given_back_counts():
    import numpy as np

    held = np.ones(1_000_000)
    taken, _ = Clock("cpu", "bytes")(lambda: float((held + np.ones(4_000_000)[:1_000_000]).sum()))
    assert 30e6 < taken["bytes"] < 100e6


def test_new_figures_replace_older_ones_of_the_same_machine_only(tmp_path):
    path = tmp_path / "figures.json"
    one, other = ({"key": "a", "machine": {"device": name}, "value": 1} for name in ("cpu", "a GPU"))
    path.write_text(json.dumps({"results": [one, other]}))
    assert merged(path, [{**one, "value": 2}])["results"] == [{**one, "value": 2}, other]
