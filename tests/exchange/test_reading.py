"""Files of others: what is understood, and how what is not is refused."""

import io
import json
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from baal_widgets.exchange import Labelled, Whole, load_baal_state, places, read_labels, tables, write_labels
from baal_widgets.exchange import baal_state as states


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def pickled_npz():
    held = io.BytesIO()
    np.savez(held, rows=np.array([Explosive()], dtype=object), labelled=np.zeros(3, int))
    return held.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "a.csv, line 1: expected columns"),
        ("a.csv", "item,name\n1,cat\n", "line 1: expected columns label"),
        ("a.csv", "key,label,label\na,b,c\n", "each column once, got label"),
        ("a.csv", "key,label\na,b\nc\n", "line 3: expected 2 cells as in the header, got 1"),
        ("a.csv", 'key,label\n"a\nb",c\nd\n', "line 4: expected 2 cells"),
        ("a.csv", "item,label\nfive,b\n", "line 2: expected item to be a whole number"),
        ("a.csv", "item,label\n-5,b\n", "line 2: expected item to be a whole number"),
        ("a.csv", "item,label\n²,b\n", "line 2: expected item"),
        ("a.csv", "item,label\n99999999999999999999999,b\n", "line 2: expected item"),
        ("a.csv", "key,label\n,b\n", "line 2: expected an item's index or its key"),
        ("a.csv", "item,key,label,annotator,round,escaped\n0,a,b,me,0,label\n", "line 2: expected an apostrophe"),
        ("a.csv", "item,key,label,annotator,round,several\n0,a,b,me,0,yes\n", "line 2: expected several"),
        ("a.csv", 'key,label\na,"b', "line 2: expected a table"),
        ("a.csv", b"key,label\na,\xff\n", "a.csv: expected text in UTF-8"),
        ("a.jsonl", '{"key": "a", "label": "b"}\n{', "a.jsonl, line 2: expected JSON"),
        ("a.jsonl", '{"key": "a"}', "line 1: expected a label"),
        ("a.jsonl", "[1]", "line 1: expected an object"),
        ("a.jsonl", '{"key": "a", "label": 3}', "line 1: expected label to be a class name"),
        ("a.jsonl", '{"key": "a", "label": [["b"]]}', "line 1: expected label to be a class name"),
        ("a.jsonl", '{"item": NaN, "label": "b"}', "line 1: expected JSON, but NaN"),
        ("a.jsonl", '{"item": 1e400, "label": "b"}', "line 1: expected item"),
        ("a.jsonl", '{"item": ' + "9" * 5000 + ', "label": "b"}', "line 1: expected"),
        ("a.jsonl", "[" * 200_000, "nested too deeply"),
        ("a.jsonl", b'{"key": "\xff"}', "UTF-8"),
        ("a.jsonl", '{"key": "\\ud800", "label": "b"}', "line 1: expected key to be a text"),
        ("a.parquet", "no table", "a.parquet: expected a Parquet file"),
        ("a.npz", "no arrays", r"a.npz: expected numpy arrays \(.npz\) without pickle"),
        ("a.npz", pickle.dumps(Explosive()), "without pickle"),
        ("a.npz", pickled_npz(), "without pickle"),
        ("a.coco.json", "[]", "a.coco.json: expected an object with images"),
        ("a.coco.json", "{}", "expected categories to be a list"),
        ("a.coco.json", '{"categories": [], "images": [{}], "annotations": []}', r"images\[0\]: expected id"),
        (
            "a.coco.json",
            '{"categories": [], "images": [{"id": 1}],\n"annotations": [{"image_id": 1, "category_id": 2}]}',
            r"annotations\[0\]: expected the id of a category of this file, got 2",
        ),
        ("a.coco.json", '{\n"categories": [\n}', "a.coco.json, line 3: expected JSON"),
        ("a.label-studio.json", "{}", "expected a list of tasks"),
        ("a.label-studio.json", "[{}]", "task 0: expected data to be an object"),
        ("a.label-studio.json", '[{"data": {}}]', "task 0: expected annotations to be a list"),
    ],
)
def test_an_error_names_the_file_the_place_and_what_was_expected(tmp_path, name, content, said):
    with pytest.raises(ValueError, match=said) as told:
        read_labels(put(tmp_path, name, content))
    assert str(told.value).startswith(name)
    assert len(str(told.value)) < 400


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="labels.csv"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(ValueError, match="to be a file"):
        read_labels(tmp_path, "csv")
    with pytest.raises(ValueError, match="metadata.jsonl"):
        read_labels(tmp_path, "huggingface")
    with pytest.raises(ValueError, match="Cannot tell the format of labels.txt"):
        read_labels(put(tmp_path, "labels.txt", ""))


