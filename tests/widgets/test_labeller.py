import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import Labeller, LabellingSession, Training
from baal_widgets.insight import Dispute

QUICK = Training(min_steps=5, max_steps=5, window=2)
CLASSES = ["dark", "bright"]


def make_session(journal=None, **options):
    images = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    test = TensorDataset(images[:10], (images[:10].mean((1, 2, 3)) > 0.5).long())
    with torch.random.fork_rng():
        torch.manual_seed(options.pop("model_seed", 0))
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 2))
    told = {"test_set": test, "query_size": 4, "training": QUICK, "iterations": 3, **options}
    return LabellingSession(TensorDataset(images), model, CLASSES, journal=journal, **told)


class Page:
    """What a browser sees of a labeller."""

    def __init__(self, labeller):
        self.labeller, self.heard, self.count = labeller, [], 0
        labeller.grid.send = lambda content, buffers=None: self.heard.append(content)

    def say(self, **message):
        self.labeller.grid._handle_custom_msg(message, [])
        return self.heard[-1]

    def do(self, op, card=None, value=None, **more):
        self.count += 1
        told = {"id": str(self.count), "op": op, "card": card, "value": value, **more}
        return self.say(kind="ops", ops=[told])

    def turn(self):
        """Turn to what follows, as the page does by itself."""
        self.count += 1
        view = self.view()
        return self.say(kind="turn", id=f"t{self.count}", cards=view["queue"][: view["size"]])["view"]

    def view(self):
        return self.say(kind="tick")["view"]

    def learn(self):
        self.say(kind="do", do="learn")
        self.labeller.session.job.exception(60)
        return self.view()


@pytest.fixture
def page():
    return Page(Labeller(make_session()))


@pytest.fixture
def at_once(monkeypatch):
    """Figures are drawn without waiting for a pause of the hands."""
    monkeypatch.setattr("baal_widgets.widgets.labeller.PAUSE", 0)


def titles(labeller):
    return [place.outputs[0]["data"]["text/plain"] for place in labeller._places]


def test_the_page_shows_the_query_of_the_session_and_what_follows(page):
    view = page.say(kind="hello")["view"]
    assert view["page"] == list(page.labeller.session.ask().items)
    assert view["classes"] == CLASSES
    assert view["answers"] == {}
    assert not set(view["queue"]) & set(view["page"])
    assert len(view["queue"]) >= 3 * view["size"]


def test_answers_are_written_by_the_session(page):
    items = page.view()["page"]
    page.do("label", items[0], 1)
    page.do("skip", items[1])
    page.do("unsure", items[2])
    session = page.labeller.session
    assert session.labels == {items[0]: "bright"}
    assert (session.skipped, session.unsure) == ({items[1], items[2]}, {items[2]})
    assert page.view()["answers"] == {str(items[0]): 1, str(items[1]): -1, str(items[2]): -2}
    assert page.view()["summary"].startswith("1 labelled · 2 set aside · 37 in the pool")


def test_the_next_images_come_when_they_are_turned_to(page):
    items = page.view()["page"]
    for item in items:
        page.do("label", item, 0)
    view = page.view()
    assert view["page"] == items
    follow = view["queue"][:4]
    view = page.turn()
    assert (view["page"], view["turned"]) == (follow, f"t{page.count}")
    assert not set(view["queue"]) & set(follow)


def test_hands_may_run_ahead_of_the_kernel(page):
    """All of what follows is answered before the kernel has heard of a turn."""
    view = page.view()
    cards = view["page"] + view["queue"]
    for card in cards:
        page.do("label", card, 0)
    assert page.labeller.session.labels == dict.fromkeys(cards, "dark")


@pytest.mark.parametrize("model_seed", range(3))
def test_what_is_under_the_hands_stays_and_what_follows_is_ranked_anew(model_seed):
    page = Page(Labeller(make_session(model_seed=model_seed)))
    before = page.view()
    page.do("label", before["page"][0], 1)
    view = page.learn()
    assert view["page"] == before["page"]
    assert view["generation"] == 1
    query = page.labeller.session.query
    assert view["queue"] == [item for item in (*query.items, *query.reserve) if item not in before["page"]]


