"""Semi-supervised training: batches that are labelled and batches that are not, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from baal_widgets.active.dataset import ActiveLearningDataset
from baal_widgets.active.dataset.base import RandomSource, as_generator
from baal_widgets.checks import positive


class AlternateIterator:
    """Batches of two loaders, `(batch, 0)` from the first and `(batch, 1)` from the second, `num_steps` a pass.

    They alternate, beginning with the first; with `p` each step takes the first with that probability. `num_steps` is
    by default the number of batches in both. A loader that is exhausted starts again, and reshuffles if that is its
    way; a pass goes on where the last one stopped, so that all of a large loader is seen in time. No batch is kept.
    `dl_2` may be `None`: then all comes from the first. `random_state` decides what `p` leaves open.
    """

    def __init__(
        self,
        dl_1: DataLoader[Any],
        dl_2: DataLoader[Any] | None,
        num_steps: int | None = None,
        p: float | None = None,
        *,
        random_state: RandomSource = None,
    ) -> None:
        self.dl_1, self.dl_2, self.p = dl_1, dl_2, _probability(p)
        self._num_steps = None if num_steps is None else positive("num_steps", num_steps)
        self._rng = as_generator(random_state)
        self._running: list[Iterator[Any] | None] = [None, None]

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[Any]:
        for step in range(self.num_steps):
            which = self._which(step)
            yield self.handle_format(self._next(which), which)

    @property
    def num_steps(self) -> int:
        """The number of batches in a pass."""
        if self._num_steps is not None:
            return self._num_steps
        return sum(0 if loader is None else len(loader) for loader in (self.dl_1, self.dl_2))

    def handle_format(self, item: Any, idx: int) -> Any:
        """A batch as it is handed out, with the loader it came from (0 or 1)."""
        return item, idx

    def _which(self, step: int) -> int:
        if self.dl_2 is None:
            return 0
        return step % 2 if self.p is None else int(self._rng.random() >= self.p)

    def _next(self, which: int) -> Any:
        loader = (self.dl_1, self.dl_2)[which]
        assert loader is not None
        for _ in range(2):
            running = self._running[which]
            if running is None:
                running = self._running[which] = iter(loader)
            try:
                return next(running)
            except StopIteration:
                self._running[which] = None
        raise ValueError(
            f"Loader {which + 1} of 2 has no batches: its dataset is empty, or with drop_last=True smaller than one."
        )


class SemiSupervisedIterator(AlternateIterator):
    """Labelled and unlabelled batches of an active learning dataset, in turn, or labelled with probability `p`.

    A batch that is a dict says which it is in `is_labelled`; any other comes as `(batch, 0)` if labelled and
    `(batch, 1)` if not. `is_labeled` and `get_batch` read both. A pass shows all that is labelled once, if
    `num_steps` does not say otherwise, and as many batches of the pool or, with `p`, in that proportion. With an
    empty pool or `p=1` training is supervised. It follows what is labelled from pass to pass. `random_state` governs
    shuffling and `p`. The pool's own targets are in its batches unless `make_unlabelled` takes them off.
    """

    IS_LABELED_TAG = "is_labelled"

    def __init__(
        self,
        al_dataset: ActiveLearningDataset,
        batch_size: int,
        num_steps: int | None = None,
        p: float | None = None,
        shuffle: bool = False,
        num_workers: int = 0,
        drop_last: bool = False,
        *,
        random_state: RandomSource = None,
    ) -> None:
        rng = as_generator(random_state)
        self.al_dataset = al_dataset
        self._options: dict[str, Any] = {
            "batch_size": positive("batch_size", batch_size),
            "num_workers": num_workers,
            "drop_last": drop_last,
        }
        self._shuffle = shuffle
        # a loader without a generator of its own draws from torch's global one
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in rng.integers(2**62, size=2)]
        super().__init__(*self._loaders(), num_steps, p, random_state=rng)
        self._seen = al_dataset.labelled_map
        self._check_batches()

    def __iter__(self) -> Iterator[Any]:
        now = self.al_dataset.labelled_map
        if (now != self._seen).any():
            self._seen, self._running = now, [None, None]
            self.dl_1, self.dl_2 = self._loaders()
            self._check_batches()
        return super().__iter__()

    @property
    def num_steps(self) -> int:
        if self._num_steps is not None:
            return self._num_steps
        labelled, pool = len(self.dl_1), 0 if self.dl_2 is None else len(self.dl_2)
        if not pool or self.p == 1:
            return labelled
        if self.p is None:
            return labelled + min(labelled, pool)
        return int(labelled / self.p) if self.p else pool

    def handle_format(self, item: Any, idx: int) -> Any:
        return {**item, self.IS_LABELED_TAG: idx == 0} if isinstance(item, Mapping) else (item, idx)

    @staticmethod
    def is_labeled(batch: Any) -> bool:
        """Whether a batch of this iterator is labelled."""
        if isinstance(batch, Mapping) and SemiSupervisedIterator.IS_LABELED_TAG in batch:
            return bool(batch[SemiSupervisedIterator.IS_LABELED_TAG])
        return _told(batch)[1] == 0

    @staticmethod
    def get_batch(batch: Any) -> Any:
        """A batch of this iterator as the loader gave it, without the mark."""
        if isinstance(batch, Mapping):
            return {key: value for key, value in batch.items() if key != SemiSupervisedIterator.IS_LABELED_TAG}
        return _told(batch)[0]

    def _loaders(self) -> tuple[DataLoader[Any], DataLoader[Any] | None]:
        pool = self.al_dataset.pool
        return self._loader(self.al_dataset, 0), self._loader(pool, 1) if len(pool) else None

    def _loader(self, dataset: Dataset[Any], which: int) -> DataLoader[Any]:
        # an empty dataset can't be shuffled, and torch says so before we could
        shuffle = self._shuffle and len(dataset) > 0  # type: ignore[arg-type]
        return DataLoader(dataset, shuffle=shuffle, generator=self._generators[which], **self._options)

    def _check_batches(self) -> None:
        if not len(self.dl_1) and self.p != 0:
            raise ValueError(
                f"There is no labelled batch among {len(self.al_dataset)} labelled items with {self._options}: label "
                "something first, or make batches smaller. p=0 takes the pool alone."
            )


def labelled_share(n_labelled: int, n_pool: int) -> float:
    """The `p` with which every item is shown equally often, labelled or not.

    >>> labelled_share(100, 300)
    0.25
    """
    return positive("n_labelled", n_labelled) / (n_labelled + n_pool)


def _told(batch: Any) -> tuple[Any, int]:
    if isinstance(batch, tuple) and len(batch) == 2 and batch[1] in (0, 1):
        return batch[0], batch[1]
    raise ValueError(f"Expected a batch that a SemiSupervisedIterator gave out, got {type(batch).__name__}.")


def _probability(p: float | None) -> float | None:
    if p is not None and not 0 <= p <= 1:
        raise ValueError(f"Expected p to be a probability between 0 and 1, or None to alternate, got {p}.")
    return p
