"""Other training libraries in a session: all it asks of them is to train on what is labelled, and to predict."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.utils.data import Dataset

from baal_widgets.active.heuristics.heuristics import is_array
from baal_widgets.arrays import as_numpy
from baal_widgets.modelwrapper import ITERATIONS, ModelWrapper


class Trainer(Protocol):
    """What a `LabellingSession` takes in the place of a model: Lightning, fastai, transformers, scikit-learn...

    Two more methods are called where there are any, so that every `FrameworkAdapter` is a trainer too:
    `reset_weights()` before each lesson, and `features(dataset)`, `[item, feature]`, for heuristics such as `CoreSet`
    (those that need no label ask for it before the first lesson) and for the nearest labelled items. A session works on
    a copy of the trainer, made by `copy.deepcopy`. Torch's global random state is seeded for each lesson; chance
    of another kind is the trainer's to seed.
    """

    def train(self, dataset: Dataset[Any]) -> Iterable[float] | Mapping[str, Any] | None:
        """Learn from pairs (input, class index), from the beginning and not from where the last lesson ended.

        May give the losses, one a step or an epoch. Where they come one by one, as from a generator, they are shown
        beside the labelling, and the lesson can be cancelled between two of them.
        """

    def predict(self, dataset: Dataset[Any], iterations: int) -> Any:
        """Probabilities or logits of inputs (no targets), `[item, class, draw]`, or an iterator of batches of them.

        There is a column for each class of the session, labelled already or not. `iterations` is how many draws are
        asked for; more or fewer are taken too. With `multi_label` they are logits.
        """


class TrainerWrapper(ModelWrapper):
    """A `Trainer` in the place of a `ModelWrapper`."""

    def __init__(self, trainer: Trainer, n_classes: int, device: str | None = None) -> None:
        missing = [name for name in ("train", "predict") if not callable(getattr(trainer, name, None))]
        if missing:
            raise TypeError(
                "Expected an nn.Module, a ModelWrapper, or a trainer with train(dataset) and predict(dataset, "
                f"iterations); {type(trainer).__name__} has no {' and no '.join(missing)}. "
                "See baal_widgets.trainers.Trainer."
            )
        super().__init__(nn.Identity(), device=device)
        self.trainer, self.n_classes = trainer, n_classes

    def training_steps(self, dataset: Dataset[Any], *_: Any, **__: Any) -> Iterator[float]:
        losses = self.trainer.train(dataset)
        if losses is not None and not isinstance(losses, Mapping):
            yield from map(float, losses)

    def predict_on_dataset_generator(self, dataset: Dataset[Any], *_: Any, **named: Any) -> Iterator[Any]:
        n, seen = len(dataset), 0  # type: ignore[arg-type]  # torch's Dataset does not promise a length
        if not n:
            return
        told = self.trainer.predict(dataset, named.get("iterations", ITERATIONS))
        for part in [told] if is_array(told) else told:
            if not is_array(part) or part.ndim != 3 or part.shape[1] != self.n_classes:
                raise ValueError(
                    f"Expected {type(self.trainer).__name__}.predict to give [item, class, draw] with a column for "
                    f"each of {self.n_classes} classes, got {tuple(getattr(part, 'shape', ())) or type(part).__name__}."
                )
            seen += len(part)
            yield part
        if seen != n:
            raise ValueError(f"Expected {type(self.trainer).__name__}.predict to tell of {n} items, got {seen}.")

    def draws_on_dataset(self, dataset: Dataset[Any], *positional: Any, **named: Any) -> Iterator[Any]:
        return self.predict_on_dataset_generator(dataset, *positional, **named)

    def features_on_dataset(self, dataset: Dataset[Any], **_: Any) -> npt.NDArray[Any]:
        features = getattr(self.trainer, "features", None)
        if features is None:
            raise ValueError(
                f"{type(self.trainer).__name__} has no features(dataset), [item, feature]. Give it one, or take a "
                "heuristic that looks at predictions."
            )
        n = len(dataset)  # type: ignore[arg-type]
        return as_numpy(features(dataset)) if n else np.zeros((0, 0), np.float32)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """The trainer's own way back to where training begins, if it has one."""
        reset = getattr(self.trainer, "reset_weights", None)
        if reset is not None:
            reset()

    def twin(self) -> Self:
        twin = super().twin()
        twin.trainer = copy.deepcopy(self.trainer)
        return twin


def check_left_to_it(model: Any, **options: Any) -> None:
    """Raise `ValueError` if one of the options is given with a `Trainer`, whose own affair they are."""
    if model is None or isinstance(model, (nn.Module, ModelWrapper)):
        return
    for name, value in options.items():
        if value:
            raise ValueError(
                f"{name}= is for torch models: what {type(model).__name__} does about it is its own affair."
            )