def test_it_retrains_by_itself_after_so_many_labels(page):
    assert page.say(kind="do", do="every", n=2)["said"] == "Retrains after 2 labels"
    items = page.view()["page"]
    page.do("label", items[0], 1)
    assert page.labeller.session.job is None
    page.do("label", items[1], 0)
    page.labeller.session.job.exception(60)
    assert page.view()["generation"] == 1
    assert page.say(kind="do", do="every", n=-1)["errors"]


def test_guesses_are_hidden_until_the_answer_and_the_journal_knows_which(page):
    first = page.view()["page"]
    page.do("label", first[0], 1)
    page.learn()
    assert set(page.view()["guesses"]) == {str(first[0])}
    about = {"via": "key", "ms": 812, "guess": "hidden", "view": "grid"}
    page.do("label", first[1], 0, about=about)
    assert set(page.view()["guesses"]) == {str(first[0]), str(first[1])}
    facts = page.labeller.session._journal.events()
    assert [fact.payload.get("about") for fact in facts if fact.kind == "label"][-1] == about
    assert page.do("label", first[2], 0, about={"via": "<script>"})["errors"]
    page.say(kind="do", do="blind", on=False)
    assert set(page.view()["guesses"]) >= set(map(str, first))


def test_why_tells_the_draws_behind_a_card(page):
    item = page.view()["page"][0]
    page.say(kind="why", card=item)
    assert page.heard[-1]["why"] is None
    page.do("label", item, 1)
    page.learn()
    card = page.view()["queue"][0]
    why = page.say(kind="why", card=card)["why"]
    assert len(why["votes"]) == 3
    assert sum(why["probabilities"]) == pytest.approx(1, abs=1e-3)
    assert why["total"] == pytest.approx(why["epistemic"] + why["aleatoric"], abs=1e-3)
    assert [near["card"] for near in why["neighbours"]] == [item]


def test_a_blind_repeat_is_a_card_of_its_own_and_changes_no_label():
    page = Page(Labeller(make_session(repeats=0.5)))
    for _ in range(2):  # what was labelled a moment ago would be no test
        for card in page.view()["page"]:
            page.do("label", card, 0)
        page.turn()
    view = page.view()
    repeats = [card for card in view["page"] + view["queue"] if card >= 40]
    assert repeats
    labels = page.labeller.session.labels
    page.say(kind="turn", id="r", cards=repeats)
    view = page.do("label", repeats[0], 1)["view"]
    assert view["answers"] == {str(repeats[0]): 1}
    assert view["guesses"] == {}
    assert page.labeller.session.labels == labels
    assert page.labeller.session.consistency["n"] == 1


def test_disputed_labels_are_kept_or_changed_and_undone(page, monkeypatch):
    items = page.view()["page"]
    for item in items[:2]:
        page.do("label", item, 0)
    disputes = tuple(Dispute(item, 0, 1, 0.97) for item in items[:2])
    reviewed = page.labeller.session
    monkeypatch.setattr(
        type(reviewed),
        "disputes",
        property(lambda self: tuple(d for d in disputes if d.item not in self._state.reviewed)),
    )
    view = page.view()
    assert view["reviews"] == [80 + item for item in items[:2]]
    assert view["claims"][str(80 + items[0])] == {"said": 0, "guess": 1, "share": 0.97}
    page.say(kind="turn", id="x", cards=view["reviews"])
    page.do("keep", 80 + items[0])
    view = page.do("label", 80 + items[1], 1)["view"]
    assert reviewed.labels == {items[0]: "dark", items[1]: "bright"}
    assert view["answers"] == {str(80 + items[0]): 0, str(80 + items[1]): 1}
    assert view["reviews"] == []
    reply = page.do("undo")
    assert (reply["focus"], reviewed.labels[items[1]]) == (80 + items[1], "dark")


def test_the_labels_are_written_to_a_file_beside_the_journal(tmp_path):
    page = Page(Labeller(make_session(tmp_path / "mine.db")))
    page.do("label", page.view()["page"][0], 1)
    assert "1 labels written" in page.say(kind="do", do="export")["said"]
    assert "bright" in (tmp_path / "mine.csv").read_text()


