"""One lesson: train on a snapshot of the labels, measure on the test set, score the pool."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import Dataset

from baal_widgets.active.heuristics import AbstractHeuristic
from baal_widgets.active.heuristics.knowledge import N_TARGETS, known_to
from baal_widgets.active.scores import to_probabilities
from baal_widgets.active.stopping_criteria import cohen_kappa
from baal_widgets.arrays import as_numpy
from baal_widgets.bayesian.common import BayesianModule, draws_once
from baal_widgets.bayesian.dropout import MCDropoutModule, stochastic_layers
from baal_widgets.bayesian.folded import FoldedDropoutModule, can_fold
from baal_widgets.inputs import MEMORY
from baal_widgets.insight import Dispute, Insight, Predicted, Recorder, disputed, unit_rows
from baal_widgets.jobs import Course, Job
from baal_widgets.measures import measures, measures_of_sets, rounded
from baal_widgets.merging import measured_by_class
from baal_widgets.models import small_cnn
from baal_widgets.modelwrapper import ModelWrapper
from baal_widgets.reading import Reading
from baal_widgets.sources import Source, input_of, target_of
from baal_widgets.trainers import Trainer, TrainerWrapper
from baal_widgets.training import Training, until_flat
from baal_widgets.widening import output_layer, widen

Floats = npt.NDArray[np.floating[Any]]

N_EXPLAINED = 264  # of the ranking, by its features
N_REMEMBERED = 2_000  # of the pool, by which one lesson's model is compared with that of the next
N_PANEL = 500  # of the pool that stand for it where the heuristic looks at no predictions
AT_ONCE = 512  # items between two looks at whether the job is cancelled
WEIGHTS = {"features": 4.0, "train": 0.8, "test": 0.1, "score": 0.08, "explain": 0.02}


@dataclass(frozen=True)
class Lesson:
    """What the model learned from a snapshot: measures, and the pool ranked by it, most wanted first.

    `insight` is what it said of each item, where that was asked for. `said` is what the next lesson is compared with,
    in plain types, to be kept with the measures.
    """

    metrics: dict[str, Any]
    items: tuple[int, ...]
    scores: tuple[float | None, ...]
    insight: Insight | None = None
    said: Mapping[str, Any] | None = None


class Learner:
    """The model of a session, and how it learns. Holds no labels: each lesson is given its own.

    Works on a copy of the model that it was given, which stays as it was.

    Every lesson starts from the weights the model came with, unless `training` says otherwise. `explained` items of
    each ranking are shown beside their neighbours. With `multi_label` an item may belong to several classes: targets
    are rows of zeros and ones, each output is the logit of one class, and a heuristic needs a `reduction` over the
    classes, such as "mean". Of a model with a frozen backbone the head alone learns, from `features` that are kept, and
    its draws have one mask for all items: see `Reading` and `FoldedDropoutModule`. A `Trainer` learns and predicts in
    its own way, whatever `training` says.
    """

    def __init__(
        self,
        source: Source,
        model: nn.Module | ModelWrapper | Trainer | None,
        *,
        n_classes: int,
        test_set: Dataset[Any] | None,
        heuristic: AbstractHeuristic,
        iterations: int,
        training: Training,
        device: str | None,
        seed: int,
        targets: Dataset[Any] | None = None,
        explained: int = N_EXPLAINED,
        multi_label: bool = False,
        features: Path | bool = True,
        memory: int = MEMORY,
    ) -> None:
        self.source, self.test_set, self.heuristic, self.targets = source, test_set, heuristic, targets
        self.iterations, self.training, self.n_classes, self.seed = iterations, training, n_classes, seed
        self.explained, self.multi_label, self._built_in = explained, multi_label, model is None
        if isinstance(model, ModelWrapper):
            wrapper = model.twin()
        elif model is not None and not isinstance(model, nn.Module):
            wrapper = TrainerWrapper(copy.deepcopy(model), n_classes, device)
        else:
            wrapper = ModelWrapper(
                default_model(source, n_classes, seed) if model is None else copy.deepcopy(model),
                nn.BCEWithLogitsLoss() if multi_label else nn.CrossEntropyLoss(),
                device=device,
            )
        self.wrapper: ModelWrapper = wrapper
        self._last: dict[str, Any] | None = None  # the weights of the lesson before, for a warm start
        self.reading = Reading(
            source,
            test_set,
            targets,
            features=features,
            memory=memory,
            device=wrapper.device,
            plain=wrapper.args.collate_fn is None and not wrapper.args.workers and not self._is_outside,
        )
        self._built()
        self._initial = copy.deepcopy(wrapper.model.state_dict())
        self._n_outputs = n_classes
        self.merged: Mapping[int, int] = {}
        """By the number of a class merged away: that of the class it is now. Tests are measured by class."""
        self.arithmetic: Sequence[str] | None = None
        """What it predicts in, by name, from when a lesson has measured it: another run might find another."""
        self._test_targets: npt.NDArray[Any] | None = None
        self._rates: dict[str, float] = {}
        self._said: tuple[npt.NDArray[np.int64], npt.NDArray[Any]] | None = None

    @property
    def model(self) -> Any:
        """The module or trainer that learns."""
        return self.wrapper.trainer if isinstance(self.wrapper, TrainerWrapper) else self.wrapper.model

    @property
    def _is_outside(self) -> bool:
        """Whether another library learns, in its own way."""
        return isinstance(self.wrapper, TrainerWrapper)

    def set_classes(self, n: int) -> None:
        """From the next lesson on, let the model have one output for each of `n` classes, no fewer than before.

        The built-in CNN is built anew. Of another model the last linear or convolutional layer with as many outputs as
        there were classes gets more of them; where there is none, but one with `n`, the model has them already.
        Raises `ValueError` where there is neither, as in a `Trainer`, and changes nothing then.
        """
        if n < self.n_classes:
            raise ValueError(f"Expected at least the {self.n_classes} classes that there are, got {n}.")
        if not self._built_in and n != self._n_outputs:
            self._output_layer(n)
        self.n_classes = n

    def fork(self, job: Job[Any]) -> Learner:
        """A learner of the same model and options, whose lessons leave this one's model alone.

        Waits, cancellably, while a lesson runs.
        """
        with _taking_turns(job):
            twin = copy.copy(self)
            twin.wrapper, twin.reading = self.wrapper.twin(), self.reading.twin()
            twin._built()
            twin._rates, twin._said = dict(self._rates), None
        return twin

    def learn(
        self,
        targets: Mapping[int, Any],
        candidates: Sequence[int],
        round_: int,
        job: Job[Any],
        *,
        insight: bool = True,
    ) -> Lesson:
        """Train on `{item: class index}` and rank the `candidates`. Reports to `job` batch by batch.

        With `insight`, what the model says of each item is kept while the pool is scored, and the labelled items are
        predicted once more: 5 % of the time of a lesson on 250 labels of the demo. Disputing labels takes the square
        of their number, a second or two for 10,000.

        Draws from torch's global random state, for want of another in its dropout, and puts it back afterwards. So
        lessons of one process take turns, and what else draws from it meanwhile is not reproducible.
        """
        began = time.perf_counter()
        with _taking_turns(job), _seeded(self.seed, round_, self.wrapper.device):
            self._grow()
            if self.multi_label:
                targets = {item: self._row(row) for item, row in targets.items()}
            self._begin()
            missing = self._take_apart([*targets, *candidates], job)
            self.predictor.use_arithmetic(self.wrapper.args.arithmetic if self.arithmetic is None else self.arithmetic)
            course = self._course(job, len(targets), len(candidates), insight, missing)
            self.reading.fill(course)
            course.report("train", 0.0, f"training on {len(targets)} labels")
            losses, converged = self._train(targets, course)
            self._fit(targets, course)
            told: dict[str, Any] = {
                "round": round_,
                "n_labelled": len(targets),
                "loss": round(float(np.mean(losses[-self.training.window :])), 6) if losses else None,
                "steps": len(losses),
                "converged": converged,
                "losses": [round(float(np.mean(part)), 4) for part in _in_parts(losses)],
            }
            if self.test_set is not None:
                told |= self._test(self.test_set, round_, course)
            recorder = Recorder(candidates, self.multi_label)
            items, scores = self._rank(candidates, targets, round_, course, recorder)
            if self.predictor.arithmetic.trials:
                self.arithmetic = self.predictor.arithmetic.names
            if self.arithmetic is not None:
                told["arithmetic"] = list(self.arithmetic)
            # from here on nothing may be drawn that the lesson depends on
            found = (
                self._insight(targets, candidates, items, scores, recorder, round_, told, course) if insight else None
            )
            course.end()
            if self.training.start == "warm":
                self._last = copy.deepcopy(self.wrapper.state_dict())
        told["uncertainty"] = _mean(scores)
        told["seconds"] = round(time.perf_counter() - began, 2)
        return Lesson(told, items, scores, found, None if found is None else self._told())

    def remember(self, told: Mapping[str, Any] | None) -> None:
        """Take what an earlier lesson said, perhaps of another process, for that of the lesson before the next."""
        self._said = None
        if told is not None:
            said = np.asarray(told["said"], bool if self.multi_label else np.intp)
            self._said = np.asarray(told["items"], np.int64), said.reshape(len(told["items"]), -1)

    def _told(self) -> dict[str, Any] | None:
        if self._said is None:
            return None
        items, said = self._said
        return {"items": items.tolist(), "said": said.astype(int).tolist()}

    def _train(self, targets: Mapping[int, Any], course: Course) -> tuple[list[float], bool | None]:
        """The loss of each step, and whether it is flat by now; `None` where another library ends the training."""
        training, losses = self.training, list[float]()
        flat: bool | None = None if self._is_outside else False
        examples, whole = self.reading.examples(targets)
        if self._is_outside:
            steps: Iterator[tuple[float, bool | None]] = (
                (loss, None) for loss in self.wrapper.training_steps(examples)
            )
        else:
            student = self.wrapper if whole else self._student
            losses_of = student.training_steps(
                examples,
                optimizer=training.make_optimizer(student.get_params()),
                batch_size=training.batch_size,
                epoch=training.max_steps,  # an epoch has at least one step
            )
            steps = until_flat(losses_of, training)
        for loss, is_flat in steps:
            flat = is_flat
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"The loss became {loss} at step {len(losses) + 1}. Labels are untouched; try a lower "
                    "learning rate: LabellingSession(..., training=Training(lr=1e-4))."
                )
            losses.append(loss)
            course.report(
                "train", min(len(losses) / training.max_steps, 1.0), f"step {len(losses)}, loss {loss:.3f}", loss=loss
            )
        return losses, flat

    def _fit(self, targets: Mapping[int, Any], course: Course) -> None:
        """What the model fits once it is trained, such as the other members of an ensemble."""
        model = self.wrapper.model
        if not isinstance(model, BayesianModule):
            return

        def train() -> None:
            self.wrapper.reset_all()
            self._train(targets, course)

        model.fit(
            self.source.examples(targets),
            criterion=self.wrapper.criterion,
            batch_size=self.wrapper.fitting(self.training.batch_size),
            collate_fn=self.wrapper.args.collate_fn,
            train=train,
        )

    def _test(self, test_set: Dataset[Any], round_: int, course: Course) -> dict[str, Any]:
        if self._test_targets is None:
            found = [target_of(example) for example in each(test_set)]
            self._test_targets = np.array([as_numpy(one) if self.multi_label else int(one) for one in found])
        parts = self._draws(self.reading.test(), len(self._test_targets), course, "test")
        means = [part[:, 1] if self.multi_label else to_probabilities(part) for part in parts]
        mean = np.concatenate([one.mean(axis=-1) for one in means])
        if mean.ndim != 2 or mean.shape[1] != self._n_outputs:
            raise ValueError(
                f"The model gives outputs shaped {mean.shape[1:]} for an image; expected ({self._n_outputs},): "
                "one output for each class."
            )
        rng, truth = np.random.default_rng([self.seed, round_]), self._test_targets
        if self.multi_label:
            truth = np.stack([as_numpy(self._row(one)) for one in truth])
        mean, truth = measured_by_class(mean, truth, self.merged, self.multi_label)
        return measures_of_sets(mean, truth, rng) if self.multi_label else measures(mean, truth, rng)

    def rank_unlabelled(
        self, candidates: Sequence[int], labelled: Collection[int] = ()
    ) -> tuple[tuple[int, ...], tuple[float | None, ...]] | None:
        """The candidates ranked by the model as it came; `None` where the heuristic needs a trained one."""
        if "features" not in self.heuristic.takes[:1]:
            return None
        job: Job[Any] = Job(lambda _: None)
        missing = self._take_apart([*candidates, *labelled], job)
        course = self._course(job, 0, len(candidates), False, missing)
        self.reading.fill(course)
        return self._rank(candidates, labelled, 0, course, Recorder(()))

    def _rank(
        self,
        candidates: Sequence[int],
        labelled: Collection[int],
        round_: int,
        course: Course,
        recorder: Recorder,
    ) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
        if not candidates:
            return (), ()

        def predict(inputs: Dataset[Any]) -> Iterator[Floats]:
            for part in self._draws(inputs, len(inputs), course, "score"):  # type: ignore[arg-type]
                probabilities = recorder.add(part)
                yield probabilities if self.heuristic.takes_either else part

        known = known_to(
            self.heuristic,
            self.reading.inputs(candidates),
            predict=predict,
            features=self.predictor.features_on_dataset,
            labelled=self.reading.inputs(sorted(labelled)),
            targets=self._targets(candidates),
        )
        heuristic = copy.copy(self.heuristic)
        # what it draws depends on the round alone, so that a session opened again goes on as it would have
        heuristic.rng = np.random.default_rng([self.seed, round_])
        ranks, scores = heuristic.ranking(*known)
        ranked = scores[ranks].astype(float)
        told: list[float | None] = ranked.tolist()
        for place in np.flatnonzero(~np.isfinite(ranked)):
            told[place] = None
        return tuple(np.asarray(candidates)[ranks].tolist()), tuple(told)

    def _targets(self, candidates: Sequence[int]) -> Dataset[Any]:
        """The inputs whose labels matter: those given, or some of the candidates; none where nobody asks."""
        if "target_predictions" not in self.heuristic.takes:
            return self.reading.inputs(())
        if self.targets is not None:
            return self.reading.targets()
        rng = np.random.default_rng([self.seed, len(candidates)])
        return self.reading.inputs(rng.choice(candidates, min(N_TARGETS, len(candidates)), replace=False).tolist())

    def _draws(self, inputs: Dataset[Any], n: int, course: Course, phase: str) -> Iterator[Floats]:
        """Predictions `[batch, class, draw]`, batch by batch, reporting each."""
        size, seen = max(self.training.batch_size, 64 if not self.reading.has_features else 4 * AT_ONCE), 0
        # scores are made where the model is; whoever looks at all draws together gets them as they are kept
        alone = phase == "score" and self.heuristic.score is not None
        predict = self.predictor.draws_on_dataset if alone else self.predictor.predict_on_dataset_generator
        for part in predict(inputs, batch_size=size, iterations=self.iterations):
            yield _of_each_class(part) if self.multi_label else part
            seen += len(part)
            course.report(phase, seen / n, f"{seen} of {n} images")

    def _insight(
        self,
        targets: Mapping[int, Any],
        candidates: Sequence[int],
        ranking: Sequence[int],
        scores: Sequence[float | None],
        recorder: Recorder,
        round_: int,
        told: dict[str, Any],
        course: Course,
    ) -> Insight:
        """What the model says of each item; adds what it says of the pool as a whole to the row that is `told`."""
        course.report("explain", 0.0, "looking at what it knows")
        labelled, shown, panel = sorted(targets), list(ranking[: self.explained]), list(candidates)
        pool = recorder.predicted()
        if candidates and not len(pool) and "predictions" not in self.heuristic.takes:
            panel = self._panel(candidates)
            pool = self._predicted(list(dict.fromkeys([*shown, *panel])), course)
        known = self._predicted(labelled, course)
        told |= self._of_pool(pool.of(panel))
        feature_items = np.array(sorted({*shown, *labelled}), np.int64)
        features = self._features(feature_items.tolist(), course)
        disputes: tuple[Dispute, ...] = ()
        if len(features) and not self.multi_label:
            disputes = disputed(
                labelled,
                [targets[item] for item in labelled],
                features[np.searchsorted(feature_items, labelled)],
                told=lambda share: course.report("explain", share, "looking for labels to check"),
            )
        return Insight(
            round=round_,
            predicted=pool.joined(known).ordered(),
            ranking=np.asarray(ranking, np.int64),
            scores=np.asarray([np.nan if score is None else score for score in scores], np.float64),
            labels={item: _classes_in(row) if self.multi_label else row for item, row in targets.items()},
            feature_items=feature_items[: len(features)],
            features=features,
            disputes=disputes,
        )

    def _panel(self, candidates: Sequence[int]) -> list[int]:
        """Some of the pool, at random but mostly the same in each round."""
        return self._first_of(candidates, N_PANEL)

    def _first_of(self, candidates: Sequence[int], n: int) -> list[int]:
        """At most `n` of them, the first in an order that the seed alone decides."""
        order = np.random.default_rng(self.seed).permutation(len(self.source.keys))
        return [int(item) for item in order[np.isin(order, candidates)][:n]]

    def _predicted(self, items: Sequence[int], course: Course) -> Predicted:
        recorder = Recorder(items, self.multi_label)
        for part in self._draws(self.reading.inputs(items), len(items), course, "explain"):
            recorder.add(part)
        return recorder.predicted()

    def _features(self, items: Sequence[int], course: Course) -> Floats:
        """Of length 1, `[item, feature]`; none where the model has no linear layer."""
        parts = []
        for first in range(0, len(items), AT_ONCE):
            course.report("explain", first / len(items), f"features of {len(items)} images")
            some = self.reading.inputs(items[first : first + AT_ONCE])
            try:
                parts.append(unit_rows(self.predictor.features_on_dataset(some, batch_size=64)))
            except ValueError:
                return np.zeros((0, 0), np.float32)
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def _of_pool(self, pool: Predicted) -> dict[str, Any]:
        """How unsure the model is of the pool, and how far it agrees with that of the lesson before."""
        said = pool.probabilities >= 0.5 if self.multi_label or not len(pool) else pool.classes()[:, None]
        remembered = np.isin(pool.items, self._first_of(pool.items.tolist(), N_REMEMBERED))
        items, said = pool.items[remembered], said[remembered]
        before, self._said = self._said, (items, said)
        finite = np.isfinite(pool.total)
        if not finite.any():
            return {"pool": None, "agreement": None}
        means = {name: rounded(getattr(pool, name)[finite].mean()) for name in ("total", "epistemic", "aleatoric")}
        agreement = None
        if before is not None:
            _, now, then = np.intersect1d(items, before[0], return_indices=True)
            width = min(said.shape[1], before[1].shape[1])  # the classes that both models knew
            said, said_before = said[now, :width], before[1][then, :width]
            if len(np.unique([said, said_before])) > 1:  # to say one thing of all tells nothing
                agreement = rounded(cohen_kappa(said, said_before))
        return {"pool": {"n": int(finite.sum()), **means}, "agreement": agreement}

    def _course(self, job: Job[Any], n_labelled: int, n_candidates: int, insight: bool, n_missing: int = 0) -> Course:
        plan = {"features": n_missing, "train": n_labelled}
        if self.test_set is not None:
            plan["test"] = len(self.test_set)  # type: ignore[arg-type]
        plan["score"] = n_candidates
        if insight:
            plan["explain"] = n_labelled
        return Course(job, plan, WEIGHTS, self._rates)

    def _row(self, target: Any) -> torch.Tensor:
        """A row of zeros and ones, as long as there are classes: those added since it was written are not in it."""
        row = torch.as_tensor(target, dtype=torch.float32)
        return nn.functional.pad(row, (0, self._n_outputs - len(row)))

    def _built(self) -> None:
        """The wrapper has a new model: nothing is known of it yet."""
        self._student, self._is_apart = self.wrapper, False
        self._last = None
        self.reading.take_apart(None)
        self.predictor = self._predictor()

    def _begin(self) -> None:
        """Set the weights that a lesson starts from: the first, or with a warm start those of the last that ended."""
        self.wrapper.load_state_dict(self._initial if self._last is None else self._last)

    def _take_apart(self, items: Sequence[int], job: Job[Any]) -> int:
        """Let the head alone learn and predict where the rest is frozen; how many features there are to compute."""
        if not self._is_apart and items:
            found = self.reading.split(self.wrapper, items)
            if found is not None:
                self._student = self.wrapper.around(found.head)
                self.reading.take_apart(found)
                self.predictor = self._predictor()
            self._is_apart = True
        return self.reading.look(items, job)

    def _predictor(self) -> ModelWrapper:
        """What predicts as the wrapper does, with the model's uncertainty, from inputs alone."""
        if self._is_outside:
            return self.wrapper
        collate_fn, head = self.wrapper.args.collate_fn, self._student.model
        folds = self._student is not self.wrapper and can_fold(head) and bool(stochastic_layers(head))
        return ModelWrapper(
            FoldedDropoutModule(head) if folds else posterior_of(head, joint=self.heuristic.joint),
            args=replace(
                self.wrapper.args, optimizer=None, collate_fn=None if collate_fn is None else WithTargets(collate_fn)
            ),
            device=self.wrapper.device,
        )

    def _output_layer(self, n: int) -> Any:
        """The layer to widen to `n` outputs; `None` where the model has them."""
        if self._is_outside:
            raise ValueError(
                f"{type(self.model).__name__} was made for {self._n_outputs} classes and can't be given {n}. Open the "
                "journal again with a trainer of so many."
            )
        try:
            return output_layer(self.wrapper.model, self._n_outputs)
        except ValueError:
            if self._n_outputs == n:
                raise
            try:
                output_layer(self.wrapper.model, n)
            except ValueError:
                pass
            else:
                return None
            raise

    def _grow(self) -> None:
        """Give the model the outputs that `set_classes` promised. More may be promised while a lesson runs."""
        n = self.n_classes
        if n == self._n_outputs:
            return
        if self._built_in:
            self.wrapper.model = default_model(self.source, n, self.seed)
        else:
            self.wrapper.load_state_dict(self._initial)
            layer = self._output_layer(n)
            if layer is not None:
                widen(self.wrapper.model, layer, n, self.seed)
        self._built()
        self._initial = copy.deepcopy(self.wrapper.model.state_dict())
        self._n_outputs = n


