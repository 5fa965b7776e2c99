"""Labels of a file taken over into a session: what is new, what is left alone, and how all of it is taken back."""

import json
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import cli
from baal_widgets.contents import hash_file, hash_value
from baal_widgets.exchange import FORMATS, Labelled, plan_import, read_labels, write_labels
from baal_widgets.session import LabellingSession

CLASSES = ["cat", 'dog, "big"', "=cow"]
POOL = TensorDataset(torch.zeros(12, 4), torch.zeros(12, dtype=torch.long))


def make_session(journal=None, **options):
    told = {"classes": CLASSES, "query_size": 4, "model": nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)), **options}
    return LabellingSession(told.pop("dataset", POOL), told.pop("model"), journal=journal, **told)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for place in range(6):
        file = folder / f"{place % 2}" / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 40 * place, np.uint8)).save(file)
    return folder


def file_of(folder, *rows):
    return write_labels([Labelled(*row) for row in rows], folder / "labels.jsonl")


def seq(session):
    return session._journal.events()[-1].seq


def counts(plan):
    return {
        name: len(getattr(plan, name))
        for name in ("new", "same", "changed", "unknown_items", "unknown_classes", "duplicates", "added_classes")
        if getattr(plan, name)
    }


@pytest.mark.parametrize("format_", FORMATS)
def test_what_one_session_exports_another_imports(tmp_path, images, format_):
    first = make_session(dataset=images, model=None, annotator="ann")
    for item, label in enumerate([0, 1, 2, 0]):
        first.label(item, label)
    first.skip(4)
    path = first.export(tmp_path / f"out{FORMATS[format_].suffix}", format_)
    assert [(row.item, row.label) for row in read_labels(path, format_)] == sorted(first.labels.items())
    second = make_session(dataset=images, model=None)
    plan = second.import_labels(path, format=format_)
    assert (plan.written, counts(plan)) == (4, {"new": 4})
    assert second.labels == first.labels
    assert second.dataset.n_labelled == 4


def test_several_labels_an_item_survive_every_format_that_can_hold_them(tmp_path):
    squares = TensorDataset(torch.zeros(12, 1, 4, 4), torch.zeros(12, dtype=torch.long))
    first = make_session(multi_label=True, dataset=squares)
    for item, label in enumerate([["=cow", "cat"], [], [1]]):
        first.label(item, label)
    for format_ in FORMATS.keys() - {"imagefolder"}:
        path = first.export(tmp_path / f"{format_}{FORMATS[format_].suffix}", format_)
        second = make_session(multi_label=True)
        second.import_labels(path, format=format_)
        assert second.labels == first.labels == {0: ("cat", "=cow"), 1: (), 2: ('dog, "big"',)}


def test_a_dry_run_writes_nothing_and_tells_everything(tmp_path, images):
    session = make_session(dataset=images, model=None)
    session.label(0, "cat")
    session.label(1, "cat")
    session.skip(2)
    keys = session._source.keys
    path = file_of(
        tmp_path,
        (0, keys[0], "cat"),
        (99, keys[1], "=cow"),
        (2, keys[2], "cat"),
        (3, keys[3], "cat", "ann", 4),
        (4, keys[4], "cat"),
        (4, keys[4], "=cow"),
        (3, keys[3], "cat"),
        (None, keys[5], "cat"),
        (None, keys[5], "cat"),
        (0, "nowhere.png", "cat"),
        (1, None, "cat"),
        (5, keys[5], "horse"),
    )
    before, labels = seq(session), session.labels
    plan = session.import_labels(path, dry_run=True)
    assert seq(session) == before
    assert session.labels == labels
    assert plan.written == 0
    assert [(one.item, one.key, one.old, one.new, one.annotator) for one in plan.new] == [
        (3, keys[3], None, "cat", "ann"),
    ]
    assert [one.item for one in plan.same] == [0]
    assert [(one.item, one.old, one.new) for one in plan.changed] == [(1, "cat", "=cow"), (2, None, "cat")]
    assert plan.unknown_items == ("nowhere.png", "item 1")
    assert plan.unknown_classes == {"horse": 1}
    assert [(one.item, one.labels, one.conflicting) for one in plan.duplicates] == [
        (3, ("cat",), False),
        (4, ("cat", "=cow"), True),
        (5, ("cat", "horse"), True),  # also where one of them is of no class of ours
    ]
    assert str(plan).splitlines() == [
        "labels.jsonl: nothing written",
        "       1 new (not labelled so far)",
        f"           {keys[3]}: cat",
        "       1 the same (labelled so already)",
        f"           {keys[0]}",
        "       2 changed (left as they are; overwrite=True replaces them)",
        f"           {keys[1]}: cat -> =cow",
        f"           {keys[2]}: set aside -> cat",
        "       2 unknown items (not in this dataset; left out)",
        "           nowhere.png",
        "           item 1",
        "       1 unknown classes (their rows are left out; new_classes=True adds them)",
        "           horse (1 row)",
        "       2 contradictions (several rows that differ; none is taken)",
        f"           {keys[4]}: cat or =cow",
        f"           {keys[5]}: cat or horse",
        "       1 items more than once, each time with the same label",
    ]
    assert session.import_labels(path).written == 1
    assert session.labels == {0: "cat", 1: "cat", 3: "cat"}
    assert session.skipped == {2}
    assert session.import_labels(path, overwrite=True).written == 2
    assert session.labels == {0: "cat", 1: "=cow", 2: "cat", 3: "cat"}


