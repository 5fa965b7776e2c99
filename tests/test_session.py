import shutil
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets.active.dataset import ActiveLearningDataset
from baal_widgets.active.file_dataset import FileDataset
from baal_widgets.active.heuristics import BALD
from baal_widgets.contents import hash_value
from baal_widgets.session import LabellingSession
from baal_widgets.training import Training

CLASSES = ["low", "middle", "high"]
QUICK = Training(batch_size=16, lr=1e-2, min_steps=20, max_steps=40, window=10)


def make_data(n, seed):
    """Points whose class is the third of the line on which their sum lies."""
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (n, 4)).astype(np.float32))
    return TensorDataset(x, torch.bucketize(x.sum(1), torch.tensor([-0.7, 0.7])))


def make_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3))


POOL, TEST = make_data(60, 1), make_data(50, 2)
ORACLE = POOL.tensors[1].tolist()


def make_session(journal=None, **options):
    told = {"classes": CLASSES, "query_size": 6, "training": QUICK, "iterations": 5, "test_set": TEST, **options}
    return LabellingSession(told.pop("dataset", POOL), told.pop("model", make_model()), journal=journal, **told)


def told_of(session):
    """Everything that must survive a restart."""
    return session.round, session.query, session.labels, session.skipped, session.history, session.progress


# Asking and answering


def test_the_query_stays_the_same_until_it_is_answered():
    session = make_session()
    query = session.ask()
    assert len(set(query.items)) == 6
    for item in query.items[:-1]:
        session.label(item, "low")
        assert session.ask() == query
    session.skip(query.items[-1])
    following = session.ask()
    assert not set(following.items) & set(query.items)


def test_labels_are_class_names_by_item():
    session = make_session()
    session.label(5, "high")
    session.label(7, 0)
    session.label(np.int64(9), np.int32(1))
    session.label(10, torch.tensor(2))
    assert session.labels == {5: "high", 7: "low", 9: "middle", 10: "high"}


def test_a_label_given_again_replaces_the_first():
    session = make_session()
    session.label(5, "high")
    session.label(5, "low")
    assert session.labels == {5: "low"}
    session.undo()
    assert session.labels == {5: "high"}


@pytest.mark.parametrize(
    ("item", "label", "error"),
    [
        (60, "low", IndexError),
        (-1, "low", IndexError),
        (True, "low", TypeError),
        (1.0, "low", TypeError),
        ("1", "low", TypeError),
        (1, "lowest", ValueError),
        (1, 3, ValueError),
        (1, -1, ValueError),
        (1, None, TypeError),
        (1, True, TypeError),
    ],
)
def test_what_cannot_be_a_label_is_refused_and_leaves_no_trace(item, label, error):
    session = make_session()
    before = session._journal.events()
    with pytest.raises(error):
        session.label(item, label)
    assert session._journal.events() == before
    assert session.labels == {}


def test_the_same_operation_counts_once():
    session = make_session()
    session.label(1, "low", op_id="a")
    session.label(2, "low", op_id="b")
    session.label(1, "high", op_id="a")
    assert session.undo(op_id="c") == 2
    assert session.undo(op_id="c") is None
    assert session.labels == {1: "low"}


def test_the_dataset_is_in_step_with_the_journal():
    session = make_session()
    session.label(5, "high")
    session.label(2, "low")
    session.label(5, "middle")
    session.skip(8)
    assert [session.dataset[i][1] for i in range(len(session.dataset))] == [0, 1]
    session.undo()
    session.undo()
    assert [session.dataset[i][1] for i in range(len(session.dataset))] == [0, 2]
    session.undo()
    assert len(session.dataset) == 1
    assert len(session.dataset.pool) == 59


def test_one_round_of_answers_is_one_step_of_the_dataset():
    session = make_session()
    session.simulate(ORACLE, rounds=2)
    session.label(session.ask().items[0], "low")
    assert sorted(np.bincount(session.dataset.labelled_map)[1:].tolist()) == [1, 6, 6]


def test_everything_is_asked_once_and_then_nothing():
    session = make_session(query_size=25)
    seen = []
    while items := session.ask().items:
        seen += items
        for item in items:
            session.skip(item)
    assert sorted(seen) == list(range(60))
    assert session.simulate(ORACLE, rounds=2) == []


