from collections import Counter

import numpy as np
import torch

from baal_widgets import load_demo


def test_the_demo_is_what_it_says():
    data = load_demo()
    assert (len(data.pool), len(data.test), len(data.classes)) == (1060, 500, 10)
    assert set(Counter(data.oracle).values()) == {12, 200}
    assert set(Counter(data.test.targets.tolist()).values()) == {50}
    image, target = data.test[0]
    assert (image.shape, image.dtype, target) == ((1, 28, 28), torch.float32, int(data.test.targets[0]))
    assert 0 <= image.min() < image.max() <= 1


def test_the_pool_does_not_leak_its_labels():
    data = load_demo()
    assert {data.pool[item][1] for item in range(len(data.pool))} == {-1}


def test_no_image_is_in_the_pool_and_in_the_test_set():
    data = load_demo()
    pool = {image.tobytes() for image in data.pool.images}
    assert not [image for image in data.test.images if image.tobytes() in pool]


def test_the_model_is_drawn_from_the_seed_alone():
    data = load_demo()
    torch.manual_seed(1)
    one = data.model(3)
    torch.manual_seed(2)
    other = data.model(3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one(data.pool[0][0][None]).shape == (1, 10)
    assert not np.allclose(*(next(data.model(seed).parameters()).detach().numpy() for seed in (0, 1)))
