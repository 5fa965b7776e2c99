import subprocess
import sys
import warnings

import numpy as np
import pytest

from baal_widgets.active.heuristics import BALD, AbstractHeuristic
from baal_widgets.simulation import Pool, Protocol, names, simulate

PROTOCOL = Protocol(initial=6, query_size=4, until=18, epochs=6, draws=5, hidden=(12, 8))


def made(seed=0, n=90, tests=40):
    rng = np.random.default_rng(seed)
    y = np.arange(n + tests) % 3
    x = (rng.normal(size=(n + tests, 6)) + 1.5 * np.eye(6)[y]).astype(np.float32)
    return Pool(x[:n], y[:n], x[n:], y[n:])


def run(methods, seeds, **options):
    return simulate(made(), methods, PROTOCOL, seeds, progress=False, device="cpu", **{"lanes": 3, **options})


def identical(one, other):
    assert [(r.key, r.case, r.method, r.seed) for r in one] == [(r.key, r.case, r.method, r.seed) for r in other]
    for mine, theirs in zip(one, other, strict=True):
        assert np.array_equal(mine.asked, theirs.asked)
        for name, values in mine.measured.items():
            assert np.array_equal(values, theirs.measured[name]), name


@pytest.fixture(scope="module")
def two():
    return run(["random", "bald"], range(3))


def test_other_methods_and_seeds_beside_a_run_do_not_change_it_by_a_bit(two):
    many = run(["epig", "bald", "random", "typiclust", "power_bald"], [7, 2, 1, 0, 5])
    chosen = [r for seed in range(3) for m in ("random", "bald") for r in many.runs if (r.seed, r.method) == (seed, m)]
    identical(two.runs, chosen)


def test_a_run_alone_is_the_same_to_the_bit(two):
    identical(run(["bald"], [2]).runs, [r for r in two.runs if (r.method, r.seed) == ("bald", 2)])


def test_another_number_of_lanes_agrees_to_rounding(two):
    other = run(["random"], range(3), lanes=1)
    assert np.allclose(other.curve("nll_bma", "random"), two.curve("nll_bma", "random"), atol=1e-4)


def test_methods_of_a_seed_begin_alike_and_seeds_differ(two):
    for measure in ("nll_bma", "nll_det", "ece_logit"):
        random, bald = two.curve(measure, "random"), two.curve(measure, "bald")
        assert np.array_equal(random[:, 0], bald[:, 0])
        assert not np.allclose(random[:, -1], bald[:, -1])
        assert len(set(random[:, 0])) == 3


def test_every_method_asks_for_new_items_of_its_case_and_learns_their_given_labels():
    def half(pool, seed):
        return np.arange(0, 90, 2), np.zeros(90, np.int64)

    results = run(names(), [0], cases={"half": half, "whole": lambda pool, seed: (np.arange(90), pool.labels)})
    for one in results.runs:
        assert len(set(one.asked.tolist())) == 18
        assert one.case == "whole" or not (one.asked % 2).any()
        assert np.isfinite(list(one.measured["nll_bma"])).all()
    assert results.curve("accuracy_bma", "bald", "half").max() <= 0.4  # who is told that all is class 0 believes it
    assert results.curve("accuracy_bma", "bald", "whole")[:, -1] > 0.4


