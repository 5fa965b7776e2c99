"""Hands never wait: not for the kernel, not for a large page, not for a large pool; and nothing they do is lost."""

import time

import pytest

from tests.browser.test_labelling import CLASSES, KEYS, SESSION, in_order, labels_on_disk

pytestmark = pytest.mark.browser

# Holds back all that the page sends, as if the wire were cut, until it is mended.
CUT = """() => {
  const send = WebSocket.prototype.send, held = [];
  window.held = held;
  WebSocket.prototype.send = function (data) { held.push([this, data]); };
  window.mend = () => {
    WebSocket.prototype.send = send;
    for (const [socket, data] of held.splice(0)) if (socket.readyState === 1) socket.send(data);
  };
}"""

# Notes which image lay under each key, and whether it could be seen.
NOTE = """() => {
  window.typed = [];
  window.addEventListener('keydown', (event) => {
    const card = event.target.closest('.baal-card'), image = card?.querySelector('img');
    if (!card) return;
    const seen = Boolean(image?.naturalWidth);
    if (/^[0-9]$/.test(event.key)) window.typed.push([Number(card.dataset.card), event.key, seen]);
  }, { capture: true });
}"""


def type_keys(page, n, start=0, pause=0.05):
    began = time.perf_counter()
    for place in range(n):
        page.keyboard.press(KEYS[7 * (start + place) % 10])
        time.sleep(max(0, began + (place + 1) * pause - time.perf_counter()))


def show_card(opened):
    opened.focus_tile(0)
    opened.page.keyboard.press("g")
    opened.page.wait_for_selector(".baal-card:visible img")


def hold_card(page):
    """Give the single image the keyboard, whatever else the notebook was about to do."""
    page.wait_for_function(
        "() => { const card = document.querySelector('.baal-card'); card?.focus(); "
        "return card === document.activeElement; }"
    )


def wait_prefetched(page):
    page.wait_for_function("document.querySelector('.baal-widget').dataset.ahead >= 150")


def test_from_key_to_next_image_nothing_goes_to_the_kernel(notebook, lab):
    opened = notebook("cut.ipynb", SESSION.format(journal="cut.db", n=24))
    page = opened.page
    opened.start_all()
    opened.wait_ready()
    show_card(opened)
    wait_prefetched(page)
    page.evaluate(NOTE)
    page.evaluate(CUT)
    type_keys(page, 100)  # four pages, with the wire cut
    typed = page.evaluate("window.typed")
    assert len({card for card, _, _ in typed}) == 100
    assert all(seen for _, _, seen in typed)
    assert labels_on_disk(lab[1] / "cut.db").labels == {}
    page.evaluate("window.mend()")
    opened.wait_saved()
    expected = [(card, CLASSES[KEYS.index(key)]) for card, key, _ in typed]
    assert in_order(lab[1] / "cut.db") == expected


def test_a_thousand_keys_idle_training_blocked_and_restarted(notebook, lab, kernel_settings):
    kernel_settings({"commsOverSubshells": "disabled"})  # a running cell blocks the widget: the hardest case
    path = lab[1] / "thousand.db"
    opened = notebook("thousand.ipynb", SESSION.format(journal=path.name, n=60), "import time; time.sleep(8)")
    page = opened.page
    run_cell = "{ window.jupyterapp.commands.execute('notebook:run-cell'); true }"
    page.evaluate(run_cell)
    opened.wait_ready()
    show_card(opened)
    wait_prefetched(page)
    page.evaluate(NOTE)
    type_keys(page, 300)

    page.keyboard.press("r")
    page.wait_for_selector(".baal-meter:visible")
    type_keys(page, 300, 300)

    opened.wait_saved()
    wait_prefetched(page)
    opened.command("notebook:move-cursor-down")
    page.evaluate(run_cell)  # blocked from here
    page.wait_for_function("document.querySelectorAll('.jp-InputPrompt')[1].textContent.includes('*')")
    hold_card(page)
    type_keys(page, 150, 600)
    opened.wait_saved()

    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart().then(() => true)")
    hold_card(page)
    type_keys(page, 50, 750)
    typed = page.evaluate("window.typed")
    assert page.evaluate("Number(document.querySelector('.baal-widget').dataset.pending)") == 50
    opened.command("notebook:move-cursor-up")
    page.evaluate(run_cell)
    page.wait_for_function("document.querySelector('.baal-widget')?.dataset.pending === '0'", timeout=90_000)
    opened.wait_ready()
    page.wait_for_selector(".js-plotly-plot")
    wait_prefetched(page)
    page.evaluate("window.typed = []")
    hold_card(page)
    type_keys(page, 200, 800)
    opened.wait_saved()

    typed += page.evaluate("window.typed")
    expected = [(card, CLASSES[KEYS.index(key)]) for card, key, _ in typed]
    blank = [place for place, (_, _, seen) in enumerate(typed) if not seen]
    print(f"\n{len(typed)} keys, before the image was decoded: {blank}")
    assert not blank
    assert (len(expected), len({card for card, _ in expected})) == (1000, 1000)
    assert in_order(path) == expected
    state = labels_on_disk(path)
    assert state.labels == dict(expected)
    assert state.round == 1


