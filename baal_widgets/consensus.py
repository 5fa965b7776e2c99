"""One label of many: what several people say together of an item, and where they don't.

Ratings are `{item: {annotator: label}}`, as in `baal_widgets.metrics.agreement`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from baal_widgets.metrics.agreement import Ratings, given_ratings
from baal_widgets.metrics.rows import Floats

FEWEST_ITEMS, FEWEST_PEOPLE = 20, 3
"""How much people must have in common before who errs how can be told."""
MOST_ITERATIONS = 200  # of `dawid_skene` for a suggestion, which somebody waits for


@dataclass(frozen=True)
class Vote:
    """How people voted on an item: `votes` by label, most first, and the `winners`, more than one where they tie."""

    votes: dict[Hashable, int]
    winners: tuple[Hashable, ...]

    @property
    def tied(self) -> bool:
        return len(self.winners) > 1

    @property
    def label(self) -> Hashable | None:
        """The label that won, `None` where there is a tie: that is for a person to break."""
        return None if self.tied else self.winners[0]


def majority_vote(ratings: Ratings) -> dict[Any, Vote]:
    """What most people say of each item, everyone counting the same. Items that nobody rated are left out.

    >>> votes = majority_vote({1: {"ann": "cat", "bob": "cat", "eve": "dog"}, 2: {"ann": "cat", "bob": "dog"}})
    >>> votes[1].label, votes[2].label, votes[2].winners
    ('cat', None, ('cat', 'dog'))
    """
    return {item: _vote(said) for item, said in given_ratings(ratings).items()}


@dataclass(frozen=True)
class Disagreement:
    """An item that people disagree on: `said`, label by annotator, and the `entropy` of the votes in nats.

    `settled` is the label that somebody gave it after a look at what the others said, `None` while it is open.
    """

    item: Any
    said: dict[Any, Hashable]
    entropy: float
    settled: Hashable | None = None

    @property
    def camps(self) -> dict[Hashable, tuple[Any, ...]]:
        """Who gave each label, the largest camp first."""
        return {label: tuple(n for n, its in self.said.items() if its == label) for label in _vote(self.said).votes}


def disagreements(ratings: Ratings) -> list[Disagreement]:
    """The items that people disagree on, most contested first: by entropy of the votes, then by number of votes.

    Items of the same rank stay in the order of the table.

    >>> said = {1: {"ann": "cat", "bob": "cat"}, 2: {"ann": "cat", "bob": "dog", "eve": "dog"}}
    >>> [(told.item, told.camps) for told in disagreements(said)]
    [(2, {'dog': ('bob', 'eve'), 'cat': ('ann',)})]
    """
    split = (Disagreement(item, said, _entropy(said)) for item, said in given_ratings(ratings).items())
    return sorted((told for told in split if told.entropy > 0), key=lambda told: (-told.entropy, -len(told.said)))


@dataclass(frozen=True, eq=False)
class DawidSkene:
    """What each item is, and how each annotator errs, as estimated together by `dawid_skene`.

    `probabilities` are `[item, class]` in the order of `items` and `classes`; `confusion` has by annotator a matrix
    `[true class, class said]` whose rows sum to 1; `prevalence` is how frequent each class is. `log_likelihood` has
    one value for each of the iterations, in nats (with `smoothing`, of the penalised likelihood), and never falls.
    `converged` is False where the iterations ran out: then allow for more.
    """

    items: tuple[Any, ...]
    classes: tuple[Hashable, ...]
    annotators: tuple[Any, ...]
    probabilities: Floats
    confusion: dict[Any, Floats]
    prevalence: Floats
    log_likelihood: tuple[float, ...]
    converged: bool

    @property
    def labels(self) -> dict[Any, Hashable]:
        """The most probable class of each item; of equally probable ones the first."""
        return {item: self.classes[at] for item, at in zip(self.items, self.probabilities.argmax(axis=1), strict=True)}

    @property
    def accuracy(self) -> dict[Any, float]:
        """How probable it is that each annotator labels an item rightly, its class drawn by prevalence."""
        return {name: float(self.prevalence @ np.diag(matrix)) for name, matrix in self.confusion.items()}


def dawid_skene(
    ratings: Ratings,
    classes: Sequence[Hashable],
    *,
    smoothing: float = 0.01,
    max_iterations: int = 1000,
    tolerance: float = 1e-6,
) -> DawidSkene:
    """The labels of the items and the errors of the annotators at once: who is often right counts for more.

    Expectation maximisation from the shares of the votes (Dawid and Skene, "Maximum likelihood estimation of
    observer error-rates using the EM algorithm", 1979), in logarithms. It takes people to err independently, each
    by one matrix of their own whatever the item, and to be right more often than not as a whole: where most are
    wrong in the same way, so is it. An annotator who confuses classes consistently is worth as much as one who is
    right; one who guesses is worth nothing. It wants some dozens of ratings an annotator and class; for fewer,
    `majority_vote` is safer. Items that nobody rated are left out.

    `smoothing` is added to each count of the confusion matrices, so that an error never seen isn't impossible; 0
    gives the paper's estimate. A class that nobody ever said gets probability 0. Stops when no probability changes
    by more than `tolerance`. Takes ratings times classes an iteration: 30,000 ratings of 10 classes, some 10 ms.

    >>> said = {item: {"ann": item % 2, "bob": item % 2, "eve": 1 - item % 2} for item in range(20)}
    >>> told = dawid_skene(said, classes=[0, 1])
    >>> told.labels[0], told.labels[1], told.confusion["eve"].round(2).tolist()
    (0, 1, [[0.0, 1.0], [1.0, 0.0]])
    """
    _check(smoothing, max_iterations, tolerance)
    given = given_ratings(ratings)
    if not given:
        raise ValueError("Expected the ratings of one item or more, got none. Label some items first.")
    names = tuple(classes)
    people = tuple(dict.fromkeys(name for said in given.values() for name in said))
    votes = _votes(given, names, people)
    c, item = len(names), votes.item
    shares = np.bincount(item * c + votes.said, minlength=len(given) * c).reshape(-1, c).astype(float)
    probabilities = shares / shares.sum(axis=1, keepdims=True)
    told: list[float] = []
    converged = False
    with np.errstate(divide="ignore"):  # a class without items has log-probability -inf, and that is right
        while not converged and len(told) < max_iterations:
            prevalence = probabilities.mean(axis=0)
            confusion = _confusion(votes, probabilities, len(people), smoothing)
            log_confusion = np.log(confusion)
            joint = np.log(prevalence) + np.add.reduceat(
                log_confusion[votes.annotator, :, votes.said], votes.starts, axis=0
            )
            top = joint.max(axis=1, keepdims=True)
            weights = np.exp(joint - top)
            total = weights.sum(axis=1, keepdims=True)
            penalty = smoothing * log_confusion.sum() if smoothing else 0.0
            told.append(float((top + np.log(total)).sum() + penalty))
            before, probabilities = probabilities, weights / total
            converged = bool(np.abs(probabilities - before).max() <= tolerance)
    matrices = {name: confusion[place] for place, name in enumerate(people)}
    return DawidSkene(tuple(given), names, people, probabilities, matrices, prevalence, tuple(told), converged)


@dataclass(frozen=True)
class Suggestion:
    """The label that people's answers speak for: `share` of the votes by `majority`, or how probable it is by
    `dawid-skene`."""

    label: Hashable
    share: float
    method: Literal["majority", "dawid-skene"]


def suggestions(
    contested: Sequence[Disagreement], ratings: Ratings, classes: Sequence[Hashable]
) -> dict[Any, Suggestion]:
    """What to settle contested items as, by item; those of which nothing can be said are left out.

    `ratings` are what people said independently of each other. Where at least 3 of them have at least 20 items in
    common with others it is the most probable class by `dawid_skene`, if it is more probable than all others together;
    else the label with the most votes, if there is one. Labels that are no `classes` (sets of them) go by the votes.

    >>> (contested,) = disagreements({1: {"ann": "cat", "bob": "cat", "eve": "dog"}})
    >>> suggestions([contested], {}, ["cat", "dog"])[1].label
    'cat'
    """
    shared = {item: said for item, said in given_ratings(ratings).items() if len(said) > 1}
    people = {name for said in shared.values() for name in said}
    known = all(label in classes for said in shared.values() for label in said.values())
    told: dict[Any, Suggestion] = {}
    if known and len(shared) >= FEWEST_ITEMS and len(people) >= FEWEST_PEOPLE:
        found = dawid_skene(shared, classes, max_iterations=MOST_ITERATIONS)
        top = dict(zip(found.items, found.probabilities.max(axis=1).tolist(), strict=True))
        labels = found.labels
        told = {i: Suggestion(labels[i], share, "dawid-skene") for i, share in top.items() if share > 0.5}
        undecided = top.keys() - told.keys()
    else:
        undecided = set()
    for one in contested:
        vote = _vote(one.said)
        if one.item not in told and one.item not in undecided and not vote.tied:
            share = vote.votes[vote.winners[0]] / len(one.said)
            told[one.item] = Suggestion(vote.winners[0], share, "majority")
    return {one.item: told[one.item] for one in contested if one.item in told}


@dataclass(frozen=True, eq=False)
class _Votes:
    """All ratings in the order of the items, as indices `[rating]`; `starts` is where each item begins.

    `order` sorts the ratings by annotator and label, and `groups` is where each such pair begins, `pairs` which it is.
    """

    item: npt.NDArray[np.intp]
    annotator: npt.NDArray[np.intp]
    said: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    order: npt.NDArray[np.intp]
    pairs: npt.NDArray[np.intp]
    groups: npt.NDArray[np.intp]


def _votes(given: dict[Any, dict[Any, Hashable]], classes: tuple[Hashable, ...], people: tuple[Any, ...]) -> _Votes:
    code = {name: place for place, name in enumerate(classes)}
    if len(code) < len(classes):
        raise ValueError(f"Expected each class once, got {classes}.")
    column = {name: place for place, name in enumerate(people)}
    rows = []
    for row, (item, said) in enumerate(given.items()):
        for name, label in said.items():
            if label not in code:
                raise ValueError(
                    f"Expected labels among the classes {classes}, got {label!r} from {name!r} for item {item!r}. "
                    "Add it to the classes."
                )
            rows.append((row, column[name], code[label]))
    items, annotators, labels = np.array(rows, np.intp).T
    keys = annotators * len(classes) + labels
    order = np.argsort(keys, kind="stable")
    pairs, groups = np.unique(keys[order], return_index=True)
    starts = np.searchsorted(items, np.arange(len(given)))
    return _Votes(items, annotators, labels, starts, order, pairs, groups)


def _confusion(votes: _Votes, probabilities: Floats, people: int, smoothing: float) -> Floats:
    """`[annotator, true class, class said]`, rows summing to 1; even where an annotator never met the true class."""
    c = probabilities.shape[1]
    counts = np.zeros((people * c, c))
    counts[votes.pairs] = np.add.reduceat(probabilities[votes.item[votes.order]], votes.groups, axis=0)
    counts = counts.reshape(people, c, c).transpose(0, 2, 1) + smoothing
    met = counts.sum(axis=2, keepdims=True)
    return np.where(met > 0, counts / np.where(met > 0, met, 1), 1 / c)


def _check(smoothing: float, max_iterations: int, tolerance: float) -> None:
    if not smoothing >= 0:
        raise ValueError(f"Expected smoothing from 0 on, such as 0.01, got {smoothing}.")
    if max_iterations < 1:
        raise ValueError(f"Expected at least one iteration, got max_iterations={max_iterations}.")
    if not tolerance >= 0:
        raise ValueError(f"Expected a tolerance from 0 on, such as 1e-6, got {tolerance}.")


def _vote(said: dict[Any, Hashable]) -> Vote:
    votes = dict(Counter(said.values()).most_common())
    most = max(votes.values())
    return Vote(votes, tuple(label for label, n in votes.items() if n == most))


def _entropy(said: dict[Any, Hashable]) -> float:
    counts = sorted(Counter(said.values()).values())  # in one order, so that equal splits are equal to the last bit
    return -sum(n / len(said) * log(n / len(said)) for n in counts) if len(counts) > 1 else 0.0
