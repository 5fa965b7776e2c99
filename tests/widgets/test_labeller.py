import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from baal_widgets import Labeller, LabellingSession, Training

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

    def do(self, op, item=None, value=None):
        self.count += 1
        return self.say(kind="ops", ops=[{"id": str(self.count), "op": op, "item": item, "value": value}])

    def view(self):
        return self.say(kind="tick")["view"]

    def learn(self):
        self.say(kind="do", do="learn")
        self.labeller.session.job.exception(60)
        return self.view()


@pytest.fixture
def page():
    return Page(Labeller(make_session()))


def titles(labeller):
    return [place.outputs[0]["data"]["text/plain"] for place in (labeller._curve, labeller._calibration)]


def test_the_page_shows_the_query_of_the_session(page):
    view = page.say(kind="hello")["view"]
    assert view["items"] == list(page.labeller.session.ask().items)
    assert view["classes"] == CLASSES
    assert view["answers"] == {}
    assert view["canNext"] is False
    assert not set(view["upcoming"]) & set(view["items"])


def test_answers_are_written_by_the_session(page):
    items = page.view()["items"]
    page.do("label", items[0], 1)
    page.do("skip", items[1])
    assert page.labeller.session.labels == {items[0]: "bright"}
    assert page.view()["answers"] == {str(items[0]): 1, str(items[1]): -1}
    assert page.view()["summary"] == "1 labelled · 1 skipped · 38 in the pool"


def test_the_next_images_come_when_they_are_asked_for(page):
    items = page.view()["items"]
    for item in items:
        page.do("label", item, 0)
    assert page.view()["items"] == items
    assert page.view()["canNext"] is True
    page.say(kind="do", do="next")
    assert not set(page.view()["items"]) & set(items)


@pytest.mark.parametrize("model_seed", range(5))
def test_what_is_under_the_hands_stays_until_it_is_answered(model_seed):
    page = Page(Labeller(make_session(model_seed=model_seed)))
    items = page.view()["items"]
    page.do("label", items[0], 1)
    view = page.learn()
    assert view["items"] == items
    assert view["fresh"]
    for item in items[1:]:
        view = page.do("label", item, 1)["view"]
    assert view["items"] == items
    page.say(kind="do", do="next")
    view = page.view()
    # what was open may have been asked again, and is answered now
    assert view["items"] == [item for item in page.labeller.session.ask().items if item not in items]
    assert view["answers"] == {}
    assert not view["fresh"]


def test_the_figures_are_redrawn_after_a_lesson_and_for_the_theme(page):
    page.view()
    before = titles(page.labeller)
    page.do("label", page.view()["items"][0], 1)
    page.learn()
    after = titles(page.labeller)
    assert before == ["Learning curve", "Calibration"]
    assert after[1].startswith("Calibration: ECE")
    page.say(kind="tick", dark=True)
    figure = page.labeller._curve.outputs[0]["data"]["application/vnd.plotly.v1+json"]
    assert figure["layout"]["template"]["layout"]["font"]["color"] == "#f2f5fa"


def test_what_was_undone_is_on_the_page_even_from_long_ago(page):
    first = page.view()["items"]
    for item in first:
        page.do("label", item, 0)
    page.say(kind="do", do="next")
    reply = page.do("undo")
    assert reply["focus"] == first[-1]
    assert reply["view"]["items"][0] == first[-1]
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
    page.do("label", page.view()["items"][0], 1)
    assert page.learn()["training"]["error"] == "Training failed. RuntimeError: no such luck"
    page.say(kind="seen")
    assert page.view()["training"]["error"] == ""
    assert len(session.labels) == 1


def test_a_cancelled_lesson_is_no_error():
    page = Page(Labeller(make_session(training=Training(min_steps=100_000, max_steps=100_000))))
    page.do("label", page.view()["items"][0], 1)
    page.say(kind="do", do="learn")
    assert page.view()["training"]["running"]
    page.say(kind="do", do="cancel")
    page.labeller.session.job.exception(60)
    assert page.view()["training"]["error"] == ""
    assert not page.view()["training"]["running"]


def test_two_labellers_of_one_session_stay_in_step(page):
    other = Page(Labeller(page.labeller.session))
    item = page.view()["items"][0]
    page.do("label", item, 1)
    assert other.view()["answers"] == {str(item): 1}


def test_everything_may_be_answered(page):
    for _ in range(11):
        for item in page.view()["items"]:
            page.do("label", item, 0)
        page.say(kind="do", do="next")
    view = page.view()
    assert view["items"] == []
    assert not view["canNext"]
    assert len(page.labeller.session.labels) == 40


def test_its_text_is_the_same_each_time(page):
    assert repr(page.labeller) == "Labeller(LabellingSession(0 of 40 labelled, 2 classes, round 0))"
