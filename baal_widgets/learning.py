"""One lesson: train on a snapshot of the labels, measure on the test set, score the pool."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import Dataset

from baal_widgets import metrics
from baal_widgets.active.heuristics import AbstractHeuristic
from baal_widgets.active.heuristics.knowledge import N_TARGETS, known_to
from baal_widgets.active.scores import to_probabilities
from baal_widgets.bayesian.common import BayesianModule, draws_once
from baal_widgets.bayesian.dropout import MCDropoutModule, stochastic_layers
from baal_widgets.jobs import Job
from baal_widgets.models import small_cnn
from baal_widgets.modelwrapper import ModelWrapper
from baal_widgets.sources import Inputs, Source, input_of, target_of
from baal_widgets.training import Training, until_flat

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Lesson:
    """What the model learned from a snapshot: measures, and the pool ranked by it, most wanted first."""

    metrics: dict[str, Any]
    items: tuple[int, ...]
    scores: tuple[float | None, ...]


class Learner:
    """The model of a session, and how it learns. Holds no labels: each lesson is given its own.

    Works on a copy of the model that it was given, which stays as it was.

    Every lesson starts from the weights the model came with, so what it knows depends on the labels and the
    seed alone, not on the way there (Gal et al. 2017).
    """

    def __init__(
        self,
        source: Source,
        model: nn.Module | ModelWrapper | None,
        *,
        n_classes: int,
        test_set: Dataset[Any] | None,
        heuristic: AbstractHeuristic,
        iterations: int,
        training: Training,
        device: str | None,
        seed: int,
        targets: Dataset[Any] | None = None,
    ) -> None:
        self.source, self.test_set, self.heuristic, self.targets = source, test_set, heuristic, targets
        self.iterations, self.training, self.n_classes, self.seed = iterations, training, n_classes, seed
        if isinstance(model, ModelWrapper):
            wrapper = copy.copy(model)
            wrapper.model = copy.deepcopy(model.model)
        else:
            wrapper = ModelWrapper(
                default_model(source, n_classes, seed) if model is None else copy.deepcopy(model),
                nn.CrossEntropyLoss(),
                device=device,
            )
        self.wrapper = wrapper
        posterior = posterior_of(wrapper.model, joint=heuristic.joint)
        self.predictor = ModelWrapper(posterior, device=wrapper.device)
        self._initial = copy.deepcopy(wrapper.model.state_dict())
        self._test_targets: npt.NDArray[np.int64] | None = None

    def learn(self, targets: Mapping[int, int], candidates: Sequence[int], round_: int, job: Job[Any]) -> Lesson:
        """Train on `{item: class index}` and rank the `candidates`. Reports to `job` batch by batch.

        Draws from torch's global random state, for want of another in its dropout, and puts it back afterwards. So
        lessons of one process take turns, and what else draws from it meanwhile is not reproducible.
        """
        began = time.perf_counter()
        with _taking_turns(job), _seeded(self.seed, round_, self.wrapper.device):
            job.report("train", 0.0, f"training on {len(targets)} labels")
            self.wrapper.load_state_dict(self._initial)
            losses, converged = self._train(targets, job)
            self._fit(targets, job)
            told: dict[str, Any] = {
                "round": round_,
                "n_labelled": len(targets),
                "loss": round(float(np.mean(losses[-self.training.window :])), 6),
                "steps": len(losses),
                "converged": converged,
                "losses": [round(float(part.mean()), 4) for part in np.array_split(losses, min(len(losses), 60))],
            }
            if self.test_set is not None:
                told |= self._test(self.test_set, job)
            items, scores = self._rank(candidates, targets, round_, job)
        told["uncertainty"] = _mean(scores)
        told["seconds"] = round(time.perf_counter() - began, 2)
        return Lesson(told, items, scores)

    def _train(self, targets: Mapping[int, int], job: Job[Any]) -> tuple[list[float], bool]:
        training, losses, flat = self.training, list[float](), False
        steps = self.wrapper.training_steps(
            self.source.examples(targets),
            optimizer=training.make_optimizer(self.wrapper.get_params()),
            batch_size=training.batch_size,
            epoch=training.max_steps,  # an epoch has at least one step
        )
        for loss, is_flat in until_flat(steps, training):
            flat = is_flat
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"The loss became {loss} at step {len(losses) + 1}. Labels are untouched; try a lower "
                    "learning rate: LabellingSession(..., training=Training(lr=1e-4))."
                )
            losses.append(loss)
            share = len(losses) / training.max_steps
            job.report("train", 0.8 * share, f"step {len(losses)}, loss {loss:.3f}")
        return losses, flat

    def _fit(self, targets: Mapping[int, int], job: Job[Any]) -> None:
        """What the model fits once it is trained, such as the other members of an ensemble."""
        model = self.wrapper.model
        if not isinstance(model, BayesianModule):
            return

        def train() -> None:
            self.wrapper.reset_all()
            self._train(targets, job)

        model.fit(
            self.source.examples(targets),
            criterion=self.wrapper.criterion,
            batch_size=self.training.batch_size,
            collate_fn=self.wrapper.args.collate_fn,
            train=train,
        )

    def _test(self, test_set: Dataset[Any], job: Job[Any]) -> dict[str, Any]:
        if self._test_targets is None:
            self._test_targets = np.array([int(target_of(example)) for example in each(test_set)])
        parts = list(self._draws(Inputs(test_set), len(self._test_targets), job, "test", 0.8))
        mean = np.concatenate([to_probabilities(part).mean(axis=-1) for part in parts])
        if mean.ndim != 2 or mean.shape[1] != self.n_classes:
            raise ValueError(
                f"The model gives outputs shaped {mean.shape[1:]} for an image; expected ({self.n_classes},): "
                "one output for each class."
            )
        bins = metrics.calibration_bins(mean, self._test_targets, n_bins=10)
        return {
            "n_test": len(mean),
            "accuracy": float(metrics.accuracy(mean, self._test_targets)),
            "nll": float(metrics.nll(mean, self._test_targets)),
            "brier": float(metrics.brier(mean, self._test_targets)),
            "ece": float(metrics.ece(mean, self._test_targets, n_bins=10)),
            "reliability": {
                "count": [int(n) for n in bins.count],
                "confidence": [_finite(x) for x in bins.confidence],
                "accuracy": [_finite(x) for x in bins.accuracy],
            },
        }

    def rank_unlabelled(
        self, candidates: Sequence[int], labelled: Collection[int] = ()
    ) -> tuple[tuple[int, ...], tuple[float | None, ...]] | None:
        """The candidates ranked by the model as it came; `None` where the heuristic needs a trained one."""
        if "features" not in self.heuristic.takes[:1]:
            return None
        return self._rank(candidates, labelled, 0, Job(lambda _: None))

    def _rank(
        self, candidates: Sequence[int], labelled: Collection[int], round_: int, job: Job[Any]
    ) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
        if not candidates:
            return (), ()
        known = known_to(
            self.heuristic,
            self.source.inputs(candidates),
            predict=lambda inputs: self._draws(inputs, len(inputs), job, "score", 0.9),  # type: ignore[arg-type]
            features=self.wrapper.features_on_dataset,
            labelled=self.source.inputs(sorted(labelled)),
            targets=self._targets(candidates),
        )
        heuristic = copy.copy(self.heuristic)
        # what it draws depends on the round alone, so that a session opened again goes on as it would have
        heuristic.rng = np.random.default_rng([self.seed, round_])
        ranks, scores = heuristic.ranking(*known)
        return tuple(int(candidates[i]) for i in ranks), tuple(_finite(scores[i]) for i in ranks)

    def _targets(self, candidates: Sequence[int]) -> Dataset[Any]:
        """The inputs whose labels matter: those given, or some of the candidates; none where nobody asks."""
        if "target_predictions" not in self.heuristic.takes:
            return self.source.inputs(())
        if self.targets is not None:
            return Inputs(self.targets)
        rng = np.random.default_rng([self.seed, len(candidates)])
        return self.source.inputs(rng.choice(candidates, min(N_TARGETS, len(candidates)), replace=False).tolist())

    def _draws(self, inputs: Dataset[Any], n: int, job: Job[Any], phase: str, base: float) -> Iterator[Floats]:
        """Predictions `[batch, class, draw]`, batch by batch, reporting a tenth of the whole job."""
        size, seen = max(self.training.batch_size, 64), 0
        for part in self.predictor.predict_on_dataset_generator(inputs, batch_size=size, iterations=self.iterations):
            yield part
            seen += len(part)
            job.report(phase, base + 0.1 * seen / n, f"{seen} of {n} images")


def posterior_of(model: nn.Module, joint: bool = False) -> nn.Module:
    """The model with its uncertainty: itself where it samples by itself, else with its dropout left on.

    `joint` lets each draw be one model for all items. Raises `ValueError` where nothing in the model is stochastic.
    """
    if isinstance(model, BayesianModule) or draws_once(model):
        return model
    if not stochastic_layers(model):
        raise ValueError(
            f"{type(model).__name__} has no dropout that is on, so MC-Dropout cannot tell what it is unsure of. Put "
            "nn.Dropout(0.5) before its last linear layer, pass LaplaceModule(model) or EnsembleModule(model), which "
            "need none, or pass no model to use a small CNN."
        )
    if joint:
        from baal_widgets.bayesian.consistent_dropout import MCConsistentDropoutModule

        return MCConsistentDropoutModule(model)
    return MCDropoutModule(model)


def default_model(source: Source, n_classes: int, seed: int) -> nn.Module:
    """A small CNN for the images of a dataset, its weights drawn from the seed."""
    shape = np.shape(input_of(source.dataset.pool_dataset[0]))
    if len(shape) != 3:
        raise ValueError(
            f"The items of the dataset are shaped {shape}; the built-in CNN takes images [channel, height, width]. "
            "Pass a model of your own."
        )
    with _seeded(seed, 0, torch.device("cpu")):
        return small_cnn(n_classes, channels=shape[0], side=(shape[1], shape[2]))


def each(dataset: Dataset[Any]) -> Iterator[Any]:
    """The items of a map-style dataset, by index: not every dataset stops iterating by itself."""
    return (dataset[place] for place in range(len(dataset)))  # type: ignore[arg-type]


_TURN = threading.Lock()


@contextmanager
def _taking_turns(job: Job[Any]) -> Iterator[None]:
    """Wait, cancellably, until no other lesson runs in this process."""
    while not _TURN.acquire(timeout=0.2):
        job.report("wait", 0.0, "another session is learning")
    try:
        yield
    finally:
        _TURN.release()


@contextmanager
def _seeded(seed: int, round_: int, device: torch.device) -> Iterator[None]:
    """Torch's randomness (dropout, shuffling) from the seed and the round; put back afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.SeedSequence([seed, round_]).generate_state(1)[0]))
        yield


def _mean(scores: Sequence[float | None]) -> float | None:
    finite = [score for score in scores if score is not None]
    return _finite(np.mean(finite)) if finite else None


def _finite(number: float | np.floating[Any]) -> float | None:
    return float(number) if np.isfinite(number) else None
