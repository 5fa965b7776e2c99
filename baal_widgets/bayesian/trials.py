"""Which arithmetic a model is to predict in, found by trying: it must be faster by far, and rank as float32 does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from baal_widgets.active.scores import bald, predictive_entropy, to_probabilities, variance
from baal_widgets.arrays import are_logits
from baal_widgets.bayesian.arithmetic import Arithmetic, Names, Trial, called
from baal_widgets.bayesian.common import DrawsOnce
from baal_widgets.bayesian.together import generators_of, stochastic_parts
from baal_widgets.devices import device_of
from baal_widgets.utils.structures import leaves_of, map_structure

SHARE, LEAST, MOST = 0.03, 64, 512  # of the pool that trials may cost; items that they are made on
WORTH = 30.0  # seconds that the pool must take in plain: to load other kernels takes a second by itself
ROUNDS = 3
MARGIN = 0.9  # of the time of plain
CORRELATION, OVERLAP = 0.999, 0.95


def items_to_try(pool: int, n_candidates: int) -> int:
    """On how many items trials are made, so that they cost no more than a `SHARE` of the pool; 0 for small pools.

    >>> items_to_try(50_000, 3), items_to_try(5_000, 3)
    (93, 0)
    """
    n = int(SHARE * pool / ((ROUNDS + 1) * (n_candidates + 1)))
    return min(n, MOST) if n_candidates and n >= LEAST else 0


def tried(
    draws: Callable[[Names], Any],
    names: Sequence[Names],
    *,
    items: int,
    pool: int,
    clock: Callable[[], float] = perf_counter,
) -> Arithmetic:
    """The fastest of the arithmetics that rank the items as plain does, or plain where none is faster by far.

    `draws(names)` gives the draws `[item, class, ..., draw]` of the items, the same ones each time. Times are the best
    of a few rounds, in each of which every arithmetic has its turn.
    """

    def seconds(one: Names) -> float:
        began = clock()
        draws(one)
        return clock() - began

    with SameDraws():
        truth = draws(())
    first = seconds(())
    if first / items * pool < WORTH:
        why = f"the pool takes {first / items * pool:.2g} s, too little for trials to pay"
        return Arithmetic((), why, (Trial((), first, None, None, "in use"),), items)
    refused, kept = dict[Names, Trial](), dict[Names, tuple[float, float]]()
    for one in names:
        try:
            with SameDraws():
                other = draws(one)
        except (RuntimeError, NotImplementedError, TypeError) as error:  # a kernel may be missing
            told = str(error).partition("\n")[0]
            refused[one] = Trial(one, None, None, None, f"refused: {type(error).__name__}, {told}")
            continue
        correlation, overlap = agreement(truth, other)
        if correlation > CORRELATION and overlap > OVERLAP:
            kept[one] = correlation, overlap
        else:
            told = f"refused: ranks otherwise, rank correlation {correlation:.4f}, top tenth {overlap:.0%} the same"
            refused[one] = Trial(one, None, correlation, overlap, told)
    times: dict[Names, list[float]] = {(): [first], **{one: [seconds(one)] for one in kept}}
    for _ in range(ROUNDS - 1):
        for one, before in times.items():
            if before[0] < 2 * first:  # no time is lost on what is hopeless
                before.append(seconds(one))
    best = {one: min(found) for one, found in times.items()}
    chosen = min(best, key=lambda one: best[one])
    if best[chosen] >= MARGIN * best[()]:
        chosen = ()
    trials = [Trial((), best[()], 1.0, 1.0, "float32")]
    for one in names:
        if one in refused:
            trials.append(refused[one])
        else:
            verdict = "in use" if one == chosen else f"{best[()] / best[one]:.3g} times as fast as plain"
            trials.append(Trial(one, best[one], *kept[one], verdict))
    faster = f"{best[()] / best[chosen]:.3g} times as fast as plain, with the same ranking"
    return Arithmetic(chosen, faster if chosen else f"{_nothing(refused, kept)}", tuple(trials), items)


def _nothing(refused: dict[Names, Trial], kept: dict[Names, tuple[float, float]]) -> str:
    slow, other = (", ".join(map(called, some)) for some in (kept, refused))
    return "; ".join([f"{slow}: not faster by far"] * bool(slow) + [f"{other}: refused"] * bool(other))


def agreement(truth: Any, other: Any) -> tuple[float, float]:
    """The least rank correlation of two sets of draws by any score, and the least overlap of their first tenths.

    Scores that are the same for all items don't count; (0, 0) where none counts, or where a number is none.
    """
    found = []
    for one, two in zip(leaves_of(truth), leaves_of(other), strict=True):
        if one.ndim < 3:
            continue
        if one.shape != two.shape or not (one.isfinite() == two.isfinite()).all():
            return 0.0, 0.0
        logits = are_logits(one) is not False
        for a, b in zip(_scores(one, logits), _scores(two, logits), strict=True):
            known = a.isfinite() & b.isfinite()
            a, b = a[known], b[known]
            if len(a) > 1 and a.max() - a.min() > 1e-6:
                found.append((_correlation(a, b), _overlap(a, b)))
    return (min(c for c, _ in found), min(o for _, o in found)) if found else (0.0, 0.0)


def _scores(draws: Tensor, logits: bool) -> list[Tensor]:
    draws = draws.float()
    probabilities = to_probabilities(draws, logits)
    scores = [bald(probabilities), predictive_entropy(probabilities), variance(draws)]
    return [one.flatten(1).mean(dim=1) if one.ndim > 1 else one for one in scores]


def _correlation(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([one.argsort(stable=True).argsort().double() for one in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def _overlap(a: Tensor, b: Tensor) -> float:
    first, then = (one.argsort(descending=True, stable=True)[: max(1, len(one) // 10)] for one in (a, b))
    return float(torch.isin(first, then).double().mean())


class SameDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it random numbers are those of float32 in the plain layout, whatever kind and layout is asked for.

    So two arithmetics can be compared on the very same masks. Kernels that draw and do more, such as fused
    attention, are left alone: where their masks differ the ranking does, and the arithmetic is refused.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in _DRAWS or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            return func(*args, **kwargs)
        value = args[0]
        given = (value.float().contiguous(), *args[1:])
        if func._schema.is_mutable:
            # a copy: where it is plain already, that would be the very tensor
            drawn = func(given[0].clone(), *given[1:], **kwargs)
            return value.copy_(drawn)
        return map_structure(
            lambda one: one.to(value.dtype) if one.is_floating_point() else one, func(*given, **kwargs)
        )


_DRAWS = {
    getattr(torch.ops.aten, name)
    for name in ("bernoulli", "bernoulli_", "native_dropout", "normal_", "rand_like", "randn_like", "uniform_")
}


@contextmanager
def untouched(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Within the block what it gives puts the model's randomness back to where it was, and so does the end.

    With it goes what the stochastic layers have found out of how they can be passed.
    """
    generators, states = generators_of(model), [one.get_state() for one in generators_of(model)]
    seeds = [(part, vars(part).get("_seed")) for part in model.modules() if isinstance(part, DrawsOnce)]
    flags = [(part, part.can_copy, part.can_map) for part in stochastic_parts(model)]

    def put_back() -> None:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        for part, seed in seeds:
            part._seed = seed
        for layer, copies, maps in flags:
            layer.can_copy, layer.can_map = copies, maps

    try:
        yield put_back
    finally:
        put_back()


def clock_of(model: nn.Module) -> Callable[[], float]:
    """A clock that waits until the device of the model has done what it was told to."""
    device = device_of(model)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter()

    return now
