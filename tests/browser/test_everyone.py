"""For everyone: what axe finds, and a whole session without a mouse."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from baal_widgets.demo import load_demo

pytestmark = pytest.mark.browser

CELL = """
from baal_widgets import Labeller, LabellingSession, Training, load_demo
data = load_demo()
session = LabellingSession(
    data.pool, data.model(), data.classes, test_set=data.test, journal="everyone.db", training=Training(max_steps=60)
)
Labeller(session)
"""


def violations(page):
    """What axe finds in the widget, for WCAG 2.2 A and AA and its best practices."""
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    told = Axe().run(page, context=".baal-widget", options={"runOnly": rules}).response
    assert len(told["passes"]) > 15
    return [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in told["violations"]]


@pytest.fixture
def labeller(notebook):
    opened = notebook("everyone.ipynb", CELL)
    opened.start_all()
    opened.wait_ready()
    opened.focus_tile(0)
    return opened


def test_axe_finds_nothing_in_either_theme(labeller):
    page = labeller.page
    for key in ("1", "2", "s", "d", "f"):
        page.keyboard.press(key)
    labeller.wait_saved()
    page.keyboard.press("r")
    page.wait_for_selector(".baal-widget[data-generation='1']", timeout=120_000)
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        labeller.command("apputils:change-theme", f"{{theme: '{theme}'}}")
        light = str(theme.endswith("Light")).lower()
        page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")
        page.wait_for_timeout(500)  # colours fade over
        labeller.focus_tile(6)
        page.keyboard.press(" ")
        assert violations(page) == []
        for keys in (("Escape", "w"), ("?",), ("Escape", "/"), ("Escape", "g"), ("c", "h")):
            for key in keys:
                page.keyboard.press(key)
            page.wait_for_timeout(300)
            assert violations(page) == [], keys
        for key in ("g", "w", "c", "c", "c", "c"):
            page.keyboard.press(key)


def test_a_whole_session_by_keyboard_alone(notebook, lab):
    opened = notebook("by-key.ipynb", CELL.replace("everyone.db", "by-key.db"))
    page = opened.page
    page.locator(".jp-Notebook").focus()
    page.keyboard.press("Control+Enter")
    opened.wait_ready()
    inside = "document.activeElement.closest('.baal-tile') !== null"
    for _ in range(60):
        if page.evaluate(inside):
            break
        page.keyboard.press("Tab")
    assert page.evaluate(inside)
    classes = load_demo().classes
    for key in ("1", "2", "3", "4"):
        page.keyboard.press(key)
    page.keyboard.press("u")
    page.wait_for_function("document.querySelectorAll('.baal-tile[data-state=saved]').length === 3")
    page.keyboard.press("r")
    page.wait_for_selector(".baal-widget[data-generation='1']", timeout=120_000)
    page.locator(".baal-select").focus()  # a list that has the keyboard keeps it, and its letters
    for key in ("a", "f", "ArrowDown", "1"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.className") == "baal-select"
    assert page.locator(".baal-select").input_value() != "0"
    page.locator(".baal-select").select_option("0")
    assert page.evaluate("document.querySelectorAll('.baal-tile[data-state=saved]').length") == 3
    page.keyboard.press("Shift+Tab")
    for _ in range(20):
        if page.evaluate("document.activeElement.dataset.command === 'export'"):
            break
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.baal-status').textContent.includes('3 labels written')")
    lines = (lab[1] / "by-key.csv").read_text().splitlines()
    assert sorted(line.split(",")[2] for line in lines[1:]) == sorted(classes[:3])
    page.keyboard.press("Escape")
    assert not page.evaluate("document.querySelector('.baal-widget').contains(document.activeElement)")
