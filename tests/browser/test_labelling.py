"""A person in JupyterLab: the whole circle, fast typing, a busy kernel, a kernel that dies."""

import json
import sqlite3
import statistics
import time

import pytest

from baal_widgets.demo import load_demo
from baal_widgets.journal import Journal, fold

pytestmark = pytest.mark.browser

KEYS = "1234567890"
CLASSES = load_demo().classes
SESSION = """
from baal_widgets import Labeller, LabellingSession, load_demo
data = load_demo()
session = LabellingSession(
    data.pool, data.model(), data.classes, test_set=data.test, journal="{journal}", query_size={n}
)
Labeller(session)
"""

# Notes, in the page, when each key went down, when its handler was through and the page changed, when that, the name of
# the answer and the next image had been painted, and when a tile showed that its label is on disk.
WATCH = """() => {
  const root = document.querySelector('.baal-widget');
  window.moments = [];
  let moment = null;
  // first of all that waits for the frame to be through
  const through = (work) => requestAnimationFrame(() => scheduler.postTask(work, { priority: 'user-blocking' }));
  root.addEventListener('keydown', (event) => {
    moment = null;
    if (!/^[0-9]$/.test(event.key)) return;
    moment = { down: event.timeStamp };
    const now = moment, tile = root.querySelector('.baal-here');
    window.moments.push(now);
    if (!tile) return;
    const saves = new MutationObserver(() => {
      if (tile.dataset.state === 'saved') { now.saved = performance.now(); saves.disconnect(); }
    });
    saves.observe(tile, { attributes: true, attributeFilter: ['data-state'] });
    const names = new MutationObserver(() => {
      names.disconnect();
      through(() => { now.named = performance.now(); });
    });
    names.observe(tile.querySelector('.baal-answer'), { childList: true });
  }, { capture: true });
  root.addEventListener('keydown', () => {  // after the widget's own
    const now = moment;
    if (!now) return;
    now.changed = performance.now();
    through(() => { now.painted = performance.now(); });
    const image = root.querySelector('.baal-here img');
    image.decode().then(() => { now.next = performance.now(); });
  });
}"""


def labels_on_disk(path):
    journal = Journal(path)
    state = fold(journal.events())
    assert journal.verify() == state.seq
    journal.close()
    return state


def in_order(path):
    """The items and class names of the label events, in the order in which they were written."""
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT item, value FROM events WHERE kind = 'label' ORDER BY seq").fetchall()


def told(name, moments, what):
    times = sorted(moment[what] - moment["down"] for moment in moments)
    p95 = times[int(0.95 * (len(times) - 1))]
    print(
        f"\n{name}: median {statistics.median(times):.0f}, p95 {p95:.0f}, longest {times[-1]:.0f} ms, {len(times)} keys"
    )
    return statistics.median(times)


def type_labels(lab, n, pause):
    """Type n labels, `pause` seconds apart; the class names in the order typed."""
    names, start = [], time.perf_counter()
    for place in range(n):
        key = KEYS[(7 * place) % 10]
        names.append(CLASSES[KEYS.index(key)])
        lab.page.keyboard.press(key)
        time.sleep(max(0, start + (place + 1) * pause - time.perf_counter()))
    return names


def test_a_person_walks_the_whole_circle(page, lab, shipped_notebook):
    notebook = shipped_notebook("01_label_images.ipynb")
    notebook.start_all()
    notebook.wait_ready()
    labelled = "document.querySelectorAll('.baal-tile[data-state=saved]').length"

    # by keys, by clicks, skipped, taken back
    notebook.focus_tile(0)
    for key in "1234567890":
        page.keyboard.press(key)
    page.keyboard.press("s")
    page.locator(".baal-tile").nth(15).click()
    page.locator(".baal-class", has_text="Sneaker").click()
    notebook.wait_saved()
    assert notebook.answers()[:11] == [*CLASSES, "skipped"]
    assert notebook.answers()[15] == "Sneaker"
    page.keyboard.press("u")
    page.wait_for_function(f"{labelled} === 11")
    page.keyboard.press("Shift+U")
    page.wait_for_function(f"{labelled} === 12")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.activeElement.ariaLabel.startsWith('Image 15 of 24')")

    # retraining leaves the labelling usable, and both figures change
    before = notebook.plots()[:2]
    page.keyboard.press("r")
    page.wait_for_selector(".baal-meter:visible")
    for place in (11, 12, 13):
        page.locator(".baal-tile").nth(place).click()
        page.keyboard.press("3")
    page.wait_for_function(f"{labelled} === 15")
    page.wait_for_function("!document.querySelector('.baal-meter').checkVisibility()", timeout=180_000)
    page.wait_for_function("document.querySelector('.baal-loss').textContent.includes('round 1')")
    page.wait_for_function(
        "before => [...document.querySelectorAll('.js-plotly-plot')].slice(0, 2)"
        ".every((p, i) => JSON.stringify(p.data.map(t => [t.x, t.y])) !== before[i])",
        arg=before,
    )

    notebook.look("whole-circle")

    # what was under the hands is still there, until the page is turned
    items = page.evaluate("[...document.querySelectorAll('.baal-tile')].map(t => t.dataset.card)")
    assert len(items) == 24
    page.keyboard.press("Enter")  # some have no answer: it asks back
    page.wait_for_function("document.querySelector('.baal-status').textContent.includes('once more')")
    page.keyboard.press("Enter")
    page.wait_for_function("items => document.querySelector('.baal-tile').dataset.card !== items[0]", arg=items)
    notebook.focus_tile(0)
    page.keyboard.press("5")
    notebook.wait_saved()

    # a reload finds every label, and the disk has them all
    said = page.locator(".baal-summary").text_content()
    shown = notebook.answers()
    notebook.command("docmanager:save")
    notebook.open(reset=False)
    notebook.wait_ready()
    page.wait_for_function("said => document.querySelector('.baal-summary').textContent === said", arg=said)
    assert notebook.answers() == shown
    state = labels_on_disk(lab[1] / "labels.db")
    assert sorted(state.labels.values()) == sorted([*CLASSES, "Sneaker", *3 * ["Pullover"], "Coat"])
    assert len(state.skipped) == 1
    assert [row["n_labelled"] for row in state.history] == [11]

    # nothing of it lands in the notebook's file
    saved = (lab[1] / "01_label_images.ipynb").read_text()
    outputs = json.dumps([cell.get("outputs") for cell in json.loads(saved)["cells"]])
    assert "image/png" not in outputs
    assert "image/jpeg" not in outputs
    assert "widgets" not in json.loads(saved)["metadata"]


