"""Deep ensembles: one architecture trained several times, each training a draw (Lakshminarayanan et al., 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset

from baal_widgets.bayesian.common import BayesianModule, DrawsOnce
from baal_widgets.devices import device_for, device_of, parts_of
from baal_widgets.modelwrapper import Criterion, ModelWrapper, TrainingArgs
from baal_widgets.utils.structures import joined_items, map_structure, to_device

# No parameter's name ends in a dot, so that no model's state has this key.
CHECKPOINTS = "checkpoints."


class EnsembleModelWrapper(ModelWrapper):
    """A wrapper whose draws are checkpoints, models trained one after another: `[item, class, ..., checkpoint]`.

    Train, `add_checkpoint`, `reset_all`, and again, five times or so (Lakshminarayanan et al., 2017,
    arXiv:1612.01474). Predictions and tests are of all checkpoints, however many `iterations` are asked for, except
    that `train_and_test_on_datasets` tests the model that it trains. The weights that the model holds stay in it.
    Checkpoints wait in CPU memory and are where the model is for the time of one pass over a dataset.
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
        super().__init__(model, criterion, replicate_in_memory, args=args, device=device)
        self._weights: list[dict[str, Tensor]] = []
        self._at_hand: dict[torch.device, list[dict[str, Tensor]]] | None = None
        self._alone = False

    def add_checkpoint(self) -> None:
        """Keep the model's present weights, BatchNorm's statistics included, as one more member."""
        self._forget_placed()
        self._weights.append(weights_of(self.model, torch.device("cpu")))

    def clear_checkpoints(self) -> None:
        """Forget all members. Those of earlier rounds would otherwise keep voting."""
        self._forget_placed()
        self._weights.clear()

    def predict_on_dataset_generator(self, dataset: Dataset[Any], *positional: Any, **named: Any) -> Iterator[Any]:
        """The predictions of all checkpoints batch by batch. Raises `ValueError` with none."""
        self._check_checkpoints()
        return self._placing_once(super().predict_on_dataset_generator(dataset, *positional, **named))

    def draws_on_dataset(self, dataset: Dataset[Any], *positional: Any, **named: Any) -> Iterator[Any]:
        """The same as tensors on the model's device."""
        self._check_checkpoints()
        return self._placing_once(super().draws_on_dataset(dataset, *positional, **named))

    def predict_on_batch(self, data: Any, iterations: int = 1, cuda: bool | None = None) -> Any:
        """The predictions of all checkpoints, `[item, class, ..., checkpoint]`, on the model's device.

        `iterations` is not used. Raises `ValueError` with no checkpoints.
        """
        return super().predict_on_batch(data, 1, cuda)

    def train_and_test_on_datasets(
        self, train_dataset: Dataset[Any], test_dataset: Dataset[Any], *positional: Any, **named: Any
    ) -> Any:
        """As `ModelWrapper` does, so that early stopping sees the model being trained and not the checkpoints."""
        try:
            self._alone = True
            return super().train_and_test_on_datasets(train_dataset, test_dataset, *positional, **named)
        finally:
            self._alone = False

    def state_dict(self) -> dict[str, Any]:
        """The model's, and under one more key the checkpoints, once there are any."""
        state = super().state_dict()
        if self._weights:
            state[CHECKPOINTS] = [dict(weights) for weights in self._weights]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Load the model's weights, and the checkpoints where the state has some; a plain model's leaves them."""
        weights = {name: value for name, value in state_dict.items() if name != CHECKPOINTS}
        super().load_state_dict(weights, strict=strict)
        if CHECKPOINTS in state_dict:
            self._forget_placed()
            cpu = torch.device("cpu")
            self._weights = [_moved(checkpoint, cpu, copy=True) for checkpoint in state_dict[CHECKPOINTS]]

    def _draws_of_parts(self, data: Any, iterations: int, items: int, together: int) -> Any:
        if self._alone:
            return super()._draws_of_parts(data, iterations, items, together)
        self._check_checkpoints()
        device = device_of(self.model)
        placed = self._placed(device)
        parts = [ensemble_prediction(part, self.model, placed) for part in parts_of(data, items)]
        return joined_items(parts, axes=2)

    def _check_checkpoints(self) -> None:
        if not self._weights:
            raise ValueError("No checkpoint! Expected at least one: train, then call add_checkpoint().")

    def _placed(self, device: torch.device) -> list[dict[str, Tensor]]:
        if self._at_hand is None:
            return self._weights
        if device not in self._at_hand:
            self._at_hand[device] = [_moved(weights, device) for weights in self._weights]
        return self._at_hand[device]

    def _placing_once(self, batches: Iterator[Any]) -> Iterator[Any]:
        try:
            self._at_hand = {}
            yield from batches
        finally:
            self._at_hand = None

    def _forget_placed(self) -> None:
        if self._at_hand is not None:
            self._at_hand = {}


def ensemble_prediction(
    data: Any, model: nn.Module, weights: Sequence[Mapping[str, Tensor]], cuda: bool | None = None
) -> Any:
    """Predictions of one model under several weights, `[item, class, ..., member]`, without gradients.

    `weights` are state dicts of the model, which itself keeps the weights it has. Data and weights go to the model's
    device, or where `cuda` says. Raises `ValueError` for weights that are not this model's.
    """
    if not weights:
        raise ValueError("Expected the weights of at least one member, got none.")
    device = device_of(model) if cuda is None else device_for(cuda)
    data = to_device(data, device)
    with torch.no_grad():
        outputs = [functional_call(model, _member(model, each, device), (data,)) for each in weights]
        return map_structure(lambda *each: torch.stack(each, dim=-1), *outputs)


class EnsembleModule(DrawsOnce, BayesianModule):
    """A deep ensemble as a posterior: each draw is a model trained from new weights of its own.

    `fit` trains `members` models one after another; `sample` gives as many draws as there are members, whatever number
    is asked for, and draw t is member t. A call in `eval` mode is one member, by chance; `RuntimeError` before `fit`.
    Memory: `members` times the weights. They are pickled with the module; `state_dict` holds the model's own alone.

    Lakshminarayanan et al., 2017 (arXiv:1612.01474), without their adversarial examples.
    """

    patching_function = staticmethod(lambda module: module)
    unpatch_function = staticmethod(lambda module: module)
    fitted = ("_weights",)

    def __init__(self, module: nn.Module, members: int = 5) -> None:
        if members < 1:
            raise ValueError(f"Expected a number of members from 1 on, got {members}.")
        super().__init__(module)
        self.members = members
        self._weights: list[dict[str, Tensor]] = []
        self._own_pass = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.training or self._own_pass:
            return super().forward(*args, **kwargs)
        self._check_members()
        number = self._draw
        if number is None:
            number = int(torch.randint(len(self._weights), (), generator=self.draw_generator("cpu")).item())
        return self._call_member(number % len(self._weights), *args, **kwargs)

    def sample(self, data: Any, draws: int, replicate: bool = True) -> Any:
        """The predictions of all members, `[item, class, ..., member]`; neither `draws` nor `replicate` matters."""
        self._check_members()
        outputs = [self._call_member(number, data) for number in range(len(self._weights))]
        return map_structure(lambda *each: torch.stack(each, dim=-1), *outputs)

    def fit(
        self,
        dataset: Dataset[Any],
        *,
        criterion: Callable[[Any, Any], Tensor] | None = None,
        batch_size: int = 32,
        collate_fn: Callable[..., Any] | None = None,
        train: Callable[[], None] | None = None,
    ) -> None:
        """Train the members anew: `train()` once for each, and the weights it leaves are kept.

        `train` has to begin from new weights, or all members will be alike. Afterwards the model holds the weights that
        it held before, also where training fails; then the members are the earlier ones.
        """
        if train is None:
            raise ValueError(
                "An ensemble trains its members itself. Expected train=, a function that gives the model new weights "
                "and trains it."
            )
        weights = []
        self._own_pass = True
        try:
            with _put_back(self.parent_module):
                for _ in range(self.members):
                    train()
                    weights.append(weights_of(self.parent_module, device_of(self.parent_module)))
        finally:
            self._own_pass = False
        self._weights = weights

    def unpatch(self) -> nn.Module:
        self._weights, self._own_pass = [], True
        self.forget_draws()
        return super().unpatch()

    def _check_members(self) -> None:
        if not self._weights:
            raise RuntimeError("The ensemble has no members yet: call fit(dataset, train=...) before sampling.")

    def _call_member(self, number: int, *args: Any, **kwargs: Any) -> Any:
        device = device_of(self.parent_module)
        # moved once and for all, where the model has moved since
        self._weights[number] = _moved(self._weights[number], device)
        return functional_call(
            self.parent_module, _member(self.parent_module, self._weights[number], device), args, kwargs
        )


def weights_of(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """A copy of all that a model's `state_dict` holds in tensors."""
    return _moved({name: one for name, one in model.state_dict().items() if isinstance(one, Tensor)}, device, copy=True)


