"""Last-layer Laplace: a Gaussian around a trained model's last weights, as wide as the data leave it."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from baal_widgets.bayesian.heads import HeadPosterior, Likelihood, precise


class LaplaceModule(HeadPosterior):
    """A trained model with a Laplace approximation of its last linear layer's posterior. Needs laplace-torch.

    The weights of the layer are drawn from a Gaussian whose mean they are and whose precision is the Gauss-Newton
    matrix of the likelihood, summed over the labelled items, and the prior's precision. Training is as ever;
    `fit` comes after it and costs one pass over the labelled items, `sample` one pass over the batch and
    a product for each draw. Daxberger et al., 2021 (arXiv:2106.14806); Kristiadi et al., 2020 (arXiv:2002.10118).

    `prior_precision` is that of each weight, one over its variance, or "marglik" for the one under which the labels
    are likeliest, without a validation set. `hessian` is "kron" (memory of class^2 + feature^2), "full" (of
    (class x feature)^2) or "diag". `likelihood` is "classification", with class indices as targets and outputs of two
    classes or more, or "regression", where the noise is that under which the targets are likeliest, and draws are of
    the function without it.
    """

    fitted = (*HeadPosterior.fitted, "_mean", "_spread", "_shape")

    def __init__(
        self,
        module: nn.Module,
        prior_precision: float | Literal["marglik"] = "marglik",
        hessian: Literal["kron", "full", "diag"] = "kron",
        likelihood: Likelihood = "classification",
    ) -> None:
        if prior_precision != "marglik" and not (isinstance(prior_precision, (int, float)) and prior_precision > 0):
            raise ValueError(f"Expected a prior_precision above 0, or 'marglik', got {prior_precision!r}.")
        if hessian not in ("kron", "full", "diag"):
            raise ValueError(f"Expected hessian to be 'kron', 'full' or 'diag', got {hessian!r}.")
        super().__init__(module, likelihood)
        self.prior_precision, self.hessian = prior_precision, hessian
        self._mean, self._shape = torch.zeros(0), torch.Size()
        self._spread: Any = None

    def _fit(self, head: nn.Linear, features: Tensor, targets: Tensor) -> None:
        """The posterior of the head alone, to which laplace-torch is handed the features as its inputs."""
        laplace = _laplace_torch()
        # laplace-torch writes to the parameters and their gradients, so it is given a head of its own; on the CPU,
        # where one layer is quick, and draws are the same for every device
        features = features.to("cpu", precise(features.dtype))
        twin = copy.deepcopy(head).requires_grad_(True).to("cpu", features.dtype)
        targets = targets.cpu() if self.likelihood == "classification" else targets.to(features)
        rows = TensorDataset(features, targets)
        with torch.enable_grad(), _quietly():
            fitted = laplace.Laplace(twin, self.likelihood, subset_of_weights="all", hessian_structure=self.hessian)
            fitted.fit(DataLoader(rows, batch_size=256, generator=torch.Generator()))
            prior = None if self.prior_precision == "marglik" else float(self.prior_precision)
            _set_likeliest(fitted, prior, noisy=self.likelihood == "regression")
        spread = fitted.posterior_precision if self.hessian == "kron" else fitted.posterior_scale
        self._mean, self._spread, self._shape = fitted.mean.detach(), spread.detach(), head.weight.shape

    def _draw_head(self, generator: torch.Generator) -> Tensor:
        mean, spread, (classes, features) = self._mean, self._spread, self._shape
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        if self.hessian == "kron":
            noise = spread.bmm(noise[None], exponent=-0.5).reshape(-1)
        else:
            noise = spread @ noise if self.hessian == "full" else spread * noise
        drawn = mean + noise
        weight, bias = drawn[: classes * features], drawn[classes * features :]
        bias = bias if len(bias) else weight.new_zeros(classes)
        return torch.cat([weight.reshape(classes, features), bias[:, None]], dim=1)


def _set_likeliest(fitted: Any, prior: float | None, noisy: bool) -> None:
    """Set the prior's precision, where none is given, and the noise of real targets to what raises the evidence most.

    laplace-torch's own evidence has no gradient in the noise, and costs parameters^3 a step for a full matrix.
    """
    mean, curvature = fitted.mean.detach(), _curvature(fitted)
    log_prior = mean.new_tensor(0.0 if prior is None else math.log(prior), requires_grad=prior is None)
    log_noise = mean.new_tensor(0.0, requires_grad=noisy)
    free = [one for one in (log_prior, log_noise) if one.requires_grad]
    for step in range(400 if free else 0):
        if step == 0:
            optimizer = torch.optim.Adam(free, lr=0.1)
        loss = -_evidence(fitted.n_data * fitted.n_outputs, fitted.loss, mean, curvature, log_prior, log_noise)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    fitted.prior_precision = log_prior.exp().detach()
    if noisy:
        fitted.sigma_noise = log_noise.exp().detach()


def _curvature(fitted: Any) -> Tensor:
    """The eigenvalues of the likelihood's Gauss-Newton matrix, for noise of 1."""
    matrix = fitted.H
    if isinstance(matrix, Tensor):
        return torch.linalg.eigvalsh(matrix).clamp(min=0) if matrix.ndim == 2 else matrix
    each = [values[0] if len(values) == 1 else torch.outer(*values).flatten() for values in matrix.eigenvalues]
    return torch.cat(each).clamp(min=0)


def _evidence(n: int, loss: float, mean: Tensor, curvature: Tensor, log_prior: Tensor, log_noise: Tensor) -> Tensor:
    """The logarithm of the labels' marginal likelihood, but for a constant; `log_noise` is 0 for classes."""
    weight = (-2 * log_noise).exp()
    fit = -weight * loss - n * log_noise
    return fit - 0.5 * ((curvature * weight * (-log_prior).exp()).log1p().sum() + log_prior.exp() * mean.square().sum())


def _laplace_torch() -> ModuleType:
    try:
        with _quietly():
            import laplace
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "LaplaceModule needs laplace-torch, which is not installed: pip install 'baal-widgets[laplace]'."
        ) from error
    module: ModuleType = laplace
    return module


@contextmanager
def _quietly() -> Iterator[None]:
    """What laplace-torch's own dependencies deprecate is not the user's to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
