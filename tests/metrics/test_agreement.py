from functools import partial
from itertools import combinations

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss_kappa

from baal_widgets.metrics.agreement import (
    agreement_interval,
    cohen_kappa,
    fleiss_kappa,
    given_ratings,
    krippendorff_alpha,
    observed_agreement,
    pairwise_agreement,
    per_class_agreement,
)

PEOPLE = ("ann", "bob", "eve", "sue")
tables = st.dictionaries(
    st.integers(0, 9), st.dictionaries(st.sampled_from(PEOPLE), st.integers(0, 3)), min_size=1
).filter(lambda table: len(people_of(table)) > 1)
full_tables = st.integers(2, 4).flatmap(
    lambda n: st.dictionaries(
        st.integers(0, 9), st.fixed_dictionaries({name: st.integers(0, 3) for name in PEOPLE[:n]}), min_size=1
    )
)
measures = pytest.mark.parametrize(
    "measure",
    [
        observed_agreement,
        krippendorff_alpha,
        partial(krippendorff_alpha, level="ordinal"),
        partial(krippendorff_alpha, level="interval"),
    ],
)

# Krippendorff (2011), section C and on: four observers, twelve units, missing ratings
KRIPPENDORFF = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
# Fleiss (1971), table 1: how many of six psychiatrists made each of five diagnoses, thirty patients
FLEISS = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
# Cohen (1960): two judges, two hundred people, three diagnoses
COHEN = [[88, 10, 2], [14, 40, 6], [18, 10, 12]]


def people_of(table):
    return {name for said in table.values() for name in said}


def from_rows(rows):
    """Ratings from one string an annotator, a dot where they said nothing."""
    return {
        item: {name: int(label) for name, label in enumerate(labels) if label != "."}
        for item, labels in enumerate(zip(*rows, strict=True))
    }


def from_counts(counts):
    return {item: dict(enumerate(np.repeat(range(len(row)), row).tolist())) for item, row in enumerate(counts)}


def from_contingency(counts):
    cells = [cell for cell in np.ndindex(np.shape(counts)) for _ in range(counts[cell[0]][cell[1]])]
    return {item: {"ann": one, "bob": other} for item, (one, other) in enumerate(cells)}


def as_matrix(table):
    """`[annotator, item]` with NaN for missing ratings, as the package krippendorff takes it."""
    return np.array([[said.get(name, np.nan) for said in table.values()] for name in sorted(people_of(table))])


def reference_alpha(table, level):
    values = as_matrix(table)
    pairable = values[:, (~np.isnan(values)).sum(axis=0) > 1]
    if len(np.unique(pairable[~np.isnan(pairable)])) < 2:
        return np.nan
    return krippendorff.alpha(values, level_of_measurement=level)


def alpha_by_hand(table):
    """From the definition: mean disagreement of the pairs within items over that of all pairs of pairable ratings."""
    items = [list(said.values()) for said in table.values() if len(said) > 1]
    everything = [label for labels in items for label in labels]
    n = len(everything)
    if n == 0 or len(set(everything)) == 1:
        return np.nan
    within = sum(
        2 * sum(one != other for one, other in combinations(labels, 2)) / (len(labels) - 1) for labels in items
    )
    return 1 - (within / n) / (2 * sum(one != other for one, other in combinations(everything, 2)) / (n * (n - 1)))


