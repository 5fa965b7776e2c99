"""Train, test and sample from a model, in Baal's 1.x and 2.x calling styles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import default_collate

from baal_widgets.arrays import as_numpy
from baal_widgets.bayesian.common import BayesianModule, draws_once, redraw, sample, share_structure
from baal_widgets.bayesian.dropout import unpatch_module
from baal_widgets.devices import Fitting, device_for, parts_of
from baal_widgets.metrics.mixin import MetricMixin
from baal_widgets.utils.structures import (
    as_arrays,
    batch_size_of,
    inputs_and_targets,
    inputs_of,
    map_structure,
    to_device,
)

Criterion = Callable[[Any, Any], Tensor]
Optimizer = torch.optim.Optimizer
ITERATIONS = 20


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


class ModelWrapper(MetricMixin):
    """A model with what it takes to train, test and sample from it.

    `ModelWrapper(model, criterion)` reads positional arguments of its methods as Baal 1.x does (`batch_size`,
    `epoch` or `iterations`, `use_cuda`, ...), `ModelWrapper(model, TrainingArgs(...))` as Baal 2.x does
    (`iterations`, `half`, `verbose`). All keywords of both work in both. Predictions are what the model gives,
    logits as a rule, shaped `[item, class, ..., draw]`; draws differ when the model is stochastic, as any
    `BayesianModule` is: `MCDropoutModule`, `EnsembleModule`, `LaplaceModule`... What such a model fits after training
    is fitted at the end of `train_on_dataset`. `device` is CUDA, else MPS, else the CPU. A batch that does not fit in
    memory is halved until it does, and that size is kept.
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
        output, loss = self._fits_to_train.run(
            lambda most: self._gradients(data, target, optimizer, most), batch_size_of(data)
        )
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
        loss. `patience` stops after that many tests without a better one, not before `min_epoch_for_es` epochs.
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
        begin = copy.deepcopy(told.optimizer.state_dict()) if told.optimizer is not None else None
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
        """The same batch by batch, so that no more than one batch of predictions is in memory."""
        second = ["iterations", "half", "verbose"]
        first = ["batch_size", "iterations", "use_cuda", "workers", "collate_fn", "half", "verbose"]
        named = bind("predict_on_dataset", second if self._second_style else first, positional, named, set(first))
        iterations = named.pop("iterations", ITERATIONS)
        half, verbose = named.pop("half", False), named.pop("verbose", False)
        told = self._told(**named)
        return self._predictions(dataset, told, iterations, half, verbose)

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
        model, parts = deterministic(self.model), []
        with torch.no_grad():
            for batch in self._loader(dataset, told, shuffle=False):
                parts.append(as_numpy(features_of(model, to_device(inputs_of(batch), device))))
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    # The model

    def get_params(self) -> Iterator[nn.Parameter]:
        return self.model.parameters()

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        self.model.load_state_dict(state_dict, strict=strict)

    def train(self) -> None:
        """Switch the model to training mode."""
        self.model.train()

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

    def _on_cuda(self, use_cuda: bool | None) -> bool | None:
        """Whether a call runs on CUDA, decided and warned of once; `None` leaves it to `device`."""
        if use_cuda is None and self._device is None:
            use_cuda = self.args.use_cuda
        return None if use_cuda is None else device_for(use_cuda).type == "cuda"

    def _gradients(self, data: Any, target: Any, optimizer: Optimizer, most: int) -> tuple[Any, Tensor]:
        """The output and the mean loss, with the gradients in place, at most so many items at once."""
        optimizer.zero_grad()
        n, losses, outputs = batch_size_of(data), [], []
        for part, wanted in zip(parts_of(data, most), parts_of(target, most), strict=True):
            output = self.model(part)
            loss = self._loss(output, wanted)
            if getattr(self.criterion, "reduction", "mean") == "mean":
                loss = loss * (batch_size_of(part) / n)
            loss.backward()  # type: ignore[no-untyped-call]
            outputs.append(map_structure(Tensor.detach, output))
            losses.append(loss.detach())
        whole = outputs[0] if len(outputs) == 1 else map_structure(lambda *each: torch.cat(each), *outputs)
        return whole, torch.stack(losses).sum(dim=0)

    def _draws(self, data: Any, iterations: int, cuda: bool | None) -> Any:
        if iterations < 1:
            raise ValueError(f"Expected iterations to be from 1 on, got {iterations}.")
        data = to_device(data, self._place(cuda))
        together = iterations if self.replicate_in_memory and not draws_once(self.model) else 1
        with torch.no_grad():
            return self._fits_to_predict.run(
                lambda most: self._draws_of_parts(data, iterations, max(most // together, 1), min(most, together)),
                batch_size_of(data) * together,
            )

    def _answer(self, draws: Any) -> Any:
        """What predicting gives for draws that are still on the device: themselves."""
        return draws

    def _draws_of_parts(self, data: Any, iterations: int, items: int, together: int) -> Any:
        """Draws for at most so many items at once, and so many draws of each of them."""
        shares = [min(together, iterations - first) for first in range(0, iterations, together)]
        if together == 1:
            shares = [iterations]
        rows = [
            joined([sample(self.model, part, share, replicate=together > 1) for share in shares], dim=-1)
            for part in parts_of(data, items)
        ]
        return joined(rows, dim=0)

    def _fit(self, dataset: Dataset[Any], told: TrainingArgs, begin: Mapping[str, Any] | None) -> None:
        """What the model fits after training; `begin` is the state that the optimizer had before."""
        if isinstance(self.model, BayesianModule):
            self.model.fit(
                dataset,
                criterion=self.criterion,
                batch_size=told.batch_size,
                collate_fn=told.collate_fn,
                train=lambda: self._train_anew(dataset, told, begin),
            )

    def _train_anew(self, dataset: Dataset[Any], told: TrainingArgs, begin: Mapping[str, Any] | None) -> None:
        self.reset_all()
        if told.optimizer is not None and begin is not None:
            told.optimizer.load_state_dict(dict(begin))
        for _ in self._steps(dataset, told):
            pass

    def _train(self, dataset: Dataset[Any], told: TrainingArgs, fit: bool = True) -> list[float]:
        told = replace(told, optimizer=told.optimizer or self._default_optimizer())
        begin = copy.deepcopy(told.optimizer.state_dict()) if told.optimizer is not None else None
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

    def _predictions(
        self, dataset: Dataset[Any], told: TrainingArgs, iterations: int, half: bool, verbose: bool
    ) -> Iterator[Any]:
        if len(dataset) == 0:  # type: ignore[arg-type]
            return
        self.eval()
        redraw(self.model)
        batches: Iterable[Any] = self._loader(dataset, told, shuffle=False)
        if verbose:
            from tqdm import tqdm

            batches = tqdm(batches, "Predicting", unit="batch")
        for batch in batches:
            draws = self._draws(inputs_of(batch), iterations, told.use_cuda)
            yield as_arrays(self._answer(draws), np.float16 if half else None)

    def _loader(self, dataset: Dataset[Any], told: TrainingArgs, shuffle: bool) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=told.batch_size,
            shuffle=shuffle,
            num_workers=told.workers,
            collate_fn=told.collate_fn or default_collate,
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


def joined(parts: Sequence[Any], dim: int) -> Any:
    return parts[0] if len(parts) == 1 else map_structure(lambda *each: torch.cat(each, dim=dim), *parts)


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
