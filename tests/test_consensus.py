from itertools import product
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baal_widgets.consensus import dawid_skene, disagreements, majority_vote, suggestions

PEOPLE = ("ann", "bob", "eve", "sue")
tables = st.dictionaries(
    st.integers(0, 9), st.dictionaries(st.sampled_from(PEOPLE), st.integers(0, 2), min_size=1), min_size=1
)


def matrix_of(right, classes=3):
    """Someone who is right so often, and errs evenly."""
    return np.full((classes, classes), (1 - right) / (classes - 1)) + np.eye(classes) * (
        right - (1 - right) / (classes - 1)
    )


def rated(matrices, n, rng, prevalence=None, coverage=1.0):
    """Items of known classes, and what people with these confusion matrices say of them."""
    c = len(next(iter(matrices.values())))
    truth = rng.choice(c, size=n, p=prevalence)
    table = {
        item: {who: int(rng.choice(c, p=m[true])) for who, m in matrices.items() if rng.random() < coverage}
        for item, true in enumerate(truth)
    }
    return table, truth


def right(labels, truth):
    return np.mean([truth[item] == label for item, label in labels.items()])


def textbook(table, classes, iterations):
    """Dawid and Skene's equations 2.3 to 2.5 in plain loops and plain probabilities, without smoothing."""
    people = {who for said in table.values() for who in said}
    posterior = {
        i: {c: sum(label == c for label in said.values()) / len(said) for c in classes} for i, said in table.items()
    }
    for _ in range(iterations):
        prior = {c: sum(p[c] for p in posterior.values()) / len(posterior) for c in classes}
        rates = {}
        for who, c in product(people, classes):
            met = sum(posterior[i][c] for i, said in table.items() if who in said)
            for label in classes:
                hit = sum(posterior[i][c] for i, said in table.items() if said.get(who) == label)
                rates[who, c, label] = hit / met if met else 1 / len(classes)
        for i, said in table.items():
            joint = {c: prior[c] * np.prod([rates[who, c, label] for who, label in said.items()]) for c in classes}
            posterior[i] = {c: joint[c] / sum(joint.values()) for c in classes}
    return posterior, rates, prior


def test_the_most_votes_win_and_ties_stay_ties():
    votes = majority_vote({1: {"ann": "dog", "bob": "cat", "eve": "cat"}, 2: {"ann": "cat", "bob": "dog"}})
    assert votes[1].label == "cat"
    assert votes[1].votes == {"cat": 2, "dog": 1}
    assert votes[2].tied
    assert votes[2].label is None
    assert votes[2].winners == ("cat", "dog")


@given(tables)
def test_winners_have_the_most_votes(table):
    for item, vote in majority_vote(table).items():
        said = list(table[item].values())
        counts = {label: said.count(label) for label in said}
        assert vote.votes == counts
        assert set(vote.winners) == {label for label, n in counts.items() if n == max(counts.values())}
        assert vote.tied == (vote.label is None) == (len(vote.winners) > 1)


def test_items_that_nobody_rated_have_no_vote():
    assert majority_vote({1: {}, 2: {"ann": None}, 3: {"ann": float("nan")}}) == {}


def test_the_most_contested_item_comes_first():
    table = {
        "agreed": {"ann": "cat", "bob": "cat"},
        "alone": {"ann": "cat"},
        "three to one": {"ann": "cat", "bob": "cat", "eve": "cat", "sue": "dog"},
        "one to one": {"ann": "cat", "bob": "dog"},
        "two to two": {"ann": "cat", "bob": "dog", "eve": "dog", "sue": "cat"},
        "three ways": {"ann": "cat", "bob": "dog", "eve": "cow"},
    }
    told = disagreements(table)
    assert [each.item for each in told] == ["three ways", "two to two", "one to one", "three to one"]
    assert told[1].said == table["two to two"]
    assert told[1].entropy == pytest.approx(log(2))
    assert told[3].camps == {"cat": ("ann", "bob", "eve"), "dog": ("sue",)}


@given(tables)
def test_exactly_the_items_with_two_labels_are_contested(table):
    told = disagreements(table)
    assert {each.item for each in told} == {i for i, said in table.items() if len(set(said.values())) > 1}
    ranks = [(-each.entropy, -len(each.said)) for each in told]
    assert ranks == sorted(ranks)
    for each in told:
        assert {who: label for label, camp in each.camps.items() for who in camp} == table[each.item]


def test_equal_splits_rank_by_the_number_of_votes_to_the_last_bit():
    table = {n: {who: min(who % 7, 2) for who in range(7 * n)} for n in (1, 2, 3)}
    assert [each.item for each in disagreements(table)] == [3, 2, 1]


