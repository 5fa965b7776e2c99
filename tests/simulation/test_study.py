import dataclasses
import json
import re

import numpy as np
import pytest

from baal_widgets.simulation import Pool, Protocol, Results, Run, as_it_is, names, study
from baal_widgets.simulation.__main__ import main
from baal_widgets.simulation.study import registration, runner
from baal_widgets.simulation.study.answering import answers, curves, measured
from baal_widgets.simulation.study.registration import Reference
from baal_widgets.simulation.study.risks import risks
from baal_widgets.simulation.study.worlds import RARE, WORLDS

SIZES = {name: study.size(name) for name in study.sizes()}
COUNTED = {"random": 0.0, "bald": 0.1, "entropy": 0.05}


@pytest.mark.parametrize("name", study.tables())
@pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
def test_every_registered_claim_can_be_answered_by_the_registered_runs(name, size):
    table = study.table(name, size)
    assert set(table.methods) <= set(names())
    assert set(table.only) <= set(table.settings)
    assert table.world in WORLDS
    assert len({claim.id for claim in table.claims}) == len(table.claims) > 0
    for claim in table.claims:
        assert claim.kind in ("better", "same", "no_worse", "trend", "factor")
        assert len(claim.higher) == len(claim.lower) == (len(claim.levels) if claim.kind == "trend" else 1)
        for reference in claim.higher + claim.lower:
            assert reference.case in table.cases
            assert reference.method in table.methods_of(reference.setting)
            counts = table.settings[reference.setting].counts
            assert all(at == "area" or table.counts[at] in counts for at in claim.at), (claim.id, reference)


def test_the_registered_sizes_fit_what_they_need():
    for size in SIZES.values():
        for name in study.tables():
            for protocol in study.table(name, size).settings.values():
                assert protocol.until <= size.items
    assert len(SIZES["cpu"].seeds) >= 20
    assert not set(SIZES["cpu"].seeds) & set(range(10))  # those of the pilots


def test_what_several_tables_want_is_done_once():
    tables = [study.table(name, SIZES["cpu"]) for name in study.tables()]
    works = study.plan(tables)
    places = [(work.world, work.protocol, work.case) for work in works]
    assert len(set(places)) == len(places)
    base = next(w for w in works if (w.world, w.protocol, w.case) == ("plain", SIZES["cpu"].protocol, "plain"))
    assert set(base.methods) == {"random", "bald", "entropy", "logit_entropy", "power_bald"}
    for table in tables:
        for setting, protocol in table.settings.items():
            for case in table.cases:
                work = works[places.index((table.world, protocol, case))]
                assert set(table.methods_of(setting)) <= set(work.methods)


def made_up(offsets, seeds=20):
    """Results with an NLL that falls from 1 by a method's offset at every step, and a little noise of the seed."""
    rng = np.random.default_rng(0)
    n = np.array([50, 100, 200, 400])
    runs = []
    for method, offset in offsets.items():
        for seed in range(seeds):
            nll = 1 - offset * np.arange(4) + rng.normal(0, 0.001, 4)
            f1 = np.zeros((4, 11))
            f1[:, RARE] = [0.2, 0.4]
            seconds = {"train": np.full(4, 1.0), "score": np.full(4, offset), "test": np.full(4, 1.0)}
            measured = {"nll_bma": nll, "class_f1": f1}
            runs.append(Run(f"{method}{seed}", "plain", method, seed, n, measured, np.arange(400), seconds))
    return Results(tuple(runs))


def claim(**changes):
    bald, random = (Reference("base", "plain", method, "nll_bma") for method in ("bald", "random"))
    one = registration.Claim("X", "that", "us", "better", (random,), (bald,), ("late",), 0.02, (), 3.0)
    return dataclasses.replace(one, **changes)


def table_of(*claims):
    return registration.Table(
        "t", "T", "plain", ("plain",), tuple(COUNTED), {}, {"base": Protocol()}, {"early": 100, "late": 400}, claims
    )


def test_claims_are_answered_as_the_runs_have_it():
    found = {("base", "plain"): made_up(COUNTED)}
    value = curves(found, {"early": 100, "late": 400})
    bald, random, entropy = (Reference("base", "plain", method, "nll_bma") for method in ("bald", "random", "entropy"))
    told = answers(
        table_of(
            claim(at=("late", "area")),
            claim(id="against", higher=(bald,), lower=(random,)),
            claim(id="none", kind="same", at=("early",), margin=0.2),
            claim(id="loss", kind="no_worse", higher=(bald,), lower=(random,)),
            claim(id="steep", kind="trend", higher=(random, random), lower=(entropy, bald), levels=(0.0, 1.0)),
        ),
        value,
    )
    words = [each["verdict"] for each in told]
    assert words == ["reproduced", "opposite", "reproduced", "not reproduced", "reproduced"]
    late, area = told[0]["readings"]
    assert late["mean"] == pytest.approx(0.3, abs=0.002)
    # the line is 0 at 50, .1 at 100, .2 at 200 and .3 at 400 labels
    assert area["mean"] == pytest.approx((0.05 * 50 + 0.15 * 100 + 0.25 * 200) / 350, abs=0.002)
    assert late["wins"] == late["seeds"] == 20
    assert told[0]["p_holm"] > late["p"]
    assert told[4]["readings"][0]["mean"] == pytest.approx(0.15, abs=0.002)


