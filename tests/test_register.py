"""Labels stay with the bytes they were given for, wherever the files have gone, and what became of them is told."""

import os
import shutil
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from baal_widgets import register
from baal_widgets.contents import Contents, hash_file, hash_value
from baal_widgets.journal import Draft, Journal
from baal_widgets.register import Register
from baal_widgets.sources import Source, open_source

PATHS = ["a.bmp", "b.bmp", "c.bmp", "x/a.bmp", "x/b.bmp", "y/z/c.bmp"]


def colour(number):
    """The bytes of a small picture: every other colour has a size of its own."""
    return b"BM" + bytes([number]) * (60 + number % 2 * number)


def lie(folder, files):
    """A folder with such files and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, number in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(colour(number))


class Sitting:
    """A register of a folder and what a session would do with it: open, say things, leave."""

    def __init__(self, journal, folder):
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.bmp"))
        self.folder, self.journal = folder, Journal(journal)
        source = Source(None, tuple(paths), files=tuple(folder / path for path in paths), root=folder.resolve())
        self.register = Register(source, self.journal)
        if not self.journal.events(limit=1):
            self.journal.append(Draft("opened", payload={"classes": ["cat", "dog"]}))
        self.state = self.register.open(lambda state: None)
        self.files = self.register.files

    def say(self, path, value, kind="label"):
        item = self.register.paths.index(path)
        told = {**self.register.told(item), **({"on": True} if kind == "flag" else {})}
        draft = Draft(kind, item=item, key=self.register.keys[item], value=value, annotator="me", payload=told)
        for event in self.journal.append(draft):
            self.state.apply(event, self.register.index_of)

    @property
    def labels(self):
        return {self.register.paths[item]: value for item, value in self.state.labels.items()}

    def close(self):
        self.register.contents.remember()
        self.journal.close()


@pytest.fixture
def place(tmp_path):
    def sitting(files=None):
        if files is not None:
            lie(tmp_path / "images", files)
        return Sitting(tmp_path / "labels.db", tmp_path / "images")

    return sitting


numbers = st.integers(0, 5)
folders = st.dictionaries(st.sampled_from(PATHS), numbers, min_size=1)


@given(before=folders, after=folders, data=st.data())
@settings(max_examples=40)
@example(before={"a.bmp": 1, "b.bmp": 3}, after={"a.bmp": 3, "b.bmp": 1}, data=None)
def test_each_label_is_on_the_file_with_the_bytes_it_was_given_for(before, after, data):
    told = sorted(before) if data is None else data.draw(st.lists(st.sampled_from(sorted(before)), unique=True))
    labels = {path: f"label of {path}" for path in told}
    with tempfile.TemporaryDirectory() as folder:
        journal, images = Path(folder, "labels.db"), Path(folder, "images")
        lie(images, before)
        first = Sitting(journal, images)
        for path, label in labels.items():
            first.say(path, label)
        first.close()
        lie(images, after)
        for times in range(2):
            again = Sitting(journal, images)
            found = {label: path for path, label in again.labels.items()}
            assert len(found) == len(again.labels)  # none has spread
            takers, free = {}, Counter(after.values())
            for path in labels:  # those that still have their bytes keep them
                if after.get(path) == before[path]:
                    takers[path] = path
                    free[before[path]] -= 1
            missing, changed = set(), set()
            for path, label in labels.items():
                if path in takers:
                    assert found[label] == path
                elif label in found and found[label] != path:
                    assert after[found[label]] == before[path]
                    free[before[path]] -= 1
                    assert times or again.files.moved[path] == found[label]
                elif label in found:
                    changed.add(path)
                else:
                    missing.add(path)
            for path in changed | missing:  # only where no such file is left
                assert free[before[path]] == 0
            assert not {path for path in missing if path in after and path not in found.values()}
            assert set(again.files.changed.values()) == changed
            assert set(again.files.missing) == missing
            elsewhere = sum(found.get(label) not in (path, None) for path, label in labels.items())
            assert len(again.files.moved) == (0 if times else elsewhere)
            told = again.register.checking(again.state)()
            assert (set(told.changed.values()), set(told.missing)) == (changed, missing)
            alike = {number: {p for p in after if after[p] == number} for number in after.values()}
            assert {frozenset(group) for group in told.duplicates} == {
                frozenset(group) for group in alike.values() if len(group) > 1
            }
            again.close()


steps = st.lists(folders, min_size=1, max_size=5)


@given(steps=steps, data=st.data())
@settings(max_examples=30)
def test_labels_follow_their_bytes_over_many_sessions(steps, data):
    """Every file is its own colour here, so that it is plain where each label must be."""
    with tempfile.TemporaryDirectory() as folder:
        journal, images = Path(folder, "labels.db"), Path(folder, "images")
        said = {}
        for files in steps:
            once = {}
            for path, number in files.items():
                if number not in once.values():
                    once[path] = number
            lie(images, once)
            sitting = Sitting(journal, images)
            for path, label in sitting.labels.items():
                # a label is with its bytes, or at a path whose file was written over
                item = sitting.register.paths.index(path)
                assert said.get(once[path]) == label or item in sitting.files.changed
            for path, number in once.items():
                if number in said:
                    assert sitting.labels[path] == said[number]
            path = data.draw(st.sampled_from(sorted(once)))
            label = f"label {len(sitting.journal.events())}"
            former = sitting.labels.get(path)
            sitting.say(path, label)
            said = {number: told for number, told in said.items() if told != former} | {once[path]: label}
            assert sitting.labels[path] == label
            sitting.close()
        assert Journal(journal).verify() > 0


def test_a_renamed_folder_takes_its_labels_along_and_is_told_once(place):
    first = place({f"old/{n}.bmp": n for n in range(6)})
    for n in range(6):
        first.say(f"old/{n}.bmp", "cat")
    first.close()
    (first.folder / "old").rename(first.folder / "new")
    second = place()
    assert set(second.labels) == {f"new/{n}.bmp" for n in range(6)}
    assert second.files.moved == {f"old/{n}.bmp": f"new/{n}.bmp" for n in range(6)}
    assert "6 moved" in str(second.files)
    assert "6 items have moved" in second.files.warning()
    second.say("new/0.bmp", "dog")
    second.close()
    third = place()
    assert third.labels == {"new/0.bmp": "dog"} | {f"new/{n}.bmp": "cat" for n in range(1, 6)}
    assert third.files.warning() is None
    third.close()
    (first.folder / "new").rename(first.folder / "old")
    assert set(place().labels) == {f"old/{n}.bmp" for n in range(6)}


def test_a_new_file_at_the_place_of_one_that_moved_has_labels_of_its_own(place):
    first = place({"a.bmp": 1})
    first.say("a.bmp", "cat")
    first.close()
    second = place({"a.bmp": 2, "b.bmp": 1})
    assert second.labels == {"b.bmp": "cat"}
    second.say("a.bmp", "dog")
    second.close()
    third = place({"a.bmp": 1, "c.bmp": 2})
    assert third.labels == {"a.bmp": "cat", "c.bmp": "dog"}
    third.say("a.bmp", "cow")
    third.close()
    assert place({"c.bmp": 1, "a.bmp": 2}).labels == {"c.bmp": "cow", "a.bmp": "dog"}


def test_flags_and_notes_follow_as_labels_do(place):
    first = place({"a.bmp": 1, "b.bmp": 3})
    first.say("a.bmp", None, "flag")
    first.say("b.bmp", "blurred", "note")
    first.close()
    second = place({"c.bmp": 1, "d.bmp": 3})
    assert second.state.flagged == {0}
    assert second.state.notes == {1: "blurred"}


def test_what_was_changed_stays_told_until_it_is_labelled_again(place):
    first = place({"a.bmp": 1, "b.bmp": 2})
    first.say("a.bmp", "cat")
    first.close()
    for _ in range(2):
        second = place({"a.bmp": 3, "b.bmp": 2})
        assert second.files.changed == {0: "a.bmp"}
        assert second.labels == {"a.bmp": "cat"}
        assert "look at each again" in second.files.warning()
        second.close()
    second = place()
    second.say("a.bmp", "cat")
    second.close()
    assert place().files.changed == {}


def test_a_journal_without_hashes_opens_as_before_and_learns_them(place):
    first = place({"a.bmp": 1, "b.bmp": 2})
    first.journal.append(*[Draft("label", item=n, key=f"{key}.bmp", value=key) for n, key in enumerate("abz")])
    first.close()
    second = place()
    assert second.labels == {"a.bmp": "a", "b.bmp": "b"}
    assert second.files.missing == ("z.bmp",)
    second.close()
    facts = len(second.journal.events())
    assert len(place().journal.events()) == facts  # once is enough
    assert place({"c.bmp": 1, "b.bmp": 2}).labels == {"c.bmp": "a", "b.bmp": "b"}


def test_files_are_read_once_and_then_only_those_that_have_changed(place, monkeypatch):
    read = []
    monkeypatch.setattr("baal_widgets.contents.SETTLED", -(10**12))  # files this young are read each time
    monkeypatch.setattr("baal_widgets.contents.hash_file", lambda path, root: read.append(path.name) or hash_file(path))
    first = place({f"{n}.bmp": n for n in range(20)})
    for n in range(4):
        first.say(f"{n}.bmp", "cat")
    first.close()
    assert read == ["0.bmp", "1.bmp", "2.bmp", "3.bmp"]
    place().close()
    assert len(read) == 4
    (first.folder / "1.bmp").write_bytes(colour(9))
    place().close()
    # and those that are as long as the one that is looked for
    alike = {f"{n}.bmp" for n in range(20) if len(colour(n)) == len(colour(1))}
    assert set(read[4:]) == {"1.bmp"} | alike - {"0.bmp", "2.bmp", "3.bmp"}


def test_a_file_as_young_as_the_clock_is_coarse_is_read_again(tmp_path):
    file = tmp_path / "a.bmp"
    file.write_bytes(colour(2))
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    contents = Contents((file,))
    before = contents[0]
    file.write_bytes(colour(4))  # of the same size, within the same tick
    os.utime(file, ns=times)
    assert contents[0] != before


def test_two_sessions_that_open_a_moved_folder_at_once_agree(place):
    first = place({f"old/{n}.bmp": n for n in range(6)})
    for n in range(6):
        first.say(f"old/{n}.bmp", f"{n}")
    first.close()
    (first.folder / "old").rename(first.folder / "new")
    found = []
    threads = [threading.Thread(target=lambda: found.append(place().labels)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{f"new/{n}.bmp": f"{n}" for n in range(6)}] * 4
    assert sum(event.kind == "moved" for event in place().journal.events()) == 1


def test_what_another_session_says_between_two_looks_is_not_said_again(place, monkeypatch):
    first = place({"old/a.bmp": 1})
    first.say("old/a.bmp", "one")
    first.close()
    (first.folder / "old").rename(first.folder / "new")
    resume, others = register.resume, []

    def another_first(journal, index_of):
        if not others:
            others.append(None)
            others.append(place())
        return resume(journal, index_of)

    monkeypatch.setattr(register, "resume", another_first)
    assert place().labels == {"new/a.bmp": "one"}
    assert sum(event.kind == "moved" for event in place().journal.events()) == 1


def test_pipes_devices_links_out_of_the_folder_and_what_is_gone_are_never_read(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "secret.bmp"
    folder.mkdir()
    outside.write_bytes(colour(1))
    os.mkfifo(folder / "pipe.bmp")
    (folder / "device.bmp").symlink_to("/dev/zero")
    (folder / "out.bmp").symlink_to(outside)
    (folder / "loop.bmp").symlink_to(folder / "loop.bmp")
    (folder / "folder.bmp").mkdir()
    (folder / "real.bmp").write_bytes(colour(2))
    (folder / "link.bmp").symlink_to(folder / "real.bmp")
    names = ["pipe", "device", "out", "loop", "folder", "gone", "../secret", "real", "link"]
    contents = Contents(tuple(folder / f"{name}.bmp" for name in names), folder.resolve())
    found = contents.look(range(len(names)))
    assert [names[item] for item, content in found.items() if content is not None] == ["real", "link"]
    assert found[7] == found[8] == hash_file(folder / "real.bmp")[0]


def test_a_file_that_never_stops_growing_is_given_up(tmp_path, monkeypatch):
    file = tmp_path / "a.bmp"
    file.write_bytes(bytes(3_000_000))
    reads, real = [], os.fstat

    def grow(number):
        reads.append(number)
        with file.open("ab") as open_file:
            open_file.write(bytes(100))
        return real(number)

    monkeypatch.setattr(os, "fstat", grow)
    with pytest.raises(ValueError, match="changes while it is read"):
        hash_file(file)
    assert len(reads) == 6  # three tries
    assert Contents((file,))[0] is None


def test_a_large_file_takes_no_more_memory_than_a_small_one(tmp_path):
    import resource

    file = tmp_path / "large.bmp"
    with file.open("wb") as made:
        made.truncate(400 * 2**20)  # a hole: nothing on the disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    content, _ = hash_file(file)
    assert content.size == 400 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10


values = st.recursive(
    st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3) | st.binary(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)


@given(one=values, other=values)
def test_values_hold_the_same_exactly_if_they_read_the_same(one, other):
    assert (hash_value(one) == hash_value(other)) == (repr(one) == repr(other))


def test_arrays_differ_by_shape_type_and_bytes_and_not_by_their_layout():
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    different = [array, array.reshape(4, 3), array.astype(np.int64), array.view(np.uint32), array + 1, array[:2]]
    assert len({hash_value(one) for one in different}) == len(different)
    assert hash_value(np.asfortranarray(array)) == hash_value(array) == hash_value(torch.from_numpy(array))
    half = torch.arange(3).bfloat16()
    assert hash_value(half) == hash_value(half.clone()) != hash_value(half.half())
    image = Image.new("RGB", (2, 3))
    assert hash_value(image) == hash_value(image.copy()) != hash_value(image.resize((3, 2)))
    assert hash_value(torch.tensor(1.0)) != hash_value(torch.tensor([1.0]))
    with pytest.raises(TypeError, match="Expected an array"):
        hash_value(object())


class Arrays:
    """A register of a dataset without files."""

    def __init__(self, journal, dataset):
        self.journal = Journal(journal)
        self.register = Register(open_source(dataset), self.journal)
        self.state = self.register.open(lambda state: None)

    def say(self, item, value):
        told = self.register.told(item)
        self.journal.append(Draft("label", item=item, key=self.register.keys[item], value=value, payload=told))

    def leave(self):
        self.journal.close()
        return self


@given(data=st.data(), n=st.integers(1, 12))
@settings(max_examples=20)
def test_labels_follow_the_arrays_of_a_reordered_dataset(data, n):
    inputs = torch.arange(n * 2.0).reshape(n, 2)
    told = data.draw(st.lists(st.integers(0, n - 1), unique=True))
    with tempfile.TemporaryDirectory() as folder:
        first = Arrays(Path(folder, "labels.db"), TensorDataset(inputs))
        for item in told:
            first.say(item, str(item))
        first.leave()
        said, now = {item: str(item) for item in told}, list(range(n))
        for _ in range(3):
            order = data.draw(st.permutations(range(n)))
            now = [now[place] for place in order]
            again = Arrays(Path(folder, "labels.db"), TensorDataset(inputs[now]))
            assert {now[item]: label for item, label in again.state.labels.items()} == said
            assert again.register.files.changed == {}
            assert again.register.files.missing == ()
            item = data.draw(st.integers(0, n - 1))
            again.say(item, "again")
            said[now[item]] = "again"
            again.leave()


class Noisy(Dataset):
    def __init__(self, seed=None):
        self.own = None if seed is None else torch.Generator().manual_seed(seed)
        self.read = 0

    def __len__(self):
        return 8

    def __getitem__(self, item):
        self.read += 1
        return torch.rand(2, generator=self.own) > (0.001 if self.own is None else 0.5)


@pytest.mark.filterwarnings("ignore:Two reads of the same pool item differ")
@pytest.mark.parametrize("seed", [None, 1])
def test_a_dataset_that_reads_otherwise_each_time_is_known_by_index_alone(tmp_path, seed):
    first = Arrays(tmp_path / "labels.db", Noisy(seed))
    before = torch.get_rng_state()
    first.say(3, "cat")
    assert torch.equal(torch.get_rng_state(), before)
    assert first.journal.events(kinds=("label",))[0].payload == {}
    first.leave()
    again = Arrays(tmp_path / "labels.db", Noisy(seed))
    assert again.state.labels == {3: "cat"}
    assert again.register.files.warning() is None


def test_a_dataset_that_is_read_in_another_way_keeps_its_labels_and_says_so_once(tmp_path):
    inputs = torch.arange(16.0).reshape(8, 2)
    first = Arrays(tmp_path / "labels.db", TensorDataset(inputs))
    for item in range(5):
        first.say(item, str(item))
    first.leave()
    second = Arrays(tmp_path / "labels.db", TensorDataset(inputs / 255)).leave()
    assert second.state.labels == {item: str(item) for item in range(5)}
    assert sorted(second.register.files.changed) == list(range(5))
    third = Arrays(tmp_path / "labels.db", TensorDataset(inputs / 255))
    assert third.state.labels == second.state.labels
    assert third.register.files.changed == {}
