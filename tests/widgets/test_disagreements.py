"""What people disagree on, before the person who settles it."""

import time

import pytest

from baal_widgets import LabelGrid, Labeller
from baal_widgets.metrics import krippendorff_alpha
from baal_widgets.widgets.deck import CONTEST, REPEAT
from tests.widgets.test_labeller import CLASSES, Page, make_session

N = 40


def contest(item):
    return CONTEST * N + item


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """What people say together is worked out after every fact."""
    monkeypatch.setattr("baal_widgets.widgets.together.PAUSE", 0)
    monkeypatch.setattr("baal_widgets.widgets.together.SHARE", 0)


@pytest.fixture
def people(tmp_path):
    path = tmp_path / "labels.db"
    made = {name: make_session(path, annotator=name) for name in ("ann", "bob", "eve", "judge")}
    yield made
    for session in made.values():
        session.close()


@pytest.fixture
def page(people):
    people["ann"].label(3, "dark")
    people["bob"].label(3, "bright")
    people["eve"].label(3, "bright")
    people["ann"].label(5, "dark")
    people["bob"].label(5, "bright")
    people["ann"].label(7, "dark")
    people["bob"].label(7, "dark")
    return Page(Labeller(people["judge"]))


def current(page):
    """The view once it knows of all that has been written."""
    together, deadline = page.labeller.deck._together, time.monotonic() + 30
    while True:
        view = page.view()
        if together._known.seq == page.labeller.session.seq:
            return view
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_queue(page):
    view = current(page)
    page.say(kind="turn", id="c", cards=view["contested"])
    return page.view()


def test_who_says_what_is_told_with_the_larger_camp_suggested(page):
    view = current(page)
    assert view["contested"] == [contest(5), contest(3)]  # the evenly divided one is more contested
    assert view["contests"][str(contest(3))] == {
        "camps": [{"value": 1, "n": 2, "people": ["bob", "eve"]}, {"value": 0, "n": 1, "people": ["ann"]}],
        "suggested": 1,
        "share": 0.667,
        "method": "majority",
    }
    tied = view["contests"][str(contest(5))]
    assert (tied["suggested"], tied["method"], [camp["n"] for camp in tied["camps"]]) == (None, "", [1, 1])
    assert view["guesses"] == {}


def test_flags_and_notes_of_an_image_are_on_every_card_of_it_but_a_blind_repeat(page, people):
    people["ann"].note(3, "a sleeve")
    page.labeller.session.flag(5)
    assert open_queue(page)["marks"] == {
        str(contest(3)): {"flag": False, "note": "a sleeve"},
        str(contest(5)): {"flag": True, "note": ""},
    }
    view = page.do("note", contest(5), text="torn")["view"]
    assert view["marks"][str(contest(5))] == {"flag": True, "note": "torn"}
    assert page.labeller.deck._items_told([REPEAT * N + 3, 3]) == {3: 3}


def test_what_is_settled_leaves_the_queue_at_once_and_undo_brings_it_back(page, people):
    open_queue(page)
    view = page.do("label", contest(3), 0)["view"]
    assert view["contested"] == [contest(5)]
    assert view["answers"] == {str(contest(3)): 0}
    assert people["ann"].labels[3] == "dark"
    assert current(page)["contested"] == [contest(5)]
    reply = page.do("undo")
    assert (reply["focus"], reply["view"]["answers"]) == (contest(3), {})
    assert current(page)["contested"] == [contest(5), contest(3)]
    assert people["ann"].labels[3] == "bright"
    reply = page.do("redo")
    assert (reply["focus"], reply["view"]["answers"]) == (contest(3), {str(contest(3)): 0})
    assert reply["view"]["contested"] == current(page)["contested"] == [contest(5)]


def test_what_was_settled_on_an_earlier_page_comes_back_to_be_settled(page):
    open_queue(page)
    page.do("label", contest(3), 1)
    current(page)
    page.say(kind="turn", id="d", cards=[contest(5)])
    reply = page.do("undo")
    assert (reply["focus"], reply["view"]["page"]) == (contest(3), [contest(3), contest(5)])
    assert str(contest(3)) in current(page)["contests"]


def test_a_settled_one_returns_only_when_somebody_contradicts_it(page, people):
    open_queue(page)
    page.do("label", contest(3), 1)
    page.do("label", contest(5), 1)
    page.say(kind="turn", id="d", cards=[])
    people["eve"].label(5, "bright")  # of the same mind
    assert current(page)["contested"] == []
    people["ann"].label(5, "dark")  # she insists
    view = current(page)
    assert view["contested"] == [contest(5)]
    assert view["contests"][str(contest(5))]["camps"][0]["people"] == ["bob", "eve", "judge"]