def test_planted_confusion_matrices_are_recovered(rng):
    planted = {
        "careful": matrix_of(0.95),
        "hasty": matrix_of(0.7),
        "mixes up": np.array([[0.9, 0.05, 0.05], [0.05, 0.45, 0.5], [0.05, 0.15, 0.8]]),
        "guesses": np.full((3, 3), 1 / 3),
        "fair": matrix_of(0.8),
    }
    table, truth = rated(planted, 4000, rng, prevalence=[0.5, 0.3, 0.2], coverage=0.8)
    told = dawid_skene(table, range(3))
    assert told.converged
    assert np.abs(told.prevalence - [0.5, 0.3, 0.2]).max() < 0.03
    for who, matrix in planted.items():
        assert np.abs(told.confusion[who] - matrix).max() < 0.06, who
        assert told.accuracy[who] == pytest.approx(np.diag(matrix) @ [0.5, 0.3, 0.2], abs=0.04)
    assert right(told.labels, truth) > 0.9


def test_probabilities_are_calibrated_on_planted_data(rng):
    table, truth = rated({who: matrix_of(0.7, 2) for who in range(5)}, 4000, rng)
    told = dawid_skene(table, range(2))
    sure = told.probabilities.max(axis=1)
    was_right = told.probabilities.argmax(axis=1) == truth[list(told.items)]
    assert sure.mean() == pytest.approx(was_right.mean(), abs=0.02)


def test_an_adversary_helps_where_a_vote_suffers(rng):
    opposite = np.array([[0.05, 0.9, 0.05], [0.05, 0.05, 0.9], [0.9, 0.05, 0.05]])
    honest = {"ann": matrix_of(0.75), "bob": matrix_of(0.75), "eve": matrix_of(0.75)}
    table, truth = rated(honest | {"mal": opposite}, 1000, rng)
    told = dawid_skene(table, range(3))
    votes = {item: vote.winners[0] for item, vote in majority_vote(table).items()}
    assert right(told.labels, truth) > right(votes, truth) + 0.1
    assert np.abs(told.confusion["mal"] - opposite).max() < 0.06
    without = dawid_skene({i: {w: s for w, s in said.items() if w != "mal"} for i, said in table.items()}, range(3))
    assert right(told.labels, truth) > right(without.labels, truth)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_the_equations_of_the_paper_give(seed):
    rng = np.random.default_rng(seed)
    table, _ = rated({who: rng.dirichlet(np.ones(3), size=3) for who in PEOPLE}, 30, rng, coverage=0.7)
    table = {i: said for i, said in table.items() if said}
    told = dawid_skene(table, range(3), smoothing=0, max_iterations=7, tolerance=0)
    posterior, rates, prior = textbook(table, range(3), 7)
    assert np.allclose(told.probabilities, [[posterior[i][c] for c in range(3)] for i in told.items])
    assert np.allclose(told.prevalence, [prior[c] for c in range(3)])
    for who, matrix in told.confusion.items():
        assert np.allclose(matrix, [[rates[who, c, label] for label in range(3)] for c in range(3)])


def test_the_likelihood_is_that_of_all_possible_truths_together():
    table = {0: {"ann": 0, "bob": 0}, 1: {"ann": 1, "bob": 0, "eve": 1}, 2: {"eve": 1}, 3: {"ann": 0, "eve": 0}}
    told = dawid_skene(table, [0, 1], smoothing=0, max_iterations=3, tolerance=0)
    total, share = 0.0, np.zeros((4, 2))
    for truth in product(range(2), repeat=4):
        chance = np.prod([told.prevalence[true] for true in truth])
        for item, said in table.items():
            chance *= np.prod([told.confusion[who][truth[item], label] for who, label in said.items()])
        total += chance
        share[np.arange(4), truth] += chance
    assert told.log_likelihood[-1] == pytest.approx(log(total))
    assert np.allclose(told.probabilities, share / total)


@given(tables, st.sampled_from([0, 0.01, 1]))
def test_the_likelihood_never_falls_and_probabilities_are_such(table, smoothing):
    told = dawid_skene(table, range(3), smoothing=smoothing, max_iterations=50)
    assert (np.diff(told.log_likelihood) > -1e-8).all()
    assert np.allclose(told.probabilities.sum(axis=1), 1)
    assert np.allclose([matrix.sum(axis=1) for matrix in told.confusion.values()], 1)
    assert told.prevalence.sum() == pytest.approx(1)
    assert all(0 <= value <= 1 + 1e-9 for value in told.accuracy.values())


@given(tables, st.permutations(range(3)), st.permutations(PEOPLE), st.randoms(use_true_random=False))
def test_names_and_order_do_not_matter_to_it(table, classes, people, random):
    told = dawid_skene(table, range(3), max_iterations=10, tolerance=0)
    renamed = [
        (-i, [(people[PEOPLE.index(who)], classes[label]) for who, label in said.items()]) for i, said in table.items()
    ]
    random.shuffle(renamed)
    other = dawid_skene({i: dict(said) for i, said in renamed}, range(3), max_iterations=10, tolerance=0)
    rows = [other.items.index(-item) for item in told.items]
    assert np.allclose(told.probabilities, other.probabilities[np.ix_(rows, classes)])
    for who, matrix in told.confusion.items():
        assert np.allclose(matrix, other.confusion[people[PEOPLE.index(who)]][np.ix_(classes, classes)])


