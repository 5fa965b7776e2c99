"""Label images in Jupyter with a Bayesian model in the loop.

Names are loaded when first used, so importing the package costs nothing and needs no Jupyter.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from baal_widgets.active import heuristics as heuristics
    from baal_widgets.active.active_loop import ActiveLearningLoop as ActiveLearningLoop
    from baal_widgets.active.dataset import ActiveLearningDataset as ActiveLearningDataset
    from baal_widgets.active.file_dataset import FileDataset as FileDataset
    from baal_widgets.bayesian.dropout import MCDropoutModule as MCDropoutModule
    from baal_widgets.demo import load_demo as load_demo
    from baal_widgets.modelwrapper import ModelWrapper as ModelWrapper
    from baal_widgets.modelwrapper import TrainingArgs as TrainingArgs
    from baal_widgets.session import LabellingSession as LabellingSession
    from baal_widgets.training import Training as Training
    from baal_widgets.widgets.grid import LabelGrid as LabelGrid
    from baal_widgets.widgets.labeller import Labeller as Labeller

_HOMES = {
    "ActiveLearningDataset": "baal_widgets.active.dataset",
    "ActiveLearningLoop": "baal_widgets.active.active_loop",
    "FileDataset": "baal_widgets.active.file_dataset",
    "LabelGrid": "baal_widgets.widgets.grid",
    "Labeller": "baal_widgets.widgets.labeller",
    "LabellingSession": "baal_widgets.session",
    "MCDropoutModule": "baal_widgets.bayesian.dropout",
    "ModelWrapper": "baal_widgets.modelwrapper",
    "Training": "baal_widgets.training",
    "TrainingArgs": "baal_widgets.modelwrapper",
    "load_demo": "baal_widgets.demo",
}

__all__ = [*_HOMES, "heuristics"]  # noqa: PLE0604  the table above is the list


def __getattr__(name: str) -> Any:
    if name == "heuristics":
        return import_module("baal_widgets.active.heuristics")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if _HOMES[name].startswith("baal_widgets.widgets") and error.name in ("anywidget", "ipywidgets"):
            raise ModuleNotFoundError(
                f"{name} needs Jupyter's widgets, which are not installed: pip install 'baal-widgets[widgets]'.",
                name=error.name,
            ) from error
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
