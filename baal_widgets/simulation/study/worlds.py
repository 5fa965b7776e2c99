"""The pools of the study, and what is done to them for a seed: noise, imbalance, duplicates, irrelevant images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baal_widgets.simulation.protocol import Case, Ints, Pool
from baal_widgets.simulation.randomness import generator
from baal_widgets.simulation.study.data import Images, Source

RARE, FREQUENT = (4, 5), 0
"""In the traffic-like world: coats and sandals, .6 and .3 % of the pool, and T-shirts, half of it."""
TRAFFIC = {0: 0.5, 10: 0.2, 7: 0.12, 1: 0.07, 8: 0.04, 3: 0.025, 9: 0.015, 2: 0.012, 6: 0.009, 4: 0.006, 5: 0.003}
TASK = (0, 2, 4, 6)
"""The classes that matter where half of the pool does not: T-shirts, pullovers, coats and shirts, easily taken for one
another."""


@dataclass(frozen=True, eq=False)
class World:
    """A pool, and its cases by name; a name with a number, such as "noise=0.05", is its case with that number."""

    pool: Pool
    cases: dict[str, Callable[[float], Case]]

    def case(self, name: str) -> Case:
        kind, _, number = name.partition("=")
        if kind not in self.cases:
            raise ValueError(f"Expected a case among {sorted(self.cases)}, got {name!r}.")
        return self.cases[kind](float(number or 0))


def plain(source: Source, items: int) -> World:
    """Each seed has so many images of its own; labels are noisy or classes rare in cases "noise" and "rare".

    Noise shuffles the labels of a share of the images among them, and "rare" leaves a quarter of the images of so many
    classes, drawn by the seed; what is noisy or rare at a small number is so at a large one.
    """
    pool = Pool(source.embed(source.images), source.labels, source.embed(source.test_images), source.test_labels)

    def noise(share: float) -> Case:
        return lambda pool, seed: (
            drawn := _drawn(len(source.labels), items, seed),
            _noisy(source.labels, drawn, share, seed),
        )

    def rare(classes: float) -> Case:
        def case(pool: Pool, seed: int) -> tuple[Ints, Ints]:
            drawn = _drawn(len(source.labels), items, seed)
            few = generator(seed, "rare").permutation(pool.n_classes)[: int(classes)]
            order = generator(seed, "kept").permutation(drawn)
            kept = np.ones(len(order), bool)
            for one in few:
                members = np.flatnonzero(source.labels[order] == one)
                kept[members[-(-len(members) // 4) :]] = False
            return np.sort(order[kept]), source.labels

        return case

    return World(pool, {"plain": noise, "noise": noise, "rare": rare})


def traffic(source: Source, items: int) -> World:
    """Eleven classes in the proportions of Mio-TCD, 5 % near-duplicates and 3 % of labels shuffled; tested on as many
    images of each class.

    The eleventh is "background": the upper half of one image and the lower half of another.
    """
    n = len(source.labels)
    mixed = _composites(source.images, source.labels, max(n // 5, items // 4), 0)
    features = source.embed(np.concatenate([source.images, mixed]))
    copies = features[:n] + _noise(features[:n].shape, 0.02, "copies")
    labels = np.concatenate([source.labels, np.full(len(mixed), 10), source.labels])
    each = min(len(source.test_labels) // 11, int(np.bincount(source.test_labels).min()))
    backdrop = _composites(source.test_images, source.test_labels, each, 1)
    chosen = np.concatenate([np.flatnonzero(source.test_labels == one)[:each] for one in range(10)])
    pool = Pool(
        np.concatenate([features, copies]),
        labels,
        source.embed(np.concatenate([source.test_images[chosen], backdrop])),
        np.concatenate([source.test_labels[chosen], np.full(each, 10)]),
    )

    def case(pool: Pool, seed: int) -> tuple[Ints, Ints]:
        drawn = []
        for one, share in TRAFFIC.items():
            members = np.flatnonzero(labels[: n + len(mixed)] == one)
            drawn.append(generator(seed, "pool", one).permutation(members)[: max(2, round(share * items))])
        originals = np.concatenate([part for one, part in zip(TRAFFIC, drawn, strict=True) if one != 10])
        shuffled = generator(seed, "duplicates").permutation(originals)
        k = items // 20
        dropped, copied = shuffled[:k], shuffled[k : 2 * k]
        kept = np.setdiff1d(np.concatenate(drawn), dropped)
        # what is copied stays, and the copies take the places of what is dropped
        whole = np.concatenate([kept, copied + n + len(mixed)])
        return whole, _noisy(labels, whole, 0.03, seed)

    return World(pool, {"plain": lambda _: case})


def repeated(source: Source, items: int) -> World:
    """A quarter of the items, each as often as the case "copies" says, with a little noise on its features."""
    some = min(len(source.labels), 12_000)
    features = source.embed(source.images)[:some]
    every = [features, *(features + _noise(features.shape, 0.1, f"copy {at}") for at in range(1, 4))]
    labels = np.tile(source.labels[:some], 4)
    pool = Pool(np.concatenate(every), labels, source.embed(source.test_images), source.test_labels)

    def copies(times: float) -> Case:
        def case(pool: Pool, seed: int) -> tuple[Ints, Ints]:
            drawn = _drawn(some, items // 4, seed)
            return np.concatenate([drawn + at * some for at in range(int(times))]), labels

        return case

    return World(pool, {"copies": copies})


def irrelevant(source: Source, items: int) -> World:
    """Four classes that matter and "other"; in case "mixed" half of the pool is other, in "plain" nothing is.

    Tested on, and for EPIG aimed at, images of the four classes alone; the aims are not in any pool.
    """
    names = np.full(10, len(TASK))
    names[list(TASK)] = np.arange(len(TASK))
    labels, test_labels = names[source.labels], names[source.test_labels]
    matter, other = np.flatnonzero(labels < len(TASK)), np.flatnonzero(labels == len(TASK))
    aims, matter = matter[-100:], matter[:-100]
    relevant = test_labels < len(TASK)
    features = source.embed(source.images)
    pool = Pool(features, labels, source.embed(source.test_images)[relevant], test_labels[relevant], features[aims])

    def case(share: int) -> Case:
        def drawn(pool: Pool, seed: int) -> tuple[Ints, Ints]:
            own = generator(seed, "pool").permutation(matter)[: items // 2]
            others = generator(seed, "others").permutation(other)[: share * items // 2]
            return np.sort(np.concatenate([own, others])), labels

        return drawn

    return World(pool, {"plain": lambda _: case(0), "mixed": lambda _: case(1)})


WORLDS: dict[str, Callable[[Source, int], World]] = {
    "irrelevant": irrelevant,
    "plain": plain,
    "repeated": repeated,
    "traffic": traffic,
}


def _drawn(n: int, items: int, seed: int) -> Ints:
    return np.sort(generator(seed, "pool").permutation(n)[:items])


def _noisy(labels: Ints, items: Ints, share: float, seed: int) -> Ints:
    """The labels, those of a share of the items shuffled among them."""
    hit = generator(seed, "noise").permutation(items)[: round(share * len(items))]
    given = labels.copy()
    given[hit] = labels[generator(seed, "shuffle").permutation(hit)]
    return given


def _composites(images: Images, labels: Ints, n: int, which: int) -> Images:
    """Images whose halves are of different classes."""
    rng = generator(which, "composites")
    pairs = rng.integers(len(images), size=(4 * n, 2))
    pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]][:n]
    half = images.shape[1] // 2
    return np.concatenate([images[pairs[:, 0], :half], images[pairs[:, 1], half:]], axis=1)


def _noise(shape: tuple[int, ...], size: float, purpose: str) -> npt.NDArray[np.float32]:
    return size * generator(0, purpose).standard_normal(shape, np.float32)