def test_one_undo_takes_back_the_whole_import_and_nothing_else(tmp_path):
    session = make_session(tmp_path / "labels.db")
    session.label(0, "cat")
    path = file_of(tmp_path, *[(item, str(item), "=cow") for item in range(10)])
    session.import_labels(path, overwrite=True)
    assert set(session.labels.values()) == {"=cow"}
    session.undo()
    assert session.labels == {0: "cat"}
    assert session.dataset.n_labelled == 1
    assert session.import_labels(path).written == 9
    session.undo()
    session.redo()
    assert len(session.labels) == 10
    session.undo()
    session.undo()
    assert session.labels == {}
    session.close()
    with make_session(tmp_path / "labels.db") as again:
        assert again.labels == {}
        assert again._journal.verify() > 20


def test_an_import_is_one_append_and_says_where_it_came_from(tmp_path, monkeypatch):
    session = make_session(annotator="bob")
    appended = []
    append = session._journal.append
    monkeypatch.setattr(
        session._journal, "append", lambda *drafts, **more: appended.append(drafts) or append(*drafts, **more)
    )
    session.import_labels(file_of(tmp_path, (1, "1", "cat", "ann", 3), (2, "2", "horse", "", 0)), new_classes=True)
    ((added, *labels),) = appended
    assert (added.kind, added.value) == ("class_added", "horse")
    assert [(one.kind, one.item, one.value, one.annotator, one.round) for one in labels] == [
        ("label", 1, "cat", "bob", 0),
        ("label", 2, "horse", "bob", 0),
    ]
    told = [dict(one.payload) for one in labels]
    (group,) = {one.pop("group") for one in told}
    assert group
    (content,) = {(one.pop("bytes"), one.pop("sha256")) for one in told}  # items that hold the same
    assert content == hash_value(torch.zeros(4))
    assert told == [
        {"via": "import", "source": "labels.jsonl", "annotator": "ann"},
        {"via": "import", "source": "labels.jsonl", "annotator": ""},
    ]


@given(st.lists(st.tuples(st.integers(0, 14), st.sampled_from([*CLASSES, "horse"])), max_size=12), st.booleans())
@settings(max_examples=25)
def test_importing_again_changes_nothing(tmp_path_factory, rows, overwrite):
    path = file_of(tmp_path_factory.getbasetemp(), *[(item, str(item), label) for item, label in rows])
    session = make_session()
    session.label(3, "cat")
    session.import_labels(path, overwrite=overwrite)
    before, labels = seq(session), session.labels
    again = session.import_labels(path, overwrite=overwrite)
    assert (again.written, again.new, seq(session), session.labels) == (0, (), before, labels)


def test_two_processes_that_import_the_same_file_do_it_once(tmp_path):
    path = file_of(tmp_path, *[(item, str(item), "cat") for item in range(10)])
    sessions = [make_session(tmp_path / "labels.db") for _ in range(2)]
    start = threading.Barrier(2)

    def work(session):
        start.wait()
        session.import_labels(path)

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(session.labels) for session in sessions] == [10, 10]
    kinds = [event.kind for event in sessions[0]._journal.events()]
    assert kinds.count("label") == 10
    for session in sessions:
        session.close()


