"""Train, test and sample from a model, in Baal's 1.x and 2.x calling styles."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import default_collate

from baal_widgets.metric_mixin import MetricMixin
from baal_widgets.utils.structures import as_arrays, batch_size_of, inputs_of, map_structure, to_device

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
    logits as a rule, shaped `[item, class, ..., draw]`; draws differ when the model is stochastic, such as in
    `MCDropoutModule`. `device` is CUDA, else MPS, else the CPU.
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
        optimizer.zero_grad()
        output = self.model(data)
        loss = self._loss(output, target)
        regularizer = regularizer or self.args.regularizer
        if regularizer is not None:
            loss = loss + regularizer()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self._update_metrics(output.detach() if isinstance(output, Tensor) else output, target, loss.detach(), "train")
        return loss.detach()

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
        cuda = self._on_cuda(cuda)
        target = to_device(target, self._place(cuda))
        with torch.no_grad():
            draws = self.predict_on_batch(data, average_predictions, cuda)
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
        history: list[dict[str, Any]] = []
        best, worse = float("inf"), 0
        best_weights: dict[str, Any] | None = None
        for done in range(1, told.epoch + 1):
            self._train(train_dataset, replace(told, epoch=1))
            if done % skip_epochs and done < told.epoch:
                continue
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

        With `replicate_in_memory` all draws run as one batch `iterations` times as large, else one after another.
        """
        if iterations < 1:
            raise ValueError(f"Expected iterations to be from 1 on, got {iterations}.")
        with torch.no_grad():
            data = to_device(data, self._place(cuda))
            if not self.replicate_in_memory or iterations == 1:
                draws = [self.model(data) for _ in range(iterations)]
                return map_structure(lambda *each: torch.stack(each, dim=-1), *draws)
            size = batch_size_of(data)
            try:
                output = self.model(map_structure(lambda one: torch.cat([one] * iterations), data))
            except torch.OutOfMemoryError as error:
                raise torch.OutOfMemoryError(
                    f"{iterations} draws of {size} items at once do not fit in memory. Use a smaller batch_size, or "
                    f"ModelWrapper(..., replicate_in_memory=False). ({error})"
                ) from error
            return map_structure(
                lambda one: one.reshape(iterations, size, *one.shape[1:]).movedim(0, -1).contiguous(), output
            )

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

    def _train(self, dataset: Dataset[Any], told: TrainingArgs) -> list[float]:
        told = replace(told, optimizer=told.optimizer or self._default_optimizer())
        history = []
        for _ in range(told.epoch):
            self._reset_metrics("train")
            history.append(float(np.mean(list(self._steps(dataset, replace(told, epoch=1))))))
        self.active_step(len(dataset), self.get_metrics("train") if history else {})  # type: ignore[arg-type]
        return history

    def _test(self, dataset: Dataset[Any], told: TrainingArgs, average_predictions: int) -> float:
        check_not_empty(dataset, "test")
        self.eval()
        self._reset_metrics("test")
        total, n = 0.0, 0
        for data, target in self._loader(dataset, told, shuffle=False):
            loss = self.test_on_batch(data, target, cuda=told.use_cuda, average_predictions=average_predictions)
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
            for data, target in self._loader(dataset, told, shuffle=True):
                yield float(self.train_on_batch(data, target, optimizer, told.use_cuda, told.regularizer))

    def _predictions(
        self, dataset: Dataset[Any], told: TrainingArgs, iterations: int, half: bool, verbose: bool
    ) -> Iterator[Any]:
        if len(dataset) == 0:  # type: ignore[arg-type]
            return
        self.eval()
        batches: Iterable[Any] = self._loader(dataset, told, shuffle=False)
        if verbose:
            from tqdm import tqdm

            batches = tqdm(batches, "Predicting", unit="batch")
        for batch in batches:
            draws = self.predict_on_batch(inputs_of(batch), iterations, told.use_cuda)
            yield as_arrays(draws, np.float16 if half else None)

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


def check_not_empty(dataset: Dataset[Any], verb: str) -> None:
    if len(dataset) == 0:  # type: ignore[arg-type]
        raise ValueError(f"Expected a dataset to {verb} on, got an empty one. Label something first.")


def device_for(use_cuda: bool | None) -> torch.device:
    """The device of Baal's `use_cuda`; `None` takes the best there is. Warns where CUDA is asked for and absent."""
    if torch.cuda.is_available() and use_cuda is not False:
        return torch.device("cuda")
    if use_cuda:
        warnings.warn("use_cuda=True, but there is no CUDA device here: running on the CPU.", UserWarning, stacklevel=5)
    if use_cuda is None and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


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
