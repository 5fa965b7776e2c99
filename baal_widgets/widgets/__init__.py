"""The only room with a browser."""

from baal_widgets.widgets.grid import LabelGrid
from baal_widgets.widgets.labeller import Labeller

__all__ = ["LabelGrid", "Labeller"]
