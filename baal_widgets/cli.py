"""The `baal-widgets` command: label the demo data or a folder of images in JupyterLab, export, verify and
repair labels."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from baal_widgets.journal import Event

NOTEBOOK = "01_label_images.ipynb"
FORMATS = ("csv", "jsonl", "parquet", "baal", "coco", "label-studio")
"""Those that need no images, which a journal does not hold."""
EXPORTED = ".csv, .jsonl, .parquet, .npz, .coco.json or .label-studio.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status. Errors that a user can mend are one line, without a traceback."""
    parser = _parser()
    told = parser.parse_args(arguments)
    try:
        return int(told.run(told) or 0)
    except (ValueError, ImportError, OSError, RuntimeError, SQLAlchemyError) as error:
        print(f"baal-widgets: {getattr(error, 'orig', None) or error}", file=sys.stderr)
        return 1


def demo(told: argparse.Namespace) -> int:
    """Copy the labelling notebook to a folder of its own, unless it is there already, and open it."""
    folder = Path(told.dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / NOTEBOOK
    if target.exists():
        print(f"Going on with {target}")
    else:
        shutil.copyfile(shipped_notebook(), target)
        print(f"Made {target}")
    return open_lab(target, told)


def label(told: argparse.Namespace) -> int:
    """Write a notebook that labels a folder of images, unless it is there already, and open it."""
    from baal_widgets.checks import check_classes
    from baal_widgets.images import find_images
    from baal_widgets.sources import open_tests

    classes = check_classes([name.strip() for name in told.classes.split(",") if name.strip()])
    images = Path(told.folder).expanduser().resolve()
    good, bad = find_images(images)
    for reason in bad.values():
        print(f"Left out: {reason}", file=sys.stderr)
    print(f"{len(good)} images in {images}")
    folder = Path(told.dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"label-{images.name}.ipynb"
    tests = None if told.test is None else Path(told.test).expanduser().resolve()
    if tests is not None:
        print(f"{len(open_tests(tests, classes, images))} images to test on in {tests}")
    notebook = labelling_notebook(images, list(classes), told.backbone, tests)
    if target.exists():
        sources = "".join("".join(cell["source"]) for cell in json.loads(target.read_text("utf-8"))["cells"])
        if repr(str(images)) not in sources or repr(list(classes)) not in sources:
            raise ValueError(f"{target} labels another folder or other classes. Give another place with --dir.")
        print(f"Going on with {target}")
    else:
        target.write_text(json.dumps(notebook, indent=1), encoding="utf-8")
        print(f"Made {target}")
    return open_lab(target, told)


def export(told: argparse.Namespace) -> int:
    """Write the labels of a journal to a file."""
    from baal_widgets.exchange import Labelled, Whole, format_of, write_labels
    from baal_widgets.identity import paths_by_key, places_in
    from baal_widgets.journal import Journal, fold

    journal = Journal(_existing(told.journal), create=False)
    events = journal.events()
    journal.close()
    # an item's index changes when files are added, its path when it is moved, its key does not
    items: dict[str, int | None] = {}
    for event in events:
        if event.key is not None:
            items.setdefault(event.key, event.item)
    keys = list(items)
    state = fold(events, {key: place for place, key in enumerate(keys)})
    several = bool(state.settings.get("multi_label"))
    numbered = all(key.partition("//")[0] == str(item) for key, item in items.items())
    paths = paths_by_key(places_in(event for event in events if event.kind == "moved"))
    if not numbered and format_of(Path(told.target), told.format) == "baal":
        raise ValueError(
            "Baal's state tells items by their place in the dataset, which a journal of files does not know. Open the "
            "session with its dataset: session.export(path)."
        )
    rows = [
        Labelled(
            int(paths.get(keys[i], keys[i])) if numbered else None,
            paths.get(keys[i], keys[i]),
            state.names_in(a.value) if several else a.value,
            a.annotator,
            a.round,
            state.contents.get(keys[i], (0, None))[1],
        )
        for i, a in sorted(state.answers.items())
        if a.value is not None
    ]
    whole = Whole(tuple(state.classes), state.settings.get("n_items"))
    options = {"spreadsheet_safe": True} if told.spreadsheet_safe else {}
    print(f"{len(rows)} labels in {write_labels(rows, told.target, told.format, whole=whole, **options)}")
    return 0


def import_(told: argparse.Namespace) -> int:
    """Take over the labels of a file or folder into a journal, and say what was done."""
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

    from baal_widgets.journal import Journal, fold
    from baal_widgets.session import LabellingSession

    journal = Journal(_existing(told.journal), create=False)
    events = journal.events()
    journal.close()
    state = fold(events)
    if told.images is None and not _numbered(events):
        raise ValueError(
            f"The items of {told.journal} are files, and a journal does not know all of them. Say where they lie: "
            "--images FOLDER."
        )
    # whoever only imports needs no model: a small one that nobody asks keeps its place
    model = nn.Sequential(nn.Dropout(), nn.Linear(1, max(len(state.outputs), 2)))
    data = told.images if told.images is not None else TensorDataset(torch.zeros(state.settings.get("n_items", 0), 1))
    with LabellingSession.open(told.journal, data, model, annotator=told.annotator) as session:
        plan = session.import_labels(
            told.target,
            dry_run=told.dry_run,
            new_classes=told.new_classes,
            overwrite=told.overwrite,
            format=told.format,
        )
    print(str(plan).replace("overwrite=True", "--overwrite").replace("new_classes=True", "--new-classes"))
    return 0


def verify(told: argparse.Namespace) -> int:
    """Check every link of a journal's hash chain, and that the copy beside it tells the same; with --images also that
    the files hold what they held when they were labelled."""
    from baal_widgets.journal import Journal, JournalDamagedError
    from baal_widgets.register import check_folder

    journal = Journal(_existing(told.journal), create=False)
    try:
        print(f"{told.journal}: {journal.verify(told.at)} facts, each as it was written, up to {journal.anchor}")
    except JournalDamagedError as error:
        print("\n".join(error.differences), file=sys.stderr)
        print(f"baal-widgets: {told.journal} is damaged. Try: baal-widgets repair {told.journal}", file=sys.stderr)
        return 1
    else:
        if told.images is None:
            return 0
        files = check_folder(journal, told.images)
        print(files)
        return 1 if files.changed or files.missing else 0
    finally:
        journal.close()


def repair(told: argparse.Namespace) -> int:
    """Make a damaged journal whole from its file and the copy beside it; the damaged file is kept."""
    from baal_widgets.journal import repair as mend

    report = mend(told.file)
    for difference in report.differences:
        print(difference)
    if report.damaged is None:
        print(f"{report.path}: {report.rows} facts, each as it was written: nothing to repair")
        return 0
    print(f"{report.path}: {report.kept} facts kept, {len(report.restored)} restored, {len(report.lost)} lost")
    if report.moved or report.refused:
        print(f"Of two histories: {len(report.moved)} facts put last, {len(report.refused)} left out")
    print(f"What was there before is in {report.damaged}")
    return 1 if report.lost or report.refused else 0


def open_lab(notebook: Path, told: argparse.Namespace) -> int:
    """JupyterLab on a notebook, in this process, until it is stopped."""
    try:
        from jupyterlab.labapp import LabApp
    except ModuleNotFoundError:
        raise RuntimeError("JupyterLab is not installed: pip install 'baal-widgets[widgets]'.") from None
    options = [
        f"--ServerApp.root_dir={notebook.resolve().parent}",
        f"--LabApp.default_url=/lab/tree/{quote(notebook.name)}",
    ]
    options += ["--no-browser"] if told.no_browser else []
    print("Opening JupyterLab. Run the cells with Run > Run All Cells; stop the server here with Ctrl+C.", flush=True)
    LabApp.launch_instance([*options, *told.jupyter])
    return 0


def shipped_notebook() -> Path:
    """The labelling notebook: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    places = [package / "notebooks" / NOTEBOOK, package.parent / "notebooks" / NOTEBOOK]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{NOTEBOOK} is not where it should be, {places[0]}: install baal-widgets anew.")
    return found


def labelling_notebook(
    images: Path, classes: list[str], backbone: str | None = None, tests: Path | None = None
) -> dict[str, Any]:
    """A notebook with one session over a folder and its labeller."""
    model = "None" if backbone is None else f"torchvision_backbone({backbone!r}, {len(classes)})"
    imports = "" if backbone is None else "from baal_widgets.models import torchvision_backbone\n"
    cells = [
        (
            "markdown",
            f"# Label {images.name}\n\nRun both cells (`Run > Run All Cells`), then label: keys `1` to `0`.",
        ),
        (
            "code",
            "from baal_widgets import Labeller, LabellingSession\n"
            f"{imports}\n"
            "session = LabellingSession(\n"
            f"    {str(images)!r},\n"
            f"    model={model},\n"
            f"    classes={classes!r},\n"
            + (f"    test_set={str(tests)!r},\n" if tests else "")
            + f"    journal={f'label-{images.name}.db'!r},\n"
            ")\n"
            "Labeller(session)",
        ),
        ("code", f"session.export({f'label-{images.name}.csv'!r})"),
    ]
    return {
        "cells": [
            {"cell_type": kind, "id": f"cell-{place}", "metadata": {}, "source": source}
            | ({"execution_count": None, "outputs": []} if kind == "code" else {})
            for place, (kind, source) in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _numbered(events: Sequence[Event]) -> bool:
    """Whether items are known by their numbers alone. Raises `ValueError` where a journal does not tell yet."""
    pairs = {(event.item, event.key) for event in events if event.key is not None}
    for event in events:
        if event.kind == "asked":
            pairs |= set(zip(event.payload["items"], event.payload["keys"], strict=True))
    if not pairs:
        raise ValueError("The journal names no item yet. Say where the images lie, --images FOLDER, or begin to label.")
    return all(key == str(item) for item, key in pairs)


def _existing(place: str) -> str:
    if "://" not in place and not Path(place).expanduser().is_file():
        raise FileNotFoundError(f"No journal at {place}.")
    return place


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="baal-widgets", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(run: Any, lab: bool) -> argparse.ArgumentParser:
        made = commands.add_parser(run.__name__.rstrip("_"), help=run.__doc__, description=run.__doc__)
        made.set_defaults(run=run)
        if lab:
            made.add_argument("--dir", default=".", help="where the notebook and the labels go (default: here)")
            made.add_argument("--no-browser", action="store_true", help="only print the address")
            made.add_argument(
                "--jupyter", nargs=argparse.REMAINDER, default=[], help="further options for JupyterLab, last"
            )
        return made

    add(demo, lab=True)
    labelling = add(label, lab=True)
    labelling.add_argument("folder", help="the folder of images; its subfolders too")
    labelling.add_argument("--classes", required=True, help="class names, with commas between")
    labelling.add_argument("--test", metavar="FOLDER", help="labelled images to test on, in a sub-folder a class")
    labelling.add_argument("--backbone", help="a torchvision model to start from (downloads its weights once)")
    exporting = add(export, lab=False)
    exporting.add_argument("journal")
    exporting.add_argument("target", help=f"a file whose name ends in {EXPORTED}")
    exporting.add_argument("--format", metavar="F", help=f"where the name does not tell: {', '.join(FORMATS)}")
    exporting.add_argument(
        "--spreadsheet-safe", action="store_true", help="for .csv: no text that a spreadsheet would compute"
    )
    importing = add(import_, lab=False)
    importing.add_argument("journal")
    importing.add_argument("target", metavar="FILE", help="a file or folder, in any format that is exported")
    importing.add_argument("--dry-run", action="store_true", help="only say what would be done")
    importing.add_argument("--new-classes", action="store_true", help="add classes that there are not")
    importing.add_argument("--overwrite", action="store_true", help="replace labels that differ")
    importing.add_argument("--format", metavar="F", help="where the name does not tell")
    importing.add_argument("--images", metavar="FOLDER", help="the images that the journal is of, where they are files")
    importing.add_argument("--annotator", default="me", help="whose labels they become (default: me)")
    verifying = add(verify, lab=False)
    verifying.add_argument("journal")
    verifying.add_argument(
        "--images", metavar="FOLDER", help="the folder whose labels they are: reads what is labelled"
    )
    verifying.add_argument(
        "--at", metavar="SEQ:HASH", help="what it said before: whether all facts up to there are kept"
    )
    add(repair, lab=False).add_argument("file", help="the journal, a SQLite file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
