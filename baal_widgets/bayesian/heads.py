"""What posteriors of the last layer share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from baal_widgets.bayesian.common import BayesianModule, DrawsOnce, evaluating
from baal_widgets.bayesian.features import FeatureHead
from baal_widgets.devices import Fitting, device_of
from baal_widgets.utils.structures import inputs_and_targets, to_device

Likelihood: TypeAlias = Literal["classification", "regression"]


class HeadPosterior(DrawsOnce, BayesianModule):
    """What posteriors of the last layer share: one pass for the features of a batch, then a product for each draw.

    Draw t is one head, and so one function, for all batches until `redraw`. Draws before `fit`, or when the model has
    been trained since, raise `RuntimeError`. What was fitted is pickled with the module but no part of its
    `state_dict`. Subclasses say in `_fit` what is fitted to features and targets, with its names in `fitted`, in
    `_basis` what functions of the features the head is linear in, and in `_draw_head` how its weights are drawn.
    """

    patching_function = staticmethod(lambda module: module)
    unpatch_function = staticmethod(lambda module: module)
    fitted: ClassVar[tuple[str, ...]] = ("_split", "_fitted_to")

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
        split, device, fitting = None, device_of(model), Fitting()
        with torch.no_grad(), evaluating(model):
            # a loader without a generator takes its seed from the global one
            own = torch.Generator()
            loader = DataLoader(dataset, batch_size=batch_size, collate_fn=collate_fn, generator=own)
            for data, target in map(inputs_and_targets, loader):
                data = to_device(data, device)
                split = split or fitting.each(partial(FeatureHead.of, model), data)[0]
                features += fitting.each(split.features, data)
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
        raise NotImplementedError(f"{type(self).__name__} needs a `_fit`.")

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
        raise NotImplementedError(f"{type(self).__name__} needs a `_draw_head`.")

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


def precise(dtype: torch.dtype) -> torch.dtype:
    """Half precision is too coarse to solve equations in."""
    return torch.promote_types(dtype, torch.float32)
