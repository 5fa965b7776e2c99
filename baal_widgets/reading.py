"""All that a learner reads: the pool, what it trains on, the test set and the targets, as images or as features."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from baal_widgets.bayesian.common import BayesianModule
from baal_widgets.bayesian.consistent_dropout import MCConsistentDropoutModule
from baal_widgets.bayesian.dropout import MCDropoutModule
from baal_widgets.bayesian.frozen import Split, is_frozen, split
from baal_widgets.inputs import WithTargets
from baal_widgets.jobs import Course, Job
from baal_widgets.modelwrapper import ModelWrapper, deterministic
from baal_widgets.shelves import Shelf, key_of, splittable
from baal_widgets.sources import Inputs, Source
from baal_widgets.utils.structures import to_device


class Reading:
    """Where a learner's data come from. Without a `Split` they are the inputs, with one the features of its backbone.

    `features` is the folder that those are kept in, `True` keeps them in memory, `False` makes none. `memory` bytes
    of each dataset's inputs are kept as well, where each is the same at every read.
    """

    def __init__(
        self,
        source: Source,
        test_set: Dataset[Any] | None,
        targets: Dataset[Any] | None,
        *,
        features: Path | bool,
        memory: int,
        device: torch.device,
        plain: bool = True,
    ) -> None:
        self.source, self.test_set, self.features, self.device = source, test_set, features, device
        self.plain = plain
        self._targets, self._whole = targets, False
        pool = source.dataset.pool_dataset
        named = {"pool": pool, "test": test_set, "targets": targets}
        self._shelves = {
            name: Shelf(dataset, memory=memory, device=device) for name, dataset in named.items() if dataset is not None
        }
        if source.files is not None:
            self._shelves["pool"] = Shelf(pool, memory=memory, device=device, files=source.files, keys=source.keys)
        self._missing: dict[str, list[int]] = {}

    def twin(self) -> Reading:
        """For a learner of the same model: reads by itself, and keeps features in the same place."""
        twin = copy.copy(self)
        twin._shelves = {name: copy.copy(shelf) for name, shelf in self._shelves.items()}
        return twin

    @property
    def has_features(self) -> bool:
        return self._shelves["pool"].has_features

    def split(self, wrapper: ModelWrapper, items: Sequence[int]) -> Split | None:
        """The wrapper's model as a frozen backbone and a head; `None` where it has none, or must read each time."""
        model = wrapper.model
        drops = type(model) in (MCDropoutModule, MCConsistentDropoutModule)
        if self.features is False or not self.plain or (isinstance(model, BayesianModule) and not drops):
            return None
        if all(one.requires_grad for one in model.parameters()):
            return None
        shelves = self._shelves.items()
        pool = self._shelves["pool"].dataset
        if not all(splittable(shelf.dataset, items if name == "pool" else range(shelf.n)) for name, shelf in shelves):
            return None
        model.to(self.device)
        some = default_collate([Inputs(pool)[item] for item in (items[0], items[-1])])
        found = split(deterministic(model), to_device(some, self.device))
        return None if found is None or is_frozen(found.head) else found

    def take_apart(self, found: Split | None) -> None:
        """Give features from now on; the inputs again without a split."""
        self._missing = {}
        if found is not None and self.source.dataset.pool_specifics:
            warnings.warn(
                "The model's backbone is frozen, but pool_specifics give the pool another transform than training "
                "has: the pool is scored from kept features, and training runs the backbone at each step. Take "
                "pool_specifics away to train on kept features too, without augmentation.",
                UserWarning,
                stacklevel=2,
            )
        key = "" if found is None else key_of(found)
        for name, shelf in self._shelves.items():
            shelf.take_features(found, self.features / key / name if isinstance(self.features, Path) else None)

    def look(self, items: Sequence[int], job: Job[Any]) -> int:
        """How many features are to be computed before these items, and all of the other datasets, can be read."""
        if not self.has_features:
            return 0

        def told(done: int, n: int) -> None:
            job.report("features", 0.0, f"looking at {n - done} images")

        for name, shelf in self._shelves.items():
            self._missing[name] = shelf.missing(items if name == "pool" else range(shelf.n), told)
        return sum(map(len, self._missing.values()))

    def fill(self, course: Course) -> None:
        """Compute what `look` found missing, telling the course; what is done when it is cancelled is kept."""
        whole, before = sum(map(len, self._missing.values())), 0
        for name, missing in self._missing.items():

            def told(done: int, _: int, before: int = before) -> None:
                share = (before + done) / whole
                course.report("features", share, f"features of {before + done} of {whole} images, once for all lessons")

            if missing:
                self._shelves[name].fill(missing, told)
            before += len(missing)
        self._missing = {}

    def inputs(self, items: Sequence[int]) -> Dataset[Any]:
        """What to predict on, as the pool sees it."""
        return self._of("pool", items) or self.source.inputs(items)

    def examples(self, targets: Mapping[int, Any]) -> tuple[Dataset[Any], bool]:
        """What to train on, and whether that is for the whole model and not for the head of a split."""
        items = sorted(targets)
        inputs = None if self.source.dataset.pool_specifics else self._of("pool", items)
        if inputs is None:
            return self.source.examples(targets), True
        return WithTargets(inputs, [targets[item] for item in items]), not self.has_features

    def test(self) -> Dataset[Any]:
        assert self.test_set is not None
        shelf = self._shelves["test"]
        return self._of("test", range(shelf.n)) or Inputs(self.test_set)

    def targets(self) -> Dataset[Any]:
        assert self._targets is not None
        shelf = self._shelves["targets"]
        return self._of("targets", range(shelf.n)) or Inputs(self._targets)

    def _of(self, name: str, items: Sequence[int]) -> Any:
        return self._shelves[name].of(items) if self.plain else None
