import importlib.util
import os
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def check():
    spec = importlib.util.spec_from_file_location("check", ROOT / "binder" / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(path, source):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    return path


def test_the_environment_has_what_the_package_needs(check):
    assert check.missing_requirements() == []


def test_what_the_environment_lacks_is_told(check, tmp_path):
    told = (ROOT / "binder" / "environment.yml").read_text()
    (tmp_path / "environment.yml").write_text(told.replace("anywidget>=", "otherwidget>=").replace("6\n", "5\n", 1))
    check.BINDER = tmp_path
    assert len(check.missing_requirements()) == 2


def test_the_scripts_can_be_executed():
    for name in ("postBuild", "start"):
        path = ROOT / "binder" / name
        assert os.access(path, os.X_OK)
        assert path.read_text().startswith("#!/usr/bin/env bash\n")


def test_a_notebook_that_wants_the_network_fails(check, tmp_path):
    path = written(tmp_path / "out.ipynb", "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)")
    with pytest.raises(CellExecutionError, match="nothing may need the network"):
        check.run(path)


def test_the_memory_of_a_notebook_is_measured(check, tmp_path):
    source = "import time; held = bytearray(300 * 2**20); held[::4096] = b'1' * (300 * 256); time.sleep(1)"
    assert 300 < check.run(written(tmp_path / "large.ipynb", source))[1] < 600
