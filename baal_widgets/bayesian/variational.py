"""Bayes by backprop: a Gaussian for each weight, learned by gradients (Blundell et al. 2015, arXiv:1505.05424).

For convolutions see Shridhar et al. (2019, arXiv:1901.02731).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baal_widgets.bayesian.common import BayesianModule, DrawsOnce
from baal_widgets.bayesian.consistent_dropout import fuse, unfuse
from baal_widgets.bayesian.swapping import Swapped, holding, swap, swap_back
from baal_widgets.bayesian.weight_drop import named_layers

KNOWN = ("Linear", "Conv", "Conv1d", "Conv2d", "Conv3d")
ALL = ("Linear", "Conv")


class VariationalMixin(DrawsOnce, Swapped):
    """A layer whose weights and biases are Gaussian: N(weight, softplus(weight_rho)²) each, and so the biases.

    A call draws them once for all of its items, in training and in `eval` mode; calls of one numbered draw are the
    same. Gradients reach the means and the scales through the draw. The prior of each weight is N(0, prior_scale²).
    """

    prefix = "Bayesian"
    added = ("_prior_scale",)

    _prior_scale: float = 1.0

    def __init__(self, *args: Any, prior_scale: float = 1.0, initial_scale: float = 0.05, **kwargs: Any) -> None:
        _check(prior_scale, initial_scale)
        super().__init__(*args, **kwargs)
        assert isinstance(self, nn.Module)
        self._prior_scale = prior_scale
        _give_scales(self, initial_scale)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        assert isinstance(self, nn.Module)
        gaussians = self._gaussians()
        generator = self.draw_generator(gaussians["weight"][0].device)
        drawn = {}
        for name, (mean, scale) in gaussians.items():
            noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
            drawn[name] = mean + scale * noise
        with holding(self, _parameters={**self._parameters, **drawn}):
            return super().forward(*args, **kwargs)  # type: ignore[misc]

    def kl(self) -> Tensor:
        """KL(posterior || prior) of the layer's weights and biases in nats, in closed form."""
        return torch.stack(
            [
                (
                    math.log(self._prior_scale) - scale.log() + (scale**2 + mean**2) / (2 * self._prior_scale**2) - 0.5
                ).sum()
                for mean, scale in self._gaussians().values()
            ]
        ).sum()

    def _gaussians(self) -> dict[str, tuple[Tensor, Tensor]]:
        assert isinstance(self, nn.Module)
        names = [name for name in ("weight", "bias") if f"{name}_rho" in self._parameters]
        return {name: (getattr(self, name), F.softplus(getattr(self, f"{name}_rho"))) for name in names}


class BayesianLinear(VariationalMixin, nn.Linear):
    """A linear layer with Gaussian weights: torch's arguments, `prior_scale` and `initial_scale`.

    >>> layer = BayesianLinear(4, 2, prior_scale=1.0, initial_scale=0.05)
    >>> torch.equal(layer(torch.ones(3, 4)), layer(torch.ones(3, 4)))
    False
    """


class BayesianConv1d(VariationalMixin, nn.Conv1d):
    """The same for sequences `[item, channel, length]`."""


class BayesianConv2d(VariationalMixin, nn.Conv2d):
    """The same for images `[item, channel, height, width]`."""


class BayesianConv3d(VariationalMixin, nn.Conv3d):
    """The same for volumes `[item, channel, depth, height, width]`."""


def patch_module(
    module: nn.Module,
    layers: Sequence[str] = ALL,
    prior_scale: float = 1.0,
    initial_scale: float = 0.05,
    inplace: bool = True,
) -> nn.Module:
    """Make a model's layers of the given kinds variational, with their weights as the means, and return the model.

    `layers` are among "Linear", "Conv", "Conv1d", "Conv2d" and "Conv3d". The layers get new parameters for the scales,
    `weight_rho` and `bias_rho`, of softplus(rho) = `initial_scale`. In place unless told otherwise; `unpatch_module`
    takes the scales away. Warns when there is nothing to patch. Raises `ValueError` for kinds that are not known and
    for layers whose weight is computed (weight norm and the like).
    """
    _check(prior_scale, initial_scale)
    named_layers(module, layers, KNOWN)  # refuse before anything is copied or changed
    module = module if inplace else copy.deepcopy(module)
    found = named_layers(module, layers, KNOWN)
    if not found:
        warnings.warn(f"No layer was modified by patch_module! {_nothing(layers)}", UserWarning, stacklevel=2)
    for layer in found.values():
        swap(layer, VariationalMixin, _prior_scale=prior_scale)
        if "weight_rho" not in layer._parameters:
            _give_scales(layer, initial_scale)
    unfuse(module, VariationalMixin)
    return module


