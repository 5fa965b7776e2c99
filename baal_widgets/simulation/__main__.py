"""Run the study's tables: `python -m baal_widgets.simulation --size cpu --table all --out results`.

`python -m baal_widgets.simulation --report results` prints the verdicts in a folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from baal_widgets.simulation import study
from baal_widgets.simulation.study.answering import Curves
from baal_widgets.simulation.study.data import FASHION_MNIST
from baal_widgets.simulation.study.registration import Reference
from baal_widgets.simulation.study.risks import risks
from baal_widgets.simulation.study.runner import world


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked; print every verdict and write a JSON file for each table."""
    told = _parser().parse_args(arguments)
    if told.report is not None:
        return _told(told.report)
    command = " ".join(["python -m baal_widgets.simulation", *(sys.argv[1:] if arguments is None else arguments)])
    size = study.size(told.size)
    names = study.tables() if told.table == "all" else told.table.split(",")
    unknown = sorted(set(names) - set(study.tables()))
    if unknown:
        print(f"No table {', '.join(unknown)}. There are {', '.join(study.tables())}, and all.", file=sys.stderr)
        return 2
    tables = [study.table(name, size) for name in names]
    device = told.device or ("cuda" if size.name == "gpu" and torch.cuda.is_available() else "cpu")
    out = Path(told.out)
    place = study.Workplace(size, out / "runs", Path(told.data), device, threads=1 if told.jobs > 1 else 0)
    began = time.perf_counter()
    try:
        done = study.run([table for table in tables if table.name != "lure"], place, told.jobs, not told.quiet)
        for table in tables:
            found = {} if table.name == "lure" else study.of_table(table, done)
            value = _risks(table, place) if table.name == "lure" else study.curves(found, table.counts)
            report = study.report(table, size, found, study.answers(table, value, found), command)
            print(study.text(report))
            print(f"  {study.write(report, out)}")
    except (FileNotFoundError, ImportError, ValueError) as error:
        print(f"baal_widgets.simulation: {error}", file=sys.stderr)
        return 1
    print(f"{time.perf_counter() - began:.0f} s")
    return 0


def _told(folder: str) -> int:
    """Print the verdicts that are in a folder."""
    try:
        reports = study.read(folder)
    except FileNotFoundError as error:
        print(f"baal_widgets.simulation: {error}", file=sys.stderr)
        return 1
    print(study.markdown(reports) + f"\n{study.summary(reports)}.")
    return 0


def _risks(table: study.Table, place: study.Workplace) -> Curves:
    """Readings of the table of risks, whose claims name them where others name a measure."""
    size = place.size
    made = world(table.world, size.features, size.tests, size.items, place.data)
    told = [risks(made.pool, made.case("plain"), table.settings["base"], seed) for seed in size.seeds]

    def value(reference: Reference, at: str) -> np.ndarray:
        return np.array([each[reference.measure] for each in told])

    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m baal_widgets.simulation", description=__doc__)
    parser.add_argument("--size", choices=study.sizes(), default="tiny", help="tiny needs no data, the others do")
    parser.add_argument("--table", default="all", help=f"one, several with commas, or all: {', '.join(study.tables())}")
    parser.add_argument("--out", default="results", help="folder for the results, and in its runs/ for what has ended")
    parser.add_argument("--data", default=str(FASHION_MNIST), help="folder of Fashion-MNIST's four .gz files")
    parser.add_argument("--device", help="cpu, cuda ...; left out, CUDA at size gpu where there is one")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the work, one thread each")
    parser.add_argument(
        "--report", metavar="FOLDER", help="run nothing; print the verdicts that a folder holds, in Markdown"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
