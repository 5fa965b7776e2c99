"""What goes out comes back in, whatever the classes are called; what does not go out whole leaves nothing."""

import csv
import json
import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from baal_widgets.exchange import FORMATS, Labelled, Whole, read_labels, write_labels
from baal_widgets.exchange.places import safe_name

HOSTILE = [
    'He said "no", twice',
    "two\nlines\r\nand\rmore",
    '=HYPERLINK("http://x","y")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'quoted",
    "😀👩‍👩‍👧",
    "שלום, עולם",
    "\u202egnp.exe",
    "a" * 10_000,
    "../../x",
    "/etc/passwd",
    "C:\\CON",
    "con",
    ".hidden",
    "[]",
    '["a", "b"]',
    "[x",
    "null",
    "NaN",
    "5",
    " ",
    "\x00",
    "\u2028",
    "\ufeffmark",
    "é",
    "e\u0301",
]
TABLES = [name for name, one in FORMATS.items() if name in ("csv", "jsonl", "parquet")]
FILES = [name for name, one in FORMATS.items() if one.suffix]
FOLDERS = [name for name, one in FORMATS.items() if not one.suffix]
names = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
one_class, several_classes = names, st.lists(names, max_size=3).map(tuple)
optional_item, optional_key = st.none() | st.integers(0, 2**63 - 1), st.none() | names


def rows_of(labels, items=optional_item, keys=optional_key):
    told = st.tuples(items, keys, labels, st.just("") | names, st.integers(0, 1000))
    return st.lists(
        told.filter(lambda row: row[0] is not None or row[1] is not None).map(lambda row: Labelled(*row)), max_size=6
    )


class Pictures:
    """Images of so many colours, in memory or as files."""

    def __init__(self, folder=None, n=8):
        self.images = [Image.new("RGB", (4, 3), (30 * place, 0, 0)) for place in range(n)]
        self.files = None
        if folder is not None:
            self.files = [folder / f"{place}.JPG" for place in range(n)]
            for file, image in zip(self.files, self.images, strict=True):
                image.save(file, "JPEG")

    def picture(self, item, side=None):
        return self.images[item]


def everything_below(folder):
    return sorted(os.path.join(place, name) for place, folders, files in os.walk(folder) for name in folders + files)


@pytest.mark.parametrize("format_", TABLES)
@given(rows=rows_of(one_class) | rows_of(several_classes) | rows_of(one_class | several_classes))
@example(rows=[Labelled(None, "k", "[]"), Labelled(0, None, ()), Labelled(1, " ", ("x",))])
@settings(max_examples=60)
def test_tables_lose_nothing(tmp_path_factory, format_, rows):
    path = tmp_path_factory.getbasetemp() / f"table{FORMATS[format_].suffix}"
    assert read_labels(write_labels(rows, path)) == rows


@given(rows=rows_of(one_class | several_classes))
@settings(max_examples=100)
def test_a_table_that_is_safe_in_a_spreadsheet_loses_nothing_either(tmp_path_factory, rows):
    path = write_labels(rows, tmp_path_factory.getbasetemp() / "safe.csv", spreadsheet_safe=True)
    assert read_labels(path) == rows
    with path.open(encoding="utf-8-sig", newline="") as file:
        for cells in list(csv.reader(file))[1:]:
            assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in cells)


@pytest.mark.parametrize("format_", ["coco", "label-studio"])
@given(rows=rows_of(one_class) | rows_of(several_classes))
@settings(max_examples=40)
def test_files_of_other_tools_lose_nothing(tmp_path_factory, format_, rows):
    path = tmp_path_factory.getbasetemp() / f"labels{FORMATS[format_].suffix}"
    assert read_labels(write_labels(rows, path)) == rows


@given(rows=rows_of(one_class, items=st.integers(0, 50)) | rows_of(several_classes, items=st.integers(0, 50)))
@settings(max_examples=40)
def test_the_state_for_baal_loses_nothing(tmp_path_factory, rows):
    rows = list({row.item: row for row in rows}.values())
    path = write_labels(rows, tmp_path_factory.getbasetemp() / "state.npz", whole=Whole(n_items=60))
    assert read_labels(path) == rows
    with np.load(path, allow_pickle=False) as held:
        assert held["labelled"].shape == (60,)
        assert {int(i): int(held["labelled"][i]) for i in np.flatnonzero(held["labelled"])} == {
            row.item: row.round + 1 for row in rows
        }