def test_new_classes_are_added_only_where_that_is_wanted_and_used(tmp_path):
    session = make_session()
    path = file_of(tmp_path, (0, "0", "horse"), (1, "1", "fly"), (1, "1", "cat"), (2, "2", "cat"), (77, "77", "elk"))
    plan = session.import_labels(path)
    assert (plan.unknown_classes, session.classes, session.labels) == ({"horse": 1, "fly": 1}, CLASSES, {2: "cat"})
    plan = session.import_labels(path, new_classes=True, dry_run=True)
    assert (plan.added_classes, session.classes) == (("horse",), CLASSES)
    session.import_labels(path, new_classes=True)
    assert session.classes == [*CLASSES, "horse"]
    assert session.labels == {0: "horse", 2: "cat"}
    session.undo()
    assert session.labels == {2: "cat"}
    with pytest.raises(ValueError, match="200 characters"):
        session.import_labels(file_of(tmp_path, (2, "2", "x" * 201)), new_classes=True)


def test_a_file_that_gives_several_classes_is_refused_where_items_have_one(tmp_path):
    session = make_session()
    before = seq(session)
    with pytest.raises(ValueError, match="multi_label=True"):
        session.import_labels(file_of(tmp_path, (0, "0", "cat"), (1, "1", ("cat", "=cow"))))
    assert seq(session) == before
    assert session.import_labels(file_of(tmp_path, (1, "1", ("cat",)))).written == 1
    several = make_session(multi_label=True)
    several.import_labels(file_of(tmp_path, (0, "0", "cat"), (1, "1", ("=cow", "cat", "=cow"))))
    assert several.labels == {0: ("cat",), 1: ("cat", "=cow")}


def test_keys_decide_and_numbers_only_where_there_is_no_key(tmp_path, images):
    session = make_session()
    plan = session.import_labels(
        file_of(tmp_path, (7, "3", "cat"), (4, None, "cat"), (5, "5.png", "cat"), (12, None, "cat"))
    )
    assert session.labels == {3: "cat", 4: "cat"}
    assert plan.unknown_items == ("5.png", "item 12")
    session = make_session(dataset=images, model=None)
    plan = session.import_labels(file_of(tmp_path, (0, "1/5.png", "cat"), (1, None, "cat")))
    assert {session._source.keys[item] for item in session.labels} == {"1/5.png"}
    assert plan.unknown_items == ("item 1",)


def test_a_file_that_cannot_be_read_writes_nothing(tmp_path):
    session = make_session()
    before = seq(session)
    path = file_of(tmp_path, (0, "0", "cat"))
    path.write_text(path.read_text() + "{")
    with pytest.raises(ValueError, match="labels.jsonl, line 2"):
        session.import_labels(path)
    assert seq(session) == before
    session.close()
    path.write_text('{"item": 0, "key": "0", "label": "cat"}')
    with pytest.raises(RuntimeError, match="closed"):
        session.import_labels(path)


def test_rows_without_a_label_are_counted_and_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("key,label\n0,cat\n1,\n2,\n")
    plan = make_session().import_labels(tmp_path / "a.csv")
    assert (plan.written, plan.without_label) == (1, 2)
    assert "2 rows without a label" in str(plan)


def test_a_plan_is_short_however_long_the_file_and_plain_however_odd_the_names(tmp_path):
    session = make_session()
    path = file_of(tmp_path, *[(None, f"no {place}", "\x1b[31m" + "x" * 5000) for place in range(50)])
    text = str(session.import_labels(path, dry_run=True))
    assert len(text.splitlines()) == 8
    assert "and 45 more" in text
    assert text.replace("\n", "").isprintable()
    assert len(text) < 1000


def test_the_model_learns_from_what_was_imported(tmp_path):
    session = make_session()
    session.import_labels(file_of(tmp_path, *[(item, str(item), CLASSES[item % 3]) for item in range(12)]))
    assert session.progress["n_labelled"] == session.progress["model_behind_by"] == 12
    assert session.dataset.get_raw(4)[1] == 1


# From the command line


