import json
import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from baal_widgets import ActiveLearningDataset, FileDataset, LabellingSession, ModelWrapper, TrainingArgs
from baal_widgets.active.heuristics import get_heuristic
from baal_widgets.features_store import BLOCK, FeatureStore, read_block, write_block
from baal_widgets.inputs import InputsOf, KeptInputs
from baal_widgets.jobs import Job
from baal_widgets.learning import Learner
from baal_widgets.sources import open_source
from baal_widgets.training import Training

SHORT = Training(min_steps=10, max_steps=20, window=5)
ORACLE = [item % 3 for item in range(70)]


class Images(Dataset):
    """Counts how often it is read."""

    def __init__(self, n=70, seed=0):
        self.images = np.random.default_rng(seed).integers(0, 256, (n, 1, 6, 6), dtype=np.uint8)
        for item in range(n):
            self.images[item, :, :, :2] //= 1 + item % 3
        self.reads = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, item):
        self.reads += 1
        return torch.from_numpy(self.images[item].astype(np.float32) / 255), item % 3


class Counted(nn.Module):
    """A frozen layer that counts the items it has seen."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Conv2d(1, 4, 3), np.zeros(1, int)
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, x):
        self.seen[0] += len(x)
        return self.layer(x)


def make_model(seed=0, channels=1):
    torch.manual_seed(seed)
    backbone = Counted()
    return nn.Sequential(
        backbone, nn.BatchNorm2d(4).requires_grad_(False), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)
    )


def make_learner(model=None, dataset=None, heuristic="bald", **options):
    told = {"n_classes": 3, "test_set": Images(30, seed=1), "iterations": 8, "training": SHORT, "seed": 0}
    return Learner(
        open_source(Images() if dataset is None else dataset),
        model or make_model(),
        heuristic=get_heuristic(heuristic, seed=0) if isinstance(heuristic, str) else heuristic,
        **{**told, "device": "cpu", **options},
    )


def lesson(learner, n=20, round_=1, job=None):
    return learner.learn({i: ORACLE[i] for i in range(n)}, range(n, 70), round_, job or Job(lambda _: None))


def seen(learner):
    """Items that went through the backbone of a learner."""
    return next(part for part in learner.wrapper.model.modules() if isinstance(part, Counted)).seen[0]


def test_a_lesson_from_kept_features_is_the_lesson_from_images(tmp_path):
    heuristic = get_heuristic("batch_bald", seed=0).sized(5)  # its draws have one mask for all items either way
    told = [lesson(make_learner(heuristic=heuristic, features=how)) for how in (False, True, tmp_path)]
    for other in told[1:]:
        assert other.items == told[0].items
        np.testing.assert_allclose(other.scores[:5], told[0].scores[:5], rtol=1e-4, atol=1e-5)
        for name in ("loss", "nll", "accuracy", "ece", "steps"):
            assert other.metrics[name] == pytest.approx(told[0].metrics[name], abs=1e-4)
        np.testing.assert_allclose(
            other.insight.predicted.probabilities, told[0].insight.predicted.probabilities, rtol=1e-4, atol=1e-5
        )


def test_masks_of_each_item_are_the_same_where_the_head_does_not_fold():
    def model():
        whole = make_model()
        whole.append(nn.LogSoftmax(dim=1))
        return whole

    kept, computed = (lesson(make_learner(model(), features=how)) for how in (True, False))
    assert kept.items == computed.items
    np.testing.assert_allclose(kept.scores, computed.scores, rtol=1e-3, atol=1e-5)


def test_the_backbone_sees_each_item_once_in_all_lessons():
    learner = make_learner()
    lesson(learner)
    first = seen(learner)
    lesson(learner, n=30, round_=2)
    assert seen(learner) == first
    assert first < 70 + 30 + 20  # the pool, the test set, and the trial of a few


def test_features_are_there_for_the_next_session_and_the_lesson_is_the_same(tmp_path):
    first = make_learner(features=tmp_path)
    told = lesson(first)
    again = make_learner(features=tmp_path)
    assert lesson(again).scores == told.scores
    assert seen(again) < 20


@pytest.mark.parametrize("change", ["weights", "statistics", "option"])
def test_features_of_another_backbone_are_not_used(tmp_path, change):
    lesson(make_learner(features=tmp_path))
    model = make_model()
    with torch.no_grad():
        if change == "weights":
            model[0].layer.weight[0, 0, 0, 0] += 1e-3
        elif change == "statistics":
            model[1].running_mean += 0.1
        else:
            model[1].eps = 0.01
    other, anew = make_learner(model, features=tmp_path), make_learner(model, features=True)
    assert lesson(other).scores == lesson(anew).scores
    assert seen(other) > 100


def test_another_head_uses_the_same_features(tmp_path):
    lesson(make_learner(features=tmp_path))
    model = make_model()
    model[5] = nn.Linear(64, 3)
    other = make_learner(model, features=tmp_path)
    lesson(other)
    assert seen(other) < 20


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "images"
    where.mkdir()
    for item, image in enumerate(Images().images):
        Image.fromarray(image[0]).save(where / f"{item:03d}.png")
    return where


def files_of(folder, brighter=1.0):
    scaled = v2.Lambda(lambda x: (x * brighter).clamp(0, 1)) if brighter != 1 else v2.Identity()
    transform = v2.Compose([v2.Grayscale(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), scaled])
    return FileDataset([str(file) for file in sorted(folder.iterdir())], transform=transform)


def test_only_the_files_that_changed_are_computed_anew(folder, tmp_path):
    lesson(make_learner(dataset=files_of(folder), features=tmp_path / "kept"))
    Image.fromarray(np.full((6, 6), 255, np.uint8)).save(folder / "033.png")
    os.utime(folder / "044.png", ns=(1, 1))
    again = make_learner(dataset=files_of(folder), features=tmp_path / "kept")
    anew = make_learner(dataset=files_of(folder), features=True)
    assert lesson(again).scores == lesson(anew).scores
    assert 2 <= seen(again) < 20


def test_another_transform_is_noticed(folder, tmp_path):
    lesson(make_learner(dataset=files_of(folder), features=tmp_path / "kept"))
    again = make_learner(dataset=files_of(folder, brighter=0.9), features=tmp_path / "kept")
    anew = make_learner(dataset=files_of(folder, brighter=0.9), features=True)
    assert lesson(again).scores == lesson(anew).scores
    assert seen(again) > 70


def test_a_damaged_note_of_the_transform_is_as_if_it_had_changed(folder, tmp_path):
    lesson(make_learner(dataset=files_of(folder), features=tmp_path / "kept"))
    (note,) = (tmp_path / "kept").rglob("probes.json")
    note.write_text(json.dumps(dict.fromkeys(json.loads(note.read_text()), 3)))
    again = make_learner(dataset=files_of(folder), features=tmp_path / "kept")
    lesson(again)
    assert seen(again) > 70


def test_a_cancelled_lesson_keeps_the_blocks_that_it_finished(tmp_path, monkeypatch):
    monkeypatch.setattr("baal_widgets.features_store.BLOCK", 16)
    monkeypatch.setattr("baal_widgets.shelves.AT_ONCE", 8)
    learner, job = make_learner(features=tmp_path), Job(lambda _: None)
    report, phases = job.report, []

    def stop_after_forty(phase, fraction, message="", **told):
        phases.append((phase, fraction, told.get("eta")))
        if phase == "features" and message.startswith("features of 40"):
            job.cancel()
        report(phase, fraction, message, **told)

    job.report = stop_after_forty
    with pytest.raises(BaseException, match="cancelled"):
        lesson(learner, job=job)
    assert any(phase == "features" and left is not None for phase, _, left in phases)
    again = make_learner(features=tmp_path)
    lesson(again)
    assert seen(again) < 110 - 32


def test_training_with_another_transform_than_the_pools_is_told_and_runs_the_backbone(folder):
    dataset = files_of(folder)
    dataset.transform = v2.Compose([*dataset.transform.transforms, v2.RandomHorizontalFlip()])
    plain = files_of(folder).transform
    learner = make_learner(dataset=ActiveLearningDataset(dataset, pool_specifics={"transform": plain}))
    with pytest.warns(UserWarning, match="pool_specifics"):
        lesson(learner)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = seen(learner)
        lesson(learner, round_=2)
    assert seen(learner) - before >= 10 * 20  # each step's items, and nothing of the pool
    assert seen(learner) - before <= 20 * 32


def test_a_collate_fn_or_workers_of_ones_own_read_as_they_did():
    args = TrainingArgs(criterion=nn.CrossEntropyLoss(), collate_fn=torch.utils.data.default_collate)
    learner = make_learner(ModelWrapper(make_model(), args, device="cpu"))
    lesson(learner)
    assert not learner.reading.has_features
    assert seen(learner) > 70 * 2


def test_a_twin_learns_from_the_same_features_and_leaves_the_model_alone(tmp_path):
    learner = make_learner(features=tmp_path)
    lesson(learner)
    held = {name: value.clone() for name, value in learner.wrapper.state_dict().items()}
    twin = learner.fork(Job(lambda _: None))
    told = lesson(twin, n=30)
    assert all(torch.equal(value, held[name]) for name, value in learner.wrapper.state_dict().items())
    assert told.scores == lesson(make_learner(features=True), n=30).scores
    assert seen(twin) - seen(learner) < 20


def test_a_session_keeps_features_beside_its_journal(tmp_path):
    data, journal = Images(), tmp_path / "labels.db"
    with LabellingSession(
        data, make_model(), ["a", "b", "c"], journal=journal, training=SHORT, device="cpu"
    ) as session:
        session.simulate(ORACLE, rounds=1)
        accuracy = session.model(torch.stack([data[item][0] for item in range(70)])).argmax(1)
        assert accuracy.shape == (70,)
        asked = session.ask().items
    assert list((tmp_path / "labels.db.features").rglob("*.block"))
    with LabellingSession.open(journal, data, make_model(), training=SHORT, device="cpu") as session:
        assert session.ask().items == asked


def test_more_classes_keep_the_features():
    learner = make_learner()
    lesson(learner)
    before = seen(learner)
    learner.set_classes(4)
    told = lesson(learner)
    assert told.insight.predicted.probabilities.shape[1] == 4
    assert seen(learner) - before < 110 + 20  # in memory they are those of the model that was taken apart


def test_a_block_that_is_torn_or_changed_is_not_used(tmp_path):
    file, marks, rows = tmp_path / "a.block", np.ones((3, 16), np.uint8), np.arange(6, dtype=np.float32).reshape(3, 2)
    write_block(file, marks, rows)
    assert np.array_equal(read_block(file)[1], rows)
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place])
        assert read_block(file) is None
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_block(file) is None
    assert read_block(tmp_path / "none.block") is None
    assert [one.name for one in tmp_path.iterdir()] == ["a.block"]


def test_a_store_gives_rows_in_the_order_asked_for_across_blocks(tmp_path, rng):
    n = BLOCK + 20
    truth = torch.from_numpy(rng.normal(size=(n, 3)).astype(np.float32))
    marks = {item: bytes([1 + item % 255] * 16) for item in range(n)}
    for folder in (None, tmp_path):
        store = FeatureStore(folder, n, dict(marks))
        assert list(store.fill([5, BLOCK + 3], lambda items: truth[items])) == [1, 2]
        assert store.missing([5, 6, BLOCK + 3]) == [6]
        list(store.fill(range(n), lambda items: truth[items]))
        items = rng.permutation(n).tolist()
        assert torch.equal(store.rows(items), truth[items])
    again = FeatureStore(tmp_path, n, dict(marks))
    assert again.missing(range(n)) == []
    again.marks[7] = bytes([255] * 16)
    assert again.missing(range(n)) == [7]
    with pytest.raises(KeyError, match="not computed"):
        FeatureStore(None, n).rows([3])


@pytest.mark.parametrize("scale", [lambda x: x / 255, lambda x: x * (1 / 255), lambda x: x / 255 - 0.5])
def test_kept_inputs_are_bit_for_bit_those_read(scale):
    data = [(scale(torch.from_numpy(image).float()), 0) for image in Images().images]
    kept = KeptInputs(data)
    for _ in range(2):
        got = InputsOf(kept, range(60)).gather([3, 50, 3])
        assert torch.equal(got, torch.stack([data[item][0] for item in (3, 50, 3)]))


def test_each_input_is_read_once_as_far_as_memory_goes():
    data = Images()
    kept = KeptInputs(data)
    tried = data.reads
    for _ in range(3):
        kept.gather(range(70))
    assert data.reads - tried == 70
    small = KeptInputs(data, memory=36 * 20)
    before = data.reads
    for _ in range(2):
        assert torch.equal(small.gather(range(70)), kept.gather(range(70)))
    assert data.reads - before == 70 + 50


def test_inputs_that_differ_between_reads_or_draw_are_read_each_time():
    class Drawn(Images):
        def __getitem__(self, item):
            torch.rand(())
            return super().__getitem__(item)

    class Turning(Images):
        def __getitem__(self, item):
            image, target = super().__getitem__(item)
            return image + self.reads, target

    before = torch.random.get_rng_state()
    assert not KeptInputs(Drawn()).keeps
    assert not KeptInputs(Turning()).keeps
    assert not KeptInputs([{"a": 1}]).keeps
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_warm_start_goes_on_from_the_last_lesson_that_ended():
    told = {"min_steps": 20, "max_steps": 20, "window": 5, "lr": 1e-2}
    learners = [make_learner(training=Training(start=start, **told)) for start in ("warm", "reset")]
    first, again = ([lesson(one, round_=round_).metrics["losses"] for round_ in (1, 2)] for one in learners)
    assert first[0] == again[0]
    assert np.mean(first[1][:5]) < np.mean(again[1][:5])
    kept = [lesson(learner, round_=3).scores for learner in (learners[0].fork(Job(lambda _: None)), learners[1])]
    assert kept[0] == kept[1]