MANY = """
import numpy as np
from torch.utils.data import Dataset
from baal_widgets import LabelGrid, Labeller, LabellingSession
rng = np.random.default_rng(0)
pixels = rng.integers(0, 256, (400, 64, 64, 3), dtype=np.uint8)
"""


def test_a_page_of_400_images_is_usable_soon(notebook):
    opened = notebook("many.ipynb", MANY, "LabelGrid(pixels, ['cat', 'dog'])")
    page = opened.page
    page.evaluate("{ window.jupyterapp.commands.execute('notebook:run-cell-and-select-next'); true }")
    page.wait_for_function("document.querySelector('.jp-InputPrompt').textContent.includes('1')", timeout=60_000)
    page.evaluate(
        """{
          window.shown = {};
          const begun = performance.now();
          const watch = new MutationObserver(() => {
            const widget = document.querySelector('.baal-widget');
            if (widget) window.shown.display ??= performance.now() - begun;
            if (widget?.querySelector('.baal-tile img')) window.shown.first ??= performance.now() - begun;
            if (widget?.dataset.ready === 'true' && document.querySelectorAll('.baal-tile').length === 400) {
              window.shown.all = performance.now() - begun;
              watch.disconnect();
            }
          });
          watch.observe(document.body, { subtree: true, childList: true, attributes: true });
          window.jupyterapp.commands.execute('notebook:run-cell'); true
        }"""
    )
    page.wait_for_function("window.shown.all", timeout=60_000)
    shown = page.evaluate("window.shown")
    told = ", ".join(f"{name} after {ms:.0f} ms" for name, ms in shown.items())
    print(f"\n400 images of 64 x 64, from the cell's run: {told}")
    opened.focus_tile(399)
    page.keyboard.press("1")
    opened.wait_saved()
    assert opened.answers()[399] == "cat"


POOL = """
class Pool(Dataset):
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return pixels[i % 400].transpose(2, 0, 1).astype("float32") / 255
session = LabellingSession(Pool({n}), None, ["cat", "dog"], journal=None)
Labeller(session)
"""


def test_a_large_pool_costs_the_browser_no_more_than_a_small_one(notebook):
    told = {}
    for n in (1_000, 100_000):
        opened = notebook(f"pool-{n}.ipynb", MANY, POOL.format(n=n))
        page = opened.page
        received = []
        page.on("websocket", lambda socket, to=received: socket.on("framereceived", lambda data: to.append(len(data))))
        page.reload()
        page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel")
        opened.start_all()
        opened.wait_ready()
        opened.focus_tile(0)
        opened.page.keyboard.press("1")
        opened.wait_saved()
        wait_prefetched(page)
        nodes = page.evaluate("document.querySelectorAll('.baal-widget *').length")
        told[n] = nodes, sum(received)
    print(f"\nelements and bytes received, by pool: {told}")
    assert told[100_000][0] == told[1_000][0]
    assert told[100_000][1] < 1.2 * told[1_000][1]
