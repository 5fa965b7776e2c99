"""The results that the repository holds are those that were registered, and what is told of them follows from them."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from baal_widgets.simulation import study
from baal_widgets.simulation.__main__ import main
from baal_widgets.simulation.study.answering import weighed
from baal_widgets.simulation.study.reading import HEAD, WORDS
from baal_widgets.simulation.verdicts import holm, verdict

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "benchmarks" / "study"
REPORTS = study.read(KEPT)
SIZE = study.size("cpu")


def test_all_that_was_registered_is_answered_and_nothing_else():
    assert list(REPORTS) == [name for name in study.tables() if name in REPORTS]
    assert {path.stem for path in KEPT.glob("*.json")} == set(REPORTS)
    for name, report in REPORTS.items():
        claims = study.table(name, SIZE).claims
        told = [(one["id"], one["says"], one["source"], one["kind"]) for one in report["answers"]]
        assert told == [(one.id, one.says, one.source, one.kind) for one in claims]
        readings = [tuple(one["at"] for one in answer.get("readings", ())) for answer in report["answers"]]
        assert readings == [() if one.kind == "factor" else one.at for one in claims]


@pytest.mark.parametrize("name", REPORTS)
def test_results_come_from_the_registration_as_it_is_and_from_a_clean_checkout(name):
    origin = REPORTS[name]["provenance"]
    assert origin["registration_sha256"] == study.fingerprint()
    assert (origin["size"], origin["seeds"]) == ("cpu", [SIZE.seeds[0], SIZE.seeds[-1]])
    assert len(origin["commit"]) == 40
    settings = study.table(name, SIZE).settings
    assert origin["settings"] == {
        setting: json.loads(json.dumps(dataclasses.asdict(protocol))) for setting, protocol in settings.items()
    }


@pytest.mark.parametrize("name", REPORTS)
def test_every_verdict_follows_from_the_differences_beside_it(name):
    claims = {claim.id: claim for claim in study.table(name, SIZE).claims if claim.kind != "factor"}
    answers = [answer for answer in REPORTS[name]["answers"] if answer["id"] in claims]
    first = []
    for answer in answers:
        for reading in answer["readings"]:
            found = weighed(claims[answer["id"]], reading["differences"])
            assert (found.wins, found.seeds) == (reading["wins"], reading["seeds"]) == (found.wins, 20)
            assert [found.mean, *found.interval] == pytest.approx([reading["mean"], *reading["interval"]], abs=1e-4)
            assert found.p == pytest.approx(reading["p"], rel=0.06)
        first.append(weighed(claims[answer["id"]], answer["readings"][0]["differences"]))
    for answer, found, p in zip(answers, first, holm([each.p for each in first]), strict=True):
        assert answer["p_holm"] == pytest.approx(p, rel=0.06)
        assert answer["verdict"] == verdict(claims[answer["id"]].kind, found, p)


def test_intervals_of_curves_hold_their_means_and_are_as_wide_as_the_seeds_differ():
    for report in REPORTS.values():
        for curve in report["curves"]:
            low, high = np.transpose(curve["nll_bma_interval"])
            mean, error = np.array(curve["nll_bma"]), np.array(curve["nll_bma_sd"]) / np.sqrt(20)
            assert ((low <= mean) & (mean <= high)).all()
            assert np.allclose(high - low, 2 * 1.96 * error, rtol=0.35, atol=3e-4)


def test_all_of_it_is_less_than_a_megabyte():
    assert sum(path.stat().st_size for path in KEPT.glob("*.json")) < 1_000_000


def test_every_verdict_is_told_once_whatever_it_says():
    rows = study.verdicts(REPORTS)
    page = study.markdown(REPORTS)
    assert len(rows) == sum(len(study.table(name, SIZE).claims) for name in REPORTS)
    assert page.startswith(HEAD)
    assert page.count("\n|") == 1 + len(rows) + len(REPORTS)
    for row in rows:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {row['id']} |")]
        assert row["says"] in line
        assert row["verdict"] in line
    counted = Counter(row["verdict"] for row in rows)
    assert study.summary(REPORTS) == ", ".join(f"{counted[word]} {word}" for word in WORDS)


def test_tables_without_results_are_named():
    some = dict(list(REPORTS.items())[1:])
    missing = study.markdown(some).split("Not run yet: ")[1].strip(" .\n").split(", ")
    assert missing == [name for name in study.tables() if name not in some]
    assert list(REPORTS)[0] in missing


def test_the_page_has_the_table_that_the_command_makes(capsys):
    assert main(["--report", str(KEPT)]) == 0
    table, said = capsys.readouterr().out.rsplit("\n\n", 1)
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf8")
    assert table in page
    assert said.strip(" .\n") in page


def test_the_repository_is_found_from_below_and_an_empty_folder_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT / "notebooks")
    assert study.read() == REPORTS
    monkeypatch.chdir(tmp_path)
    assert study.read() == REPORTS
    with pytest.raises(FileNotFoundError, match="--size tiny"):
        study.read(tmp_path)
    assert main(["--report", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