def same(one, other):
    return one == pytest.approx(other, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_krippendorffs_worked_example(level, published):
    assert krippendorff_alpha(from_rows(KRIPPENDORFF), level) == pytest.approx(published, abs=6e-4)


def test_fleiss_kappa_is_that_of_the_thirty_diagnoses_in_the_paper():
    counts = [[int(times) for times in row] for row in FLEISS.split()]
    assert fleiss_kappa(from_counts(counts)) == pytest.approx(0.430, abs=5e-4)
    assert observed_agreement(from_counts(counts)) == pytest.approx(0.556, abs=5e-4)


def test_cohens_kappa_is_that_of_the_two_judges_in_the_paper():
    table = from_contingency(COHEN)
    assert cohen_kappa(table) == pytest.approx(0.492, abs=5e-4)
    assert observed_agreement(table) == pytest.approx(0.70)


def test_two_who_always_say_the_opposite_have_kappa_minus_one():
    assert cohen_kappa({1: {"ann": "cat", "bob": "dog"}, 2: {"ann": "dog", "bob": "cat"}}) == -1


def test_a_common_class_makes_high_agreement_worth_little():
    table = from_contingency([[90, 5], [5, 0]])
    assert observed_agreement(table) == pytest.approx(0.9)
    assert cohen_kappa(table) < 0


@given(full_tables, st.sampled_from([None, "linear", "quadratic"]))
def test_cohens_kappa_is_that_of_scikit_learn(table, weights):
    one, other = ([said[name] for said in table.values()] for name in ("ann", "bob"))
    assume(len({*one, *other}) > 1)
    expected = cohen_kappa_score(one, other, weights=weights, labels=range(4))
    assert same(cohen_kappa(table, ("ann", "bob"), weights=weights, classes=range(4)), expected)


@given(full_tables)
def test_fleiss_kappa_is_that_of_statsmodels(table):
    counts = np.array([np.bincount(list(said.values()), minlength=4) for said in table.values()])
    assume((counts.sum(axis=0) > 0).sum() > 1)
    assert same(fleiss_kappa(table), statsmodels_fleiss_kappa(counts))


@given(tables, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_is_that_of_the_krippendorff_package(table, level):
    assert same(krippendorff_alpha(table, level), reference_alpha(table, level))


@given(tables)
def test_alpha_is_what_its_definition_says(table):
    assert same(krippendorff_alpha(table), alpha_by_hand(table))


@given(tables)
def test_alpha_of_a_class_is_that_of_the_class_against_the_rest(table):
    for name, told in per_class_agreement(table).items():
        against = {i: {who: label == name for who, label in said.items()} for i, said in table.items()}
        assert same(told.alpha, krippendorff_alpha(against))


@given(tables, st.permutations("wxyz"), st.permutations(range(4)), st.randoms(use_true_random=False))
def test_names_and_order_do_not_matter(table, labels, people, random):
    renamed = [
        (f"item {i}", [(people[PEOPLE.index(who)], labels[label]) for who, label in said.items()])
        for i, said in table.items()
    ]
    random.shuffle(renamed)
    for _, said in renamed:
        random.shuffle(said)
    other = {i: dict(said) for i, said in renamed}
    assert same(krippendorff_alpha(table), krippendorff_alpha(other))
    assert same(observed_agreement(table), observed_agreement(other))
    one, two = pairwise_agreement(table), pairwise_agreement(other)
    at = [two.annotators.index(people[PEOPLE.index(who)]) for who in one.annotators]
    for name in ("kappa", "observed", "n"):
        assert np.allclose(getattr(one, name), getattr(two, name)[np.ix_(at, at)], equal_nan=True)
    by_class = per_class_agreement(other)
    for label, told in per_class_agreement(table).items():
        assert told.n == by_class[labels[label]].n
        assert same(told.agreement, by_class[labels[label]].agreement)


@given(full_tables, st.permutations("wxyz"))
def test_renaming_labels_does_not_change_fleiss_kappa(table, labels):
    other = {i: {who: labels[label] for who, label in said.items()} for i, said in table.items()}
    assert same(fleiss_kappa(table), fleiss_kappa(other))


@measures
@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=9), n=st.integers(2, 4))
def test_those_who_say_the_same_agree_wholly(measure, labels, n):
    assume(len(set(labels)) > 1)
    table = {item: dict.fromkeys(PEOPLE[:n], label) for item, label in enumerate(labels)}
    assert measure(table) == 1
    assert fleiss_kappa(table) == 1
    assert (pairwise_agreement(table, weights="linear").kappa == 1).all()


@given(tables)
def test_measures_stay_within_their_bounds(table):
    def within(value, low):
        return np.isnan(value) or low - 1e-9 <= value <= 1

    assert within(observed_agreement(table), 0)
    assert within(krippendorff_alpha(table), -1)
    assert all(within(krippendorff_alpha(table, level), -np.inf) for level in ("ordinal", "interval"))
    assert all(within(value, -1) for value in pairwise_agreement(table).kappa.ravel())
    assert all(within(told.agreement, 0) for told in per_class_agreement(table).values())


@given(full_tables)
def test_fleiss_kappa_is_no_lower_than_minus_one_over_the_other_ratings(table):
    kappa = fleiss_kappa(table)
    assert np.isnan(kappa) or -1 / (len(people_of(table)) - 1) - 1e-9 <= kappa <= 1


@given(tables)
def test_agreement_on_the_classes_adds_up_to_that_on_all(table):
    told = per_class_agreement(table).values()
    n = sum(each.n for each in told)
    if n:
        total = sum(each.n * each.agreement for each in told if each.n) / n
        assert same(total, observed_agreement(table))