def test_what_has_ended_is_kept_and_not_computed_again(two, tmp_path, monkeypatch):
    first = run(["random", "bald"], range(2), resume=tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 2  # four runs, three at a time
    more = run(["random", "bald"], range(3), resume=tmp_path)
    identical(more.runs, two.runs)
    identical(first.runs, two.runs[:4])
    assert all(path.read_bytes() == held for path, held in files.items())
    monkeypatch.setattr("baal_widgets.simulation.engine.train", None)
    again = run(["random", "bald"], range(3), resume=tmp_path)
    identical(again.runs, two.runs)
    assert np.array_equal(again.curve("seconds_train", "bald"), more.curve("seconds_train", "bald"))


@pytest.mark.slow
def test_a_simulation_that_was_killed_goes_on_to_the_same_result(two, tmp_path):
    source = f"""
import os, sys
sys.path.insert(0, {str(__file__).rsplit("/", 1)[0]!r})
import test_engine
from baal_widgets.simulation import engine
train, calls = engine.train, []
def dying(*arguments):
    calls.append(0)
    if len(calls) == 6:  # in the second chunk
        os.kill(os.getpid(), 9)
    return train(*arguments)
engine.train = dying
test_engine.run(["random", "bald"], range(3), resume={str(tmp_path)!r})
"""
    told = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode == -9, told.stderr
    assert len(list(tmp_path.glob("runs-*.npz"))) == 1
    identical(run(["random", "bald"], range(3), resume=tmp_path).runs, two.runs)


def test_a_damaged_file_is_named(tmp_path):
    run(["random"], [0], resume=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{path.name}.*Delete it"):
        run(["random"], [0], resume=tmp_path)


def test_another_protocol_label_or_pool_is_another_run(tmp_path):
    def keys(pool, protocol=PROTOCOL, **options):
        return {r.key for r in simulate(pool, ["random"], protocol, [0], progress=False, device="cpu", **options).runs}

    flipped = {"": lambda pool, seed: (np.arange(90), (pool.labels + 1) % 3)}
    everything = [
        keys(made()),
        keys(made(1)),
        keys(made(), Protocol(initial=6, query_size=4, until=18, epochs=7, draws=5, hidden=(12, 8))),
        keys(made(), cases=flipped),
        keys(made(), lanes=2),
    ]
    assert len(set.union(*everything)) == len(everything)


def test_a_method_of_ones_own_is_taken_with_its_name():
    class First(AbstractHeuristic):
        takes = ("items",)

        def compute_score(self, predictions, *known):
            return np.asarray(predictions)

    results = run([("first", lambda rng: First()), ("my bald", lambda rng: BALD(shuffle_prop=0.5, seed=rng))], [0])
    one = results.runs[0]
    left = np.setdiff1d(np.arange(90), one.asked[:6])
    assert one.asked[6:].tolist() == left[:12].tolist()


def test_rows_tell_what_the_curves_tell(two):
    rows = [r for r in two.rows() if r["method"] == "bald" and r["n_labelled"] == 10]
    assert [r["seed"] for r in rows] == [0, 1, 2]
    assert [r["nll_logit"] for r in rows] == two.curve("nll_logit", "bald")[:, two.at(10)].tolist()
    assert len(rows[0]["class_f1"]) == 3
    assert rows[0]["seconds_train"] > 0
    assert two.n_labelled.tolist() == [6, 10, 14, 18]
    with pytest.raises(KeyError, match="No run of method 'badge'"):
        two.curve("nll_bma", "badge")
    with pytest.raises(ValueError, match=r"\[6, 10, 14, 18\], got 11"):
        two.at(11)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"methods": ["bold"]}, "a method among"),
        ({"methods": ["bald", "bald"]}, "different names"),
        ({"seeds": []}, "different seeds"),
        ({"protocol": Protocol(until=91)}, "90 items, and 91 are to be labelled"),
        ({"cases": {"odd": lambda pool, seed: (np.array([1, 1]), pool.labels)}}, "different items"),
        ({"cases": {"odd": lambda pool, seed: (np.arange(90), pool.labels + 1)}}, "one of 3 classes"),
        ({"lanes": -1}, "lanes"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(change, told):
    options = {"methods": ["random"], "protocol": PROTOCOL, "seeds": [0], **change}
    with pytest.raises(ValueError, match=told):
        simulate(made(), **options, progress=False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"initial": 0}, "initial"),
        ({"until": 10, "initial": 20}, "at least initial"),
        ({"dropout": 1.0}, "below 1"),
        ({"scored": 0.0}, "above 0"),
        ({"optimizer": "lion"}, "'sgd' or 'adam'"),
        ({"hidden": ()}, "hidden layers"),
        ({"patience": 0}, "patience"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(change, told):
    with pytest.raises(ValueError, match=told):
        Protocol(**change)


def test_a_pool_that_cannot_be_is_refused():
    x, y = np.zeros((4, 3), np.float32), np.arange(4) % 2
    for wrong, told in (
        ((x[None], y, x, y), "Flatten"),
        ((x, y[:3], x, y), "a label for each"),
        ((x, y, x[:, :2], y), "as many features"),
        ((x + np.nan, y, x, y), "finite"),
        ((x, y - 1, x, y), "from 0 on"),
    ):
        with pytest.raises(ValueError, match=told):
            Pool(*wrong)


def test_the_package_does_not_import_the_simulation_and_that_needs_no_jupyter():
    source = """
import sys
import baal_widgets
print([name for name in sys.modules if "simulation" in name])
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"IPython", "anywidget", "ipykernel", "ipywidgets", "jupyterlab", "traitlets"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import baal_widgets.simulation.__main__
print(sorted({"scipy", "sklearn", "statsmodels"} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=300)
    assert told.stdout.split() == ["[]", "[]"], told.stderr


@pytest.mark.gpu
def test_a_gpu_gives_the_same_curves_but_for_rounding_and_is_indifferent_to_company(two):
    there = run(["random"], range(3), device="cuda")
    assert np.allclose(there.curve("nll_bma", "random"), two.curve("nll_bma", "random"), atol=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = run(["bald", "random", "badge"], range(4), device="cuda")
    chosen = [r for seed in range(3) for r in many.runs if (r.seed, r.method) == (seed, "random")]
    identical(there.runs, chosen)
