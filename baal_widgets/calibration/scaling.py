"""Make confidence mean what it says, from held-out predictions alone; the model itself is never touched.

Predictions are logits or probabilities `[item, class, ..., draw]`, or `[item, class]` for a single pass; targets are
class indices `[item, ...]`. Draws are pooled first and calibrated after: each draw by itself may be calibrated while
their mean is too modest (Rahaman and Thiery, 2020, arXiv:2007.08792). Fit on items that neither the training nor the
choice of labels has seen.
"""

from __future__ import annotations

from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from baal_widgets.arrays import FromLogits, alike, are_logits, as_floats, check_shape, to_probabilities
from baal_widgets.metrics import as_rows

A = TypeVar("A", npt.NDArray[Any], Tensor)

COLDEST, HOTTEST = 0.01, 100.0


class TemperatureScaling:
    """One number that softens or sharpens all predictions: softmax(logits / temperature).

    Above 1 the model was too sure of itself. The likeliest class stays the likeliest, so accuracy is as before.
    Guo et al., 2017 (arXiv:1706.04599). With `from_logits="auto"` the predictions of the fit decide for all.

    >>> sure = np.array([[4.0, 0.0]] * 4)
    >>> scaling = TemperatureScaling().fit(sure, [0, 0, 0, 1])       # 98 % sure, 75 % right
    >>> round(scaling.temperature, 2), scaling(sure)[0].round(2).tolist()
    (3.64, [0.75, 0.25])
    """

    def __init__(self, *, from_logits: FromLogits = "auto") -> None:
        self.from_logits = from_logits
        self._are_logits = from_logits
        self.temperature = 1.0

    def fit(self, logits: Any, targets: Any) -> Self:
        """Take the temperature of the least mean negative log-likelihood of the targets, and return itself.

        The problem is convex in 1 / temperature and has one solution, found to ten digits in some ten passes over
        the predictions. It lies between 0.01 and 100: at the cold end when every item is right, as then no confidence
        is too high; at the hot end when the model does no better than guessing.
        """
        rows, truth, self._are_logits = _held_out(logits, targets, self.from_logits)
        self.temperature = 1 / _best_sharpness(rows, truth)
        return self

    def __call__(self, logits: A) -> A:
        """Calibrated probabilities `[item, class, ...]`, pooled over the draws."""
        return _tempered(logits, self.temperature, self._are_logits)


class DirichletCalibration:
    """A linear map of the log-probabilities, softmax(W log p + b), `weight` `[class, class]` and `bias` `[class]`.

    It can mend what one temperature can't: classes that are always promised too much, pairs that are confused one
    way. Kull et al., 2019 (arXiv:1910.12656), with their ODIR regularisation, which the many parameters need: the
    mean square of the weights off the diagonal times `reg`, and of the intercepts times `mu` (as `reg` unless
    given), is added to the mean negative log-likelihood. A huge `reg` leaves a weight and an intercept for each class,
    "vector scaling"; a huge `mu` on top takes the intercepts. Choose `reg` on other items than it is fitted on.

    >>> p = np.array([[0.9, 0.1], [0.1, 0.9]] * 50)
    >>> DirichletCalibration().fit(p, [0, 1] * 45 + [1, 0] * 5)(p)[0].round(2).tolist()    # it is calibrated
    [0.9, 0.1]
    """

    def __init__(self, reg: float = 0.01, mu: float | None = None, *, from_logits: FromLogits = "auto") -> None:
        mu = reg if mu is None else mu
        if reg < 0 or mu < 0:
            raise ValueError(f"Expected reg and mu to be 0 or more, got {reg} and {mu}.")
        self.reg, self.mu, self.from_logits = reg, mu, from_logits
        self._are_logits = from_logits
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def fit(self, predictions: Any, targets: Any) -> Self:
        """Find the map of the least regularised loss, and return itself.

        The problem is convex; L-BFGS in double precision starts from the identity, and what it finds is never worse
        than that. Up to some hundred passes over the predictions, on their device.
        """
        rows, truth, self._are_logits = _held_out(predictions, targets, self.from_logits)
        self.weight, self.bias = _best_map(rows, truth, self.reg, self.mu)
        return self

    def __call__(self, predictions: A) -> A:
        """Calibrated probabilities `[item, class, ...]`, pooled over the draws. As they came before the first fit."""
        return _mapped(predictions, self.weight, self.bias, self._are_logits)


def odir(weight: Tensor, bias: Tensor, reg: float, mu: float) -> Tensor:
    """The off-diagonal and intercept regularisation of a Dirichlet calibration (Kull et al., 2019).

    >>> float(odir(torch.tensor([[7.0, 2.0], [0.0, 7.0]]), torch.tensor([1.0, 3.0]), reg=1, mu=1))    # 4 / 2 + 10 / 2
    7.0
    """
    classes = len(weight)
    off_diagonal = weight - weight.diagonal().diag()
    return reg * off_diagonal.square().sum() / (classes * (classes - 1)) + mu * bias.square().mean()