@dataclass(frozen=True)
class WithTargets:
    """For inputs alone, a `collate_fn` that was made for pairs with targets: each gets that of an unknown label."""

    collate_fn: Callable[..., Any]

    def __call__(self, inputs: Sequence[Any]) -> Any:
        return self.collate_fn([(one, -1) for one in inputs])


def _of_each_class(logits: Any) -> Any:
    """`[item, class, draw]` as the probabilities of no and yes, `[item, 2, class, draw]`, in the kind they came in."""
    yes = torch.as_tensor(logits).float().sigmoid()
    both = torch.stack([1 - yes, yes], dim=1)
    return both if isinstance(logits, torch.Tensor) else both.numpy()


def _classes_in(row: torch.Tensor) -> tuple[int, ...]:
    return tuple(row.nonzero()[:, 0].tolist())


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


def _in_parts(losses: Sequence[float]) -> Sequence[Any]:
    """At most sixty parts, of nearly the same length; none of nothing."""
    return np.array_split(losses, min(len(losses), 60)) if losses else ()


def _mean(scores: Sequence[float | None]) -> float | None:
    finite = [score for score in scores if score is not None]
    return _finite(np.mean(finite)) if finite else None


def _finite(number: float | np.floating[Any]) -> float | None:
    return float(number) if np.isfinite(number) else None