@measures
@given(tables)
def test_a_missing_rating_may_be_absent_none_or_nan(measure, table):
    people = people_of(table)
    for nothing in (None, float("nan")):
        padded = {i: {who: said.get(who, nothing) for who in people} for i, said in table.items()}
        assert same(measure(padded), measure(table))


@given(tables)
def test_a_rating_alone_on_its_item_counts_for_nothing(table):
    more = table | {"alone": {"ann": 3}}
    assert same(krippendorff_alpha(more), krippendorff_alpha(table))
    assert same(observed_agreement(more), observed_agreement(table))


@given(full_tables)
def test_alpha_is_fleiss_kappa_but_for_the_number_of_ratings(table):
    n = sum(len(said) for said in table.values())
    assert same(1 - krippendorff_alpha(table), (1 - fleiss_kappa(table)) * (n - 1) / n)


@given(tables)
def test_every_pair_in_the_matrix_is_the_kappa_of_the_two(table):
    told = pairwise_agreement(table)
    for one, other in combinations(range(len(told.annotators)), 2):
        names = told.annotators[one], told.annotators[other]
        assert same(told.kappa[one, other], cohen_kappa(table, names))
        both = [said for said in table.values() if set(names) <= set(said)]
        assert told.n[one, other] == told.n[other, one] == len(both)
        shared = np.mean([said[names[0]] == said[names[1]] for said in both]) if both else np.nan
        assert same(told.observed[one, other], shared)


def test_the_order_of_classes_tells_how_far_words_are_apart():
    near = {i: {"ann": one, "bob": two} for i, (one, two) in enumerate([("low", "low"), ("mid", "low"), ("high",) * 2])}
    far = near | {1: {"ann": "high", "bob": "low"}}
    scale = ["low", "mid", "high"]
    assert cohen_kappa(near, weights="linear", classes=scale) > cohen_kappa(far, weights="linear", classes=scale)
    ordinal = partial(krippendorff_alpha, level="ordinal", classes=scale)
    assert ordinal(near) > ordinal(far)
    codes = {i: {who: scale.index(label) for who, label in said.items()} for i, said in near.items()}
    assert same(ordinal(near), krippendorff_alpha(codes, "ordinal"))


@pytest.mark.parametrize(
    "measure", [partial(cohen_kappa, weights="linear"), partial(krippendorff_alpha, level="ordinal")]
)
def test_words_have_no_order_unless_one_is_given(measure):
    with pytest.raises(ValueError, match=r"classes=\[lowest, \.\.\., highest\].*got 'low'"):
        measure({1: {"ann": "low", "bob": "high"}})


def test_words_have_no_interval():
    with pytest.raises(ValueError, match="labels that are numbers for the interval level; got 'low'"):
        krippendorff_alpha({1: {"ann": "low", "bob": "high"}}, "interval", classes=["low", "high"])


@measures
def test_without_overlap_there_is_no_telling(measure):
    table = {1: {"ann": 0}, 2: {"bob": 1}}
    assert np.isnan(measure(table))
    assert np.isnan(cohen_kappa(table))
    assert np.isnan(fleiss_kappa(table))
    assert np.isnan([told.agreement for told in per_class_agreement(table).values()]).all()
    told = pairwise_agreement(table)
    assert told.n[0, 1] == 0
    assert np.isnan(told.kappa[0, 1])
    assert np.isnan(agreement_interval(table, measure, resamples=10, rng=np.random.default_rng(0))).all()


def test_agreement_on_the_only_class_is_no_evidence():
    table = {item: {"ann": "cat", "bob": "cat"} for item in range(9)}
    assert observed_agreement(table) == 1
    assert per_class_agreement(table)["cat"].agreement == 1
    assert np.isnan([krippendorff_alpha(table), cohen_kappa(table), fleiss_kappa(table)]).all()
    assert np.isnan(per_class_agreement(table)["cat"].alpha)


def test_a_class_that_nobody_said_has_no_agreement():
    told = per_class_agreement({1: {"ann": "cat", "bob": "dog"}}, classes=["cat", "dog", "cow"])
    assert list(told) == ["cat", "dog", "cow"]
    assert told["cow"].n == 0
    assert np.isnan(told["cow"].agreement)


@pytest.mark.parametrize(
    "measure",
    [
        observed_agreement,
        cohen_kappa,
        fleiss_kappa,
        krippendorff_alpha,
        pairwise_agreement,
        per_class_agreement,
        partial(agreement_interval, rng=np.random.default_rng(0)),
    ],
)
@pytest.mark.parametrize("table", [{}, {1: {}}, {1: {"ann": "cat"}, 2: {"ann": "dog", "bob": None}}])
def test_one_person_cannot_agree(measure, table):
    with pytest.raises(ValueError, match="two annotators or more, got [01].*another person"):
        measure(table)