def unpatch_module(module: nn.Module, inplace: bool = True) -> nn.Module:
    """Undo `patch_module`: a deterministic model with the means as its weights. Nothing to undo is fine."""
    module = module if inplace else copy.deepcopy(module)
    for layer in module.modules():
        was = isinstance(layer, VariationalMixin)
        swap_back(layer, VariationalMixin)
        if was and not isinstance(layer, VariationalMixin):
            own = {name: value for name, value in layer._parameters.items() if not name.endswith("_rho")}
            vars(layer)["_parameters"] = own
    fuse(module)
    return module


class VariationalModule(BayesianModule):
    """A model with a Gaussian for each weight of its linear and convolutional layers: each call draws all of them.

    The means are the parameters of the model that was given: they start from its weights, and training this module
    trains that model. The scales are new parameters of this module alone, `parent_module.*.weight_rho`; give its
    `parameters()` to the optimizer and add `penalty(n_items)` to the mean loss. `unpatch` leaves the model of
    the trained means. `layers` are the kinds to take, all linear layers and convolutions unless told otherwise.

    Twice the parameters, and a pass of the model for each draw and batch. Raises `ValueError` for a model that has
    no such layer.

    >>> model = nn.Linear(4, 2)
    >>> module = VariationalModule(model, initial_scale=0.1)
    >>> module.sample(torch.ones(3, 4), draws=5).shape, bool(module.penalty(n_items=100) > 0)
    (torch.Size([3, 2, 5]), True)
    """

    patching_function = staticmethod(patch_module)
    unpatch_function = staticmethod(unpatch_module)

    def __init__(
        self,
        module: nn.Module,
        prior_scale: float = 1.0,
        initial_scale: float = 0.05,
        layers: Sequence[str] = ALL,
    ) -> None:
        if not named_layers(module, layers, KNOWN):
            raise ValueError(f"Every draw of this model would be the same. {_nothing(layers)}")
        super().__init__(module, layers, prior_scale, initial_scale)

    def kl(self) -> Tensor:
        """KL(posterior || prior) of all variational layers, in nats."""
        terms = [layer.kl() for layer in self.modules() if isinstance(layer, VariationalMixin)]
        return torch.stack([term.to(terms[0].device) for term in terms]).sum() if terms else torch.zeros(())

    def penalty(self, n_items: int) -> Tensor:
        """The KL a labelled item, so that the mean loss with it is the negative evidence bound of an item."""
        if n_items < 1:
            raise ValueError(f"Expected the number of labelled items, from 1 on, got {n_items}.")
        return self.kl() / n_items


def _give_scales(layer: nn.Module, initial_scale: float) -> None:
    rho = math.log(math.expm1(initial_scale))  # softplus(rho) is the scale
    own = dict(layer._parameters)
    means = {name: own[name] for name in ("weight", "bias") if name in own}
    scales = {f"{name}_rho": nn.Parameter(torch.full_like(one, rho)) for name, one in means.items() if one is not None}
    # a new dict: the old one may be that of the caller's model too
    vars(layer)["_parameters"] = {**own, **scales}


def _check(prior_scale: float, initial_scale: float) -> None:
    if not (prior_scale > 0 and initial_scale > 0):
        raise ValueError(
            f"Expected standard deviations above 0, got prior_scale={prior_scale} and initial_scale={initial_scale}."
        )


def _nothing(layers: Sequence[str]) -> str:
    asked = layers if isinstance(layers, str) else ", ".join(layers)
    return f"The model has no layer of {asked}: name others in layers=[...], or choose another posterior."
