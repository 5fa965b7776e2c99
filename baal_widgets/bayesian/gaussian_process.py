"""Gaussian processes: on the draws of any posterior, and on a network's features."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from baal_widgets.arrays import Array, as_floats, as_numpy
from baal_widgets.bayesian.heads import HeadPosterior, Likelihood, precise


def nngp_variance(pool_draws: Array, labelled_draws: Array | None = None, noise: float = 1e-2) -> Array:
    """How uncertain an item's output is once the labelled items' are known, in squared units of the output.

    The posterior variance of a Gaussian process whose covariance is that of the draws, `[item, output, draw]`, for
    each output on its own; the result is `[item, output]`. `noise` is the variance of a label around the true output,
    above 0. Draw t has to be one and the same model for all items, pool and labelled, as in an ensemble
    or with weights drawn once: draws that fall anew for each item covary with none. With no labelled items it is the
    draws' own variance.

    Tsymbalov et al., 2019 (arXiv:1902.10350). Costs items x draws^2 for each output, and holds the draws once more.

    >>> pool = np.array([[[0.0, 1.0, 2.0]], [[5.0, 5.0, 5.5]]])
    >>> nngp_variance(pool, pool[:1], noise=0.5).round(2).tolist()     # labelled: the first of the two itself
    [[0.33], [0.04]]
    """
    factor = _posterior_factor(pool_draws, labelled_draws, noise).square().sum(dim=-1)
    return factor if isinstance(pool_draws, Tensor) else as_numpy(factor)


def nngp_batch(pool_draws: Array, labelled_draws: Array | None, n: int, noise: float = 1e-2) -> npt.NDArray[np.int64]:
    """The `n` pool items to ask for together, first things first: positions in `pool_draws`, all different.

    Always the item of largest `nngp_variance`, summed over its outputs, given the labelled items and those
    already chosen: near-duplicates of a chosen item are known with it. No labels are needed for that, since a Gaussian
    process's variance does not depend on them. Each choice costs items x draws for each output.

    >>> draws = np.array([[[0, 4, 0, 4]], [[0, 4, 0, 4]], [[1, 1, -1, -1]]])     # the first two always agree
    >>> nngp_batch(draws, None, n=2).tolist()
    [0, 2]
    """
    factor = _posterior_factor(pool_draws, labelled_draws, noise)
    if not 0 <= n <= len(factor):
        raise ValueError(f"Expected n from 0 to the {len(factor)} items of the pool, got {n}.")
    chosen: list[int] = []
    free = torch.ones(len(factor), dtype=torch.bool, device=factor.device)
    for _ in range(n):
        variance = factor.square().sum(dim=(1, 2))
        best = int(torch.where(free, variance.nan_to_num(-1), -math.inf).argmax())
        chosen.append(best)
        free[best] = False
        one = factor[best]
        own = one.square().sum(dim=-1, keepdim=True)
        # the symmetric root of I - one one' / (noise + own): what is left once this item is known
        shrink = (1 - (noise / (noise + own)).sqrt()) / own.clamp(min=torch.finfo(own.dtype).tiny)
        factor = factor - torch.einsum("iot,ot->io", factor, one)[..., None] * (shrink * one)
    return np.array(chosen, dtype=np.int64)


def _posterior_factor(pool_draws: Array, labelled_draws: Array | None, noise: float) -> Tensor:
    """`[item, output, draw]` whose products over draws are the posterior covariances of the pool's items."""
    pool = _centred(pool_draws, "pool_draws")
    if not noise > 0:
        raise ValueError(f"Expected a noise variance above 0, got {noise}.")
    if labelled_draws is None or len(labelled_draws) == 0:
        return pool
    labelled = _centred(labelled_draws, "labelled_draws").to(pool)
    if labelled.shape[1:] != pool.shape[1:]:
        raise ValueError(
            f"Expected the same outputs and draws for pool and labelled items, got {tuple(pool.shape)} and "
            f"{tuple(labelled.shape)}: draw t has to be the same model for both."
        )
    # by Woodbury, draws x draws instead of labelled x labelled: K - K'(K + noise)^-1 K = F (I + G'G / noise)^-1 F'
    known = torch.einsum("lot,los->ots", labelled, labelled) / noise
    values, vectors = torch.linalg.eigh(known.double())
    root = ((vectors / (1 + values.clamp(min=0)).sqrt()[:, None, :]) @ vectors.mT).to(pool)
    return torch.einsum("iot,ots->ios", pool, root)


def _centred(draws: Array, name: str) -> Tensor:
    """Draws such that the products of two items' are their sample covariance."""
    values = as_floats(draws)
    if values.ndim != 3 or values.shape[-1] < 2:
        raise ValueError(
            f"Expected {name} shaped [item, output, draw] with 2 draws or more, got {tuple(values.shape)}."
        )
    return (values - values.mean(dim=-1, keepdim=True)) / math.sqrt(values.shape[-1] - 1)


