"""The table of what Baal's documents name is true: each name is there, and so is the test that shows it."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in (ROOT / "notebooks" / "features.md").read_text().splitlines()
    if line.startswith("| ") and "---" not in line and not line.startswith("| feature |")
]


def found(path):
    """The object of a dotted name: a module, or attributes of one."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            value = getattr(value, name)
        return value
    raise AssertionError(path)


def test_the_table_is_long():
    assert len(ROWS) > 50


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_feature_is_where_the_table_says(row):
    _, _, where, shown = row
    assert found(where.strip("`")) is not None
    path, _, name = shown.strip("`").partition("::")
    tree = ast.parse((ROOT / path).read_text())
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert (name in tests) if name else any(re.match("test_", one) for one in tests)
