"""The grid alone in JupyterLab: keys, clicks, selections, the single image, classes, several labels, hostile texts."""

import pytest

pytestmark = pytest.mark.browser

GRID = """
from baal_widgets import LabelGrid, load_demo
data = load_demo()
told = []
grid = LabelGrid(
    [data.pool[i][0] for i in range({n})], {classes}, on_label=lambda i, name: told.append((i, name)){more}
)
grid
"""


@pytest.fixture
def grid(notebook):
    """`grid(n, classes, more)` shows a grid of n images."""

    def show(n=24, classes="data.classes", more=""):
        opened = notebook("grid.ipynb", GRID.format(n=n, classes=classes, more=more))
        opened.start_all()
        opened.wait_ready(60)
        opened.focus_tile(0)
        return opened

    return show


def selected(page):
    return page.evaluate(
        "[...document.querySelectorAll('.baal-tile')].flatMap((t, i) => t.ariaSelected === 'true' ? [i] : [])"
    )


def wait_answer(page, place, text):
    page.wait_for_function(
        "([place, text]) => document.querySelectorAll('.baal-tile .baal-answer')[place].textContent === text",
        arg=[place, text],
    )


def test_keys_clicks_and_undo_label_images(grid):
    lab = grid()
    for key in ("1", "2", "s", "0", "d"):
        lab.page.keyboard.press(key)
    lab.wait_saved()
    assert lab.answers()[:6] == ["T-shirt", "Trouser", "skipped", "Ankle boot", "unsure", ""]
    lab.page.locator(".baal-tile").nth(10).click()
    lab.page.locator(".baal-class", has_text="Bag").click()
    wait_answer(lab.page, 10, "Bag")
    lab.page.keyboard.press("u")
    wait_answer(lab.page, 10, "")
    lab.page.keyboard.press("Shift+U")
    wait_answer(lab.page, 10, "Bag")
    lab.look("grid")


def test_what_is_selected_is_answered_and_taken_back_together(grid):
    lab = grid()
    page = lab.page
    page.locator(".baal-tile").nth(2).click()
    page.locator(".baal-tile").nth(5).click(modifiers=["Shift"])
    page.locator(".baal-tile").nth(9).click(modifiers=["Control"])
    assert selected(page) == [2, 3, 4, 5, 9]
    page.keyboard.press("3")
    lab.wait_saved()
    assert [i for i, answer in enumerate(lab.answers()) if answer] == [2, 3, 4, 5, 9]
    assert selected(page) == []
    page.keyboard.press("Control+z")
    wait_answer(page, 9, "")
    assert lab.answers() == [""] * 24

    # by keys
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert selected(page) == [0, 1, 2]
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    page.keyboard.press(" ")
    assert selected(page) == [23]
    page.keyboard.press("Control+a")
    assert len(selected(page)) == 24

    # by a frame drawn across the first two tiles
    page.keyboard.press("Escape")
    first, second = (page.locator(".baal-tile").nth(i).bounding_box() for i in (0, 1))
    page.mouse.move(first["x"] + 20, first["y"] + 20)
    page.mouse.down()
    page.mouse.move(second["x"] + 30, second["y"] + 40, steps=5)
    page.mouse.up()
    assert selected(page) == [0, 1]


def test_one_image_at_a_time_with_zoom_and_contrast(grid):
    lab = grid()
    page = lab.page
    page.keyboard.press("g")
    page.wait_for_selector(".baal-card:visible img")
    page.keyboard.press("2")
    page.wait_for_function("document.querySelector('.baal-card').ariaLabel.startsWith('Image 2 of 24')")
    assert page.evaluate("getComputedStyle(document.querySelector('.baal-viewport img')).imageRendering") == "pixelated"
    zoom = "document.querySelector('.baal-viewport').dataset.zoom"
    page.keyboard.press("+")
    assert float(page.evaluate(zoom)) == 1.5
    page.keyboard.press("c")
    page.wait_for_selector(".baal-badge:visible")
    assert "display only" in page.locator(".baal-badge").text_content()
    assert "contrast" in page.evaluate("getComputedStyle(document.querySelector('.baal-viewport img')).filter")
    page.keyboard.press("ArrowRight")
    assert float(page.evaluate(zoom)) == 1
    page.keyboard.press("g")
    lab.wait_saved()
    assert lab.answers()[:2] == ["Trouser", ""]
    for _ in range(4):
        page.keyboard.press("c")
    page.wait_for_selector(".baal-badge", state="hidden")