def test_fleiss_kappa_says_what_to_use_for_unequal_numbers():
    table = {"a": {"ann": 0, "bob": 0}, "b": {"ann": 0, "bob": 0, "eve": 1}}
    with pytest.raises(ValueError, match=r"got 2 for item 'a' and 3 for item 'b'\. Use krippendorff_alpha"):
        fleiss_kappa(table)


def test_cohens_kappa_of_three_asks_which_two():
    table = {1: dict.fromkeys(PEOPLE[:3], "cat")}
    with pytest.raises(ValueError, match=r"got 3\. Name two of them, between=\('ann', 'bob'\)"):
        cohen_kappa(table)
    with pytest.raises(ValueError, match="got 'tom'"):
        cohen_kappa(table, ("ann", "tom"))
    with pytest.raises(ValueError, match="got 'ann' twice"):
        cohen_kappa(table, ("ann", "ann"))


@pytest.mark.parametrize(
    ("table", "error", "match"),
    [
        ([("ann", "cat")], TypeError, "got a list"),
        ({7: ["cat", "dog"]}, TypeError, "got a list for item 7"),
        ({7: {"ann": ["cat"], "bob": "cat"}}, TypeError, "got a list from 'ann' for item 7. Make it a string"),
    ],
)
def test_what_is_no_table_of_ratings_is_refused(table, error, match):
    with pytest.raises(error, match=match):
        krippendorff_alpha(table)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"level": "ratio"}, "got 'ratio'"),
        ({"classes": ["cat"]}, "got 'dog' too"),
        ({"classes": ["cat", "dog", "cat"]}, "each class once"),
    ],
)
def test_options_out_of_place_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        krippendorff_alpha({1: {"ann": "cat", "bob": "dog"}}, **options)


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="got 'cubic'"):
        cohen_kappa({1: {"ann": 0, "bob": 1}}, weights="cubic")


@pytest.mark.parametrize("options", [{"level": 95}, {"level": 0}, {"resamples": 0}])
def test_an_interval_wants_a_level_and_resamples(options, rng):
    with pytest.raises(ValueError, match="got"):
        agreement_interval({1: {"ann": 0, "bob": 1}}, rng=rng, **options)


def test_labels_may_be_anything_hashable():
    table = {1: {"ann": frozenset({"cat", "dog"}), "bob": frozenset({"dog", "cat"})}, 2: {"ann": (1, 2), "bob": (1, 2)}}
    assert krippendorff_alpha(table) == 1
    assert given_ratings(table) == table


def noisy(n, rng, right=0.8):
    def said(true):
        return {who: int(true if rng.random() < right else rng.integers(3)) for who in PEOPLE if rng.random() < 0.8}

    return {item: said(true) for item, true in enumerate(rng.integers(3, size=n))}


@pytest.mark.parametrize(
    "measure",
    [
        krippendorff_alpha,
        observed_agreement,
        partial(krippendorff_alpha, level="ordinal"),
        partial(krippendorff_alpha, level="interval", classes=[2, 0, 1]),
        partial(cohen_kappa, between=("bob", "sue"), weights="quadratic"),
        lambda table: float(len(given_ratings(table))),
        lambda table: per_class_agreement(table)[1].agreement,
    ],
)
def test_the_interval_is_that_of_tables_made_of_items_drawn_anew(measure, rng):
    table = given_ratings(noisy(25, rng))
    items = list(table.values())
    draws = np.random.default_rng(3)
    drawn = draws.integers(len(items), size=(40, len(items)))
    values = [measure({place: items[at] for place, at in enumerate(row)}) for row in drawn]
    low, high = agreement_interval(table, measure, level=0.8, resamples=40, rng=np.random.default_rng(3))
    assert same((low, high), tuple(np.quantile(values, [0.1, 0.9])))


def test_more_items_make_a_narrower_interval(rng):
    widths = []
    for n in (40, 640):
        table = noisy(n, rng)
        low, high = agreement_interval(table, resamples=300, rng=rng)
        assert low < krippendorff_alpha(table) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_interval_holds_the_truth_about_as_often_as_it_says(rng):
    truth = krippendorff_alpha(noisy(20_000, rng))
    held = [
        low <= truth <= high
        for low, high in (agreement_interval(noisy(60, rng), level=0.9, resamples=150, rng=rng) for _ in range(100))
    ]
    assert 0.8 <= np.mean(held) <= 0.98