def _held_out(predictions: Any, targets: Any, from_logits: FromLogits) -> tuple[Tensor, Tensor, bool]:
    """Log-probabilities `[row, class]` and true classes `[row]`, for a fit, and whether the predictions are logits."""
    values = as_floats(predictions).detach()
    check_shape(values)
    shape = tuple(np.shape(targets))
    if values.ndim > 2 and values.shape[-1] > 1 and shape == (len(values), *values.shape[2:]):
        raise ValueError(
            f"Expected predictions shaped [item, class, ..., draw], got {tuple(values.shape)} with targets {shape}. "
            "For a single forward pass add the last axis yourself: predictions[..., None]."
        )
    if values.isnan().any():
        raise ValueError("Expected predictions to be numbers, got NaN. Leave out the items that hold one.")
    decided = bool(are_logits(values)) if from_logits == "auto" else from_logits
    log_p = _pooled(values, decided)
    # MPS has no double precision
    log_p = log_p.to("cpu" if log_p.device.type == "mps" else log_p.device).double()
    rows, truth = as_rows(log_p, targets)
    return rows, truth, decided


def _pooled(values: Tensor, from_logits: FromLogits) -> Tensor:
    """Log-probabilities `[item, class, ...]`, of the mean over the draws where there is an axis of them."""
    check_shape(values)
    log_p = log_probabilities(values, bool(are_logits(values)) if from_logits == "auto" else from_logits)
    if values.ndim == 2:
        return log_p
    return log_p.logsumexp(dim=-1) - float(np.log(values.shape[-1]))


def log_probabilities(values: Tensor, are_logits: bool) -> Tensor:
    # the logarithm of nothing would be lost in a linear map, which has 0 * -inf
    least = float(np.log(torch.finfo(values.dtype).tiny))
    if not are_logits:
        return to_probabilities(values, from_logits=False).log().clamp(min=least)
    if values.shape[1] == 1:
        return torch.cat([F.logsigmoid(-values), F.logsigmoid(values)], dim=1).clamp(min=least)
    return values.log_softmax(dim=1).clamp(min=least)


def _best_sharpness(rows: Tensor, truth: Tensor) -> float:
    """The factor of the log-probabilities whose softmax is the likeliest, by Newton's method kept within a bracket."""
    true = rows.gather(1, truth[:, None])[:, 0]
    low, high, sharpness = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(100):
        p = (sharpness * rows).softmax(dim=1)
        mean = (p * rows).sum(dim=1)
        slope = float((mean - true).mean())
        curvature = float(((p * rows.square()).sum(dim=1) - mean.square()).mean())
        low, high = (low, sharpness) if slope > 0 else (sharpness, high)
        newton = sharpness - slope / curvature if curvature > 0 else low
        if abs(newton - sharpness) <= 1e-10 * sharpness or high - low <= 1e-10 * low:
            break
        sharpness = newton if low < newton < high else float(np.sqrt(low * high))
    return sharpness


def _best_map(rows: Tensor, truth: Tensor, reg: float, mu: float) -> tuple[Tensor, Tensor]:
    """The weight and bias of the least regularised loss, by L-BFGS from the identity."""
    classes = rows.shape[1]
    identity = torch.eye(classes, classes + 1).to(rows)
    # steps in units of the loss's own curvature, which a large penalty makes very uneven
    p = rows.softmax(dim=1)
    curvature = (p * (1 - p)).T @ F.pad(rows, (0, 1), value=1.0).square() / len(rows)
    curvature += 1e-3 * curvature.median() + 1e-12
    penalty = 2 * reg / (classes * (classes - 1)) * (1 - identity)
    penalty[:, -1] = 2 * mu / classes
    bias_column = F.one_hot(torch.tensor(classes, device=rows.device), classes + 1)
    unit = (curvature + penalty).rsqrt()
    found = torch.zeros_like(identity, requires_grad=True)

    def at(steps: Tensor) -> Tensor:
        # the same shift of all rows changes no softmax: of all shifts take the one of the least penalty
        parameters = identity + unit * steps
        shift = (parameters.sum(dim=0) - F.pad(parameters.diagonal(), (0, 1))) / (classes - 1 + bias_column)
        return parameters - shift

    def loss(parameters: Tensor) -> Tensor:
        weight, bias = parameters[:, :-1], parameters[:, -1]
        return F.cross_entropy(rows @ weight.T + bias, truth) + odir(weight, bias, reg, mu)

    def closure() -> float:
        optimizer.zero_grad()
        value = loss(at(found))
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer = torch.optim.LBFGS(
        [found],
        max_iter=300,
        tolerance_grad=1e-8,
        tolerance_change=1e-16,
        history_size=30,
        line_search_fn="strong_wolfe",
    )
    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        best = at(found.detach())
        best = best if loss(best) <= loss(identity) else identity
    return best[:, :-1].contiguous(), best[:, -1].contiguous()


@alike
def _tempered(predictions: Tensor, temperature: float, from_logits: FromLogits) -> Tensor:
    return (_pooled(predictions, from_logits) / temperature).softmax(dim=1)


@alike
def _mapped(predictions: Tensor, weight: Tensor | None, bias: Tensor | None, from_logits: FromLogits) -> Tensor:
    log_p = _pooled(predictions, from_logits)
    if weight is None or bias is None:
        return log_p.softmax(dim=1)
    check_classes(log_p, len(weight))
    return (log_p.movedim(1, -1) @ weight.T.to(log_p) + bias.to(log_p)).movedim(-1, 1).softmax(dim=1)


def check_classes(log_p: Tensor, classes: int) -> None:
    if log_p.shape[1] != classes:
        raise ValueError(f"Expected predictions of {classes} classes, got {log_p.shape[1]}.")