@pytest.mark.parametrize("format_", FOLDERS)
@given(rows=rows_of(one_class, items=st.integers(0, 7)), filed=st.booleans())
@settings(max_examples=30)
def test_folders_of_images_lose_nothing(tmp_path_factory, format_, rows, filed):
    base = tmp_path_factory.mktemp("folders")
    (base / "images").mkdir()
    pictures = Pictures(base / "images" if filed else None)
    if not rows and format_ == "huggingface":
        return
    target = write_labels(rows, base / "out", format_, whole=Whole(pictures=pictures, classes=("spare",)))
    assert read_labels(target) == rows
    below = everything_below(base)
    assert all(str(place).startswith((str(target), str(base / "images"))) for place in below)
    images = [place for place in below if place.startswith(str(target)) and place.endswith((".jpg", ".png"))]
    assert len(images) == len(rows)


def test_several_classes_go_to_hugging_face_and_not_to_a_folder_for_each(tmp_path):
    rows = [Labelled(0, "a", ("x", "y")), Labelled(1, "b", ())]
    whole = Whole(pictures=Pictures())
    assert read_labels(write_labels(rows, tmp_path / "hf", "huggingface", whole=whole)) == rows
    with pytest.raises(ValueError, match="huggingface"):
        write_labels(rows, tmp_path / "folders", "imagefolder", whole=whole)
    assert [place.name for place in tmp_path.iterdir()] == ["hf"]


def test_a_copy_in_a_folder_is_the_very_file(tmp_path):
    (tmp_path / "images").mkdir()
    pictures = Pictures(tmp_path / "images")
    target = write_labels([Labelled(3, "../a.png", "../../x")], tmp_path / "out", whole=Whole(pictures=pictures))
    (copy,) = target.rglob("*.jpg")
    assert copy.read_bytes() == pictures.files[3].read_bytes()
    assert copy.parent.parent == target


def test_torchvision_reads_the_folders_with_the_classes_in_order(tmp_path):
    from torchvision.datasets import ImageFolder

    rows = [Labelled(0, "a.png", "dog"), Labelled(1, "b.png", "cat")]
    whole = Whole(("cat", "cow", "dog"), pictures=Pictures())
    found = ImageFolder(str(write_labels(rows, tmp_path / "out", whole=whole)), allow_empty=True)
    assert found.classes == ["cat", "cow", "dog"]
    assert sorted(found.targets) == [0, 2]


def test_an_image_moved_to_another_folder_by_hand_has_another_label(tmp_path):
    rows = [Labelled(0, "a.png", "cat", "ann", 2), Labelled(1, "b.png", "cat", "ann", 2)]
    target = write_labels(rows, tmp_path / "out", whole=Whole(("cat", "dog"), pictures=Pictures()))
    moved = next((target / "cat").glob("*-a.png"))
    moved.rename(target / "dog" / moved.name)
    assert read_labels(target) == [Labelled(0, "a.png", "dog"), rows[1]]
    (target / "mapping.json").unlink()
    assert {row.label for row in read_labels(target)} == {"cat", "dog"}


@pytest.mark.parametrize("link", ["dangling", "folder"])
def test_a_folder_is_never_written_through_a_link(tmp_path, link):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / ("elsewhere" if link == "folder" else "nowhere"))
    with pytest.raises(FileExistsError):
        write_labels([Labelled(0, "a", "x")], tmp_path / "out", "imagefolder", whole=Whole(pictures=Pictures()))
    assert everything_below(tmp_path / "elsewhere") == []
    assert not (tmp_path / "nowhere").exists()


def test_a_file_takes_the_place_of_a_link_and_leaves_what_it_led_to(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "labels.csv").symlink_to(tmp_path / "precious")
    write_labels([Labelled(0, "a", "x")], tmp_path / "labels.csv")
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "labels.csv").is_symlink()


