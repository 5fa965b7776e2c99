"""Light and dark, wide and narrow. The pictures land in `screenshots/`, for eyes; what a program can judge is here."""

import pytest

pytestmark = pytest.mark.browser

CELL = """
from baal_widgets import Labeller, LabellingSession, Training, load_demo
data = load_demo()
session = LabellingSession(
    data.pool, data.model(), data.classes, test_set=data.test, journal=None, training=Training(max_steps=120)
)
session.simulate(data.oracle, rounds=3)
Labeller(session)
"""


def test_it_fits_and_reads_in_both_themes_wide_and_narrow(notebook):
    opened = notebook("looks.ipynb", CELL)
    page = opened.page
    opened.start_all()
    opened.wait_ready()
    page.wait_for_selector(".js-plotly-plot")
    opened.command("application:toggle-left-area")
    opened.focus_tile(2)
    for key in ("1", "4", "s", "7"):
        page.keyboard.press(key)
    opened.wait_saved()
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        opened.command("apputils:change-theme", f"{{theme: '{theme}'}}")
        dark = theme.endswith("Dark")
        page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(not dark).lower()}'")
        page.wait_for_function(  # the figures follow the theme
            "dark => [...document.querySelectorAll('.js-plotly-plot')].length === 2 && "
            "[...document.querySelectorAll('.js-plotly-plot')].every(p => "
            "(p.layout.template.layout.font.color === '#f2f5fa') === dark)",
            arg=dark,
        )
        for name, width in (("wide", 1500), ("narrow", 620)):
            page.set_viewport_size({"width": width, "height": 1250})
            page.wait_for_timeout(1200)  # plotly redraws after a pause of its own
            opened.look(f"labeller-{'dark' if dark else 'light'}-{name}")
            over = page.evaluate(
                "[...document.querySelectorAll('.baal-widget *')].filter(e => e.checkVisibility() && "
                "e.getBoundingClientRect().right > document.querySelector('.baal-widget').getBoundingClientRect().right"
                " + 4).map(e => e.className)"
            )
            assert over == []
            small = page.evaluate(
                "[...document.querySelectorAll('.baal-widget button')].filter(b => b.checkVisibility())"
                ".map(b => b.getBoundingClientRect()).filter(r => r.width < 24 || r.height < 24).length"
            )
            assert small == 0
