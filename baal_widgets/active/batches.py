"""What several labels would tell together: batches picked by joint information, and EPIG.

Scores of single items (`scores`) know nothing of each other, so that the best ten may well be ten times the same.
Here every pick counts for what it adds to the picks before it. All take probabilities `[item, class, draw]`, where
draw `t` is the same set of weights for every item (as `consistent` dropout or an ensemble gives), and compute in
float64 on the device where the predictions are. The methods that look at features are in `diversity`.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from baal_widgets.active.picks import Picks, Seed, as_kind, as_picks, chunks, finite_items, first_best, lazy_greedy
from baal_widgets.arrays import A, Array, as_floats, to_probabilities
from baal_widgets.checks import positive

__all__ = ["Picks", "batchbald", "epig", "ical", "joint_entropy"]

GROUPS = 48
"""Of so many groups of configurations bounds are made, instead of up to `samples` configurations."""
EXACT = 4096
"""Up to so many items, those not picked are scored by all configurations."""


def batchbald(probabilities: A, n: int, *, samples: int = 1_000, rng: Seed = None) -> Picks[A]:
    """The batch whose labels together would tell most about the weights, greedily; scores in nats.

    A pick adds I(label; weights | labels of the picks before), so the first is the best of `bald`, and a duplicate
    adds only what asking twice would. Kirsch et al., 2019 (arXiv:1906.08158). Greedy gets at least 1 - 1/e of the
    best batch's information.

    Every configuration of the picks' labels that is possible at all is followed while there are at most `samples`,
    so that gains are exact (10 classes: up to the 4th pick). Beyond, so many are drawn from their joint distribution
    with `rng`, in strata, and gains are estimates, held to never rise. On random pools, batches of 12 told as much,
    within 0.2 %, as with ten times as many.

    Items are looked at only where a bound, made from `GROUPS` groups of configurations, lets them win. Time grows
    with items x classes x groups x draws for each pick, and with the items looked at x classes x configurations x
    draws. Items not picked score what they would add now, in pools of more than `EXACT` items that bound of it.
    Beside the predictions it holds arrays of `samples` x (classes + draws), float64, a few numbers an item, and what
    `chunks` allows.

    >>> sure, coin, same = [[1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[0.9, 0.1], [0.1, 0.9]]
    >>> picks = batchbald(np.array([sure, same, coin]), 2)
    >>> picks.items.tolist(), picks.scores.round(2).tolist()
    ([2, 0], [0.0, 0.0, 0.69])
    """
    n = positive("n", n)
    samples = positive("samples", samples)
    rng = np.random.default_rng(rng)
    pool, where = _finite_draws(probabilities, "probabilities")
    joint = _Labels(pool, samples, rng)
    everyone = torch.arange(len(pool), device=pool.device)
    found = lazy_greedy(joint.gains(everyone), n, joint.gains, joint.add, bound=joint.bounds)
    rest = joint.gains if len(pool) <= EXACT else joint.bounds
    return as_picks(probabilities, where, *found, rest(everyone))


def joint_entropy(probabilities: Array) -> float:
    """How unsure the model is of all these items' labels together, in nats: exact, so for a handful of items.

    Goes through every configuration of the labels, classes to the power of items; more than ten million values
    (configurations x draws) are refused with a `ValueError`.

    >>> coin = [[1.0, 0.0], [0.0, 1.0]]                       # each draw is sure, of different labels
    >>> round(joint_entropy(np.array([coin])), 2), round(joint_entropy(np.array([coin, coin])), 2)
    (0.69, 0.69)
    """
    pool = to_probabilities(_draws(probabilities, "probabilities"), from_logits=False)
    items, classes, draws = pool.shape
    if classes**items * draws > 10_000_000:
        raise ValueError(
            f"Expected a handful of items, got {items}: with {classes} classes and {draws} draws that is "
            f"{classes}^{items} x {draws} values. Use batchbald, which samples."
        )
    joint = pool.new_ones((1, draws), dtype=torch.float64)
    for item in pool.double():
        joint = (joint[:, None] * item).flatten(0, 1)
    return float(torch.special.entr(joint.mean(dim=1)).sum())


def epig(probabilities: A, target_probabilities: Array) -> A:
    """How much an item's label would tell us about the labels of the targets, in nats: one score an item.

    The mutual information between the item's label and a target's, averaged over the targets: unlike `bald` it
    counts only what matters where the model will be used. Bickford Smith et al., 2023 (arXiv:2304.08151). Targets
    are `[target, class, draw]` with the same draws. Targets that aren't finite are left out; items that aren't
    score -inf. Raises `ValueError` where the numbers of draws differ or no target is finite.

    Time grows with items x targets x classes² x draws; memory is that of `chunks`.

    >>> coin = [[1.0, 0.0], [0.0, 1.0]]
    >>> epig(np.array([coin, [[0.5, 0.5], [0.5, 0.5]]]), np.array([coin])).round(2).tolist()
    [0.69, 0.0]
    """
    pool, where = _finite_draws(probabilities, "probabilities")
    targets, _ = _finite_draws(target_probabilities, "target_probabilities")
    draws = pool.shape[2]
    if targets.shape[2] != draws:
        raise ValueError(
            f"Expected as many draws for the targets as for the items, and the same ones, got {targets.shape[2]} and "
            f"{draws}. Predict both with the same weights."
        )
    if len(targets) == 0:
        raise ValueError("Expected at least one target with finite probabilities, got none.")
    scores = pool.new_full((len(probabilities),), -torch.inf)
    targets = targets.to(pool.device)
    cell = pool.shape[1] * targets.shape[1]
    for rows in chunks(len(pool), cell * min(len(targets), 100), pool):
        items = pool[rows].double()
        told = items.new_zeros(len(items))
        for some in chunks(len(targets), cell * len(items), pool):
            others = targets[some].double()
            joint = items.flatten(0, 1) @ others.flatten(0, 1).T / draws
            # the joint labels of each pair are unsure by minus this
            told += _weighed_logs(joint).view(len(items), -1).sum(dim=1)
            told += len(others) * _entropy(items.mean(dim=2)).sum(dim=1)
            told += _entropy(others.mean(dim=2)).sum()
        scores[where[rows]] = (told / len(targets)).clamp(min=0).to(scores.dtype)
    return as_kind(scores, probabilities)


def ical(probabilities: A, n: int, *, against: int = 200, rng: Seed = None) -> Picks[A]:
    """The batch whose predictions depend most on those of the pool, greedily: what condenses the rest best.

    Dependence is HSIC between predictions as they vary over the draws (Gretton et al., 2005), with a mixture of
    rational quadratic kernels on each draw's probabilities. Jain et al., 2020 (arXiv:2002.07916), in the pointwise
    variant: the batch's kernel is the mean of its members', and an item adds, for each pool item, what it
    raises that one's dependence on the batch, never less than 0, averaged over the pool. (Without
    the pointwise part the mean kernel makes HSIC a plain sum over the batch, and duplicates are picked together.)

    Unlike the authors' code we compare probabilities rather than one label sampled from each, take differences
    rather than ratios, and keep the same part of the pool for the whole batch: `against` items, drawn with `rng`
    where the pool is larger. Gains can rise from one pick to the next; scores are held to never do.

    Time grows with items x against x (draws² + n); memory with items x against, float64.
    """
    n = positive("n", n)
    against = positive("against", against)
    rng = np.random.default_rng(rng)
    pool, where = _finite_draws(probabilities, "probabilities")
    part = np.sort(rng.choice(len(pool), against, replace=False)) if len(pool) > against else np.arange(len(pool))
    squared = pool.shape[2] ** 2
    kernels = _centred_kernels(pool[torch.from_numpy(part).to(pool.device)]) / squared
    dependence = kernels.new_zeros((len(pool), len(part)))
    for rows in chunks(len(pool), squared, pool):
        dependence[rows] = _centred_kernels(pool[rows]) @ kernels.T

    items: list[int] = []
    values: list[float] = []
    batch = dependence.new_zeros(len(part))
    gains = _raised(dependence, batch)
    while len(items) < min(n, len(pool)):
        gains[items] = -torch.inf
        item = first_best(gains)
        values.append(min([float(gains[item]), *values[-1:]]))
        items.append(item)
        batch += (dependence[item] - batch) / len(items)
        gains = _raised(dependence, batch) / (len(items) + 1)
    return as_picks(probabilities, where, items, values, gains)


class _Labels:
    """The configurations of labels that the picks so far may get: how probable, and what each says of the draws."""

    def __init__(self, pool: Tensor, samples: int, rng: np.random.Generator) -> None:
        self.pool = pool
        self.samples = samples
        self.rng = rng
        draws = pool.shape[2]
        self.weight = pool.new_ones(1, dtype=torch.float64)
        self.posterior = pool.new_full((1, draws), 1 / draws, dtype=torch.float64)
        self.groups = self.weight, self.posterior

    def gains(self, items: Tensor) -> Tensor:
        """I(label; weights | labels of the picks) for each of the items: BALD, given each configuration."""
        return self._information(items, self.weight, self.posterior)

    def bounds(self, items: Tensor) -> Tensor:
        """What `gains` are at most, for a fraction of their time.

        Configurations that say much the same of the draws are taken for one, their mean: entropy being concave, the
        labels look no less unsure for it. With no more configurations than `GROUPS` these are the gains.
        """
        return self._information(items, *self.groups)

    def _information(self, items: Tensor, weight: Tensor, posterior: Tensor) -> Tensor:
        classes = self.pool.shape[1]
        draws = weight @ posterior
        found = weight.new_empty(len(items))
        for rows in chunks(len(items), classes * max(posterior.shape), self.pool):
            some = _crisp(self.pool[items[rows]].double())
            # configurations along the rows: the other way round takes several times as long on a CPU
            told = _weighed_logs(some.flatten(0, 1) @ posterior.T) @ weight
            found[rows] = _weighed_logs(some).sum(dim=1) @ draws - told.view(-1, classes).sum(dim=1)
        return found.clamp(min=0)

    def add(self, item: int) -> None:
        """Let every configuration go on with each label that the item may get."""
        likelihood = self.pool[item].double()
        weight = (self.weight[:, None] * (self.posterior @ likelihood.T)).flatten()
        kept = _crisp(weight).nonzero()[:, 0]
        self.weight = weight[kept]
        if len(kept) > self.samples:
            chosen = self._drawn(self.samples)
            kept = kept[chosen]
        posterior = self.posterior[kept // len(likelihood)] * likelihood[kept % len(likelihood)]
        self.posterior = _crisp(posterior / posterior.sum(dim=1, keepdim=True))
        self.groups = _grouped(self.weight, self.posterior)

    def _drawn(self, samples: int) -> Tensor:
        """Positions of configurations drawn by weight, one from each of so many strata; weights them by count."""
        strata = (np.arange(samples) + self.rng.random(samples)) / samples
        edges = self.weight.cumsum(dim=0)
        at = torch.searchsorted(edges, torch.from_numpy(strata).to(edges.device) * edges[-1])
        count = at.clamp(max=len(edges) - 1).bincount(minlength=len(edges))
        chosen = count.nonzero()[:, 0]
        self.weight = count[chosen].double() / samples
        return chosen


def _grouped(weight: Tensor, posterior: Tensor) -> tuple[Tensor, Tensor]:
    """Groups of configurations that say much the same, from a few rounds of k-means: their weights and means."""
    if len(weight) <= GROUPS:
        return weight, posterior
    centres = posterior[torch.linspace(0, len(weight) - 1, GROUPS, device=weight.device).long()]
    for _ in range(4):
        far = centres.square().sum(dim=1) - 2 * posterior @ centres.T
        member = torch.nn.functional.one_hot(far.argmin(dim=1), GROUPS).T.to(weight.dtype) * weight
        total = member.sum(dim=1)
        kept = total > 0
        centres = torch.where(kept[:, None], member @ posterior / total.clamp(min=1e-300)[:, None], centres)
    return total[kept], _crisp(centres[kept])


def _centred_kernels(pool: Tensor) -> Tensor:
    """`[item, draw * draw]`: how alike an item's draws are, without what all draws share."""
    draws = pool.double().transpose(1, 2)
    inner = draws @ draws.transpose(1, 2)
    norm = inner.diagonal(dim1=1, dim2=2)
    far = (norm[:, :, None] + norm[:, None] - 2 * inner).clamp(min=0)
    alike = torch.stack([(1 + far / (2 * scale)) ** -scale for scale in (0.2, 0.5, 1.0, 2.0, 5.0)]).mean(dim=0)
    rows = alike.mean(dim=2, keepdim=True)
    return (alike - rows - rows.transpose(1, 2) + rows.mean(dim=1, keepdim=True)).flatten(1)