def _moved(weights: Mapping[str, Tensor], device: torch.device, copy: bool = False) -> dict[str, Tensor]:
    return {name: one.detach().to(device, copy=copy) for name, one in weights.items() if isinstance(one, Tensor)}


def _member(model: nn.Module, weights: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The weights by the names that `functional_call` wants: each tied one once, and what no state dict holds."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    saved = model.state_dict()
    member = {}
    for name, live in (parameters | buffers).items():
        if name not in weights and name in saved:
            raise ValueError(f"The weights lack {name!r}: expected a state dict of this {type(model).__name__}.")
        one = weights.get(name, live)
        if one.shape != live.shape:
            raise ValueError(
                f"{name!r} is shaped {tuple(one.shape)} in the weights and {tuple(live.shape)} in the model: expected "
                f"a state dict of this {type(model).__name__}. Clear checkpoints of another model first."
            )
        # a pass in training mode writes to buffers, and a member is to stay as it is
        member[name] = one.detach().to(device, copy=name in buffers)
    return member


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """After the block a model's weights, statistics and modes are bit for bit what they were before."""
    names = [*model.named_parameters(), *model.named_buffers()]
    before = {name: one.detach().clone() for name, one in names}
    modes = [(layer, vars(layer)["training"]) for layer in model.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for name, one in [*model.named_parameters(), *model.named_buffers()]:
                one.copy_(before[name])
        for layer, mode in modes:
            layer.training = mode
