"""Make the API reference from the docstrings: `python docs/api.py [FOLDER]` writes HTML pages (extra `docs`)."""

from __future__ import annotations

import argparse
import pkgutil
from pathlib import Path

import pdoc

import baal_widgets

NOT_FOR_USERS = ("baal_widgets.journal.migrations", "baal_widgets.widgets.modules")


def modules() -> list[str]:
    """The names of all modules that users may look into."""
    walked = pkgutil.walk_packages(baal_widgets.__path__, "baal_widgets.")
    return ["baal_widgets", *(one.name for one in walked if not one.name.startswith(NOT_FOR_USERS))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("site"))
    folder = parser.parse_args().folder
    for name in baal_widgets.__all__:  # they are imported when first asked for, and a page lists what is there
        vars(baal_widgets)[name] = getattr(baal_widgets, name)
    pdoc.render.configure(docformat="markdown", footer_text=f"baal_widgets {baal_widgets.__version__}", math=True)
    pdoc.pdoc(*modules(), output_directory=folder)
    print(f"{len(modules())} modules: {folder / 'index.html'}")


if __name__ == "__main__":
    main()
