import stat

import pytest
import torch

from baal_widgets import LabellingSession, Training, load_demo
from baal_widgets.weights import Weights

QUICK = Training(max_steps=3)


@pytest.fixture(scope="module")
def data():
    return load_demo()


def session(data, tmp_path, **options):
    told = {"journal": tmp_path / "labels.db", "query_size": 4, "training": QUICK, "iterations": 2, **options}
    return LabellingSession(data.pool, data.model(), data.classes, **told)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def test_the_weights_of_each_round_come_back_in_another_process_s_session(data, tmp_path):
    with session(data, tmp_path, weights=True) as begun:
        states = []
        for _ in range(2):
            begun.simulate(data.oracle, rounds=1)
            states.append({name: value.clone() for name, value in begun.model.state_dict().items()})
    assert not same(*states)
    with session(data, tmp_path, weights=True) as resumed:
        assert not same(resumed.model.state_dict(), states[1])
        resumed.load_weights()
        assert same(resumed.model.state_dict(), states[1])
        resumed.load_weights(1)
        assert same(resumed.model.state_dict(), states[0])


def test_a_file_that_is_not_as_it_was_written_is_refused(data, tmp_path):
    with session(data, tmp_path, weights=tmp_path / "kept") as begun:
        begun.simulate(data.oracle, rounds=1)
        (path,) = (tmp_path / "kept").iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        before = {name: value.clone() for name, value in begun.model.state_dict().items()}
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ValueError, match="not as it was written"):
            begun.load_weights()
        path.unlink()
        with pytest.raises(FileNotFoundError, match="weights=FOLDER"):
            begun.load_weights()
        assert same(begun.model.state_dict(), before)


def test_weights_that_were_not_kept_are_told(data, tmp_path):
    with session(data, tmp_path) as begun:
        begun.simulate(data.oracle, rounds=1)
        with pytest.raises(ValueError, match=r"of round 1, but of none.*weights=True"):
            begun.load_weights()
    assert not (tmp_path / "labels.db.weights").exists()


def test_a_journal_in_memory_has_no_place_beside_it(data, tmp_path):
    with pytest.raises(ValueError, match="Give weights=FOLDER"):
        session(data, tmp_path, journal=None, weights=True)


def test_tensors_that_share_their_memory_are_kept(tmp_path):
    shared = torch.arange(6.0)
    told = Weights(tmp_path).write(1, {"a": shared, "b": shared.view(2, 3).T})
    back = Weights(tmp_path).read(told)
    assert torch.equal(back["a"], shared)
    assert torch.equal(back["b"], shared.view(2, 3).T)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        Weights(tmp_path).write(1, {"a": torch.ones(2)})
    assert list(tmp_path.iterdir()) == []
