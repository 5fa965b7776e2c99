"""Makes the pictures of the README from the running product: python docs/pictures.py

Runs the browser tests that look at it, which leave pictures in `screenshots/`, and keeps some of them here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
KEPT = ["labeller-light-wide", "labeller-dark-wide", "labeller-dark-narrow", "why", "look-again", "keys", "broken"]


def main() -> None:
    if "--kept" not in sys.argv:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "browser", "tests/browser/test_looks.py"]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
    for name in KEPT:
        with Image.open(ROOT / "screenshots" / f"{name}.png") as picture:
            target = ROOT / "docs" / "images" / f"{name}.png"
            picture.convert("RGB").save(target, optimize=True)


if __name__ == "__main__":
    main()
