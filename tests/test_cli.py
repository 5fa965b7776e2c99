import contextlib
import json
import sqlite3
import sys
import types

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from baal_widgets import LabellingSession, cli
from baal_widgets.journal import Draft, Journal, fold
from baal_widgets.sources import open_tests


@pytest.fixture
def opened(monkeypatch):
    """What JupyterLab would have been started with."""
    calls = []
    module = types.ModuleType("jupyterlab.labapp")
    module.LabApp = type("LabApp", (), {"launch_instance": staticmethod(calls.append)})
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", module)
    return calls


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    for place in range(3):
        Image.fromarray(np.full((9, 9, 3), 40 * place, np.uint8)).save(folder / f"{place}.png")
    return folder


def journal_with_labels(path):
    journal = Journal(path)
    journal.append(Draft("label", item=1, key="b.png", value="cat", annotator="me"))
    journal.append(Draft("skip", item=2, key="c.png", annotator="me"))
    journal.close()
    return str(path)


def test_demo_copies_the_notebook_once_and_opens_it(tmp_path, opened, capsys):
    for word in ("Made", "Going on with"):
        assert cli.main(["demo", "--dir", str(tmp_path / "demo"), "--no-browser", "--jupyter", "--allow-root"]) == 0
        assert word in capsys.readouterr().out
    target = tmp_path / "demo" / cli.NOTEBOOK
    nbformat.validate(nbformat.read(target, as_version=4))
    assert opened[0] == [
        f"--ServerApp.root_dir={target.parent}",
        f"--LabApp.default_url=/lab/tree/{cli.NOTEBOOK}",
        "--no-browser",
        "--allow-root",
    ]


def test_label_writes_a_notebook_that_runs_over_the_folder(tmp_path, images, opened, monkeypatch):
    assert cli.main(["label", str(images), "--classes", "cat, it's a dog", "--dir", str(tmp_path)]) == 0
    notebook = nbformat.read(tmp_path / "label-pets.ipynb", as_version=4)
    nbformat.validate(notebook)
    monkeypatch.chdir(tmp_path)
    space = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "cell", "exec"), space)
    assert list(space["session"].classes) == ["cat", "it's a dog"]
    assert space["session"].progress["n_items"] == 3
    assert (tmp_path / "label-pets.db").exists()
    space["session"].close()