@pytest.mark.parametrize("text", [*HOSTILE, "..", ".", "", "~", "a/b", "a\\b", "NUL.txt", "-rf", "x" * 500, "語" * 500])
def test_a_safe_name_is_one_part_of_a_path(text):
    name = safe_name(text)
    assert name
    assert len(name.encode()) <= 100
    assert not set(name) & set('/\\:*?"<>|.\0\n ~')
    assert not name.startswith(("-", "."))


# Whole or not at all


class Failing(Pictures):
    def picture(self, item, side=None):
        if item == 2:
            raise ValueError("This image is damaged.")
        return super().picture(item)


@pytest.mark.parametrize("format_", FOLDERS)
def test_half_a_folder_is_none(tmp_path, format_):
    rows = [Labelled(item, str(item), "x") for item in range(4)]
    with pytest.raises(ValueError, match="damaged"):
        write_labels(rows, tmp_path / "out", format_, whole=Whole(pictures=Failing()))
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("format_", FILES)
def test_half_a_file_leaves_the_one_before(tmp_path, format_, monkeypatch):
    path = tmp_path / f"labels{FORMATS[format_].suffix}"
    write_labels([Labelled(0, "a", "x")], path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("No space left")))
    with pytest.raises(OSError, match="No space"):
        write_labels([Labelled(0, "a", "y")], path)
    assert path.read_bytes() == before
    assert everything_below(tmp_path) == [str(path)]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    whole = Whole(pictures=Pictures())
    write_labels([Labelled(0, "a", "x")], tmp_path / "out", whole=whole)
    before = everything_below(tmp_path)
    with pytest.raises(FileExistsError, match="empty one"):
        write_labels([Labelled(0, "a", "y")], tmp_path / "out", whole=whole)
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"path": "labels.doc"}, ValueError, r"\.csv, .*format="),
        ({"path": "labels.csv", "format": "excel"}, ValueError, "one of csv"),
        ({"path": "labels.jsonl", "spreadsheet_safe": True}, ValueError, "no option spreadsheet_safe"),
        ({"path": "out"}, ValueError, "session.export"),
        ({"path": "out", "format": "huggingface"}, ValueError, "session.export"),
        ({"path": "nowhere/labels.csv"}, FileNotFoundError, "create it first"),
        ({"path": "labels.csv", "rows": [Labelled(0, "a", None)]}, ValueError, "without a label"),
        ({"path": "labels.npz", "rows": [Labelled(None, "a", "x")]}, ValueError, "index of a"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, monkeypatch, arguments, error, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said):
        write_labels(**{"rows": [Labelled(0, "a", "x")], **arguments})
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [
        (None, None, "x"),
        (-1, "a", "x"),
        (True, "a", "x"),
        (2**63, "a", "x"),
        (0, "", "x"),
        (0, "a", ""),
        (0, "a", ("x", "")),
        (0, "a", 3),
        (0, "a", "\ud800"),
        (0, "a", "x", None),
        (0, "a", "x", "", -1),
    ],
)
def test_a_row_that_cannot_be_is_none(wrong):
    with pytest.raises(ValueError, match="Expected"):
        Labelled(*wrong)


def test_coco_is_read_as_coco_is(tmp_path):
    rows = [Labelled(0, "a.png", ("cat", "dog")), Labelled(1, "b.png", ())]
    told = json.loads(write_labels(rows, tmp_path / "x.coco.json", whole=Whole(("cat", "cow", "dog"))).read_text())
    assert [one["name"] for one in told["categories"]] == ["cat", "cow", "dog"]
    assert [(one["image_id"], one["category_id"]) for one in told["annotations"]] == [(1, 1), (1, 3)]
    whole = Whole(pictures=Pictures())
    told = json.loads(write_labels(rows, tmp_path / "x.coco.json", whole=whole).read_text())
    assert [(one["file_name"], one["width"], one["height"]) for one in told["images"]] == [
        ("a.png", 4, 3),
        ("b.png", 4, 3),
    ]
    coco = COCO(str(tmp_path / "x.coco.json"))
    assert coco.getImgIds(catIds=coco.getCatIds(catNms=["dog"])) == [1]
