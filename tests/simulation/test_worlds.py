import gzip

import numpy as np
import pytest

from baal_widgets.simulation.study.data import efficientnet, principal_components, source
from baal_widgets.simulation.study.worlds import FREQUENT, RARE, TRAFFIC, WORLDS


@pytest.fixture(scope="module")
def demo():
    return source("demo", 500)


def test_components_are_those_of_scikit_learn(demo):
    from sklearn.decomposition import PCA

    pixels = demo.images.reshape(len(demo.images), -1) / 255
    theirs = PCA(16, svd_solver="full").fit(pixels).transform(demo.test_images.reshape(500, -1) / 255)
    ours = principal_components(demo.images, 16)(demo.test_images)
    ratio = np.abs(ours).mean(axis=0) / np.abs(theirs).mean(axis=0)
    assert np.allclose(ratio, ratio[0], rtol=1e-3)
    assert np.allclose(np.abs(ours), np.abs(theirs) * ratio[0], atol=1e-3)
    assert principal_components(demo.images, 16)(demo.images).std() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_a_pretrained_networks_features_tell_classes_apart_and_do_not_depend_on_the_batch(demo):
    members = [np.flatnonzero(demo.test_labels == one)[:40] for one in (1, 5, 8)]  # trousers, sandals, bags
    images = np.concatenate([demo.test_images[some] for some in members])
    features = efficientnet()(images)
    assert features.shape == (120, 1280)
    assert features.std() == pytest.approx(1, abs=1e-4)
    assert np.allclose(efficientnet(batch=37)(images), features, atol=1e-3)
    centres = features.reshape(3, 40, 1280)[:, :20].mean(axis=1)
    rest = features.reshape(3, 40, 1280)[:, 20:].reshape(60, 1280)
    guesses = np.linalg.norm(rest[:, None] - centres, axis=2).argmin(axis=1)
    assert (guesses == np.repeat(np.arange(3), 20)).mean() > 0.7  # a guess would be right for a third


def test_fashion_mnist_is_read_as_it_is_written_and_missed_with_advice(tmp_path, rng):
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist.*--data"):
        source("pca", 10, tmp_path)
    images, labels = rng.integers(256, size=(80, 28, 28)).astype(np.uint8), (np.arange(80) % 10).astype(np.uint8)
    for name in ("train", "t10k"):
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + images.tobytes()))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels.tobytes()))
    told = source("pca", 30, tmp_path)
    assert np.array_equal(told.images, images)
    assert np.array_equal(told.test_images, images[:30])
    assert told.labels.tolist() == labels.tolist()
    assert told.embed(told.images).shape == (80, 64)


def test_each_seed_has_a_pool_of_its_own_with_nested_noise(demo):
    world = WORLDS["plain"](demo, 200)
    items, given = world.case("plain")(world.pool, 5)
    assert len(set(items.tolist())) == 200
    assert np.array_equal(given, demo.labels)
    assert not np.array_equal(items, world.case("plain")(world.pool, 6)[0])
    some, more = (world.case(f"noise={share}")(world.pool, 5) for share in (0.1, 0.5))
    assert np.array_equal(some[0], items)
    wrong, wronger = (np.flatnonzero(labels != demo.labels) for _, labels in (some, more))
    assert 0 < len(wrong) <= 20 < len(wronger) <= 100
    assert set(wrong) <= set(items)
    for _, labels in (some, more):  # shuffled: what there is of each class stays
        assert np.array_equal(np.bincount(labels[items]), np.bincount(demo.labels[items]))


def test_rare_classes_keep_a_quarter_and_stay_rare_when_more_are(demo):
    world = WORLDS["plain"](demo, 1000)
    whole, few, many = (
        np.bincount(demo.labels[world.case(case)(world.pool, 3)[0]], minlength=10)
        for case in ("plain", "rare=2", "rare=5")
    )
    for counts, n in ((few, 2), (many, 5)):
        cut = counts < whole
        assert cut.sum() == n
        assert np.array_equal(counts[cut], -(-whole[cut] // 4))
    assert np.all((few < whole) <= (many < whole))


def test_the_traffic_like_world_has_its_proportions_duplicates_and_noise(demo):
    world = WORLDS["traffic"](demo, 200)
    pool, n = world.pool, len(demo.labels)
    items, given = world.case("plain")(pool, 1)
    counts = np.bincount(pool.labels[items], minlength=11)
    assert pool.n_classes == 11
    for one, share in TRAFFIC.items():
        wanted = min(max(2, share * 200), (pool.labels[: n + n // 5] == one).sum())
        assert abs(counts[one] - wanted) <= 10, one  # ten duplicates take the places of ten others
    assert counts[FREQUENT] == counts.max()
    assert set(RARE) <= set(np.argsort(counts, kind="stable")[:6])
    copies = items[items >= n + n // 5]
    assert len(copies) == 10
    originals = copies - n - n // 5
    assert np.isin(originals, items).all()
    apart = np.linalg.norm(pool.features[copies] - pool.features[originals], axis=1)
    assert apart.max() < 0.2 < np.linalg.norm(pool.features[copies] - pool.features[items[:10]], axis=1).min()
    assert 0 < (given[items] != pool.labels[items]).sum() <= 0.03 * len(items) + 1
    assert len(set(np.bincount(pool.test_labels))) == 1


def test_repeated_items_are_the_same_ones_again(demo):
    world = WORLDS["repeated"](demo, 200)
    once, often = (world.case(f"copies={k}")(world.pool, 2)[0] for k in (1, 4))
    assert np.array_equal(often[:50], once)
    assert len(often) == 200
    assert np.array_equal(world.pool.labels[often], np.tile(world.pool.labels[once], 4))
    apart = np.linalg.norm(world.pool.features[often[50:100]] - world.pool.features[once], axis=1)
    assert 0 < apart.min() <= apart.max() < 0.8


def test_irrelevant_items_are_in_the_mixed_pool_alone_and_never_at_the_test(demo):
    world = WORLDS["irrelevant"](demo, 200)
    clean, mixed = (world.case(name)(world.pool, 2)[0] for name in ("plain", "mixed"))
    assert (world.pool.labels[clean] < 4).all()
    assert (world.pool.labels[mixed] == 4).sum() == 100
    assert set(clean) <= set(mixed)
    assert (world.pool.test_labels < 4).all()
    aims = {tuple(row) for row in world.pool.target_features}
    assert not aims & {tuple(row) for row in world.pool.features[mixed]}
    with pytest.raises(ValueError, match=r"\['mixed', 'plain'\], got 'noise=1'"):
        world.case("noise=1")