@given(st.lists(st.tuples(st.sampled_from(["label", "skip", "undo", "redo"]), st.integers(0, 5), st.integers(0, 2))))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_opening_again_changes_nothing(tmp_path_factory, told):
    path = tmp_path_factory.mktemp("journal") / "labels.db"
    session = make_session(path)
    session.ask()
    for op, item, label in told:
        arguments = {"label": (item, label), "skip": (item,)}.get(op, ())
        getattr(session, op)(*arguments)
    before, mask = told_of(session), session.dataset.labelled_map.tolist()
    session.close()
    with LabellingSession.open(path, POOL, make_model(), test_set=TEST) as again:
        assert told_of(again) == before
        assert again.dataset.labelled_map.tolist() == mask


# Learning


def test_learning_measures_and_asks_for_what_the_model_is_unsure_of():
    session = make_session()
    first = session.ask()
    for item in first.items:
        session.label(item, ORACLE[item])
    round_ = session.learn()
    assert (round_.number, round_.n_labelled, session.round) == (1, 6, 1)
    assert {"accuracy", "nll", "brier", "ece"} <= round_.metrics.keys()
    assert session.ask() == round_.query
    assert all(a >= b for a, b in zip(round_.query.scores, round_.query.scores[1:], strict=False))
    assert not set(round_.query.items) & set(first.items)
    assert session.progress["model_behind_by"] == 0
    session.label(round_.query.items[0], 0)
    assert session.progress["model_behind_by"] == 1


def test_the_same_seed_gives_the_same_run_whatever_torch_did_before():
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        session = make_session(model=make_model())
        history = session.simulate(ORACLE, rounds=3)
        runs.append(([{k: v for k, v in row.items() if k != "seconds"} for row in history], session.query))
    assert runs[0] == runs[1]


def test_learning_leaves_the_global_random_state_alone():
    session = make_session()
    session.label(0, 0)
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    session.learn()
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]


def test_each_lesson_starts_from_the_weights_that_were_given():
    straight, detour = make_session(), make_session()
    for item in range(6):
        straight.label(item, ORACLE[item])
        detour.label(item, 2 - ORACLE[item])
    detour.learn()
    for item in range(6):
        detour.label(item, ORACLE[item])
    straight.learn()
    straight.learn()
    detour.learn()
    assert straight.history[1]["losses"] == detour.history[1]["losses"]


def test_more_labels_make_the_model_better():
    history = make_session(training=Training(lr=1e-2, min_steps=100, max_steps=200)).simulate(ORACLE, rounds=6)
    assert history[-1]["accuracy"] > history[0]["accuracy"]
    assert history[-1]["nll"] < history[0]["nll"]


def test_labels_given_while_it_learns_count_for_the_next_round():
    session = make_session(training=Training(min_steps=300, max_steps=300))
    items = session.ask().items
    for item in items[:3]:
        session.label(item, ORACLE[item])
    job = session.learn(wait=False)
    for item in items[3:]:
        session.label(item, ORACLE[item])
    round_ = job.result(60)
    assert round_.n_labelled == 3
    assert session.progress["model_behind_by"] == 3
    assert not set(round_.query.items) & set(items)
    assert session.learn().n_labelled == 6


def test_a_job_tells_how_far_it_is():
    session = make_session(training=Training(min_steps=200, max_steps=200))
    session.label(0, 0)
    job, seen = session.learn(wait=False), []
    while not job.done:
        seen.append(job.progress.fraction)
        time.sleep(0.002)
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert job.progress.fraction == 1


def test_a_cancelled_lesson_changes_nothing():
    session = make_session(training=Training(min_steps=10_000, max_steps=10_000))
    session.label(session.ask().items[0], 0)
    before = told_of(session)
    job = session.learn(wait=False)
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(60)
    assert told_of(session) == before
    assert session.learn(wait=False).cancel() is None  # and one may try again
    session.close()


def test_a_failed_lesson_changes_nothing_and_says_why():
    session = make_session(model=nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 3)))
    session.label(0, 0)
    before = told_of(session)
    with pytest.raises(RuntimeError, match="shapes"):
        session.learn()
    assert told_of(session) == before


def test_one_lesson_runs_at_a_time():
    session = make_session(training=Training(min_steps=10_000, max_steps=10_000))
    session.label(0, 0)
    job = session.learn(wait=False)
    with pytest.raises(RuntimeError, match="already"):
        session.learn()
    job.cancel()
    session.close()


