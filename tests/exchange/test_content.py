"""Labels that go out and come back to files that have moved, a dataset in another order, or what was changed."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import cli
from baal_widgets.contents import Content, hash_file
from baal_widgets.exchange import FORMATS, Labelled, plan_import, read_labels, write_labels
from baal_widgets.session import LabellingSession

CLASSES = ["cat", "dog"]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for place in range(6):
        file = folder / f"{place % 2}" / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 40 * place, np.uint8)).save(file)
    return folder


def make_session(dataset, journal=None):
    model = None if not isinstance(dataset, TensorDataset) else nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
    return LabellingSession(dataset, model, CLASSES, journal=journal)


def by_path(session):
    return {session._source.keys[item]: label for item, label in session.labels.items()}


@pytest.mark.parametrize("format_", sorted(FORMATS.keys() - {"baal"}))
def test_labels_of_every_format_find_files_that_have_moved(tmp_path, images, format_):
    with make_session(images) as first:
        for item in range(4):
            first.label(item, item % 2)
        before = by_path(first)
        path = first.export(tmp_path / f"out{FORMATS[format_].suffix}", format_)
    hashes = {row.key: row.sha256 for row in read_labels(path, format_)}
    assert hashes == {key: hash_file(images / key)[0].sha256 for key in before}
    (images / "0").rename(images / "even")
    (images / "1" / "1.png").rename(images / "first.png")
    with make_session(images) as second:
        plan = second.import_labels(path, format=format_, dry_run=True)
        moved = {old: "first.png" if old == "1/1.png" else old.replace("0/", "even/") for old in before}
        assert plan.by_content == {old: new for old, new in moved.items() if old != new}
        assert "found by content" in str(plan)
        assert (len(plan.new), plan.other_content, plan.unknown_items) == (4, (), ())
        second.import_labels(path, format=format_)
        assert by_path(second) == {moved[old]: label for old, label in before.items()}


def test_a_row_of_a_file_that_was_changed_is_taken_and_told(tmp_path, images):
    with make_session(images) as first:
        first.label(0, "cat")
        first.label(1, "dog")
        keys, path = first._source.keys, first.export(tmp_path / "labels.csv")
    Image.new("RGB", (5, 5)).save(images / keys[0])
    with make_session(images) as second:
        plan = second.import_labels(path)
        assert (plan.written, plan.other_content, plan.by_content) == (2, (keys[0],), {})
        assert (
            f"1 of other content (changed since they were labelled; look at them again)\n           {keys[0]}"
            in str(plan)
        )
        assert second.labels == {0: "cat", 1: "dog"}


def test_a_file_that_took_the_place_of_another_does_not_get_its_label(tmp_path, images):
    with make_session(images) as first:
        first.label(0, "cat")
        keys, path = first._source.keys, first.export(tmp_path / "labels.jsonl")
    (images / keys[0]).rename(images / "moved.png")
    (images / keys[1]).rename(images / keys[0])
    with make_session(images) as second:
        plan = second.import_labels(path)
        assert plan.by_content == {keys[0]: "moved.png"}
        assert by_path(second) == {"moved.png": "cat"}


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_labels_of_a_reordered_dataset_come_back_to_their_arrays(tmp_path, format_):
    inputs, order = torch.arange(16.0).reshape(8, 2), [3, 1, 0, 2, 7, 6, 5, 4]
    with make_session(TensorDataset(inputs)) as first:
        for item in range(5):
            first.label(item, item % 2)
        path = first.export(tmp_path / f"labels.{format_}")
    with make_session(TensorDataset(inputs[order])) as second:
        plan = second.import_labels(path)
        assert second.labels == {place: CLASSES[item % 2] for place, item in enumerate(order) if item < 5}
        assert plan.by_content == {str(item): str(order.index(item)) for item in range(5) if order[item] != item}


def test_labels_of_duplicates_go_to_one_file_each(tmp_path, images):
    for name in ("a.png", "b.png", "c.png"):
        (images / name).write_bytes((images / "0" / "0.png").read_bytes())
    with make_session(images) as first:
        for name, label in (("a.png", "cat"), ("b.png", "dog")):
            first.label(first._source.keys.index(name), label)
        path = first.export(tmp_path / "labels.csv")
    (images / "sub").mkdir()
    (images / "b.png").rename(images / "sub" / "b.png")
    (images / "a.png").rename(images / "z.png")
    with make_session(images) as second:
        second.import_labels(path)
        labels = by_path(second)
    assert labels.pop("sub/b.png") == "dog"
    assert list(labels.values()) == ["cat"]
    assert labels.keys() < {"z.png", "c.png", "0/0.png"}


def test_a_hash_that_is_none_is_refused_by_name(tmp_path):
    for hash_ in ("abc", "g" * 64):
        path = tmp_path / "labels.csv"
        path.write_text(f"key,label,sha256\na,cat,{hash_}\n")
        with pytest.raises(ValueError, match="labels.csv, line 2: expected sha256 to be 64 hexadecimal digits"):
            read_labels(path)
    path.write_text(f"key,label,sha256\na,cat,{'AB' * 32}\nb,cat,\n")
    assert [row.sha256 for row in read_labels(path)] == ["ab" * 32, None]


@given(
    hashes=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    rows=st.lists(st.tuples(st.integers(0, 7), st.none() | st.integers(0, 4)), max_size=8),
)
def test_a_row_is_of_its_own_item_or_of_one_that_holds_what_it_says(hashes, rows):
    told = [Labelled(None, str(key), "cat", sha256=None if n is None else f"{n}" * 64) for key, n in rows]
    index_of = {str(item): item for item in range(len(hashes))}
    plan = plan_import(
        told,
        "x",
        index_of=index_of,
        by_number=False,
        classes=CLASSES,
        multi_label=False,
        standing=lambda item: (False, None),
        look=lambda items: {item: Content(1, f"{hashes[item]}" * 64) for item in items},
    )
    found = {one.key for one in plan.new}
    rightly = {str(key) for key, n in rows if key < len(hashes) and n in (None, hashes[key])}
    assert rightly <= found
    for old, new in plan.by_content.items():
        assert any(str(key) == old and n == hashes[int(new)] for key, n in rows)
        assert new not in rightly
    # only where what the row says is nowhere, or other rows have taken it, is it of an item that holds something else
    for key, n in rows:
        if key < len(hashes) and n not in (None, hashes[key]) and n not in hashes:
            assert str(key) in plan.other_content or str(key) in rightly


def run(*arguments):
    return cli.main([str(one) for one in arguments])


def test_the_command_exports_where_the_files_are_now(tmp_path, images):
    with make_session(images, tmp_path / "labels.db") as session:
        session.label(0, "cat")
        key, hash_ = session._source.keys[0], session._state.contents[session._source.keys[0]][1]
    (images / key).rename(images / "moved.png")
    with pytest.warns(UserWarning, match="1 items have moved"):
        again = LabellingSession.open(tmp_path / "labels.db", images)
    assert again.files.moved == {key: "moved.png"}
    assert again.check_files() == again.files
    (images / "moved.png").write_bytes(b"damaged")
    assert again.check_files().changed == {again._source.keys.index("moved.png"): "moved.png"}
    (images / "moved.png").unlink()
    assert again.check_files().missing == ("moved.png",)
    again.close()
    assert run("export", tmp_path / "labels.db", tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["key"], row["label"], row["sha256"]) == ("moved.png", "cat", hash_)


def test_the_command_exports_a_reordered_dataset_by_its_present_numbers(tmp_path):
    inputs = torch.arange(8.0).reshape(4, 2)
    with make_session(TensorDataset(inputs), tmp_path / "labels.db") as session:
        session.label(0, "cat")
    with pytest.warns(UserWarning, match="moved"):
        make_session(TensorDataset(inputs.flip(0)), tmp_path / "labels.db").close()
    assert run("export", tmp_path / "labels.db", tmp_path / "out.jsonl") == 0
    told = json.loads((tmp_path / "out.jsonl").read_text())
    assert (told["item"], told["key"], told["label"]) == (3, "3", "cat")


def test_the_command_tells_what_has_become_of_the_files_and_writes_nothing(tmp_path, images, capsys):
    with make_session(images, tmp_path / "labels.db") as session:
        for item in range(3):
            session.label(item, "cat")
        keys = session._source.keys
    assert run("verify", tmp_path / "labels.db", "--images", images) == 0
    assert "Every item is where it was" in capsys.readouterr().out
    (images / keys[0]).rename(images / "moved.png")
    (images / keys[1]).unlink()
    (images / keys[2]).write_bytes(b"damaged")
    (images / "copy.png").write_bytes((images / keys[3]).read_bytes())
    before = (tmp_path / "labels.db").read_bytes()
    assert run("verify", tmp_path / "labels.db", "--images", images) == 1
    told = capsys.readouterr().out
    for line in (f"{keys[0]} -> moved.png", "1 changed", "1 missing", f"copy.png, {keys[3]}"):
        assert line in told
    assert (tmp_path / "labels.db").read_bytes() == before
    assert run("verify", tmp_path / "labels.db", "--images", tmp_path / "nowhere") == 1
    assert "is no folder" in capsys.readouterr().err


def test_a_plan_without_hashes_reads_no_item(tmp_path):
    path = write_labels([Labelled(None, "a", "cat"), Labelled(None, "b", "cat")], tmp_path / "labels.csv")

    def look(items):
        raise AssertionError("nothing is to be read")

    plan = plan_import(
        read_labels(path),
        "x",
        index_of={"a": 0},
        by_number=False,
        classes=CLASSES,
        multi_label=False,
        standing=lambda item: (False, None),
        look=look,
    )
    assert (len(plan.new), plan.unknown_items) == (1, ("b",))