class GaussianProcessModule(HeadPosterior):
    """A trained model whose last layer gives way to a Gaussian process on what goes into it.

    Far from the labelled items, in the space of features, draws are as wide as the prior, whatever the last layer would
    say: the head knows distances. Its squared-exponential kernel is one of random Fourier features (Rahimi and Recht,
    2007), in which the process is Bayesian linear regression, fitted in closed form. Labels of classes become real
    targets, with the noise that makes the softmax of draws a Dirichlet posterior (Milios et al., 2018,
    arXiv:1805.10915), so draws are logits. It is the head of SNGP (Liu et al., 2020, arXiv:2006.10108) put on after
    training, without its spectral normalisation: where the features forget distances, so does this.

    `length_scale` is the distance of features over which outputs change, by default the median one between labelled
    items; `amplitude` the prior's standard deviation of an output, by default that of the targets. `noise`, for
    `likelihood="regression"`, is a target's variance around the function as a share of the targets' variance; draws
    are without it. `n_features` is the rank of the kernel: `fit` costs its square an item and its cube a class.
    The kernel's frequencies come from `seed`.
    """

    fitted = (*HeadPosterior.fitted, "_frequencies", "_mean", "_root", "_constant")

    def __init__(
        self,
        module: nn.Module,
        n_features: int = 512,
        length_scale: float | None = None,
        amplitude: float | None = None,
        noise: float = 0.01,
        likelihood: Likelihood = "classification",
        seed: int = 0,
    ) -> None:
        super().__init__(module, likelihood)
        if n_features < 2:
            raise ValueError(f"Expected n_features from 2 on, got {n_features}.")
        for name, value in (("length_scale", length_scale), ("amplitude", amplitude), ("noise", noise)):
            if value is not None and not value > 0:
                raise ValueError(f"Expected {name} above 0, got {value}.")
        self.n_features, self.length_scale, self.amplitude = n_features, length_scale, amplitude
        self.noise, self.seed = noise, seed
        self._frequencies, self._mean, self._root, self._constant = (torch.zeros(0) for _ in range(4))

    def _fit(self, head: nn.Linear, features: Tensor, targets: Tensor) -> None:
        features = features.double()
        scale = self.length_scale or _median_distance(features)
        generator = torch.Generator().manual_seed(self.seed)
        standard = torch.randn(features.shape[1], self.n_features // 2, generator=generator, dtype=torch.float64)
        self._frequencies = standard.to(features.device) / scale
        basis = self._basis(features)
        if self.likelihood == "classification":
            values, precision = _dirichlet_targets(targets, head.out_features)
            # one constant for all classes, so that far from the data none is preferred
            self._constant, spread = values.mean().expand(values.shape[1]), values.std().expand(values.shape[1])
        else:
            values = targets.double()
            self._constant, spread = values.mean(dim=0), values.std(dim=0, correction=0)
            spread = torch.where(spread > 0, spread, 1.0)
            precision = 1 / (self.noise * spread.square()).expand_as(values)
        amplitude = spread if self.amplitude is None else torch.full_like(spread, self.amplitude)
        known = torch.stack([(basis * weight[:, None]).T @ basis for weight in precision.T])
        known += torch.diag_embed(amplitude[:, None].pow(-2).expand(-1, basis.shape[1]))
        self._root = torch.linalg.cholesky(known)
        seen = torch.einsum("nf,nc->cf", basis, precision * (values - self._constant))
        self._mean = torch.cholesky_solve(seen[..., None], self._root)[..., 0]

    def _basis(self, features: Tensor) -> Tensor:
        """Functions of the features whose product over two items is the kernel, exactly 1 for an item with itself."""
        angles = features.to(precise(features.dtype)) @ self._frequencies.to(features.device, precise(features.dtype))
        return torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(angles.shape[1])

    def _draw_head(self, generator: torch.Generator) -> Tensor:
        # drawn on the CPU and then moved, for the same numbers on every device
        noise = torch.randn(self._mean.shape, generator=generator, dtype=torch.float64).to(self._mean.device)
        spread = torch.linalg.solve_triangular(self._root.mT, noise[..., None], upper=True)[..., 0]
        return torch.cat([self._mean + spread, self._constant[:, None]], dim=1)


def _dirichlet_targets(labels: Tensor, n_classes: int, start: float = 0.01) -> tuple[Tensor, Tensor]:
    """What a log-normal takes the place of each class's Gamma variable with: its mean, and one over its variance.

    `start` is the Dirichlet prior's concentration for a class, to which a label adds one.
    """
    concentration = start + nn.functional.one_hot(labels, n_classes).double()
    variance = (1 + 1 / concentration).log()
    return concentration.log() - variance / 2, 1 / variance


def _median_distance(features: Tensor, most: int = 1000) -> float:
    """The median distance between different rows, by `most` of them; 1 where all are the same."""
    some = features[:: math.ceil(len(features) / most)]
    distances = torch.pdist(some)
    distances = distances[distances > 0]
    return float(distances.median()) if len(distances) else 1.0
