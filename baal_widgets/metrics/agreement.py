"""How far several people say the same of the same items, beyond what chance alone would make them.

Ratings are one table, `{item: {annotator: label}}`. Items, annotators and labels are anything hashable. Who did not
rate an item is absent there; `None` and NaN count as absent too, and items that nobody rated are not there at all.
What is asked of fewer than two annotators is refused with a `ValueError`; a measure that is not defined for the
ratings at hand is NaN, and each function says when.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from baal_widgets.metrics.rows import Floats

Ratings = Mapping[Any, Mapping[Any, Any]]
Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["linear", "quadratic"]
Ints = npt.NDArray[np.int64]


def observed_agreement(ratings: Ratings) -> float:
    """How probable it is that another person says of an item what one person said: 0 to 1.

    One rating is drawn from those on items with two or more, then another of the same item. Chance is not taken
    off: where nearly all items are of one class, people who never look agree nearly always. NaN where no item has
    two ratings. Takes one walk over the ratings.

    >>> observed_agreement({1: {"ann": "cat", "bob": "cat"}, 2: {"ann": "cat", "bob": "dog"}})
    0.5
    """
    together = _coincidences(_table(ratings))
    return float(np.trace(together) / together.sum()) if together.any() else float("nan")


def cohen_kappa(
    ratings: Ratings,
    between: tuple[Any, Any] | None = None,
    *,
    weights: Weights | None = None,
    classes: Sequence[Hashable] | None = None,
) -> float:
    """How far two annotators agree beyond chance: 1 wholly, 0 no more than chance, below 0 less; at least -1.

    Chance is what their own habits make of it: each says each class as often as before, without a look (Cohen,
    1960). Only items that both rated count. Where there are more than two annotators, name two in `between`.

    With `weights` a disagreement counts by its size (Cohen, 1968), the steps between two labels or their square,
    in the order of `classes`; labels that are numbers need no classes and go in their own order, one step from
    each to the next. NaN where no item has both ratings, and where both said one and the same class of all:
    chance would have agreed as well. Takes one walk over the ratings.

    >>> said = {1: ("cat", "cat"), 2: ("cat", "dog"), 3: ("dog", "dog"), 4: ("dog", "dog")}
    >>> cohen_kappa({item: {"ann": one, "bob": other} for item, (one, other) in said.items()})
    0.5
    """
    table = _table(ratings, classes)
    if between is None:
        if len(table.annotators) > 2:
            raise ValueError(
                f"Expected the ratings of two annotators, got {len(table.annotators)}. Name two of them, "
                f"between=({table.annotators[0]!r}, {table.annotators[1]!r}), or ask pairwise_agreement for all "
                "pairs and krippendorff_alpha for one number."
            )
        between = (table.annotators[0], table.annotators[1])
    first, second = (_place(table.annotators, name) for name in between)
    if first == second:
        raise ValueError(f"Expected two annotators, got {between[0]!r} twice.")
    return _beyond_chance(_contingency(table, first, second), _steps(table, weights))


def fleiss_kappa(ratings: Ratings) -> float:
    """How far annotators agree beyond chance, where each item has equally many ratings: 1 wholly, 0 as by chance.

    Chance draws from the classes as often as all said them together, so it does not matter who rated what, and
    each item may have other annotators (Fleiss, 1971). With n ratings an item it is at least -1 / (n - 1). NaN
    where items have one rating each, and where all said one and the same class. Takes one walk over the ratings.

    >>> fleiss_kappa({1: {"ann": "cat", "bob": "cat"}, 2: {"bob": "dog", "eve": "dog"}})
    1.0
    """
    table = _table(ratings)
    times = (table.codes >= 0).sum(axis=1)
    if times.min() != times.max():
        few, many = int(times.argmin()), int(times.argmax())
        raise ValueError(
            f"Expected the same number of ratings for every item, got {times[few]} for item {table.names[few]!r} "
            f"and {times[many]} for item {table.names[many]!r}. Use krippendorff_alpha, which allows for missing "
            "ratings, or leave out the items with more or fewer."
        )
    return _beyond_chance(_coincidences(table), _steps(table, None))


def krippendorff_alpha(
    ratings: Ratings, level: Level = "nominal", *, classes: Sequence[Hashable] | None = None
) -> float:
    """How far annotators agree beyond chance, whoever rated whatever: 1 wholly, 0 as by chance, below 0 less.

    Observed disagreement within items over that of any two ratings drawn from all (Krippendorff, "Computing
    Krippendorff's alpha-reliability", 2011). Any number of annotators, any ratings missing; items with one rating
    don't count. Krippendorff asks for 0.8, and calls 0.667 the least that allows for tentative conclusions.

    `level` says how far apart two labels are: "nominal", the same or not; "ordinal", by how many ratings lie
    between them in the order of `classes` (labels that are numbers need no classes); "interval", the square of
    their difference, for labels that are numbers.

    NaN where no item has two ratings, and where all ratings are of one class: there is then no telling reliable
    annotators from those who always say the same. Takes one walk over the ratings and memory for the counts,
    `[item, class]`.

    >>> pairs = {1: ("cat", "cat"), 2: ("cat", "dog"), 3: ("dog", "dog"), 4: ("dog", None)}
    >>> round(krippendorff_alpha({item: {"ann": a, "bob": b} for item, (a, b) in pairs.items()}), 3)
    0.444
    """
    if level not in ("nominal", "ordinal", "interval"):
        raise ValueError(f"Expected level to be 'nominal', 'ordinal' or 'interval', got {level!r}.")
    table = _table(ratings, classes)
    together = _coincidences(table)
    if level == "nominal":
        apart = _steps(table, None)
    elif level == "interval":
        values = _numbers(table.classes, "the interval level")
        apart = (values[:, None] - values) ** 2
    else:
        order = _order(table, "the ordinal level")
        often = together.sum(axis=1)[order]
        middles = often.cumsum() - often / 2
        apart = np.empty_like(together)
        apart[np.ix_(order, order)] = (middles[:, None] - middles) ** 2
    return _beyond_chance(together, apart, less=1)


@dataclass(frozen=True, eq=False)
class PairwiseAgreement:
    """Agreement by pair of annotators, `[annotator, annotator]`, in the order of `annotators`.

    `kappa` is Cohen's, `observed` the share of equal labels, `n` the number of items that both rated. The diagonal
    is each annotator with themselves. NaN where a pair has no item in common; a kappa also where both said one
    class only.
    """

    annotators: tuple[Any, ...]
    kappa: Floats
    observed: Floats
    n: Ints


def pairwise_agreement(
    ratings: Ratings, *, weights: Weights | None = None, classes: Sequence[Hashable] | None = None
) -> PairwiseAgreement:
    """Who agrees with whom: `cohen_kappa` of every pair of annotators, with the number of items behind it.

    A row that is low throughout is a person who labels otherwise than the rest; two blocks are two readings of the
    instructions. Takes pairs of annotators times items.

    >>> told = pairwise_agreement({1: {"ann": 0, "bob": 0, "eve": 1}, 2: {"ann": 1, "bob": 1, "eve": 0}})
    >>> told.kappa.tolist(), int(told.n[0, 1])
    ([[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]], 2)
    """
    table = _table(ratings, classes)
    apart, people = _steps(table, weights), len(table.annotators)
    kappa, observed = np.full((people, people), np.nan), np.full((people, people), np.nan)
    n = np.zeros((people, people), np.int64)
    for one in range(people):
        for other in range(one, people):
            counts = _contingency(table, one, other)
            both = [one, other], [other, one]
            n[both] = counts.sum()
            kappa[both] = _beyond_chance(counts, apart)
            if n[one, other]:
                observed[both] = np.trace(counts) / n[one, other]
    return PairwiseAgreement(table.annotators, kappa, observed, n)


@dataclass(frozen=True)
class ClassAgreement:
    """Agreement on one class.

    `n` ratings said it, of items with two or more ratings. `agreement` is how probable it is that another person
    says it where one did, 0 to 1 (specific agreement: Cicchetti and Feinstein, 1990). `alpha` is Krippendorff's,
    this class against the rest. NaN where nobody said it; alpha also where nobody said anything else.
    """

    n: int
    agreement: float
    alpha: float


def per_class_agreement(
    ratings: Ratings, *, classes: Sequence[Hashable] | None = None
) -> dict[Hashable, ClassAgreement]:
    """Which classes people tell apart and which they don't, by class: in the order of `classes`, or as they came.

    Takes one walk over the ratings and memory for the counts, `[item, class]`.

    >>> told = per_class_agreement({1: {"ann": "cat", "bob": "cat"}, 2: {"ann": "cat", "bob": "dog"}})
    >>> told["cat"].n, round(told["cat"].agreement, 2), told["dog"].agreement
    (3, 0.67, 0.0)
    """
    table = _table(ratings, classes)
    together = _coincidences(table)
    often, total, told = together.sum(axis=1), together.sum(), {}
    for place, name in enumerate(table.classes):
        here, same = often[place], together[place, place]
        split = np.array([[same, here - same], [here - same, total - 2 * here + same]])
        alpha = _beyond_chance(split, 1 - np.eye(2), less=1)
        told[name] = ClassAgreement(round(here), float(same / here) if here else float("nan"), alpha)
    return told


def agreement_interval(
    ratings: Ratings,
    measure: Callable[[Ratings], float] = krippendorff_alpha,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Between which values a measure of agreement would lie for other items like these, `level` of them.

    The percentile bootstrap (Efron, 1979): whole items, with all their ratings, are drawn anew with replacement;
    the annotators stay. `measure` is any function of ratings, such as `fleiss_kappa` or
    `functools.partial(cohen_kappa, weights="linear")`. Resamples for which it is NaN are left out; where all are,
    so is the interval. Too narrow for few items (below about 30).

    Takes `resamples` times the measure: 10,000 items of five people a thousand times in a few seconds.

    >>> table = {item: {"ann": item % 2, "bob": item % 10 > 4} for item in range(100)}
    >>> low, high = agreement_interval(table, cohen_kappa, rng=np.random.default_rng(0))
    >>> low < cohen_kappa(table) < high
    True
    """
    if not 0 < level < 1:
        raise ValueError(f"Expected a level between 0 and 1, such as 0.95, got {level}.")
    if resamples < 1:
        raise ValueError(f"Expected at least one resample, got resamples={resamples}.")
    table = _table(ratings)
    n = len(table.names)
    seen = np.array([measure(table.resampled(rng.integers(n, size=n))) for _ in range(resamples)], float)
    seen = seen[~np.isnan(seen)]
    if not len(seen):
        return float("nan"), float("nan")
    low, high = np.quantile(seen, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def given_ratings(ratings: Ratings) -> dict[Any, dict[Any, Hashable]]:
    """The same table without what is missing: no `None`, no NaN, no item that nobody rated.

    >>> given_ratings({1: {"ann": "cat", "bob": None}, 2: {}})
    {1: {'ann': 'cat'}}
    """
    given: dict[Any, dict[Any, Hashable]] = {}
    if not isinstance(ratings, Mapping):
        raise TypeError(f"Expected ratings as {{item: {{annotator: label}}}}, got a {type(ratings).__name__}.")
    for item, said in ratings.items():
        if not isinstance(said, Mapping):
            raise TypeError(
                f"Expected ratings as {{item: {{annotator: label}}}}, got a {type(said).__name__} for item {item!r}. "
                "Say who gave which label: {annotator: label, ...}."
            )
        for name, label in said.items():
            if not isinstance(label, Hashable):
                raise TypeError(
                    f"Expected labels that can be compared and counted, got a {type(label).__name__} from {name!r} "
                    f"for item {item!r}. Make it a string, a number, a tuple or a frozenset."
                )
        # NaN is what differs from itself
        kept = {name: label for name, label in said.items() if label is not None and label == label}
        if kept:
            given[item] = kept
    return given


@dataclass(frozen=True, eq=False)
class _Table(Ratings):
    """Ratings as an array of class indices, `[item, annotator]`, -1 where there is none.

    It is a table of ratings too, so that a resample goes where ratings go without being read once more.
    `ordered` tells that the classes were given, in an order that means something.
    """

    codes: npt.NDArray[np.intp]
    names: Sequence[Any]
    annotators: tuple[Any, ...]
    classes: tuple[Any, ...]
    ordered: bool

    def resampled(self, drawn: npt.NDArray[np.int64]) -> _Table:
        return replace(self, codes=self.codes[drawn], names=range(len(drawn)))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.names)

    def __getitem__(self, item: Any) -> Mapping[Any, Any]:
        if item not in self.names:
            raise KeyError(item)
        row = self.codes[self.names.index(item)]
        return {self.annotators[place]: self.classes[row[place]] for place in np.flatnonzero(row >= 0)}


def _table(ratings: Ratings, classes: Sequence[Hashable] | None = None) -> _Table:
    table = ratings if isinstance(ratings, _Table) else _encoded(given_ratings(ratings))
    if len(table.annotators) < 2:
        raise ValueError(
            f"Expected ratings of two annotators or more, got {len(table.annotators)}. Agreement needs a second "
            "opinion: have another person label some of the same items."
        )
    return table if classes is None else _recoded(table, tuple(classes))


def _encoded(given: Mapping[Any, Mapping[Any, Hashable]]) -> _Table:
    column: dict[Any, int] = {}
    code: dict[Any, int] = {}
    said = [
        (row, column.setdefault(name, len(column)), code.setdefault(label, len(code)))
        for row, labels in enumerate(given.values())
        for name, label in labels.items()
    ]
    codes = np.full((len(given), len(column)), -1, np.intp)
    if said:
        rows, columns, labels = np.array(said).T
        codes[rows, columns] = labels
    return _Table(codes, tuple(given), tuple(column), tuple(code), ordered=False)


def _recoded(table: _Table, classes: tuple[Hashable, ...]) -> _Table:
    code = {name: place for place, name in enumerate(classes)}
    if len(code) < len(classes):
        raise ValueError(f"Expected each class once, got {classes}.")
    if strange := [name for name in table.classes if name not in code]:
        raise ValueError(f"Expected labels among the classes {classes}, got {strange[0]!r} too. Add it to the classes.")
    lookup = np.array([code[name] for name in table.classes] + [-1])  # a missing one, -1, is the last
    return replace(table, codes=lookup[table.codes], classes=classes, ordered=True)


def _coincidences(table: _Table) -> Floats:
    """Pairs of ratings of the same item, `[class, class]`: each rating of an item with others counts one in all."""
    n, c = len(table.codes), len(table.classes)
    there = table.codes >= 0
    cells = (table.codes + c * np.arange(n)[:, None])[there]
    counts = np.bincount(cells, minlength=n * c).reshape(n, c).astype(float)
    others = there.sum(axis=1) - 1
    share = counts * np.where(others > 0, 1 / np.maximum(others, 1), 0)[:, None]
    together: Floats = counts.T @ share
    together[np.diag_indices(c)] = (counts * share - share).sum(axis=0)  # no rating makes a pair with itself
    return together


def _contingency(table: _Table, first: int, second: int) -> Ints:
    """How often one said this class and the other that, `[class of the first, class of the second]`."""
    one, other, c = table.codes[:, first], table.codes[:, second], len(table.classes)
    both = (one >= 0) & (other >= 0)
    return np.bincount(one[both] * c + other[both], minlength=c * c).reshape(c, c)


def _beyond_chance(counts: npt.NDArray[Any], apart: Floats, less: int = 0) -> float:
    """1 less the disagreement seen over that of chance, from pairs of labels and how far apart each pair is.

    All the measures here are this one: Cohen's takes the pairs of two people, Fleiss' all pairs of an item, and
    Krippendorff's draws the chance pairs without putting the first back, `less=1`.
    """
    n = counts.sum()
    by_chance = (apart * np.outer(counts.sum(axis=1), counts.sum(axis=0))).sum()
    return float(1 - (n - less) * (apart * counts).sum() / by_chance) if by_chance > 0 else float("nan")


def _steps(table: _Table, weights: Weights | None) -> Floats:
    """How far apart two classes are: 0 or 1, or the steps from one to the other, or their square."""
    if weights is None:
        return 1 - np.eye(len(table.classes))
    if weights not in ("linear", "quadratic"):
        raise ValueError(f"Expected weights to be 'linear', 'quadratic' or None, got {weights!r}.")
    rank = np.empty(len(table.classes))
    rank[_order(table, f"{weights} weights")] = np.arange(len(rank))
    steps: Floats = np.abs(rank[:, None] - rank)
    return steps**2 if weights == "quadratic" else steps


def _order(table: _Table, use: str) -> npt.NDArray[np.intp]:
    """The places of the classes from the lowest to the highest."""
    if table.ordered:
        return np.arange(len(table.classes))
    return np.argsort(_numbers(table.classes, f"{use}, or classes=[lowest, ..., highest] to tell their order"))


def _numbers(classes: tuple[Any, ...], use: str) -> Floats:
    if words := [name for name in classes if not isinstance(name, Real)]:
        raise ValueError(f"Expected labels that are numbers for {use}; got {words[0]!r}.")
    return np.array([float(name) for name in classes])


def _place(annotators: tuple[Any, ...], name: Any) -> int:
    if name not in annotators:
        raise ValueError(f"Expected two of the annotators {annotators}, got {name!r}.")
    return annotators.index(name)