def test_a_file_that_would_fill_the_memory_is_not_opened(tmp_path, monkeypatch):
    rows = [Labelled(0, "a", "x" * 20_000)]
    paths = [write_labels(rows, tmp_path / name) for name in ("a.npz", "a.coco.json")]
    monkeypatch.setattr(places, "LARGEST_FILE", 10_000)
    monkeypatch.setattr(states, "LARGEST_FILE", 10_000)
    monkeypatch.setattr(tables, "LONGEST_LINE", 10_000)
    for path in (*paths, write_labels(rows, tmp_path / "a.jsonl")):
        with pytest.raises(ValueError, match="more than"):
            read_labels(path)
    assert paths[0].stat().st_size < 10_000  # it is what it would unfold to that counts


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_what_a_spreadsheet_saves_is_read(tmp_path, mark):
    lines = [
        "\ufeff" + mark.join(["label", "key", "remark"]),
        mark.join(["cat", "a.png", "?"]),
        "",
        mark.join(["", "b", ""]),
    ]
    assert read_labels(put(tmp_path, "a.csv", "\r\n".join(lines) + "\r\n")) == [
        Labelled(None, "a.png", "cat"),
        Labelled(None, "b", None),
    ]


def test_numbers_that_pandas_made_floats_are_whole_again(tmp_path):
    frame = pd.DataFrame({"item": [1, None], "key": ["a", "b"], "label": ["x", "y"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert read_labels(tmp_path / "a.csv") == [Labelled(1, "a", "x"), Labelled(None, "b", "y")]


def test_parquet_of_others_is_read(tmp_path):
    columns = {
        "label": pa.array(["x", "y", "x"]).dictionary_encode(),
        "item": pa.array([0, 1, 2], pa.int8()),
        "more": [[1]] * 3,
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert [row.label for row in read_labels(tmp_path / "a.parquet")] == ["x", "y", "x"]
    pq.write_table(pa.table({"label": [1, 2], "item": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet, row 1: expected label"):
        read_labels(tmp_path / "a.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"baal-widgets\[parquet\]"):
        write_labels([Labelled(0, "a", "x")], tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_coco_of_others_is_known_by_file_name(tmp_path):
    told = {
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}, {"id": 9, "file_name": "c.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [0, 0, 1, 1]},
            {"id": 2, "image_id": 7, "category_id": 18, "bbox": [2, 2, 1, 1]},
            {"id": 3, "image_id": 8, "category_id": 3},
            {"id": 4, "image_id": 8, "category_id": 18},
        ],
    }
    assert read_labels(put(tmp_path, "instances.json", json.dumps(told)), "coco") == [
        Labelled(None, "a.jpg", "dog"),
        Labelled(None, "b.jpg", ("car", "dog")),
    ]


def choice(*names, **more):
    return {"result": [{"type": "choices", "from_name": "c", "value": {"choices": list(names)}}], **more}


def test_what_label_studio_exports_is_read(tmp_path):
    tasks = [
        {
            "id": 1,
            "data": {"image": "/data/local-files/?d=pets/a%20b.png"},
            "annotations": [choice("cat", completed_by=4)],
        },
        {
            "id": 2,
            "data": {"image": "s3://pets/b.png"},
            "annotations": [choice("cat", "dog", completed_by={"email": "a@b"})],
        },
        {"id": 3, "data": {"image": "c.png"}, "annotations": [choice("cat", was_cancelled=True), {"result": []}]},
        {"id": 4, "data": {"image": "d.png"}, "annotations": [], "predictions": [choice("cat")]},
        {"id": 5, "data": {"image": "e.png"}, "annotations": [choice("cat"), choice("dog")]},
    ]
    path = put(tmp_path, "export.json", json.dumps(tasks))
    assert read_labels(path, "label-studio") == [
        Labelled(None, "pets/a b.png", "cat", "4"),
        Labelled(None, "s3://pets/b.png", ("cat", "dog"), "a@b"),
        Labelled(None, "e.png", "cat"),
        Labelled(None, "e.png", "dog"),
    ]
    tasks[0]["annotations"][0]["result"] *= 2
    with pytest.raises(ValueError, match="task 0: expected the answer to one question"):
        read_labels(put(tmp_path, "export.json", json.dumps(tasks)), "label-studio")


def test_images_for_label_studio_have_an_address_and_keep_their_key(tmp_path):
    rows = [Labelled(0, "a b?.png", "cat")]
    path = write_labels(rows, tmp_path / "x.label-studio.json", image_prefix="/data/local-files/?d=")
    assert json.loads(path.read_text())[0]["data"]["image"] == "/data/local-files/?d=a%20b%3F.png"
    assert read_labels(path) == rows


def test_a_folder_sorted_by_hand_is_read(tmp_path):
    for name in ("cat/a.png", "cat/deep/b.png", "dog/c.jpg", "dog/notes.txt", ".hidden/d.png", "e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name, "PNG")
    assert [(row.key, row.label) for row in read_labels(tmp_path)] == [
        ("a.png", "cat"),
        ("deep/b.png", "cat"),
        ("c.jpg", "dog"),
    ]


@pytest.mark.parametrize(
    "told", ["[]", '{"files": {}}', '{"files": [{"file": 3}]}', '{"classes": [{"folder": "x"}]}', "{"]
)
def test_a_mapping_that_is_none_is_refused(tmp_path, told):
    put(tmp_path, "mapping.json", told)
    with pytest.raises(ValueError, match="mapping.json"):
        read_labels(tmp_path)


def test_a_mapping_that_leads_elsewhere_leads_nowhere(tmp_path):
    (tmp_path / "out" / "cat").mkdir(parents=True)
    put(tmp_path, "secret.png", b"")
    told = {"classes": [{"folder": "..", "name": "x"}], "files": [{"file": "../secret.png", "key": "k", "label": "x"}]}
    put(tmp_path / "out", "mapping.json", json.dumps(told))
    (tmp_path / "out" / "linked").symlink_to(tmp_path)
    assert read_labels(tmp_path / "out") == []


def test_hugging_face_rows_of_others_are_known_by_file_name(tmp_path):
    put(tmp_path, "metadata.jsonl", '{"file_name": "x/a.png", "label": "cat"}\n{"file_name": "b.png", "label": null}\n')
    assert read_labels(tmp_path) == [Labelled(None, "x/a.png", "cat"), Labelled(None, "b.png", None)]
    put(tmp_path, "metadata.jsonl", '{"label": "cat"}\n')
    with pytest.raises(ValueError, match="metadata.jsonl, line 1: expected file_name"):
        read_labels(tmp_path)


class Pictures:
    files = None

    def picture(self, item, side=None):
        return Image.new("RGB", (4, 3), (10 * item, 0, 0))


@pytest.mark.parametrize("several", [False, True])
def test_datasets_loads_what_was_written(tmp_path, monkeypatch, several):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    labels = [("test", "=1\n"), ()] if several else ["test", "=1\n"]
    rows = [Labelled(place + 3, f"test/{place}.png", label, "ann", 1) for place, label in enumerate(labels)]
    target = write_labels(rows, tmp_path / "out", "huggingface", whole=Whole(pictures=Pictures()))
    loaded = datasets.load_dataset("imagefolder", data_dir=str(target), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert [one["label"] for one in loaded["train"]] == [list(label) if several else label for label in labels]
    assert [one["key"] for one in loaded["train"]] == ["test/0.png", "test/1.png"]
    assert [one["image"].getpixel((0, 0))[0] for one in loaded["train"]] == [30, 40]


GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Baal itself
@pytest.mark.parametrize("generator", [None, *GENERATORS])
def test_baal_goes_on_from_the_state(tmp_path, generator):
    from baal.active.dataset import ActiveLearningDataset as Baals

    from baal_widgets import ActiveLearningDataset as Ours

    state = None if generator is None else getattr(np.random, generator)(5).state
    rows = [Labelled(1, "b", "cat", "", 0), Labelled(4, "e", "dog", "", 2)]
    path = write_labels(rows, tmp_path / "state.npz", whole=Whole(("cat", "dog"), 6, random_state=state))
    with np.load(path, allow_pickle=False) as held:
        assert held["targets"].tolist() == [-1, 0, -1, -1, 1, -1]
    for kind in (Baals, Ours):
        dataset = kind([(item, 0) for item in range(6)])
        dataset.load_state_dict(load_baal_state(path))
        assert dataset.labelled_map.tolist() == [0, 1, 0, 0, 3, 0]
        assert dataset.current_al_step == 3
        assert [dataset[place][0] for place in range(2)] == [1, 4]
        assert dataset.n_unlabelled == 4
        dataset.can_label = False
        dataset.label_randomly(2)
        assert dataset.n_labelled == 4


def test_a_state_that_names_no_generator_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", labelled=np.zeros(3, int))
    with pytest.raises(ValueError, match="not as what"):
        read_labels(tmp_path / "a.npz")
    for state in ({"bit_generator": "seed"}, {"bit_generator": "PCG64", "state": 3}, 7):
        held = np.frombuffer(json.dumps(state).encode(), np.uint8)
        np.savez(tmp_path / "a.npz", labelled=np.zeros(3, int), random_state=held)
        with pytest.raises(ValueError, match="a.npz: expected the state of"):
            load_baal_state(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("cells", "label"),
    [
        ("key,label,several\na,cat,yes", "cat"),
        ("key,label,several\na,cat,1", "cat"),
        ("key,label,several\na,[x,0", "[x"),
        ("key,label,escaped\na,cat,the third time", "cat"),
        ("key,label,escaped\na,cat,label", "cat"),
        ("key,label,escaped\na,'=cat,label", "=cat"),
        ('key;label;several\na;["cat"];1', ("cat",)),
    ],
)
def test_columns_of_other_people_that_are_called_as_ours_are_left_alone(tmp_path, cells, label):
    (tmp_path / "a.csv").write_text(cells + "\n")
    assert [row.label for row in read_labels(tmp_path / "a.csv")] == [label]