def test_label_tests_on_a_folder_with_a_sub_folder_a_class(tmp_path, images, opened, monkeypatch, capsys):
    for place, name in enumerate(["cat", "dog", "dog"]):
        (tmp_path / "held out" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (80 * place, 0, 0)).save(tmp_path / "held out" / name / f"{place}.png")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["label", str(images), "--classes", "dog,cat", "--test", "held out"]) == 0
    assert "3 images to test on" in capsys.readouterr().out
    space = {}
    for cell in nbformat.read("label-pets.ipynb", as_version=4).cells[:2]:
        if cell.cell_type == "code":
            exec(compile(cell.source, "cell", "exec"), space)
    with space["session"] as session:
        session.label(0, "dog")
        session.label(1, "cat")
        metrics = session.learn().metrics
        assert session.key(1) == "1.png"
        assert metrics["accuracy"] in (0, 1 / 3, 2 / 3, 1)
    dataset = open_tests("held out", ["dog", "cat"])
    assert [(round(float(image[0].mean() * 255)), label) for image, label in dataset] == [(0, 1), (80, 0), (160, 0)]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("tests/bird/1.png", r"bird.* which is no class"),
        ("tests/1.png", "lies in no sub-folder"),
        ("pets/cat/1.png", "Move them elsewhere"),
    ],
)
def test_images_that_cannot_be_tested_on_are_told(tmp_path, images, file, said):
    (tmp_path / file).parent.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / file)
    with pytest.raises(ValueError, match=said):
        LabellingSession(images, None, ["cat", "dog"], journal=None, test_set=tmp_path / file.split("/")[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["label", "nowhere", "--classes", "a,b"], "is no folder"),
        (["label", ".", "--classes", "a"], "two or more"),
        (["verify", "nowhere.db"], "No journal at nowhere.db"),
        (["export", "nowhere.db", "out.csv"], "No journal at nowhere.db"),
    ],
)
def test_what_a_user_can_mend_is_one_line(arguments, said, opened, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not opened


def test_a_file_that_is_no_image_is_named(images, opened, capsys, tmp_path):
    (images / "broken.jpg").write_bytes(b"not an image")
    assert cli.main(["label", str(images), "--classes", "a,b", "--dir", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "broken.jpg is no image" in told.err
    assert "3 images" in told.out


def test_export_writes_the_labels(tmp_path, capsys):
    place = journal_with_labels(tmp_path / "labels.db")
    assert cli.main(["export", place, str(tmp_path / "labels.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    told = {"item": None, "key": "b.png", "label": "cat", "annotator": "me", "round": 0, "sha256": None}
    assert rows == [told]
    assert capsys.readouterr().out.startswith("1 labels in")


def test_export_finds_labels_by_key_when_the_folder_has_grown(tmp_path):
    journal = Journal(tmp_path / "labels.db")
    journal.append(Draft("label", item=1, key="c.png", value="cat"), Draft("label", item=1, key="b.png", value="dog"))
    journal.close()
    assert cli.main(["export", str(tmp_path / "labels.db"), str(tmp_path / "out.csv")]) == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(",")[1:3] for line in lines[1:]] == [["c.png", "cat"], ["b.png", "dog"]]


def test_a_file_that_is_no_journal_is_told_apart_and_left_alone(tmp_path, capsys):
    (tmp_path / "text.csv").write_text("no database at all, and rather more than a page header would need " * 40)
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for name in ("text.csv", "other.db"):
        before = (tmp_path / name).read_bytes()
        assert cli.main(["verify", str(tmp_path / name)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert (tmp_path / name).read_bytes() == before


def test_another_folder_of_the_same_name_is_not_mixed_up_with_the_first(tmp_path, images, opened, capsys):
    assert cli.main(["label", str(images), "--classes", "a,b", "--dir", str(tmp_path)]) == 0
    assert cli.main(["label", str(images), "--classes", "a,b", "--dir", str(tmp_path)]) == 0
    assert cli.main(["label", str(images), "--classes", "x,y", "--dir", str(tmp_path)]) == 1
    assert "other classes" in capsys.readouterr().err


def test_verify_tells_a_sound_journal_from_a_damaged_one(tmp_path, capsys):
    place = journal_with_labels(tmp_path / "labels.db")
    assert cli.main(["verify", place]) == 0
    assert "2 facts" in capsys.readouterr().out
    data = (tmp_path / "labels.db").read_bytes()
    assert data.count(b"b.png") == 1
    (tmp_path / "labels.db").write_bytes(data.replace(b"b.png", b"d.png"))
    assert cli.main(["verify", place]) == 1
    assert "not as it was" in capsys.readouterr().err


def test_repair_brings_back_what_verify_misses(tmp_path, capsys):
    place = journal_with_labels(tmp_path / "labels.db")
    assert cli.main(["repair", place]) == 0
    assert "nothing to repair" in capsys.readouterr().out
    with contextlib.closing(sqlite3.connect(place)) as connection, connection:
        connection.execute("DELETE FROM events WHERE seq = 2")
    assert cli.main(["verify", place]) == 1
    assert "Row 2 of the journal is missing" in capsys.readouterr().err
    assert cli.main(["repair", place]) == 0
    assert "1 facts kept, 1 restored, 0 lost" in capsys.readouterr().out
    assert cli.main(["verify", place]) == 0
    assert "2 facts" in capsys.readouterr().out


def test_repair_tells_by_its_exit_status_that_something_is_lost(tmp_path, capsys):
    place = journal_with_labels(tmp_path / "labels.db")
    for name in ("labels.db", "labels.db.jsonl"):
        file = tmp_path / name
        file.write_bytes(file.read_bytes().replace(b"b.png", b"d.png"))
    assert cli.main(["repair", place]) == 1
    assert "1 facts kept, 0 restored, 1 lost" in capsys.readouterr().out


def begun(path, dataset, **options):
    """A session that has asked once, closed."""
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(12288, 2))
    with LabellingSession(dataset, model, ["cat", "dog"], journal=path, query_size=2, **options) as session:
        session.ask()
    return str(path)


def labels_in(path):
    journal = Journal(path)
    state = fold(journal.events())
    journal.verify()
    journal.close()
    return {state.answers[item].annotator: item for item in state.answers}, state.labels, state.classes


def test_import_takes_over_labels_and_prints_the_plan(tmp_path, images, capsys):
    place = begun(tmp_path / "labels.db", images)
    (tmp_path / "in.csv").write_text("key,label\n0.png,cat\n1.png,cow\nother.png,cat\n")
    told = ["import", place, str(tmp_path / "in.csv")]
    assert cli.main(told) == 1
    assert "--images FOLDER" in capsys.readouterr().err
    told += ["--images", str(images)]
    assert cli.main([*told, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "nothing written" in said
    assert "0.png: cat" in said
    assert "--new-classes adds them" in said
    assert labels_in(place)[1] == {}
    assert cli.main(told) == 0
    assert "in.csv: 1 labels written" in capsys.readouterr().out
    assert labels_in(place) == ({"me": 0}, {0: "cat"}, ["cat", "dog"])
    assert cli.main([*told, "--new-classes", "--annotator", "ann"]) == 0
    assert labels_in(place) == ({"me": 0, "ann": 1}, {0: "cat", 1: "cow"}, ["cat", "dog", "cow"])
    (tmp_path / "other").write_text("key,label\n0.png,dog\n")
    told[2] = str(tmp_path / "other")
    assert cli.main(told) == 1
    assert "Cannot tell the format" in capsys.readouterr().err
    assert cli.main([*told, "--format", "csv"]) == 0
    assert "--overwrite replaces them" in capsys.readouterr().out
    assert cli.main([*told, "--format", "csv", "--overwrite"]) == 0
    assert labels_in(place)[1] == {0: "dog", 1: "cow"}


def test_import_needs_no_images_where_items_are_numbers(tmp_path, capsys):
    place = begun(tmp_path / "labels.db", TensorDataset(torch.zeros(5, 12288)))
    (tmp_path / "in.jsonl").write_text('{"item": 4, "label": "dog"}\n{"item": 9, "label": "dog"}\n')
    assert cli.main(["import", place, str(tmp_path / "in.jsonl")]) == 0
    assert "1 unknown items" in capsys.readouterr().out
    assert labels_in(place)[1] == {4: "dog"}
    assert cli.main(["import", str(tmp_path / "none.db"), str(tmp_path / "in.jsonl")]) == 1
    assert "No journal" in capsys.readouterr().err


def test_verify_tells_whether_an_earlier_anchor_still_holds(tmp_path, capsys):
    place = journal_with_labels(tmp_path / "labels.db")
    assert cli.main(["verify", place]) == 0
    anchor = capsys.readouterr().out.split()[-1]
    assert anchor.startswith("2:")
    journal = Journal(place)
    journal.append(Draft("label", item=3, key="d.png", value="dog"))
    journal.close()
    assert cli.main(["verify", place, "--at", anchor]) == 0
    later = capsys.readouterr().out.split()[-1]
    assert later.startswith("3:")
    for name in ("labels.db", "labels.db.jsonl"):
        (tmp_path / name).unlink()
    journal_with_labels(tmp_path / "labels.db")  # another that is as long as the first, and sound
    assert cli.main(["verify", place]) == 0
    for wrong in (anchor, later):
        assert cli.main(["verify", place, "--at", wrong]) == 1
        assert "is not the one" in capsys.readouterr().err
    assert cli.main(["verify", place, "--at", "three"]) == 1
    assert "Expected an anchor" in capsys.readouterr().err
