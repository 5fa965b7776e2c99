"""The commands that open JupyterLab, as a user types them."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser

JUPYTER = ["--no-browser", "--jupyter", "--allow-root", "--ServerApp.ip=127.0.0.1", "--expose-app-in-browser"]


@pytest.fixture
def lab_of(page, tmp_path, serve):
    """`lab_of(*arguments)` runs `baal-widgets ...`, opens the address it prints and runs all cells."""

    def run(*arguments):
        command = [sys.executable, "-m", "baal_widgets.cli", *arguments, "--dir", str(tmp_path), *JUPYTER]
        address = serve(command, tmp_path, re.compile(r"http://127\.0\.0\.1:\d+/lab\S+"))
        page.goto(address)
        page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel")
        page.evaluate("{ window.jupyterapp.commands.execute('notebook:run-all-cells'); true }")
        page.wait_for_selector(".baal-widget[data-ready='true']", timeout=120_000)
        return page

    return run


def test_demo_opens_the_labelling_notebook(lab_of, tmp_path):
    page = lab_of("demo")
    assert page.locator(".baal-tile").count() == 24
    assert (tmp_path / "labels.db").exists()


def test_label_opens_a_folder_of_ones_own(lab_of, tmp_path):
    images = tmp_path / "my pets"
    images.mkdir()
    rng = np.random.default_rng(0)
    for place in range(5):
        noise = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(images / f"<b>{place}.jpg")
    (images / "broken.png").write_bytes(b"no image")
    page = lab_of("label", str(images), "--classes", "cat,<img src=x onerror=alert(1)>")
    assert page.locator(".baal-tile").count() == 5
    assert page.locator(".baal-class .baal-name").all_text_contents()[1] == "<img src=x onerror=alert(1)>"
    page.locator(".baal-tile").first.click()
    page.keyboard.press("2")
    page.wait_for_selector(".baal-tile[data-state='saved']")
    page.keyboard.press("r")
    page.wait_for_function("document.querySelector('.baal-loss').textContent.includes('round 1')", timeout=120_000)
    page.screenshot(path=tmp_path / "folder.png")