@pytest.fixture
def journal(tmp_path, images):
    with make_session(tmp_path / "labels.db", dataset=images, model=None) as session:
        for item, label in enumerate(CLASSES):
            session.label(item, label)
        # a journal does not know at which place of the folder a file is by now
        keys = session._source.keys
        rows = [
            Labelled(None, keys[item], label, "me", sha256=hash_file(images / keys[item])[0].sha256)
            for item, label in session.labels.items()
        ]
    return str(tmp_path / "labels.db"), rows


@pytest.mark.parametrize("format_", [name for name in cli.FORMATS if name != "baal"])
def test_the_command_writes_every_format_without_images(tmp_path, journal, format_, capsys):
    place, rows = journal
    path = tmp_path / f"out{FORMATS[format_].suffix}"
    assert cli.main(["export", place, str(path)]) == 0
    assert read_labels(path) == rows
    assert cli.main(["export", place, str(tmp_path / "other.txt"), "--format", format_]) == 0
    assert read_labels(tmp_path / "other.txt", format_) == rows
    assert capsys.readouterr().out.startswith("3 labels in")


def test_the_command_knows_all_formats_without_images():
    assert set(cli.FORMATS) == {name for name, one in FORMATS.items() if one.suffix}
    assert all(one.suffix in cli.EXPORTED for one in FORMATS.values())


def test_the_command_writes_places_only_where_items_are_known_by_them(tmp_path, journal, capsys):
    assert cli.main(["export", journal[0], str(tmp_path / "out.npz")]) == 1
    assert "session.export" in capsys.readouterr().err
    with make_session(tmp_path / "plain.db") as session:
        session.label(5, "cat")
    assert cli.main(["export", str(tmp_path / "plain.db"), str(tmp_path / "out.npz")]) == 0
    assert read_labels(tmp_path / "out.npz") == [
        Labelled(5, "5", "cat", "me", sha256=hash_value(torch.zeros(4)).sha256)
    ]


def test_the_command_is_safe_for_spreadsheets_when_asked(tmp_path, journal):
    place, rows = journal
    assert cli.main(["export", place, str(tmp_path / "out.csv"), "--spreadsheet-safe"]) == 0
    assert "'=cow" in (tmp_path / "out.csv").read_text("utf-8-sig")
    assert read_labels(tmp_path / "out.csv") == rows


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["out"], "session.export(path, 'imagefolder')"),
        (["out", "--format", "huggingface"], "session.export(path, 'huggingface')"),
        (["out.doc"], "Cannot tell the format"),
        (["out.csv", "--format", "excel"], "one of csv"),
        (["out.jsonl", "--spreadsheet-safe"], "no option spreadsheet_safe"),
    ],
)
def test_what_the_command_cannot_write_is_one_line(tmp_path, journal, arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert cli.main(["export", journal[0], *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_tells_several_labels_as_several(tmp_path):
    with make_session(tmp_path / "labels.db", multi_label=True) as session:
        session.label(0, ["cat", "=cow"])
    assert cli.main(["export", str(tmp_path / "labels.db"), str(tmp_path / "out.jsonl")]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["label"] == ["cat", "=cow"]


def test_an_import_says_nothing_of_how_fast_a_person_is(tmp_path):
    path = file_of(tmp_path, *[(item, None, "cat") for item in range(12)])
    with make_session() as session:
        session.import_labels(path)
        assert session.progress["n_labelled"] == 12
        assert session.progress["per_minute"] is None


def test_what_somebody_answers_while_an_import_is_planned_stands(tmp_path, monkeypatch):
    path = file_of(tmp_path, (0, None, "cat"), (1, None, "cat"))
    with make_session(tmp_path / "labels.db") as ann, make_session(tmp_path / "labels.db", annotator="bob") as bob:
        planned = []

        def plan(*told, **more):
            made = plan_import(*told, **more)
            if not planned:
                bob.label(0, "=cow")
            planned.append(made)
            return made

        monkeypatch.setattr("baal_widgets.exchanging.plan_import", plan)
        done = ann.import_labels(path)
        assert (len(planned), done.written) == (2, 1)
        assert ann.labels == {0: "=cow", 1: "cat"}
        ann.undo()
        assert ann.labels == {0: "=cow"}
