import subprocess
import sys
import zipfile

import pytest

import baal_widgets

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"IPython", "anywidget", "ipykernel", "ipywidgets", "jupyterlab", "traitlets"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
sys.meta_path.insert(0, Hidden())
"""


def run(source):
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", baal_widgets.__all__)
def test_every_promised_name_is_there(name):
    assert getattr(baal_widgets, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        baal_widgets.nothing  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    told = run("import sys, baal_widgets; print({'torch', 'plotly', 'ipywidgets', 'sqlalchemy'} & set(sys.modules))")
    assert told.stdout.strip() == "set()", told.stderr


def test_everything_but_the_widgets_works_without_jupyter():
    told = run(
        HIDE
        + """
from baal_widgets import *
from baal_widgets import LabellingSession, load_demo, plots, Training
import baal_widgets.cli
data = load_demo()
session = LabellingSession(data.pool, data.model(), data.classes, test_set=data.test, journal=None, query_size=4,
                           training=Training(max_steps=3), iterations=2)
session.simulate(data.oracle, rounds=1)
plots.learning_curve(session.history)
print(session)
""".replace("from baal_widgets import *\n", "import baal_widgets\n")
    )
    assert told.stdout.strip() == "LabellingSession(4 of 1060 labelled, 10 classes, round 1)", told.stderr


def test_a_widget_without_jupyter_says_what_to_install():
    told = run(HIDE + "from baal_widgets import Labeller")
    assert "pip install 'baal-widgets[widgets]'" in told.stderr


def test_the_wheel_holds_what_runs(tmp_path):
    root = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=baal_widgets.__path__[0] + "/..",
    )
    assert root.returncode == 0, root.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "py.typed",
        "data/fashion_mnist_demo.npz",
        "notebooks/01_label_images.ipynb",
        "widgets/static/grid.css",
        "widgets/static/grid.js",
        "widgets/static/keys.js",
        "widgets/static/outbox.js",
    ):
        assert f"baal_widgets/{name}" in names
    assert not [name for name in names if name.startswith(("tests/", "notebooks/"))]
