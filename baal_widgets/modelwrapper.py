"""Train, test and sample from a model, in Baal's 1.x and 2.x calling styles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import default_collate

from baal_widgets.arrays import as_numpy
from baal_widgets.batched import Batched, Gathering, collated
from baal_widgets.bayesian.arithmetic import (
    RULES,
    Arithmetic,
    Names,
    candidates,
    computing,
    kind_of,
    laid_out,
    named,
    overflowed,
    widened,
)
from baal_widgets.bayesian.common import BayesianModule, draw_together, draws_once, redraw, sample, share_structure
from baal_widgets.bayesian.dropout import unpatch_module
from baal_widgets.bayesian.frozen import rest
from baal_widgets.bayesian.together import items_for_speed, within_budget
from baal_widgets.devices import Fitting, device_for, device_of, parts_of
from baal_widgets.metrics.mixin import MetricMixin
from baal_widgets.utils.structures import (
    as_arrays,
    batch_size_of,
    inputs_and_targets,
    inputs_of,
    joined,
    joined_items,
    leaves_of,
    map_structure,
    regrouped,
    to_device,
)

if TYPE_CHECKING:  # the loop there is built upon what is here
    from baal_widgets.active.heuristics.heuristics import AbstractHeuristic

Criterion = Callable[[Any, Any], Tensor]
Optimizer = torch.optim.Optimizer
ITERATIONS = 20
Settings = list[dict[str, Any]]
# No parameter's name ends in a dot, so that no model's state has this key.
POSTERIOR = "posterior."


@dataclass
class TrainingArgs:
    """How a wrapper trains and predicts: Baal 2.x's arguments. Those of a call win over these."""

    optimizer: Optimizer | None = None
    batch_size: int = 32
    epoch: int = 1
    use_cuda: bool | None = None
    workers: int = 0
    collate_fn: Callable[..., Any] | None = None
    regularizer: Callable[..., Tensor] | None = None
    criterion: Criterion | None = None
    replicate_in_memory: bool = True
    memory: int | None = None
    """Bytes that making draws may take beside the weights, where they are made together: see `within_budget`."""
    arithmetic: str | Sequence[str] = "plain"
    """What it predicts and tests in; training is always plain.

    "plain" is float32, the same numbers for the same seed; a CPU gets large batches of images channels-last by itself.
    "bfloat16", "float16" and "channels_last", or several of them, are taken as they are. "measured" tries those that
    the device has on the first items of a large pool and keeps the fastest that ranks them as plain does, once for a
    model: `ModelWrapper.arithmetic` tells which and why. Another run may find another. "auto" measures on CUDA, and
    elsewhere is plain.
    """

    def __post_init__(self) -> None:
        if self.arithmetic not in RULES:
            named(self.arithmetic)


