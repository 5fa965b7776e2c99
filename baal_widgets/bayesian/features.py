"""A model in two: what it computes of its input, and the linear layer that makes its output of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from baal_widgets.bayesian.common import BayesianModule, DrawsOnce
from baal_widgets.utils.structures import to_device


def last_linear(model: nn.Module, data: Any = None) -> tuple[str, nn.Linear]:
    """The name and the layer that a classifier ends in: the linear layer that runs last on a batch of `data`.

    Without `data` it is the one that was registered last, which is the same for most models. One pass in `eval` mode.
    Raises `ValueError` where there is no linear layer.

    >>> last_linear(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    ('2', Linear(in_features=3, out_features=2, bias=True))
    """
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    if data is None:
        name = next(reversed(linear), None)
    else:
        with torch.no_grad(), evaluating(model):
            calls, _ = _watch(model, linear, data)
        name = calls[-1][0] if calls else None
    if name is None:
        ran = "has" if data is None else "runs"
        raise ValueError(
            f"{type(model).__name__} {ran} no nn.Linear. Expected a model that ends in one; torch.nn.functional.linear "
            "cannot be seen from outside."
        )
    return name, linear[name]


def features_of(model: nn.Module, data: Any, layer: str | nn.Module | None = None) -> Tensor:
    """What goes into a layer, the last linear one unless told otherwise, flattened: `[item, feature]`.

    One pass in `eval` mode and without gradients; the model comes back as it was, also after an error. A layer that
    runs several times counts with its last run.
    """
    if isinstance(layer, nn.Module):
        watched = {name: one for name, one in model.named_modules() if one is layer}
    elif layer is not None:
        watched = {layer: model.get_submodule(layer)}
    else:
        watched = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    with torch.no_grad(), evaluating(model):
        calls, _ = _watch(model, watched, data)
    if not calls:
        wanted = "an nn.Linear" if layer is None else f"the layer {layer!r}"
        raise ValueError(f"{type(model).__name__} did not run {wanted} on this batch. Name one that it does: layer=...")
    features: Tensor = calls[-1][1]
    return features.flatten(1) if features.ndim > 1 else features[:, None]


Likelihood: TypeAlias = Literal["classification", "regression"]


@dataclass(frozen=True)
class FeatureHead:
    """A model whose output is that of one linear layer, so that other weights of it cost one product each."""

    model: nn.Module
    name: str

    @classmethod
    def of(cls, model: nn.Module, data: Any) -> FeatureHead:
        """Split a model, tried on a batch of `data`. Raises `ValueError` where its output is not a linear layer's."""
        name, layer = last_linear(model, data)
        with torch.no_grad(), evaluating(model):
            calls, output = _watch(model, {name: layer}, data)
        same = isinstance(output, Tensor) and output.shape == calls[-1][2].shape and torch.equal(output, calls[-1][2])
        if len(calls) > 1 or not same:
            raise ValueError(
                f"The output of {type(model).__name__} is not that of its last linear layer, {name!r}, run once. "
                "Expected a model that ends in it, without a softmax or another head behind."
            )
        if output.ndim != 2:
            raise ValueError(
                f"Expected one row of outputs an item, [item, class]; layer {name!r} gives {tuple(output.shape)}."
            )
        return cls(model, name)

    @property
    def head(self) -> nn.Linear:
        layer = self.model.get_submodule(self.name)
        assert isinstance(layer, nn.Linear)
        return layer

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        """What goes into the head, `[item, feature]`. One pass in the model's present mode."""
        calls, _ = _watch(self.model, {self.name: self.head}, *args, **kwargs)
        inputs: Tensor = calls[-1][1]
        return inputs


class HeadPosterior(DrawsOnce, BayesianModule):
    """What posteriors of the last layer share: one pass for the features of a batch, then a product for each draw.

    Draw t is one head, and so one function, for all batches until `redraw`. Draws before `fit`, or when the model has
    been trained since, raise `RuntimeError`. What was fitted is pickled with the module but no part of its
    `state_dict`. Subclasses say in `_fit` what is fitted to features and targets, in `_basis` what functions of the
    features the head is linear in, and in `_draw_head` how its weights are drawn.
    """

    patching_function = staticmethod(lambda module: module)
    unpatch_function = staticmethod(lambda module: module)

    def __init__(self, module: nn.Module, likelihood: Likelihood = "classification") -> None:
        if likelihood not in ("classification", "regression"):
            raise ValueError(f"Expected likelihood to be 'classification' or 'regression', got {likelihood!r}.")
        super().__init__(module)
        self.likelihood = likelihood
        self._split: str | None = None
        self._fitted_to: Tensor | None = None
        self._drawn: dict[int, Tensor] = {}
        self._over = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.training or self._over:
            return super().forward(*args, **kwargs)
        self._check_fitted()
        return self._outputs(self._heads([self._draw]), *args, **kwargs)[..., 0]

    def sample(self, data: Any, draws: int, replicate: bool = True) -> Tensor:
        """Outputs of `draws` heads, `[item, class, draw]`; one pass through the model, in `eval` mode."""
        self._check_fitted()
        with evaluating(self.parent_module):
            return self._outputs(self._heads(list(range(draws))), data)

    def fit(
        self,
        dataset: Dataset[Any],
        *,
        criterion: Callable[[Any, Any], Tensor] | None = None,
        batch_size: int = 32,
        collate_fn: Callable[..., Any] | None = None,
        train: Callable[[], None] | None = None,
    ) -> None:
        """Fit the head to `(input, target)` pairs: one pass over them in `eval` mode. The model stays as it is.

        `criterion` and `train` are not used. Raises `ValueError` for an empty dataset, or a model that does not end in
        a linear layer; what was fitted before then stays.
        """
        model, features, targets = self.parent_module, list[Tensor](), list[Tensor]()
        split, device = None, device_of(model)
        with torch.no_grad(), evaluating(model):
            # a loader without a generator takes its seed from the global one
            own = torch.Generator()
            for data, target in DataLoader(dataset, batch_size=batch_size, collate_fn=collate_fn, generator=own):
                data = to_device(data, device)
                split = split or FeatureHead.of(model, data)
                features.append(split.features(data))
                targets.append(torch.as_tensor(target).to(device))
        if split is None:
            raise ValueError("Expected a dataset to fit to, got an empty one. Label something first.")
        self._fit(split.head, torch.cat(features), self._checked(torch.cat(targets), split.head.out_features))
        self._split, self._drawn = split.name, {}
        self._fitted_to = split.head.weight.detach().clone()

    def redraw(self) -> None:
        super().redraw()
        self._drawn = {}

    def unpatch(self) -> nn.Module:
        self._split, self._fitted_to, self._drawn, self._over = None, None, {}, True
        self.forget_draws()
        return super().unpatch()

    def _fit(self, head: nn.Linear, features: Tensor, targets: Tensor) -> None:
        """Fit to features `[item, feature]`, without changing the head."""
        raise NotImplementedError

    def _checked(self, targets: Tensor, n_outputs: int) -> Tensor:
        """Class indices `[item]`, or real targets `[item, output]`."""
        if self.likelihood == "regression":
            if targets.numel() != len(targets) * n_outputs:
                raise ValueError(f"Expected {n_outputs} real targets an item, got targets {tuple(targets.shape)}.")
            return targets.reshape(len(targets), n_outputs)
        if targets.is_floating_point() or targets.ndim != 1 or n_outputs < 2:
            raise ValueError(
                "Expected a class index an item, and outputs of two classes or more; got targets "
                f"{tuple(targets.shape)} of {targets.dtype} and {n_outputs} outputs. For real targets: "
                f"{type(self).__name__}(model, likelihood='regression')."
            )
        if targets.min() < 0 or targets.max() >= n_outputs:
            raise ValueError(
                f"Expected class indices from 0 to {n_outputs - 1}, got {int(targets.min())} to {int(targets.max())}."
            )
        return targets.long()

    def _basis(self, features: Tensor) -> Tensor:
        return features

    def _draw_head(self, generator: torch.Generator) -> Tensor:
        """One draw of the head: `[class, basis + 1]` on the CPU, the bias last."""
        raise NotImplementedError

    def _check_fitted(self) -> None:
        kind = type(self).__name__
        if self._split is None or self._fitted_to is None:
            raise RuntimeError(f"{kind} is not fitted yet: once the model is trained, call fit(dataset).")
        # training hardly leaves the last layer as it was, so that it tells of the others too
        weight = FeatureHead(self.parent_module, self._split).head.weight
        if weight.shape != self._fitted_to.shape or not torch.equal(weight, self._fitted_to.to(weight)):
            raise RuntimeError(f"The model's weights have changed since {kind} was fitted: call fit(dataset) again.")

    def _heads(self, numbers: list[int | None]) -> Tensor:
        """Draws by their numbers, `[draw, class, basis + 1]`."""
        before, heads = self._draw, []
        try:
            for number in numbers:
                self._draw = number
                head = None if number is None else self._drawn.get(number)
                if head is None:
                    head = self._draw_head(self.draw_generator("cpu"))
                    if number is not None:
                        self._drawn[number] = head
                heads.append(head)
        finally:
            self._draw = before
        return torch.stack(heads)

    def _outputs(self, heads: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        assert self._split is not None
        basis = self._basis(FeatureHead(self.parent_module, self._split).features(*args, **kwargs))
        heads = heads.to(basis)
        return torch.einsum("nf,tcf->nct", basis, heads[..., :-1]) + heads[..., -1].T


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in `eval` mode; afterwards each layer is in its own again."""
    # not `.training`, which dropout that stays on says is always so
    modes = [(layer, vars(layer)["training"]) for layer in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first parameter is; the CPU for one without any."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def precise(dtype: torch.dtype) -> torch.dtype:
    """Half precision is too coarse to solve equations in."""
    return torch.promote_types(dtype, torch.float32)


def _watch(
    model: nn.Module, layers: dict[str, nn.Module] | dict[str, nn.Linear], *args: Any, **kwargs: Any
) -> tuple[list[tuple[str, Any, Any]], Any]:
    """Call a model: each run of the layers, `(name, input, output)`, in the order that they ended, and its output."""
    calls: list[tuple[str, Any, Any]] = []
    entered: dict[str, Any] = {}

    def watch(name: str, layer: nn.Module) -> list[Any]:
        def note_input(_: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
            one = inputs[0] if inputs else next(iter(named.values()))
            # other layers may write over their input
            entered[name] = one if isinstance(layer, nn.Linear) else one.clone()

        def note_output(_: nn.Module, __: Any, output: Any) -> None:
            calls.append((name, entered.pop(name), output))

        return [
            layer.register_forward_pre_hook(note_input, with_kwargs=True),
            layer.register_forward_hook(note_output),
        ]

    handles = [handle for name, layer in layers.items() for handle in watch(name, layer)]
    try:
        output = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return calls, output
