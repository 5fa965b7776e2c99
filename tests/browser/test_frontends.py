"""Beyond JupyterLab: Notebook 7 and Voila show the same widget, and a notebook without a kernel says what it was."""

import json
import re
import shutil
import sys

import nbformat
import pytest

from tests.browser.conftest import TOKEN, free_port
from tests.browser.test_labelling import SESSION, labels_on_disk

pytestmark = pytest.mark.browser


def write_notebook(path, journal):
    cell = nbformat.v4.new_code_cell(SESSION.format(journal=journal, n=24))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)


def label_three(page):
    page.wait_for_selector(".baal-widget[data-ready='true']", timeout=120_000)
    page.wait_for_selector(".js-plotly-plot")
    page.locator(".baal-tile").first.click()
    for key in ("1", "2", "s"):
        page.keyboard.press(key)
    cells = page.locator(".jp-Cell").count()
    for key in ("b", "x", "d", "d"):  # elsewhere they insert, cut and delete cells
        page.keyboard.press(key)
    page.wait_for_selector(".baal-widget[data-pending='0']")
    assert page.locator(".baal-tile .baal-answer").all_text_contents()[:3] == ["T-shirt", "Trouser", "skipped"]
    assert page.locator(".jp-Cell").count() == cells  # "b" inserted none


def test_notebook_7_shows_it(page, lab):
    address, root, _ = lab
    write_notebook(root / "seven.ipynb", "seven.db")
    page.goto(f"{address}/notebooks/seven.ipynb?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    prompt = page.locator(".jp-InputPrompt").first
    for _ in range(10):  # the page takes no command until it is through with itself, and does not tell when
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_timeout(2000)
        if prompt.text_content().strip() != "[ ]:":
            break
    label_three(page)
    assert len(labels_on_disk(root / "seven.db").labels) == 2


def test_voila_shows_it(page, serve, tmp_path):
    write_notebook(tmp_path / "app.ipynb", "voila.db")
    command = [
        sys.executable,
        "-m",
        "voila",
        "app.ipynb",
        "--no-browser",
        f"--port={free_port()}",
        "--Voila.ip=127.0.0.1",
    ]
    page.goto(serve(command, tmp_path, re.compile(r"http://127\.0\.0\.1:\d+/")))
    label_three(page)
    assert len(labels_on_disk(tmp_path / "voila.db").labels) == 2


def test_a_saved_notebook_holds_no_image_and_no_label_and_reads_well_without_a_kernel(notebook, lab, page):
    opened = notebook(
        "saved.ipynb",
        SESSION.format(journal="saved.db", n=24).replace("data.classes", "['secret-a', 'secret-b', *data.classes[2:]]"),
    )
    opened.start_all()
    opened.wait_ready()
    opened.focus_tile(0)
    page.keyboard.press("1")
    opened.wait_saved()
    opened.command("docmanager:save")
    path = lab[1] / "saved.ipynb"
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    outputs = json.dumps([cell["outputs"] for cell in json.loads(path.read_text())["cells"]])
    assert "Run this cell to label" in outputs
    for secret in ("secret-a", "image/", "base64"):
        assert secret not in outputs
    assert len(outputs) < 2_000

    # another server's reader: no kernel has the widget any more
    shutil.copy(path, lab[1] / "copy.ipynb")
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => true)")
    page.goto(f"{lab[0]}/lab/tree/copy.ipynb?token={TOKEN}&reset")
    page.wait_for_selector(".jp-OutputArea-output")
    page.wait_for_function("document.querySelector('.jp-OutputArea').textContent.trim().length > 0")
    print("\nWithout its kernel it reads:", page.locator(".jp-OutputArea").first.text_content())