class ModelWrapper(MetricMixin):
    """A model with what it takes to train, test and sample from it.

    `ModelWrapper(model, criterion)` reads positional arguments of its methods as Baal 1.x does (`batch_size`,
    `epoch` or `iterations`, `use_cuda`, ...), `ModelWrapper(model, TrainingArgs(...))` as Baal 2.x does
    (`iterations`, `half`, `verbose`). All keywords of both work in both. Predictions are what the model gives,
    logits as a rule, shaped `[item, class, ..., draw]`; draws differ when the model is stochastic, as any
    `BayesianModule` is: `MCDropoutModule`, `EnsembleModule`, `LaplaceModule`... What such a model fits after training
    is fitted at the end of `train_on_dataset`. `device` is CUDA, else MPS, else the CPU. A batch that does not fit in
    memory is halved until it does, and that size is kept; in training a criterion that is a function is then taken
    for a mean over items, as is one without a `reduction`.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion | TrainingArgs | None = None,
        replicate_in_memory: bool = True,
        *,
        args: TrainingArgs | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._second_style = args is not None or isinstance(criterion, TrainingArgs)
        if isinstance(criterion, TrainingArgs):
            args, criterion = criterion, criterion.criterion
        self.args = args or TrainingArgs(criterion=criterion)
        if criterion is not None and criterion is not self.args.criterion:
            self.args = replace(self.args, criterion=criterion)
        if not replicate_in_memory and self.args.replicate_in_memory:
            self.args = replace(self.args, replicate_in_memory=False)
        self._device = None if device is None else torch.device(device)
        self._fits_to_train, self._fits_to_predict = Fitting(), Fitting()
        self._found: dict[Any, Arithmetic] = {}

    @property
    def criterion(self) -> Criterion | None:
        return self.args.criterion

    @criterion.setter
    def criterion(self, criterion: Criterion | None) -> None:
        self.args.criterion = criterion

    @property
    def replicate_in_memory(self) -> bool:
        return self.args.replicate_in_memory

    @replicate_in_memory.setter
    def replicate_in_memory(self, replicate: bool) -> None:
        self.args.replicate_in_memory = replicate

    @property
    def device(self) -> torch.device:
        """Where the model runs, unless a call says `use_cuda`."""
        return self._device or device_for(self.args.use_cuda)

    @property
    def arithmetic(self) -> Arithmetic:
        """What the model is computed in when it predicts and is tested, and why; `print` it for the times measured."""
        asked = self.args.arithmetic
        if asked not in RULES or asked == "plain":
            return Arithmetic(named(asked), "asked for by name")
        if not self._measures:
            return Arithmetic((), "plain on this device, unless asked for")
        return self._found.get(kind_of(self.model), Arithmetic((), "no pool has been large enough to try others on"))

    def use_arithmetic(self, asked: str | Sequence[str]) -> None:
        """Set what `TrainingArgs(arithmetic=)` says, and forget what was measured.

        `use_arithmetic(other.arithmetic.names)` takes over what was found in another run.
        """
        self.args, self._found = replace(self.args, arithmetic=asked), {}

    # Training

    def train_on_dataset(
        self,
        dataset: Dataset[Any],
        optimizer: Optimizer | None = None,
        batch_size: int | None = None,
        epoch: int | None = None,
        use_cuda: bool | None = None,
        workers: int | None = None,
        collate_fn: Callable[..., Any] | None = None,
        regularizer: Callable[..., Tensor] | None = None,
    ) -> list[float]:
        """Train for `epoch` epochs; the mean loss of each. Without an optimizer: SGD, 0.01, momentum 0.9."""
        return self._train(
            dataset, self._told(optimizer, batch_size, epoch, use_cuda, workers, collate_fn, regularizer)
        )

    def training_steps(
        self,
        dataset: Dataset[Any],
        optimizer: Optimizer | None = None,
        batch_size: int | None = None,
        epoch: int | None = None,
        use_cuda: bool | None = None,
        workers: int | None = None,
        collate_fn: Callable[..., Any] | None = None,
        regularizer: Callable[..., Tensor] | None = None,
    ) -> Iterator[float]:
        """The same as an iterator: trains one batch for each loss that is taken from it."""
        return self._steps(
            dataset, self._told(optimizer, batch_size, epoch, use_cuda, workers, collate_fn, regularizer)
        )

    def train_on_batch(
        self,
        data: Any,
        target: Any,
        optimizer: Optimizer | None = None,
        cuda: bool | None = None,
        regularizer: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """One step of the optimizer; the loss before it."""
        optimizer = optimizer or self.args.optimizer
        if optimizer is None:
            raise ValueError(
                "Expected an optimizer: train_on_batch(data, target, optimizer) or TrainingArgs(optimizer=)."
            )
        device = self._place(cuda)
        data, target = to_device(data, device), to_device(target, device)

        def attempt(most: int) -> tuple[Any, Tensor]:
            with statistics_kept_on_error(self.model):
                return self._gradients(data, target, optimizer, most)

        output, loss = self._fits_to_train.run(attempt, batch_size_of(data))
        added = [(regularizer or self.args.regularizer or _nothing)()]
        if isinstance(self.model, BayesianModule):
            added.append(self.model.penalty(max(self._dataset_size, batch_size_of(data))))
        for term in added:
            if term is not None:
                loss = loss + term.detach()
            if term is not None and term.requires_grad:
                term.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self._update_metrics(output, target, loss, "train")
        return loss

    # Testing

    def test_on_dataset(self, dataset: Dataset[Any], *positional: Any, **named: Any) -> float:
        """The mean loss on a dataset; metrics named `test_...` are updated.

        1.x: `(dataset, batch_size, use_cuda, workers, collate_fn, average_predictions)`; 2.x: `(dataset,
        average_predictions)`. With `average_predictions` above 1 the *probabilities* of that many draws are averaged,
        for the loss as for the metrics.
        """
        names = (
            ["average_predictions"]
            if self._second_style
            else ["batch_size", "use_cuda", "workers", "collate_fn", "average_predictions"]
        )
        named = bind("test_on_dataset", names, positional, named, {"batch_size", "use_cuda", "workers", "collate_fn"})
        average = named.pop("average_predictions", 1)
        return self._test(dataset, self._told(**named), average)

    def test_on_batch(
        self, data: Any, target: Any, cuda: bool | int | None = None, average_predictions: int = 1
    ) -> Tensor:
        """The loss of a batch. A whole number in the third place is `average_predictions`, as in Baal 2.x."""
        if cuda is not None and not isinstance(cuda, bool):
            average_predictions, cuda = cuda, None
        redraw(self.model)
        return self._test_batch(data, target, self._on_cuda(cuda), average_predictions)

    def _test_batch(self, data: Any, target: Any, cuda: bool | None, average_predictions: int) -> Tensor:
        target = to_device(target, self._place(cuda))
        with torch.no_grad():
            draws = self._draws(data, average_predictions, cuda)
            output = map_structure(lambda one: average_draws(one, self.criterion), draws)
            loss = self._loss(output, target)
        self._update_metrics(output, target, loss, "test")
        return loss

    def train_and_test_on_datasets(
        self, train_dataset: Dataset[Any], test_dataset: Dataset[Any], *positional: Any, **named: Any
    ) -> Any:
        """Train for `epoch` epochs in all and test after every `skip_epochs` of them.

        1.x: `(train, test, optimizer, batch_size, epoch, use_cuda, workers, collate_fn, regularizer,
        return_best_weights, patience, min_epoch_for_es, skip_epochs)`; 2.x: `(train, test, return_best_weights, ...)`.
        The history, a list of metric dicts; with `return_best_weights` a pair of it and the weights of the least test
        loss, for `load_state_dict`, with what the model had fitted to them. `patience` stops after that many tests
        without a better one, not before `min_epoch_for_es` epochs.
        """
        second = ["return_best_weights", "patience", "min_epoch_for_es", "skip_epochs"]
        first = ["optimizer", "batch_size", "epoch", "use_cuda", "workers", "collate_fn", "regularizer", *second]
        names = second if self._second_style else first
        named = bind("train_and_test_on_datasets", names, positional, named, set(first))
        return_best_weights, patience = named.pop("return_best_weights", False), named.pop("patience", None)
        min_epoch_for_es, skip_epochs = named.pop("min_epoch_for_es", 0), named.pop("skip_epochs", 1)
        told = self._told(**named)
        # one optimizer for all epochs: a new one would forget its momentum
        told = replace(told, optimizer=told.optimizer or self._default_optimizer())
        begin = settings_of(told.optimizer)
        history: list[dict[str, Any]] = []
        best, worse = float("inf"), 0
        best_weights: dict[str, Any] | None = None
        for done in range(1, told.epoch + 1):
            self._train(train_dataset, replace(told, epoch=1), fit=False)
            if done % skip_epochs and done < told.epoch:
                continue
            self._fit(train_dataset, replace(told, epoch=done), begin)
            loss = self._test(test_dataset, told, average_predictions=1)
            history.append({**self.get_metrics(), "test_loss": loss})
            if loss < best:
                best, worse = loss, 0
                best_weights = copy.deepcopy(self.state_dict()) if return_best_weights else None
            else:
                worse += 1
                if patience is not None and worse >= patience and done >= min_epoch_for_es:
                    break
        return (history, best_weights) if return_best_weights else history

    # Predicting

    def predict_on_dataset(self, dataset: Dataset[Any], *positional: Any, **named: Any) -> Any:
        """All predictions, an array `[item, class, ..., draw]`, or a list of arrays for a model of several outputs.

        1.x: `(dataset, batch_size, iterations, use_cuda, workers, collate_fn, half, verbose)`; 2.x: `(dataset,
        iterations, half, verbose)`. Empty for an empty dataset.
        """
        parts = list(self.predict_on_dataset_generator(dataset, *positional, **named))
        if not parts:
            return np.zeros((0,), np.float32)
        if isinstance(parts[0], list):
            return [np.concatenate(part) for part in zip(*parts, strict=True)]
        return np.concatenate(parts)

    def predict_on_dataset_generator(self, dataset: Dataset[Any], *positional: Any, **named: Any) -> Iterator[Any]:
        """The same batch by batch, so that no more than a few batches of predictions are in memory.

        Batches that are small for the model are passed through it several at a time, and come back one by one.
        """
        told, iterations, half, verbose = self._asked("predict_on_dataset", positional, named)
        dtype = np.float16 if half else None
        return (as_arrays(answer, dtype) for answer in self._predictions(dataset, told, iterations, verbose))

    def draws_on_dataset(self, dataset: Dataset[Any], *positional: Any, **named: Any) -> Iterator[Any]:
        """The same as tensors on the model's device. Takes what `predict_on_dataset` takes; `half` has no effect."""
        told, iterations, _, verbose = self._asked("draws_on_dataset", positional, named)
        return self._predictions(dataset, told, iterations, verbose)

    def scores_on_dataset(
        self, dataset: Dataset[Any], heuristic: AbstractHeuristic, *positional: Any, **named: Any
    ) -> npt.NDArray[Any]:
        """How much the heuristic would like to know the label of each item, `[item]`, higher = ask first.

        Scores are made batch by batch where the model is, so that beside them no more than a few batches of predictions
        are held, whatever the number of items. Takes what `predict_on_dataset` takes behind the heuristic. Raises
        `ValueError` for heuristics that look at more than an item's own predictions.
        """
        if heuristic.takes != ("predictions",) or heuristic.score is None:
            raise ValueError(
                f"Expected a heuristic that scores items one by one from their predictions, got "
                f"{type(heuristic).__name__}. Call it with wrapper.predict_on_dataset(dataset) instead."
            )
        return heuristic.scores(self.draws_on_dataset(dataset, *positional, **named))

    def predict_on_batch(self, data: Any, iterations: int = 1, cuda: bool | None = None) -> Any:
        """Draws for a batch, `[item, class, ..., draw]`, on the model's device.

        With `replicate_in_memory` all draws run as one batch `iterations` times as large, else one after another, as
        they do where a draw is of the weights. An ensemble gives as many draws as it has members.
        """
        redraw(self.model)
        return self._answer(self._draws(data, iterations, cuda))

    def features_on_dataset(self, dataset: Dataset[Any], **named: Any) -> npt.NDArray[Any]:
        """What goes into the last linear layer, `[item, feature]`, from one pass without dropout."""
        known = {"batch_size", "use_cuda", "workers", "collate_fn"}
        told = self._told(**bind("features_on_dataset", [], [], named, known))
        from baal_widgets.bayesian.features import features_of

        device = self._place(told.use_cuda)
        model, parts = deterministic(self.model), list[npt.NDArray[Any]]()
        with torch.no_grad():
            for batch in self._loader(dataset, told, shuffle=False):
                data = to_device(inputs_of(batch), device)
                parts += map(as_numpy, self._fits_to_predict.each(partial(features_of, model), data))
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def fitting(self, batch_size: int) -> int:
        """A batch size, or how many items have been found to fit in memory in training, if that is less."""
        return min(batch_size, self._fits_to_train.rows or batch_size)

    def twin(self) -> Self:
        """A wrapper of a copy of the model, with metrics of its own: what becomes of one is not seen in the other."""
        twin = copy.copy(self)
        own = copy.deepcopy((self.model, self.metrics, self.active_learning_metrics))
        twin.model, twin.metrics, twin.active_learning_metrics = own
        twin.args = replace(self.args)
        twin._fits_to_train, twin._fits_to_predict = Fitting(), Fitting()
        return twin

    def around(self, model: nn.Module) -> Self:
        """The same wrapper, with the same metrics, around another model, such as the head of this one."""
        other = copy.copy(self)
        other.model = model
        other._fits_to_train, other._fits_to_predict = Fitting(), Fitting()
        return other

    # The model

    def get_params(self) -> Iterator[nn.Parameter]:
        return self.model.parameters()

    def state_dict(self) -> dict[str, Any]:
        """The model's, and under one more key what it has fitted after training, if it is of the kind that does."""
        state = self.model.state_dict()
        if isinstance(self.model, BayesianModule) and self.model.fitted:
            state[POSTERIOR] = self.model.fitted_state()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Load the model's weights, and what it had fitted where the state has that; a plain model's leaves it."""
        weights = {name: value for name, value in state_dict.items() if name != POSTERIOR}
        self.model.load_state_dict(weights, strict=strict)
        if POSTERIOR in state_dict and isinstance(self.model, BayesianModule):
            self.model.load_fitted_state(state_dict[POSTERIOR])

    def train(self) -> None:
        """Switch the model to training mode, but for what is frozen in it: its statistics are not to move."""
        self.model.train()
        rest(self.model)

    def eval(self) -> None:
        """Switch the model to evaluation mode. MC-Dropout stays on."""
        self.model.eval()

    def reset_fcs(self) -> None:
        """Draw the weights of the linear layers anew."""
        for layer in self.model.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def reset_all(self) -> None:
        """Draw the weights of every layer anew that knows how."""
        for layer in self.model.modules():
            # the underscore is torch's own, in nn.MultiheadAttention
            reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
            if callable(reset):
                reset()

    # Within

    def _told(
        self,
        optimizer: Any = None,
        batch_size: int | None = None,
        epoch: int | None = None,
        use_cuda: bool | None = None,
        workers: int | None = None,
        collate_fn: Callable[..., Any] | None = None,
        regularizer: Callable[..., Tensor] | None = None,
    ) -> TrainingArgs:
        """The wrapper's arguments with those of a call over them."""
        call = {
            "optimizer": optimizer, "batch_size": batch_size, "epoch": epoch, "workers": workers,
            "collate_fn": collate_fn, "regularizer": regularizer,
        }  # fmt: skip
        given = {name: value for name, value in call.items() if value is not None}
        return replace(self.args, **given, use_cuda=self._on_cuda(use_cuda))

    def _asked(
        self, method: str, positional: Sequence[Any], named: dict[str, Any]
    ) -> tuple[TrainingArgs, int, bool, bool]:
        """What a call that predicts says: the arguments, iterations, half and verbose."""
        second = ["iterations", "half", "verbose"]
        first = ["batch_size", "iterations", "use_cuda", "workers", "collate_fn", "half", "verbose"]
        named = bind(method, second if self._second_style else first, positional, named, set(first))
        iterations = named.pop("iterations", ITERATIONS)
        half, verbose = named.pop("half", False), named.pop("verbose", False)
        return self._told(**named), iterations, half, verbose

    def _on_cuda(self, use_cuda: bool | None) -> bool | None:
        """Whether a call runs on CUDA, decided and warned of once; `None` leaves it to `device`."""
        if use_cuda is None and self._device is None:
            use_cuda = self.args.use_cuda
        return None if use_cuda is None else device_for(use_cuda).type == "cuda"

    def _gradients(self, data: Any, target: Any, optimizer: Optimizer, most: int) -> tuple[Any, Tensor]:
        """The output and the loss, with the gradients in place, at most so many items at once."""
        optimizer.zero_grad()
        losses, outputs = [], []
        targets = list(parts_of(target, most))
        shares = shares_of(self.criterion, targets)
        for part, wanted, share in zip(parts_of(data, most), targets, shares, strict=True):
            output = self.model(part)
            outputs.append(map_structure(Tensor.detach, output))
            if share == 0:  # nothing in it is labelled, and its mean is not a number
                continue
            loss = self._loss(output, wanted)
            if share != 1:
                loss = loss * share
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return joined_items(outputs, axes=1), torch.stack(losses).sum(dim=0)

    @property
    def _measures(self) -> bool:
        asked = self.args.arithmetic
        return asked == "measured" or (asked == "auto" and device_of(self.model).type == "cuda")

    def _draws(self, data: Any, iterations: int, cuda: bool | None, names: Names | None = None) -> Any:
        if iterations < 1:
            raise ValueError(f"Expected iterations to be from 1 on, got {iterations}.")
        device = self._place(cuda)
        names = self.arithmetic.names if names is None else names
        data = laid_out(names, self.model, to_device(data, device))
        together = iterations if self.replicate_in_memory and draw_together(self.model) else 1
        with torch.no_grad(), within_budget(self.args.memory), computing(names, device):
            draws = self._fits_to_predict.run(
                lambda most: self._draws_of_parts(data, iterations, max(most // together, 1), min(most, together)),
                batch_size_of(data) * together,
            )
        return self._draws(data, iterations, cuda, ()) if overflowed(names, draws) else widened(names, draws)

    def _answer(self, draws: Any) -> Any:
        """What predicting gives for draws that are still on the device: themselves."""
        return draws

    def _draws_of_parts(self, data: Any, iterations: int, items: int, together: int) -> Any:
        """Draws for at most so many items at once, and so many draws of each of them."""
        shares = [min(together, iterations - first) for first in range(0, iterations, together)]
        if together == 1 or draws_once(self.model):  # the draws of two calls would bear the same numbers
            shares = [iterations]
            together = together if together == iterations else 1
        rows = [
            joined([sample(self.model, part, share, replicate=together > 1) for share in shares], dim=-1)
            for part in parts_of(data, items)
        ]
        return joined_items(rows, axes=2)

    def _fit(self, dataset: Dataset[Any], told: TrainingArgs, begin: Settings) -> None:
        """What the model fits after training; `begin` are the settings that the optimizer had before.

        Optimizer and metrics are those of the training, and come back as they were.
        """
        if not isinstance(self.model, BayesianModule):
            return
        optimizer, measured = told.optimizer, self.metrics
        held: dict[str, Any] | None = None

        def train() -> None:
            nonlocal held
            if held is None and optimizer is not None:
                held = copy.deepcopy(optimizer.state_dict())
            self._train_anew(dataset, told, begin)

        self.metrics = {}
        try:
            self.model.fit(
                dataset,
                criterion=self.criterion,
                batch_size=self.fitting(told.batch_size),
                collate_fn=told.collate_fn,
                train=train,
            )
        finally:
            self.metrics = measured
            if held is not None and optimizer is not None:
                optimizer.load_state_dict(held)

    def _train_anew(self, dataset: Dataset[Any], told: TrainingArgs, begin: Settings) -> None:
        self.reset_all()
        if told.optimizer is not None:
            told.optimizer.load_state_dict({"state": {}, "param_groups": copy.deepcopy(begin)})
        for _ in self._steps(dataset, told):
            pass

    def _train(self, dataset: Dataset[Any], told: TrainingArgs, fit: bool = True) -> list[float]:
        told = replace(told, optimizer=told.optimizer or self._default_optimizer())
        begin = settings_of(told.optimizer)
        history = []
        for _ in range(told.epoch):
            self._reset_metrics("train")
            history.append(float(np.mean(list(self._steps(dataset, replace(told, epoch=1))))))
        self.active_step(len(dataset), self.get_metrics("train") if history else {})  # type: ignore[arg-type]
        if fit:
            self._fit(dataset, told, begin)
        return history

    def _test(self, dataset: Dataset[Any], told: TrainingArgs, average_predictions: int) -> float:
        check_not_empty(dataset, "test")
        self.eval()
        redraw(self.model)
        self._reset_metrics("test")
        total, n = 0.0, 0
        for batch in self._loader(dataset, told, shuffle=False):
            data, target = inputs_and_targets(batch)
            loss = self._test_batch(data, target, told.use_cuda, average_predictions)
            size = batch_size_of(data)
            total, n = total + float(loss) * size, n + size
        self.active_step(None, self.get_metrics("test"))
        return total / n

    def _steps(self, dataset: Dataset[Any], told: TrainingArgs) -> Iterator[float]:
        check_not_empty(dataset, "train")
        self.set_dataset_size(len(dataset))  # type: ignore[arg-type]
        self._place(told.use_cuda)
        optimizer = told.optimizer or self._default_optimizer()
        for _ in range(told.epoch):
            self.train()
            for batch in self._loader(dataset, told, shuffle=True):
                data, target = inputs_and_targets(batch)
                yield float(self.train_on_batch(data, target, optimizer, told.use_cuda, told.regularizer))

    def _predictions(self, dataset: Dataset[Any], told: TrainingArgs, iterations: int, verbose: bool) -> Iterator[Any]:
        if len(dataset) == 0:  # type: ignore[arg-type]
            return
        self.eval()
        redraw(self.model)
        batches: Iterable[Any] = self._loader(dataset, told, shuffle=False)
        if verbose:
            from tqdm import tqdm

            batches = tqdm(batches, "Predicting", unit="batch")
        limits = [0]  # until the first batch tells
        inputs = self._tried_on(map(inputs_of, batches), len(dataset), iterations, told.use_cuda)  # type: ignore[arg-type]
        for data in regrouped(inputs, lambda: limits[-1]):
            draws = self._draws(data.whole, iterations, told.use_cuda)
            for part in data.split(draws):
                yield self._answer(part)
            if len(limits) == 1:
                limits.append(self._items_at_once(data.whole, draws, iterations))

    def _tried_on(self, batches: Iterator[Any], n: int, iterations: int, cuda: bool | None) -> Iterator[Any]:
        """The same batches; where it is to be measured, the first have been tried in other arithmetics than plain."""
        device = self._place(cuda)
        if not self._measures or kind_of(self.model) in self._found:
            return batches
        from baal_widgets.bayesian.trials import clock_of, items_to_try, tried, untouched

        held = [next(batches)]
        names = candidates(self.model, held[0])
        most = items_to_try(n, len(names))
        while sum(map(batch_size_of, held)) < most:
            held.append(next(batches))
        if most:
            some = to_device(held[0], device)
            at_once = 0 if iterations < 2 else items_for_speed(self.model, some, iterations, self.args.memory)
            groups, left = list[Any](), most
            for group in regrouped(held, lambda: min(at_once, most)):
                groups += [first_of(group.whole, left)] if left else []
                left -= min(left, batch_size_of(group.whole))
            with untouched(self.model) as put_back:

                def draws(names: Names) -> Any:
                    put_back()
                    return joined_items([self._draws(one, iterations, cuda, names) for one in groups], axes=2)

                found = tried(draws, names, items=most, pool=n, clock=clock_of(self.model))
            self._found[kind_of(self.model)] = found
        return chain(held, batches)

    def _items_at_once(self, data: Any, draws: Any, iterations: int) -> int:
        """How many items are best passed through the model together; 0 leaves batches as they are."""
        n = batch_size_of(data)
        if not self.replicate_in_memory or iterations < 2 or not all(len(one) == n for one in leaves_of(draws)):
            return 0
        return items_for_speed(self.model, data, iterations, self.args.memory)

    def _loader(self, dataset: Dataset[Any], told: TrainingArgs, shuffle: bool) -> DataLoader[Any]:
        collate_fn = told.collate_fn or default_collate
        if isinstance(dataset, Batched) and told.collate_fn is None:
            dataset, collate_fn = Gathering(dataset), collated
        return DataLoader(
            dataset, batch_size=told.batch_size, shuffle=shuffle, num_workers=told.workers, collate_fn=collate_fn
        )

    def _place(self, use_cuda: bool | None) -> torch.device:
        """Where to run, with the model moved there."""
        device = self.device if use_cuda is None else device_for(use_cuda)
        parameter = next(self.model.parameters(), None)
        if parameter is None:
            return device
        if parameter.device.type == device.type and device.index in (None, parameter.device.index):
            return parameter.device  # "cuda" alone means whichever GPU the model is on
        self.model.to(device)
        return device

    def _default_optimizer(self) -> Optimizer:
        return torch.optim.SGD(self.get_params(), lr=0.01, momentum=0.9)

    def _loss(self, output: Any, target: Any) -> Tensor:
        if self.criterion is None:
            raise ValueError("Expected a criterion to train or test with: ModelWrapper(model, nn.CrossEntropyLoss()).")
        return self.criterion(output, target)


def mc_inference(model: nn.Module, data: Any, iterations: int, replicate_in_memory: bool = True) -> Any:
    """Draws for a batch from a stochastic model, `[item, class, ..., draw]`, without a wrapper; no gradients."""
    with torch.no_grad():
        return sample(model, data, iterations, replicate_in_memory)


def deterministic(model: nn.Module) -> nn.Module:
    """A copy of a model's structure, with the same weights, that is in `eval` mode and draws nothing."""
    if isinstance(model, BayesianModule):
        return deterministic(type(model).unpatch_function(share_structure(model.parent_module)))
    return unpatch_module(share_structure(model)).eval()


def shares_of(criterion: Criterion | None, targets: Sequence[Any]) -> list[float]:
    """What the losses of a batch's parts are to be multiplied by for their sum to be the loss of the batch."""
    if len(targets) == 1 or getattr(criterion, "reduction", "mean") == "sum":
        return [1.0] * len(targets)
    amounts = [_amount(criterion, target) for target in targets]
    whole = sum(amounts)
    return [amount / whole if whole else 1 / len(amounts) for amount in amounts]


def _amount(criterion: Criterion | None, target: Any) -> float:
    """What a criterion's mean divides its sum by: the number of items, or for class indices their classes' weights."""
    by_class = isinstance(criterion, (nn.CrossEntropyLoss, nn.NLLLoss)) or criterion in (F.cross_entropy, F.nll_loss)
    if not by_class or target.is_floating_point():
        return batch_size_of(target)
    weight: Tensor | None = getattr(criterion, "weight", None)
    counted = target[target != getattr(criterion, "ignore_index", -100)]
    return float(counted.numel() if weight is None else weight.to(counted.device)[counted].sum())


@contextmanager
def statistics_kept_on_error(model: nn.Module) -> Iterator[None]:
    """A pass in the block that fails leaves the running statistics of normalisation as they were."""
    layers = [layer for layer in model.modules() if isinstance(layer, _NormBase)]
    held = [(one, one.detach().clone()) for layer in layers for one in layer.buffers() if not is_lazy(one)]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for one, before in held:
                one.copy_(before)
        raise


def settings_of(optimizer: Optimizer | None) -> Settings:
    """An optimizer's parameter groups, without what it remembers of earlier steps."""
    return copy.deepcopy(optimizer.state_dict()["param_groups"]) if optimizer is not None else []


def first_of(data: Any, n: int) -> Any:
    """The first items of a batch."""
    return map_structure(lambda one: one[:n] if one.ndim else one, data)


def _nothing() -> None:
    """No regularizer."""


def check_not_empty(dataset: Dataset[Any], verb: str) -> None:
    if len(dataset) == 0:  # type: ignore[arg-type]
        raise ValueError(f"Expected a dataset to {verb} on, got an empty one. Label something first.")


def average_draws(draws: Tensor, criterion: Criterion | None) -> Tensor:
    """The mean over the draws `[item, class, ..., draw]`, in what the criterion takes.

    For classification losses the *probabilities* are averaged: cross entropy gets the logarithm of the mean softmax,
    binary cross entropy the logit of the mean sigmoid. Other criteria get the plain mean.
    """
    n = draws.shape[-1]
    if n == 1:
        return draws[..., 0]
    if isinstance(criterion, (nn.CrossEntropyLoss, nn.NLLLoss)) or criterion in (F.cross_entropy, F.nll_loss):
        return F.log_softmax(draws.float(), dim=1).logsumexp(dim=-1) - float(np.log(n))
    if isinstance(criterion, nn.BCEWithLogitsLoss) or criterion is F.binary_cross_entropy_with_logits:
        draws = draws.float()
        return F.logsigmoid(draws).logsumexp(dim=-1) - F.logsigmoid(-draws).logsumexp(dim=-1)
    return draws.mean(dim=-1)


def bind(
    method: str, names: Sequence[str], positional: Sequence[Any], named: Mapping[str, Any], known: set[str]
) -> dict[str, Any]:
    """Arguments by name, positional ones read in the order of `names`. Raises `TypeError` as Python would."""
    if len(positional) > len(names):
        raise TypeError(f"{method} takes {', '.join(['dataset', *names])}; got {len(positional) + 1} arguments.")
    bound = dict(zip(names, positional, strict=False))
    for name, value in named.items():
        if name not in known and name not in names:
            raise TypeError(f"{method} has no argument {name!r}; it takes {', '.join(sorted({*names, *known}))}.")
        if name in bound:
            raise TypeError(f"{method} got {name!r} twice.")
        bound[name] = value
    return {name: value for name, value in bound.items() if value is not None}