def test_the_learning_curve_is_drawn_beside_random_choice_where_the_truth_is_known(at_once):
    session = make_session()
    page = Page(Labeller(session, oracle=[0, 1] * 20))
    page.do("label", page.view()["page"][0], 1)
    page.learn()
    page.labeller._twin_job.result(60)
    page.view()
    curve = page.labeller._places[0].outputs[0]["data"]["application/vnd.plotly.v1+json"]
    assert "random choice" in [line["name"] for line in curve["data"]]


def test_the_figures_are_redrawn_after_a_lesson_and_for_the_theme(page, at_once):
    page.view()
    before = titles(page.labeller)
    page.do("label", page.view()["page"][0], 1)
    page.learn()
    after = titles(page.labeller)
    assert before[:2] == ["Learning curve", "Calibration"]
    assert after[1].startswith("Calibration: ECE")
    assert len(after) == 4
    page.say(kind="tick", dark=True)
    figure = page.labeller._places[0].outputs[0]["data"]["application/vnd.plotly.v1+json"]
    assert figure["layout"]["font"]["color"] == "#E6E9EF"


def test_no_figure_is_redrawn_between_two_quick_answers(page):
    items = page.view()["page"]
    before = [place.outputs for place in page.labeller._places]
    for item in items[:3]:
        page.do("label", item, 1)
    assert [place.outputs for place in page.labeller._places] == before
    page.labeller._busy -= 4  # a pause
    page.view()
    assert page.labeller._places[3].outputs != before[3]
    assert [place.outputs for place in page.labeller._places[:3]] == before[:3]


def test_what_was_undone_is_on_the_page_even_from_long_ago(page):
    first = page.view()["page"]
    for item in first:
        page.do("label", item, 0)
    page.turn()
    reply = page.do("undo")
    assert reply["focus"] == first[-1]
    assert reply["view"]["page"][0] == first[-1]
    assert str(first[-1]) not in reply["view"]["answers"]


def test_learning_from_nothing_is_answered_with_what_to_do(page):
    assert "label at least one" in page.say(kind="do", do="learn")["errors"][0]


def test_a_lesson_that_fails_is_told_until_it_has_been_read():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.linear = nn.Dropout(0.5), nn.Linear(1, 2)

        def forward(self, x):
            raise RuntimeError("no such luck")

    session = make_session()
    session._learner.wrapper.model = Broken()
    session._learner._initial = Broken().state_dict()
    page = Page(Labeller(session))
    page.do("label", page.view()["page"][0], 1)
    assert page.learn()["training"]["error"] == "Training failed. RuntimeError: no such luck"
    page.say(kind="seen")
    assert page.view()["training"]["error"] == ""
    assert len(session.labels) == 1


def test_a_cancelled_lesson_is_no_error():
    page = Page(Labeller(make_session(training=Training(min_steps=100_000, max_steps=100_000))))
    page.do("label", page.view()["page"][0], 1)
    page.say(kind="do", do="learn")
    assert page.view()["training"]["running"]
    page.say(kind="do", do="cancel")
    page.labeller.session.job.exception(60)
    assert page.view()["training"]["error"] == ""
    assert not page.view()["training"]["running"]


def test_two_labellers_of_one_session_stay_in_step(page):
    other = Page(Labeller(page.labeller.session))
    item = page.view()["page"][0]
    page.do("label", item, 1)
    assert other.view()["answers"] == {str(item): 1}


def test_everything_may_be_answered(page):
    for _ in range(11):
        for item in page.view()["page"]:
            page.do("label", item, 0)
        page.turn()
    view = page.view()
    assert (view["page"], view["queue"]) == ([], [])
    assert len(page.labeller.session.labels) == 40


def test_its_text_is_the_same_each_time(page):
    assert (
        repr(page.labeller)
        == "Labeller(LabellingSession(0 of 40 labelled, 2 classes, round 0)). Run this cell to label."
    )
