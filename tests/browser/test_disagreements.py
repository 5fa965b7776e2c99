"""A person settles, by keyboard alone, what others disagree on."""

import pytest

from baal_widgets.demo import load_demo
from baal_widgets.journal import Journal, fold
from tests.browser.test_everyone import violations
from tests.browser.test_looks import THEMES, set_theme, small_targets, sticks_out

pytestmark = pytest.mark.browser

CLASSES = load_demo().classes
CELL = """
from baal_widgets import Labeller, LabellingSession, load_demo
data = load_demo()
names = ["ann", "bob", "<b>eve</b>"]

def opened(name):
    told = dict(test_set=data.test, journal="{journal}", annotator=name)
    return LabellingSession(data.pool, data.model(), data.classes, **told)

others = [opened(name) for name in names]
for item in range(30):
    for place, session in enumerate(others):
        right = data.oracle[item]
        session.label(item, (right + 1) % 10 if item < 6 and place == item % 3 else right)
others[0].label(40, 0)
others[1].label(40, 1)
for session in others:
    session.close()
session = opened("judge")
Labeller(session)
"""
HERE = "document.querySelector('.baal-widget').contains(document.activeElement)"


def test_a_queue_of_disagreements_is_settled_by_keyboard_alone(notebook, lab):
    path, oracle = lab[1] / "settle.db", load_demo().oracle
    opened = notebook("settle.ipynb", CELL.format(journal=path.name))
    page = opened.page
    page.locator(".jp-Notebook").focus()
    page.keyboard.press("Control+Enter")
    opened.wait_ready()
    control = page.locator("[data-command='settle']")
    control.wait_for()
    page.wait_for_function("document.querySelector('[data-command=settle]').textContent.includes('(7)')")
    assert "Krippendorff" in page.locator(".baal-summary").text_content()
    for _ in range(60):
        if page.evaluate("document.activeElement.closest('.baal-tile') !== null"):
            break
        page.keyboard.press("Tab")
    assert page.evaluate(HERE), page.evaluate("document.activeElement.outerHTML.slice(0, 300)")
    page.keyboard.press(",")
    page.wait_for_function("document.querySelectorAll('.baal-tile').length === 7")
    page.wait_for_selector(".baal-said:visible")
    assert page.evaluate(HERE)
    page.keyboard.press("?")
    assert "settle what people disagree on" in page.locator(".baal-sheet").text_content()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className").startswith("baal-tile")

    said = page.locator(".baal-said")
    page.wait_for_function("document.querySelector('.baal-status').textContent.includes('7 to settle')")
    first = page.evaluate("document.activeElement.ariaLabel")
    assert "1 says T-shirt, 1 says Trouser" in first  # who are divided evenly come first
    assert said.locator("b").count() == 0
    assert "Suggested" in said.text_content()  # by the errors of three people on 30 images
    assert violations(page) == []
    assert sticks_out(page) == []
    assert small_targets(page) == []
    page.keyboard.press("s")
    page.wait_for_function("document.querySelector('.baal-status').textContent.startsWith('Left for later')")
    page.keyboard.press("u")  # taken back, and left once more
    page.wait_for_function("document.querySelector('.baal-status').textContent.startsWith('Open again')")
    page.keyboard.press("s")
    assert "<b>eve</b>" in said.text_content()  # plain text, whatever it is
    page.keyboard.press("Enter")
    page.keyboard.press("y")
    opened.wait_saved()
    page.wait_for_function("document.querySelector('[data-command=settle]').textContent.includes('Back to new')")
    page.wait_for_function("document.querySelectorAll('.baal-tile[data-state=saved]').length === 3")
    page.keyboard.press("u")
    page.wait_for_function("document.querySelectorAll('.baal-tile[data-state=saved]').length === 2")
    page.keyboard.press("0")
    page.keyboard.press("g")
    for theme in THEMES:
        set_theme(opened, theme)
        page.wait_for_timeout(500)  # colours fade over
        page.keyboard.press("ArrowRight")
        assert violations(page) == []
        for name, width in (("wide", 1400), ("narrow", 620)):
            page.set_viewport_size({"width": width, "height": 1100})
            page.wait_for_timeout(300)
            assert sticks_out(page) == []
            assert small_targets(page) == []
            for view in ("card", "grid"):
                opened.look(f"disagreements-{view}-{theme.split()[1].lower()}-{name}")
                page.keyboard.press("g")
                page.wait_for_timeout(300)
    page.keyboard.press("g")
    for _ in range(5):  # four that are left, then on to new images
        page.keyboard.press("Enter")
    opened.wait_saved()
    page.wait_for_function("document.querySelector('[data-command=settle]').textContent.includes('(1)')")
    assert page.evaluate(HERE)

    journal = Journal(path)
    state = fold(journal.events())
    journal.close()
    decided = {item: state.labels[item] for item in state.reviewed}
    assert decided == {item: CLASSES[oracle[item]] for item in range(6)} | {1: "Ankle boot"}