def test_marks_and_a_change_of_mind(grid):
    lab = grid()
    page = lab.page
    page.keyboard.press("f")
    page.keyboard.press("n")
    page.keyboard.type("1 <b>sleeve</b>")  # digits are text here
    page.keyboard.press("Enter")
    wait_answer(page, 0, "⚑ ✎ ")
    page.keyboard.press("1")
    page.keyboard.press("2")
    lab.wait_saved()
    page.locator(".baal-past").nth(1).click()  # the older of the two
    page.keyboard.press("5")
    wait_answer(page, 0, "⚑ ✎ Coat")


def test_classes_are_found_added_and_renamed(grid):
    lab = grid(classes="[f'kind {i:02}' for i in range(30)]")
    page = lab.page
    assert page.locator(".baal-class").count() == 24
    assert page.locator(".baal-class .baal-key").all_text_contents()[9:12] == ["0", "A", "B"]
    page.keyboard.press("b")
    page.keyboard.press("/")
    page.keyboard.type("29")
    page.keyboard.press("Enter")
    lab.wait_saved()
    assert lab.answers()[:2] == ["kind 11", "kind 29"]
    page.keyboard.press("/")
    assert page.locator(".baal-option").first.text_content() == "kind 29"  # the last one used
    page.keyboard.type("<i>new</i>")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.baal-bar').textContent.includes('31 classes')")
    page.keyboard.press("/")
    page.keyboard.type("new")
    page.keyboard.press("Enter")
    wait_answer(page, 2, "<i>new</i>")
    page.locator(".baal-class").nth(11).focus()
    page.keyboard.press("F2")
    page.keyboard.type("twelfth")
    page.keyboard.press("Enter")
    wait_answer(page, 0, "twelfth")


def test_a_class_is_merged_into_another_once_that_is_confirmed(grid):
    lab = grid()
    page = lab.page
    for key in ("1", "2", "3"):
        page.keyboard.press(key)
    lab.wait_saved()
    assert lab.answers()[:3] == ["T-shirt", "Trouser", "Pullover"]
    for keys in (["Enter"], ["Escape"], ["ArrowDown", "Enter"]):
        page.locator(".baal-class").nth(1).focus()
        page.keyboard.press("F2")
        page.keyboard.type("T-shirt")
        page.keyboard.press("Enter")
        page.wait_for_selector(".baal-option")
        assert page.locator(".baal-option").all_text_contents() == [
            "No, keep both",
            "Yes, 1 label of Trouser become T-shirt",
        ]
        assert lab.answers()[:3] == ["T-shirt", "Trouser", "Pullover"]
        for key in keys:
            page.keyboard.press(key)
    wait_answer(page, 1, "T-shirt")
    assert lab.answers()[:3] == ["T-shirt", "T-shirt", "Pullover"]
    assert "Trouser" not in page.locator(".baal-bar").text_content()
    page.locator(".baal-tile").nth(4).click()
    page.keyboard.press("3")
    lab.wait_saved()
    assert page.locator(".baal-class").nth(2).text_content().startswith("Dress")


def test_several_classes_may_hold_at_once(grid):
    lab = grid(more=", multi_label=True")
    page = lab.page
    for key in ("1", "3", "4", "3"):
        page.keyboard.press(key)
    lab.wait_saved()
    assert lab.answers()[:2] == ["T-shirt, Dress", ""]
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # nothing of it
    page.keyboard.press("2")
    lab.wait_saved()
    assert lab.answers()[:3] == ["T-shirt, Dress", "none of these", "Trouser"]


