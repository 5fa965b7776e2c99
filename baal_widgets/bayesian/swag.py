"""SWAG: a Gaussian around the weights that SGD with constant step passes (Maddox et al. 2019, arXiv:1902.02476)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, Dataset

from baal_widgets.bayesian.batchnorm import as_it_is, batch_norms, normalised_by
from baal_widgets.bayesian.common import BayesianModule, DrawsOnce
from baal_widgets.devices import device_of
from baal_widgets.utils.structures import inputs_and_targets, inputs_of, to_device


class SWAGModule(DrawsOnce, BayesianModule):
    """A trained model with a Gaussian over its weights: in `eval` mode each call draws all of them.

    The Gaussian has the mean of the snapshots that `collect` has taken, and half the sum of two covariances: the
    diagonal one of all snapshots, and the one of the deviations of the last `max_rank` of them. `fit(dataset,
    criterion=...)` takes the snapshots: it runs SGD on a copy, from the present weights, with constant step `lr` and
    the given momentum and weight decay, and takes one every `steps_between` steps (an epoch unless told) until there
    are `snapshots`. `scale` multiplies the covariance of draws; 0 gives the mean of the snapshots alone.

    The parameters that require gradients are drawn, the others stay. Batch normalisation uses statistics of the
    training set that `fit` takes once, for the mean weights; the paper takes them for each draw, at the cost of
    a pass of the training set each. Only without `fit`, by `collect` alone, it has the model's running statistics.

    In training mode a call is the model's own, and its weights are never written to. Memory is that of `max_rank` + 2
    models; what was fitted is pickled with the module but not part of its `state_dict`. Raises `RuntimeError`
    for draws before there are two snapshots.

    >>> model = nn.Linear(4, 2)
    >>> module = SWAGModule(model, snapshots=5).eval()
    >>> module.fit([(torch.randn(4), 0) for _ in range(8)], criterion=nn.CrossEntropyLoss())
    >>> module.sample(torch.ones(3, 4), draws=6).shape
    torch.Size([3, 2, 6])
    """

    patching_function = staticmethod(as_it_is)
    unpatch_function = staticmethod(as_it_is)
    fitted = ("mean", "squares", "deviations", "normal_means", "normal_variances", "n_collected", "_names")
    mean: Tensor | None
    squares: Tensor | None
    deviations: Tensor | None
    normal_means: Tensor | None
    normal_variances: Tensor | None

    def __init__(
        self,
        module: nn.Module,
        max_rank: int = 20,
        *,
        snapshots: int = 20,
        lr: float = 0.01,
        steps_between: int | None = None,
        scale: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        for name, number in {"max_rank": max_rank, "snapshots": snapshots}.items():
            if number < 2:
                raise ValueError(f"Expected {name} to be from 2 on, got {number}: one snapshot does not vary.")
        if steps_between is not None and steps_between < 1:
            raise ValueError(f"Expected steps_between to be from 1 on, got {steps_between}.")
        if scale < 0:
            raise ValueError(f"Expected scale to be from 0 on, got {scale}.")
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise ValueError(
                "Every draw of this model would be the same: none of its parameters requires a gradient. Call "
                "requires_grad_() on the layers that are to be drawn."
            )
        super().__init__(module)
        for part in self.parent_module.modules():
            # weights are put in place for a call, which must not be seen in the dict that the caller's model has
            vars(part)["_parameters"] = dict(part._parameters)
        self.max_rank, self.snapshots, self.lr, self.steps_between = max_rank, snapshots, lr, steps_between
        self.scale, self.momentum, self.weight_decay = scale, momentum, weight_decay
        for name in ("mean", "squares", "deviations", "normal_means", "normal_variances"):
            self.register_buffer(name, None, persistent=False)
        self._names: tuple[str, ...] = ()
        self.n_collected = 0
        self._over = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.training or self._over:
            return self.parent_module(*args, **kwargs)
        if self.n_collected < 2:
            raise RuntimeError(
                f"There are {self.n_collected} snapshots to draw from, and two is the least: call fit(dataset, "
                "criterion=...) once the model is trained, or collect() several times while it trains."
            )
        assert self.mean is not None
        weights = self._named(self._drawn(self.draw_generator(self.mean.device)))
        with self._normalised():
            return functional_call(self.parent_module, weights, args, kwargs)

    def collect(self) -> None:
        """Take a snapshot of the model's present weights. Costs as much as copying them twice."""
        self._collect(self.parent_module)

    def fit(
        self,
        dataset: Dataset[Any],
        *,
        criterion: Callable[[Any, Any], Tensor] | None = None,
        batch_size: int = 32,
        collate_fn: Callable[..., Any] | None = None,
        train: Callable[[], None] | None = None,
    ) -> None:
        """Forget earlier snapshots and take new ones on the way of SGD from the present weights, which stay.

        Costs `snapshots * steps_between` training steps of a copy of the model, and a pass of the training set where
        there is batch normalisation. Raises `FloatingPointError` when the loss is not a number.
        """
        if criterion is None:
            raise ValueError("Expected a criterion to run SGD with: fit(dataset, criterion=nn.CrossEntropyLoss()).")
        n_items = len(dataset)  # type: ignore[arg-type]
        if n_items == 0:
            raise ValueError("Expected a dataset to run SGD on, got an empty one. Label something first.")
        # batch normalisation cannot train on a batch of one item
        alone = n_items > batch_size > 1 and n_items % batch_size == 1
        loader = DataLoader(dataset, batch_size, shuffle=True, collate_fn=collate_fn, drop_last=alone)
        self.forget()
        with torch.inference_mode(False), torch.enable_grad():
            walker = copy.deepcopy(self.parent_module).train()
            self._walk(walker, loader, criterion)
            self._settle(walker, loader)

    def forget(self) -> None:
        """Forget all snapshots."""
        self.mean = self.squares = self.deviations = self.normal_means = self.normal_variances = None
        self.n_collected, self._names = 0, ()

    def unpatch(self) -> nn.Module:
        self._over = True
        return super().unpatch()

    def _walk(self, walker: nn.Module, loader: DataLoader[Any], criterion: Callable[[Any, Any], Tensor]) -> None:
        """SGD with snapshots on the way."""
        weights = [one for one in walker.parameters() if one.requires_grad]
        optimizer = torch.optim.SGD(weights, self.lr, self.momentum, weight_decay=self.weight_decay)
        every, step, device = self.steps_between or len(loader), 0, device_of(walker)
        while True:
            for data, target in map(inputs_and_targets, loader):
                optimizer.zero_grad()
                loss = criterion(walker(to_device(data, device)), to_device(target, device))
                if not loss.isfinite():
                    raise FloatingPointError(f"The loss became {loss.item()} at step {step + 1}: try a lower lr.")
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
                if step % every == 0:
                    self._collect(walker)
                if self.n_collected == self.snapshots:
                    return

    def _settle(self, walker: nn.Module, loader: DataLoader[Any]) -> None:
        """Take the statistics of batch normalisation over the training set for the mean weights."""
        layers = [layer for layer in batch_norms(walker) if layer.track_running_stats]
        if not layers:
            return
        assert self.mean is not None
        walker.eval()
        for layer in layers:
            layer.train().reset_running_stats()
            layer.momentum = None  # the plain mean of all batches
        with torch.no_grad():
            walker.load_state_dict(self._named(self.mean), strict=False)
            for batch in loader:
                walker(to_device(inputs_of(batch), device_of(walker)))
        self.normal_means = torch.cat([layer.running_mean for layer in layers if layer.running_mean is not None])
        self.normal_variances = torch.cat([layer.running_var for layer in layers if layer.running_var is not None])

    def _collect(self, module: nn.Module) -> None:
        with torch.inference_mode(False), torch.no_grad():
            weights = {name: one for name, one in module.named_parameters() if one.requires_grad}
            new = torch.cat([one.detach().flatten().to(_moment_type(one)) for one in weights.values()])
            if self.mean is None or self.squares is None or self.deviations is None:
                self._names = tuple(weights)
                self.mean, self.squares = torch.zeros_like(new), torch.zeros_like(new)
                self.deviations = new.new_zeros(self.max_rank, len(new))
            elif self._names != tuple(weights):
                raise RuntimeError("Other parameters require gradients than at the first snapshot: call forget().")
            self.n_collected += 1
            # Welford's update: a difference of squares loses the small variances in rounding
            before = new - self.mean
            self.mean = self.mean + before / self.n_collected
            self.squares = self.squares + before * (new - self.mean)
            self.deviations[(self.n_collected - 1) % self.max_rank] = new - self.mean

    def _drawn(self, generator: torch.Generator) -> Tensor:
        assert self.mean is not None
        assert self.squares is not None
        assert self.deviations is not None
        mean, rank = self.mean, min(self.n_collected, self.max_rank)
        like: dict[str, Any] = {"generator": generator, "device": mean.device, "dtype": mean.dtype}
        diagonal = (self.squares / self.n_collected).sqrt() * torch.randn(mean.shape, **like)
        low_rank = torch.randn(rank, **like) @ self.deviations[:rank] / math.sqrt(rank - 1)
        return mean + (diagonal + low_rank) * math.sqrt(self.scale / 2)

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        """Weights by name, from all of them in a row."""
        own = dict(self.parent_module.named_parameters())
        parts = torch.split(flat, [own[name].numel() for name in self._names])
        return {
            name: part.view_as(own[name]).to(own[name].dtype) for name, part in zip(self._names, parts, strict=True)
        }

    def _normalised(self) -> Any:
        if self.normal_means is None or self.normal_variances is None:
            return nullcontext()
        layers = [layer for layer in batch_norms(self.parent_module) if layer.track_running_stats]
        return normalised_by(layers, (self.normal_means, self.normal_variances))


def _moment_type(weight: Tensor) -> torch.dtype:
    return torch.float64 if weight.dtype == torch.float64 else torch.float32
