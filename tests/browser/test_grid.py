"""The grid alone in JupyterLab: keys, clicks, undo, the notebook's own shortcuts, both themes."""

import pytest

pytestmark = pytest.mark.browser

GRID = """
from baal_widgets import LabelGrid, load_demo
data = load_demo()
told = []
grid = LabelGrid([data.pool[i][0] for i in range(24)], data.classes, on_label=lambda i, name: told.append((i, name)))
grid
"""


def test_keys_clicks_and_undo_label_images(notebook):
    lab = notebook("grid.ipynb", GRID)
    lab.start_all()
    lab.wait_ready(30)
    lab.focus_tile(0)
    for key in ("1", "2", "s", "0"):
        lab.page.keyboard.press(key)
    lab.wait_saved()
    assert lab.answers()[:5] == ["T-shirt", "Trouser", "skipped", "Ankle boot", ""]
    lab.page.locator(".baal-tile").nth(10).click()
    lab.page.get_by_role("button", name="Bag").click()
    lab.page.keyboard.press("u")
    lab.wait_saved()
    lab.page.wait_for_function("document.querySelectorAll('.baal-answer')[10].textContent === ''")
    lab.page.keyboard.press("Shift+U")
    lab.page.wait_for_function("document.querySelectorAll('.baal-answer')[10].textContent === 'Bag'")
    lab.look("grid")