def test_what_is_passed_over_is_left_as_it_is(page, people):
    open_queue(page)
    facts = people["judge"].seq
    assert page.do("skip", contest(3))["errors"] == []
    assert page.do("unsure", contest(5))["view"]["contested"] == [contest(5), contest(3)]
    assert people["judge"].seq == facts
    assert page.do("keep", contest(5))["errors"] == ["ValueError: Only a label that is looked at again can be kept."]


def test_only_what_has_an_answer_can_be_settled_and_only_as_a_class(page, people):
    facts = people["judge"].seq
    for card, value in ((contest(20), 0), (contest(3), 2), (contest(3), [0]), (contest(40), 0)):
        assert page.do("label", card, value)["errors"], (card, value)
    assert people["judge"].seq == facts


def test_what_somebody_set_aside_can_be_settled(page, people):
    people["eve"].undo()
    people["eve"].skip(3)
    open_queue(page)
    assert page.do("label", contest(3), 1)["view"]["answers"] == {str(contest(3)): 1}
    assert people["bob"].labels[3] == "bright"


def test_agreement_is_told_of_what_people_said_by_themselves(page, people):
    said = people["judge"].ratings()
    alpha = f"agreement {krippendorff_alpha(said):.2f} (Krippendorff's alpha) on 3 images labelled by several"
    assert current(page)["summary"].endswith(alpha)
    open_queue(page)
    page.do("label", contest(3), 1)
    page.do("label", contest(5), 1)
    assert current(page)["summary"].endswith(alpha)  # to settle is no agreement between them
    people["ann"].label(9, "bright")
    people["bob"].label(9, "bright")
    assert "on 4 images" in current(page)["summary"]


def test_one_person_alone_is_told_of_no_agreement_and_costs_nothing(people):
    page = Page(Labeller(people["ann"]))
    page.do("label", page.view()["page"][0], 0)
    view = page.view()
    assert page.labeller.deck._together._job is None
    assert "agreement" not in view["summary"]
    assert (view["contested"], view["contests"]) == ([], {})


def test_where_all_are_of_one_class_there_is_no_alpha_but_a_number(people):
    people["ann"].label(1, "dark")
    people["bob"].label(1, "dark")
    assert current(Page(Labeller(people["eve"])))["summary"].endswith(" · 1 image labelled by several")


def test_it_is_worked_out_seldom_and_never_by_the_one_who_waits(page, monkeypatch):
    current(page)
    monkeypatch.setattr("baal_widgets.widgets.together.PAUSE", 1000)
    page.do("label", page.view()["page"][0], 0)
    together = page.labeller.deck._together
    while together._job is not None:
        page.view()
    known = together._known
    page.do("label", page.view()["page"][1], 0)
    for _ in range(20):
        page.view()
    assert together._job is None
    assert together._known is known


def test_a_failure_is_told_and_leaves_what_was_known(page, monkeypatch):
    before = current(page)["contested"]

    def fail(*_):
        raise RuntimeError("no such luck")

    monkeypatch.setattr("baal_widgets.widgets.together.suggestions", fail)
    page.do("label", page.view()["page"][0], 0)
    deadline = time.monotonic() + 30
    while "agreement cannot be told: no such luck" not in (view := page.view())["summary"]:
        assert time.monotonic() < deadline
    assert view["contested"] == before


def test_names_are_told_in_part_where_they_are_many_or_long(people, tmp_path):
    for place in range(12):
        with make_session(tmp_path / "labels.db", annotator=f"{place:02d}<b>" + "x" * 100) as session:
            session.label(3, int(place > 9))
    camp = current(Page(Labeller(people["judge"])))["contests"][str(contest(3))]["camps"][0]
    assert (camp["n"], len(camp["people"])) == (10, 8)
    assert camp["people"][0] == "00<b>" + "x" * 54 + "…"


def test_a_renamed_class_is_told_by_its_place(page, people):
    current(page)
    people["ann"].rename_class("bright", "light")
    assert current(page)["contests"][str(contest(3))]["camps"][0]["value"] == 1


def test_with_several_labels_each_set_of_them_is_a_camp(tmp_path):
    sessions = [
        make_session(tmp_path / "several.db", annotator=name, multi_label=True, test_set=None) for name in "abc"
    ]
    for session, label in zip(sessions, (["dark"], CLASSES, CLASSES), strict=True):
        session.label(2, label)
    page = Page(Labeller(sessions[0]))
    told = current(page)["contests"][str(contest(2))]
    assert [camp["value"] for camp in told["camps"]] == [[0, 1], [0]]
    assert (told["suggested"], told["method"]) == ([0, 1], "majority")
    open_queue(page)
    page.do("label", contest(2), told["suggested"])
    assert current(page)["contested"] == []
    assert sessions[1].labels[2] == ("dark", "bright")
    for session in sessions:
        session.close()


def test_a_grid_without_a_session_has_nothing_to_settle():
    view = LabelGrid([], CLASSES).deck.view()
    assert (view["contested"], view["contests"]) == ([], {})
