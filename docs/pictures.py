"""Makes the pictures of the README from the running product: python docs/pictures.py

Runs the browser tests that look at it, which leave pictures in `screenshots/`, and keeps some of them here; `--kept`
takes those that are there. `--study` makes the picture of the study alone, from its results.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from baal_widgets.simulation import plots, study

ROOT = Path(__file__).parents[1]
KEPT = ["labeller-light-wide", "labeller-dark-wide", "labeller-dark-narrow", "why", "look-again", "keys", "broken"]


def main() -> None:
    show_study()
    if "--study" in sys.argv:
        return
    if "--kept" not in sys.argv:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "browser", "tests/browser/test_looks.py"]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
    for name in KEPT:
        with Image.open(ROOT / "screenshots" / f"{name}.png") as picture:
            target = ROOT / "docs" / "images" / f"{name}.png"
            picture.convert("RGB").save(target, optimize=True)


def show_study() -> None:
    """The fate of every claim, on white."""
    target = ROOT / "docs" / "images" / "study.png"
    page_of = plots.forest(study.read()).to_html(include_plotlyjs=True, config={"staticPlot": True})
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 980, "height": 800})
        page.set_content(page_of)
        page.locator(".main-svg .legend text").first.wait_for()
        page.locator(".plotly-graph-div").screenshot(path=target)
        browser.close()
    with Image.open(target) as picture:
        picture.convert("RGB").save(target, optimize=True)


if __name__ == "__main__":
    main()