def test_threads_that_label_at_once_lose_nothing(tmp_path):
    session = make_session(tmp_path / "labels.db")

    def label(items):
        for item in items:
            session.label(item, item % 3)

    threads = [threading.Thread(target=label, args=(range(start, 60, 3),)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.labels == {item: CLASSES[item % 3] for item in range(60)}
    assert session._journal.verify() == 61


def test_the_model_that_was_given_stays_as_it_was():
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    session = make_session(model=model)
    session.simulate(ORACLE, rounds=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(session.model[0].weight, before["0.weight"])


def test_sessions_that_learn_at_once_learn_what_they_would_alone():
    alone = make_session()
    alone.simulate(ORACLE, rounds=1)
    sessions = [make_session() for _ in range(3)]
    for session in sessions:
        for item in session.ask().items:
            session.label(item, ORACLE[item])
    jobs = [session.learn(wait=False) for session in sessions]
    assert {tuple(job.result(60).metrics["losses"]) for job in jobs} == {tuple(alone.history[0]["losses"])}


def test_another_session_on_the_journal_sees_what_this_one_writes(tmp_path):
    one, other = (make_session(tmp_path / "labels.db") for _ in range(2))
    one.label(5, "high")
    assert other.labels == {5: "high"}
    assert other.dataset.is_labelled(5)
    one.learn()
    other.learn()
    assert [row["round"] for row in one.history] == [1, 2]
    assert one.ask().round == 2
    assert None not in one.ask().scores


def test_nobody_undoes_what_another_has_said(tmp_path):
    ann, bob = (make_session(tmp_path / "labels.db", annotator=name) for name in ("ann", "bob"))
    ann.label(5, "low")
    bob.label(5, "high")
    ann.undo()
    assert ann.labels == bob.labels == {5: "high"}
    bob.undo()
    assert ann.labels == bob.labels == {}


def test_a_closed_session_says_so(tmp_path):
    session = make_session(tmp_path / "labels.db")
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.label(0, 0)


def test_that_nothing_is_left_is_written_once():
    session = make_session(query_size=60)
    for item in session.ask().items:
        session.skip(item)
    assert [session.ask().number for _ in range(3)] == [1, 1, 1]


def test_nothing_can_be_learned_from_nothing():
    with pytest.raises(ValueError, match="label at least one"):
        make_session().learn()


def test_a_model_without_dropout_is_refused_with_advice():
    with pytest.raises(ValueError, match="Dropout"):
        make_session(model=nn.Linear(4, 3))


def test_a_model_with_too_few_outputs_is_told_apart():
    session = make_session(model=nn.Sequential(nn.Dropout(0.1), nn.Linear(4, 2)))
    session.label(0, 0)
    with pytest.raises(ValueError, match="one output for each class"):
        session.learn()


def test_without_a_test_set_it_learns_and_asks_all_the_same():
    session = make_session(test_set=None)
    (row,) = session.simulate(ORACLE, rounds=1)
    assert "accuracy" not in row
    assert session.query.round == 1


@pytest.mark.parametrize("heuristic", ["bald", "entropy", "margin", "certainty", "variance", "random", BALD()])
def test_every_heuristic_ranks_the_pool(heuristic):
    session = make_session(heuristic=heuristic)
    session.simulate(ORACLE, rounds=1)
    assert len(session.ask().items) == 6


# Opening again


def timeless(history):
    """The rows without what the clock says."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@pytest.mark.parametrize("heuristic", ["bald", "power_bald", "random", "typiclust"])
def test_a_run_that_is_resumed_is_the_run_that_was_not_interrupted(heuristic, tmp_path):
    whole = make_session(tmp_path / "whole.db", heuristic=heuristic)
    whole.simulate(ORACLE, rounds=3)
    for _ in range(3):
        with make_session(tmp_path / "parts.db", model=make_model(), heuristic=heuristic) as part:
            part.simulate(ORACLE, rounds=1)
    with LabellingSession.open(tmp_path / "parts.db", POOL, make_model()) as parts:
        assert parts.labels == whole.labels
        assert parts.query == whole.query
        assert timeless(parts.history) == timeless(whole.history)
        assert parts.history[-1]["agreement"] is not None or heuristic in ("random", "typiclust")


def test_other_classes_are_refused(tmp_path):
    make_session(tmp_path / "labels.db").close()
    with pytest.raises(ValueError, match="was begun with the classes"):
        make_session(tmp_path / "labels.db", classes=["a", "b", "c"])


def test_another_dataset_is_refused(tmp_path):
    make_session(tmp_path / "labels.db").close()
    with pytest.raises(ValueError, match="60 items"):
        make_session(tmp_path / "labels.db", dataset=make_data(61, 0))


def test_open_needs_a_journal(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels\.db"):
        LabellingSession.open(tmp_path / "labels.db", POOL, make_model())


# What a session labels


def test_an_active_learning_dataset_comes_with_its_labels_and_keeps_its_own_items():
    dataset = ActiveLearningDataset(POOL, labelled=[item in (3, 4) for item in range(60)])
    session = make_session(dataset=dataset)
    assert session.labels == {3: CLASSES[ORACLE[3]], 4: CLASSES[ORACLE[4]]}
    session.label(10, "low")
    assert session.dataset is dataset
    assert len(dataset) == 3
    assert session.undo() == 10
    assert session.undo() is None


def make_folder(folder, n=12):
    rng = np.random.default_rng(0)
    for place in range(n):
        target = folder / ("a" if place % 2 else "b")
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(target / f"{place:02}.png")
    return folder


def test_a_folder_is_labelled_with_the_built_in_model(tmp_path):
    session = LabellingSession(
        make_folder(tmp_path / "images"), classes=["cat", "dog"], journal=None, query_size=4, training=QUICK
    )
    for item in session.ask().items:
        session.label(item, item % 2)
    session.learn()
    assert session.round == 1
    assert session.picture(0).size == (30, 40)


def test_labels_find_their_files_when_the_folder_has_grown(tmp_path):
    folder = make_folder(tmp_path / "images")
    with LabellingSession(folder, classes=["cat", "dog"], journal=tmp_path / "labels.db") as session:
        names = session._source.keys
        for item in range(4):
            session.label(item, item % 2)
        before = {names[item]: label for item, label in session.labels.items()}
    make_folder(folder / "0-first", 2)
    with LabellingSession.open(tmp_path / "labels.db", folder) as again:
        assert {again._source.keys[item]: label for item, label in again.labels.items()} == before
    shutil.rmtree(folder / "0-first")  # in which there is another of the same content
    (folder / names[0]).unlink()
    with pytest.warns(UserWarning, match="not in the dataset"):
        again = LabellingSession.open(tmp_path / "labels.db", folder)
    assert len(again.labels) == 3


def test_labels_find_their_files_in_a_file_dataset_that_has_grown(tmp_path):
    folder = make_folder(tmp_path / "images", 4)
    files = sorted(str(path) for path in folder.rglob("*.png"))
    options = {"classes": ["cat", "dog"], "journal": tmp_path / "labels.db"}
    with LabellingSession(FileDataset(files[1:]), make_model(), **options) as session:
        session.label(0, "cat")
    with LabellingSession(FileDataset(files), make_model(), **options) as session:
        assert session.labels == {1: "cat"}


def test_files_that_are_no_images_are_left_out_and_named(tmp_path):
    folder = make_folder(tmp_path / "images")
    (folder / "broken.png").write_bytes(b"this is not a picture")
    (folder / "notes.txt").write_text("not even meant to be one")
    with pytest.warns(UserWarning, match=r"broken\.png is no image"):
        session = LabellingSession(folder, classes=["cat", "dog"], journal=None)
    assert session.progress["n_items"] == 12


def test_the_labels_can_be_taken_home(tmp_path):
    session = make_session()
    session.label(5, "high")
    session.skip(6)
    assert session.export(tmp_path / "labels.csv").read_text().splitlines() == [
        "item,key,label,annotator,round,sha256",
        f"5,5,high,me,0,{hash_value(session.dataset.get_raw(5)[0]).sha256}",
    ]
    assert '"label": "high"' in session.export(tmp_path / "labels.jsonl").read_text()
    with pytest.raises(ValueError, match=r"\.csv, \.jsonl"):
        session.export(tmp_path / "labels.doc")


@pytest.mark.parametrize("classes", [[], ["one"], ["a", "a"], ["a", ""], "a,b", ["a", 1]])
def test_classes_must_be_two_different_names(classes):
    with pytest.raises((ValueError, TypeError)):
        make_session(classes=classes)
