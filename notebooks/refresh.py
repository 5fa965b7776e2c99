"""Run the notebooks and keep their outputs, without what changes from run to run: python notebooks/refresh.py"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"


def refresh(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:  # journals and exports stay out of the repository
        told = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, resources=told, store_widget_state=False).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")  # such as nbval-check-output
        cell.metadata = {"tags": tags} if tags else {}
        kept: list[nbformat.NotebookNode] = []
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)  # a widget does not outlive its kernel; its text does
            if kept and output.output_type == kept[-1].output_type == "stream":  # lines come one by one
                kept[-1].text += output.text
            else:
                kept.append(output)
        if cell.cell_type == "code":
            cell.outputs = kept
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        print(f"Running {path.name} ...", file=sys.stderr, flush=True)
        refresh(path)