@pytest.mark.parametrize("busy", ["idle", "busy", "busy-without-subshells"])
def test_fast_typing_loses_and_reorders_nothing(notebook, lab, kernel_settings, busy):
    kernel_settings({"commsOverSubshells": "disabled" if busy.endswith("subshells") else "perCommTarget"})
    path = lab[1] / f"{busy}.db"
    opened = notebook(f"typing-{busy}.ipynb", SESSION.format(journal=path.name, n=100), "import time; time.sleep(12)")
    page = opened.page
    page.evaluate("{ window.jupyterapp.commands.execute('notebook:run-cell'); true }")
    opened.wait_ready()
    page.wait_for_selector(".js-plotly-plot")
    page.wait_for_function("document.querySelector('.baal-widget').dataset.ahead >= 150")
    opened.command("notebook:move-cursor-down")
    if busy != "idle":
        page.evaluate("{ window.jupyterapp.commands.execute('notebook:run-cell'); true }")
        page.wait_for_function("document.body.textContent.includes('[*]')")
    items = page.evaluate("[...document.querySelectorAll('.baal-tile')].map(t => Number(t.dataset.card))")
    page.wait_for_timeout(1500)  # a person looks first: what the cell set off is through by then
    opened.focus_tile(0)
    page.evaluate(WATCH)
    names = type_labels(opened, 100, 0.05)
    assert page.evaluate("Number(document.querySelector('.baal-widget').dataset.open)") == 0  # before any answer
    opened.wait_saved()
    assert in_order(path) == list(zip(items, names, strict=True))
    page.wait_for_function("window.moments.every((now) => now.saved && now.next && now.painted && now.named)")
    moments = page.evaluate("window.moments")
    assert len(moments) == 100
    told(f"key to change on the page, kernel {busy}", moments, "changed")
    assert told(f"key to change painted, kernel {busy}", moments, "painted") < 200
    told(f"key to the answer's name painted, kernel {busy}", moments, "named")
    told(f"key to next image decoded, kernel {busy}", moments, "next")
    told(f"key to disk, kernel {busy}", moments, "saved")


def test_answers_given_to_a_dead_kernel_are_saved_when_it_is_back(notebook, lab):
    path = lab[1] / "dead.db"
    opened = notebook("dead.ipynb", SESSION.format(journal=path.name, n=24))
    page = opened.page
    opened.start_all()
    opened.wait_ready()
    opened.focus_tile(0)
    page.keyboard.press("1")
    opened.wait_saved()
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart().then(() => true)")
    page.keyboard.press("2")
    page.keyboard.press("3")
    page.wait_for_function("document.querySelector('.baal-widget').dataset.pending === '2'")
    assert len(labels_on_disk(path).labels) == 1
    opened.start_all()
    page.wait_for_function("document.querySelectorAll('.baal-tile[data-state=saved]').length === 3", timeout=90_000)
    assert sorted(labels_on_disk(path).labels.values()) == ["Pullover", "T-shirt", "Trouser"]


def test_an_error_in_a_handler_is_shown(notebook):
    opened = notebook(
        "error.ipynb",
        "from baal_widgets import LabelGrid, load_demo\n"
        "data = load_demo()\n"
        "def fail(place, name):\n    raise RuntimeError('the <b>callback</b> failed')\n"
        "LabelGrid([data.pool[i][0] for i in range(3)], data.classes, on_label=fail)",
    )
    opened.start_all()
    opened.wait_ready()
    opened.focus_tile(0)
    opened.page.keyboard.press("1")
    error = opened.page.locator(".baal-error")
    error.wait_for()
    assert "RuntimeError: the <b>callback</b> failed" in error.text_content()
    opened.wait_saved()
    assert opened.answers()[0] == "T-shirt"  # the answer itself is kept


def test_plain_keys_stay_in_the_grid_and_escape_and_tab_leave_it(notebook):
    opened = notebook(
        "keys.ipynb",
        "from baal_widgets import LabelGrid, load_demo\n"
        "data = load_demo()\n"
        "LabelGrid([data.pool[i][0] for i in range(3)], data.classes)",
    )
    page = opened.page
    opened.start_all()
    opened.wait_ready()
    opened.focus_tile(0)
    cells = "document.querySelectorAll('.jp-Notebook .jp-Cell').length"
    n_cells = page.evaluate(cells)
    for key in ("a", "b", "d", "d", "m", "x", "Shift+M", "z", "q"):
        page.keyboard.press(key)
    assert page.evaluate(cells) == n_cells
    inside = "document.querySelector('.baal-widget').contains(document.activeElement)"
    for _ in range(12):  # at most the controls behind the grid
        page.keyboard.press("Tab")
    assert not page.evaluate(inside)
    opened.focus_tile(1)
    page.keyboard.press("Escape")
    assert not page.evaluate(inside)
    page.keyboard.press("b")  # the notebook's own again
    page.wait_for_function(f"{cells} === {n_cells + 1}")