def test_those_who_agree_are_believed():
    table = {item: dict.fromkeys(PEOPLE, "ab"[item % 2]) for item in range(20)}
    told = dawid_skene(table, ["a", "b"])
    assert told.labels == {item: "ab"[item % 2] for item in range(20)}
    assert told.probabilities.max(axis=1).min() > 0.999


def test_a_thousand_votes_on_an_item_do_not_underflow(rng):
    table, truth = rated({who: matrix_of(0.6) for who in range(1000)}, 12, rng)
    told = dawid_skene(table, range(3))
    assert np.isfinite(told.probabilities).all()
    assert right(told.labels, truth) == 1


def test_a_class_that_nobody_said_has_no_chance():
    told = dawid_skene({1: {"ann": "cat", "bob": "cat"}, 2: {"ann": "dog"}}, ["cat", "cow", "dog"])
    assert told.prevalence[1] == 0
    assert (told.probabilities[:, 1] == 0).all()
    assert np.allclose(told.confusion["bob"][1], 1 / 3)


def test_it_says_when_it_ran_out_of_iterations(rng):
    table, _ = rated({who: matrix_of(0.6) for who in PEOPLE}, 50, rng)
    assert not dawid_skene(table, range(3), max_iterations=1).converged


@pytest.mark.parametrize(
    ("table", "classes", "options", "match"),
    [
        ({}, ["cat"], {}, "got none. Label some"),
        ({1: {"ann": None}}, ["cat"], {}, "got none. Label some"),
        ({1: {"ann": "dog"}}, ["cat"], {}, "got 'dog' from 'ann' for item 1. Add it"),
        ({1: {"ann": "cat"}}, ["cat", "cat"], {}, "each class once"),
        ({1: {"ann": "cat"}}, ["cat"], {"smoothing": -1}, "smoothing from 0 on"),
        ({1: {"ann": "cat"}}, ["cat"], {"max_iterations": 0}, "at least one iteration"),
        ({1: {"ann": "cat"}}, ["cat"], {"tolerance": -1}, "tolerance from 0 on"),
    ],
)
def test_what_it_cannot_work_with_is_refused(table, classes, options, match):
    with pytest.raises(ValueError, match=match):
        dawid_skene(table, classes, **options)


def test_a_suggestion_goes_by_the_votes_until_enough_is_shared():
    table = {n: {"ann": "cat", "bob": "cat", "eve": "dog" if n % 2 else "cat"} for n in range(19)}
    told = suggestions(disagreements(table), table, ["cat", "dog"])
    assert set(told) == {n for n in range(19) if n % 2}
    assert {(one.label, round(one.share, 2), one.method) for one in told.values()} == {("cat", 0.67, "majority")}
    table[19] = {"ann": "cat", "bob": "cat", "eve": "dog"}
    assert {one.method for one in suggestions(disagreements(table), table, ["cat", "dog"]).values()} == {"dawid-skene"}
    two = {n: {"ann": "cat", "bob": "dog" if n % 2 else "cat"} for n in range(30)}
    assert suggestions(disagreements(two), two, ["cat", "dog"]) == {}


def test_who_is_often_right_outvotes_two_who_seldom_are(rng):
    planted = {"careful": matrix_of(0.98), "hasty": matrix_of(0.6), "too": matrix_of(0.6)}
    table, truth = rated(planted, 1500, rng, prevalence=[0.4, 0.3, 0.3])
    outvoted = {n: said for n, said in table.items() if said["hasty"] == said["too"] != said["careful"]}
    told = suggestions(disagreements(table), table, range(3))
    named = [n for n in outvoted if n in told]
    assert len(named) > 100
    assert np.mean([outvoted[n]["hasty"] == truth[n] for n in named]) < 0.2
    assert np.mean([told[n].label == truth[n] for n in named]) > 0.75
    assert all(one.share > 0.5 for one in told.values())


@given(tables)
def test_what_the_votes_suggest_was_said_by_more_than_anything_else(table):
    contested = disagreements(table)
    told = suggestions(contested, table, sorted({label for said in table.values() for label in said.values()}, key=str))
    by_item = {one.item: one for one in contested}
    assert told.keys() <= by_item.keys()
    for item, one in told.items():
        camps = by_item[item].camps
        assert all(len(camps[one.label]) > len(camp) for label, camp in camps.items() if label != one.label)
        assert one.share == len(camps[one.label]) / len(by_item[item].said)


def test_labels_that_are_no_classes_go_by_the_votes():
    table = {n: {"ann": ("cat",), "bob": ("cat",), "eve": ("cat", "dog")} for n in range(30)}
    told = suggestions(disagreements(table), table, ["cat", "dog"])
    assert {(one.label, one.method) for one in told.values()} == {(("cat",), "majority")}
