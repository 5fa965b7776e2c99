"""Light and dark, wide and narrow. The pictures land in `screenshots/`, for eyes; what a program can judge is here."""

import pytest

pytestmark = pytest.mark.browser

CELL = """
import numpy as np
from baal_widgets import Labeller, LabellingSession, Training, load_demo
data = load_demo()
session = LabellingSession(
    data.pool, data.model(), data.classes, test_set=data.test, journal=None, budget=400, annotator="oracle",
    training=Training(max_steps=150),
)
rng = np.random.default_rng(3)
told = [int(rng.integers(10)) if rng.random() < 0.08 else y for y in data.oracle]  # a hand that slips
session.simulate(told, rounds=4)
Labeller(session, oracle=data.oracle)
"""
BROKEN = """
from baal_widgets import LabelGrid, load_demo
data = load_demo()

class Files:
    reasons = {1: "scan-0012.png is cut short", 4: "huge.tif has 60000 x 40000 pixels, more than 100,000,000"}
    def __len__(self): return 8
    def __getitem__(self, place):
        if place in self.reasons: raise ValueError(self.reasons[place])
        return data.pool[place][0]

LabelGrid(Files(), data.classes)
"""
THEMES = ("JupyterLab Light", "JupyterLab Dark")


def set_theme(opened, theme):
    opened.command("apputils:change-theme", f"{{theme: '{theme}'}}")
    light = str(theme.endswith("Light")).lower()
    opened.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")


def sticks_out(page):
    """What is wider than the widget."""
    return page.evaluate(
        "[...document.querySelectorAll('.baal-widget *')].filter(e => e.checkVisibility() && "
        "!e.closest('.baal-history, .baal-viewport') && e.getBoundingClientRect().right > "
        "document.querySelector('.baal-widget').getBoundingClientRect().right + 4).map(e => e.className)"
    )


def small_targets(page):
    """Controls of less than 24 pixels a side."""
    return page.evaluate(
        "[...document.querySelectorAll('.baal-widget :is(button, select, input, .baal-tile, label)')]"
        ".filter(e => e.checkVisibility() && !e.closest('label:not(:scope)')).filter(e => { "
        "const r = e.getBoundingClientRect(); return r.width < 23.5 || r.height < 23.5; }).map(e => e.className)"
    )


def test_it_fits_and_reads_in_both_themes_wide_and_narrow(notebook):
    opened = notebook("looks.ipynb", CELL)
    page = opened.page
    opened.start_all()
    opened.wait_ready(240)
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length === 4")
    # the twin that chooses at random catches up beside it
    page.wait_for_function(
        "document.querySelector('.js-plotly-plot').data.some(t => t.name === 'random choice' && t.x.length > 3)",
        timeout=120_000,
    )
    opened.command("application:toggle-left-area")
    page.set_viewport_size({"width": 1500, "height": 1700})
    opened.focus_tile(2)
    for key in ("1", "4", "s", "f", "7", "d"):
        page.keyboard.press(key)
    opened.wait_saved()
    for theme in THEMES:
        set_theme(opened, theme)
        dark = theme.endswith("Dark")
        page.wait_for_function(  # the figures follow the theme
            "dark => [...document.querySelectorAll('.js-plotly-plot')].length === 4 && "
            "[...document.querySelectorAll('.js-plotly-plot')].every(p => "
            "(p.layout.font.color === '#E6E9EF') === dark)",
            arg=dark,
        )
        for name, width in (("wide", 1500), ("narrow", 620)):
            page.set_viewport_size({"width": width, "height": 1700})
            page.wait_for_timeout(1200)  # plotly redraws after a pause of its own
            opened.look(f"labeller-{'dark' if dark else 'light'}-{name}")
            assert sticks_out(page) == []
            assert small_targets(page) == []

    # the single image with what the model knows of it
    set_theme(opened, THEMES[0])
    page.set_viewport_size({"width": 1400, "height": 1100})
    opened.focus_tile(10)
    page.keyboard.press("g")
    page.keyboard.press("w")
    page.wait_for_selector(".baal-why .baal-near img")
    opened.look("why")
    assert sticks_out(page) == []

    # the labels that the model disputes
    page.keyboard.press("w")
    if page.locator("[data-command='again']").is_visible():
        page.keyboard.press("l")
        page.wait_for_function("document.querySelector('.baal-claim').textContent.startsWith('You said')")
        opened.look("look-again")
    page.keyboard.press("?")
    opened.look("keys")
    page.keyboard.press("Escape")
    page.keyboard.press("g")


def test_an_image_that_cannot_be_read_is_a_tile_with_the_reason(notebook):
    opened = notebook("broken.ipynb", BROKEN)
    page = opened.page
    opened.start_all()
    opened.wait_ready()
    opened.focus_tile(1)
    tile = page.locator(".baal-tile").nth(1)
    assert "scan-0012.png is cut short" in tile.text_content()
    assert "cannot be shown" in tile.get_attribute("aria-label")
    opened.look("broken")
    page.keyboard.press("g")
    assert "cut short" in page.locator(".baal-reason").text_content()
    page.keyboard.press("s")
    opened.wait_saved()


def test_colours_are_the_systems_own_where_it_forces_them(chromium, notebook):
    opened = notebook("forced.ipynb", BROKEN)
    page = opened.page
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    opened.start_all()
    opened.wait_ready()
    opened.focus_tile(0)
    page.keyboard.press("1")
    opened.wait_saved()
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    looks = page.evaluate(
        "[getComputedStyle(document.querySelector('.baal-answer'))].map(s => [s.color, s.backgroundColor])[0]"
    )
    assert looks[0] != looks[1]
    moves = "e => getComputedStyle(e).transitionDuration !== '0s' || getComputedStyle(e).animationName !== 'none'"
    assert page.evaluate(f"[...document.querySelectorAll('.baal-widget *')].filter({moves}).length") == 0
    opened.look("forced-colours")
