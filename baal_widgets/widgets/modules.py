"""The ES modules of a widget, joined into the one self-contained module that anywidget loads."""

from __future__ import annotations

import re
from importlib.resources import files

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./[\w.]+";\n', re.MULTILINE)


def join_modules(*names: str) -> str:
    """The named files of `static/`, one after another, without the imports that tie them together.

    List what is imported before what imports it.
    """
    folder = files("baal_widgets.widgets") / "static"
    return "\n".join(_IMPORT.sub("", (folder / name).read_text(encoding="utf-8")) for name in names)


def read_static(name: str) -> str:
    return (files("baal_widgets.widgets") / "static" / name).read_text(encoding="utf-8")