def test_factors_and_rare_classes_are_read_from_the_runs():
    found = {("base", "plain"): made_up({"random": 0.5, "bald": 4.0})}
    bald, random = (Reference("base", "plain", method, "seconds_score") for method in ("bald", "random"))
    told = answers(table_of(claim(kind="factor", higher=(bald,), lower=(random,))), None, found)[0]
    assert (told["factor"], told["verdict"]) == (8.0, "reproduced")
    steps = [dataclasses.replace(reference, measure="seconds_step") for reference in (bald, random)]
    told = answers(table_of(claim(kind="factor", higher=steps[:1], lower=steps[1:], factor=4.0)), None, found)[0]
    assert (told["factor"], told["verdict"]) == (3.33, "not reproduced")
    rare = measured(found["base", "plain"], Reference("base", "plain", "bald", "f1_rare"))
    assert np.allclose(rare, 0.3)
    assert rare.shape == (20, 4)


def test_risks_are_unbiased_for_lure_alone(rng):
    y = np.arange(400) % 3
    x = (rng.normal(size=(400, 5)) + 2 * np.eye(5)[y]).astype(
        np.float32
    )  # where classes overlap, loss and entropy meet
    protocol = Protocol(initial=60, query_size=1, until=60, epochs=20, draws=5, hidden=(16,))
    for seed in range(3):
        told = risks(Pool(x, y, x, y), as_it_is, protocol, seed, 50, 300)
        assert told["lure"] == pytest.approx(told["pool"], rel=0.05)
        assert told["naive"] > 1.2 * told["pool"]


def test_one_command_answers_every_claim_and_says_where_numbers_come_from(tmp_path, capsys):
    some = "fig1,fig5,lure"
    assert main(["--size", "tiny", "--table", some, "--out", str(tmp_path), "--quiet", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "4 seeds show that it runs" in printed
    for name in some.split(","):
        told = json.loads((tmp_path / f"{name}.json").read_text())
        assert [each["id"] for each in told["answers"]] == [c.id for c in study.table(name, SIZES["tiny"]).claims]
        for each in told["answers"]:
            assert re.search(rf"{each['verdict'].upper()} +{re.escape(each['id'])}: ", printed)
        origin = told["provenance"]
        assert origin["registration_sha256"] == study.fingerprint()
        assert origin["command"].startswith("python -m baal_widgets.simulation --size tiny")
        assert origin["seeds"] == [100, 103]
        assert origin["settings"]["base"]["until"] == 40
        assert {"torch", "baal_widgets"} <= set(origin["versions"])
        assert (tmp_path / f"{name}.json").stat().st_size < 40_000
    curve = json.loads((tmp_path / "fig1.json").read_text())["curves"][0]
    assert curve["n_labelled"] == [10, 20, 30, 40]
    assert len(curve["nll_bma"]) == len(curve["nll_bma_sd"]) == 4


@pytest.mark.slow
def test_processes_that_share_the_work_give_the_same_curves(tmp_path):
    table = study.table("cold", SIZES["tiny"])
    table = dataclasses.replace(table, methods=("random", "coreset"))
    places = [study.Workplace(SIZES["tiny"], tmp_path / name, device="cpu") for name in ("one", "two")]
    alone = study.run([table], places[0], jobs=1, progress=False)
    shared = study.run([table], dataclasses.replace(places[1], threads=1), jobs=2, progress=False)
    assert alone.keys() == shared.keys()
    for at, results in alone.items():
        for method in table.methods:
            mine, theirs = (each.curve("nll_bma", method, at[2]) for each in (results, shared[at]))
            assert np.allclose(mine, theirs, atol=1e-5)


def test_the_command_refuses_with_one_line(tmp_path, capsys):
    assert main(["--table", "fig9", "--out", str(tmp_path)]) == 2
    assert "No table fig9" in capsys.readouterr().err
    arguments = ["--size", "cpu", "--table", "fig1", "--data", str(tmp_path), "--out", str(tmp_path), "--quiet"]
    assert main(arguments) == 1
    assert "apt-get install dataset-fashion-mnist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_worlds_are_made_once(monkeypatch):
    runner.world.cache_clear()
    made = []
    monkeypatch.setitem(WORLDS, "plain", lambda told, items: made.append(items))
    for _ in range(2):
        runner.world("plain", "demo", 10, 20, runner.FASHION_MNIST)
    runner.world.cache_clear()
    assert made == [20]