def _raised(dependence: Tensor, batch: Tensor) -> Tensor:
    """By how much each item depends more on the pool than the batch does, `[item]`, counting only where it is more."""
    raised = dependence.new_empty(len(dependence))
    for rows in chunks(len(dependence), len(batch), dependence):
        raised[rows] = (dependence[rows] - batch).clamp(min=0).mean(dim=1)
    return raised


def _crisp(probabilities: Tensor) -> Tensor:
    """The same with nothing for next to nothing, since denormal numbers are slow a hundred times over."""
    return probabilities.masked_fill(probabilities < 1e-20, 0)


def _weighed_logs(probabilities: Tensor) -> Tensor:
    """p log p of each value: on a CPU in a third of the time of `_entropy`."""
    return probabilities.clamp(min=1e-300).log_().mul_(probabilities)


def _entropy(probabilities: Tensor) -> Tensor:
    """-p log p of each value."""
    return cast("Tensor", torch.special.entr(probabilities))


def _finite_draws(probabilities: Array, name: str) -> tuple[Tensor, Tensor]:
    """The items that are finite, checked to be probabilities, and where they were."""
    pool, where = finite_items(_draws(probabilities, name))
    return to_probabilities(pool, from_logits=False), where


def _draws(probabilities: Array, name: str) -> Tensor:
    """The probabilities as a tensor of floats; refuses all but `[item, class, draw]`."""
    values = as_floats(probabilities).detach()
    if values.ndim != 3 or 0 in values.shape[1:]:
        raise ValueError(
            f"Expected {name} shaped [item, class, draw], got {tuple(values.shape)}. Items with more axes, pixels "
            "say, have no joint labels: average or pick one prediction an item first."
        )
    return values