def test_keys_of_ones_own_are_shown_and_work(grid):
    lab = grid(classes="['cat', 'dog']", more=", keys={'cat': 'x', 'skip': 'q'}")
    page = lab.page
    for key in ("x", "q", "1"):
        page.keyboard.press(key)
    lab.wait_saved()
    assert lab.answers()[:3] == ["cat", "skipped", "dog"]
    assert page.locator(".baal-class .baal-key").all_text_contents() == ["X", "1"]
    page.keyboard.press("?")
    assert "Qskip" in page.locator(".baal-sheet").text_content()
    page.keyboard.press("Escape")
    page.wait_for_selector(".baal-sheet", state="hidden")


HOSTILE = """
attacks = [
    "<script>window.canary=1</script>", "<img src=x onerror=window.canary=1>", "<svg onload=window.canary=1>",
    "javascript:window.canary=1", "'><script>window.canary=1</script>", '" onmouseover="window.canary=1',
    "${{window.canary=1}}", "{{{{window.canary=1}}}}", "</style><script>window.canary=1</script>",
    "<iframe srcdoc='<script>parent.canary=1</script>'>", "<a href='javascript:window.canary=1'>x</a>",
    "<details open ontoggle=window.canary=1>", "<b data-commandlinker-command='notebook:run-all-cells'>x</b>",
    "\\u202etxt.exe", "\\x00null", "<math><mi//xlink:href='data:x,<script>window.canary=1</script>'>",
    "<style>@import'data:,*{{x:expression(window.canary=1)}}'</style>", "<input autofocus onfocus=window.canary=1>",
    "<video><source onerror=window.canary=1>", "<body onload=window.canary=1>",
]
names = [f"{{a}}{{i}}" for i in range(10) for a in attacks]
"""


def test_no_text_is_ever_run_as_markup_or_script(notebook, tmp_path):
    opened = notebook(
        "hostile.ipynb",
        HOSTILE.format() + "from baal_widgets import LabelGrid, load_demo\n"
        "data = load_demo()\n"
        "class Broken(list):\n"
        "    def __getitem__(self, i):\n"
        "        if i % 2: raise ValueError(names[i])\n"
        "        return data.pool[i][0]\n"
        "def tell(place, name):\n    raise RuntimeError(str(name))\n"
        "grid = LabelGrid(Broken(range(200)), names, on_label=tell, keys={names[0]: '<', names[1]: '\"'})\n"
        "grid",
    )
    page = opened.page
    opened.start_all()
    opened.wait_ready(60)
    opened.focus_tile(0)
    texts = page.evaluate("[...document.querySelectorAll('.baal-class .baal-name')].map(e => e.textContent)")
    assert len(set(texts)) == 24
    for key in ("<", '"', "1", "2", "?", "Escape", "h", "w"):
        page.keyboard.press(key)
    opened.wait_saved()
    for text in (texts[1], texts[4], texts[9]):
        page.keyboard.press("n")
        page.keyboard.insert_text(text)
        page.keyboard.press("Enter")
        page.keyboard.press("/")
        page.keyboard.insert_text(text)
        page.keyboard.press("Enter")
    page.keyboard.press("/")
    page.keyboard.insert_text("<img src=y onerror=window.canary=2>")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.baal-bar').textContent.includes('201 classes')")
    page.keyboard.press("g")
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    for name in ("Smaller", "Larger"):
        page.get_by_role("button", name=name).hover()
    page.locator(".baal-past").first.hover()
    opened.wait_saved()
    assert page.locator(".baal-error").text_content()
    assert page.evaluate("window.canary") is None
    inside = "document.querySelectorAll('.baal-widget :is(script, iframe, svg, style, a, video, details, math)').length"
    assert page.evaluate(inside) == 0
    images = page.evaluate(
        "[...document.querySelectorAll('.baal-widget img')].map(e => e.getAttribute('src') ?? 'none')"
    )
    assert all(address.startswith(("blob:", "data:image/png;base64,", "data:image/jpeg;base64,")) for address in images)
