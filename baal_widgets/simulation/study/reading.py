"""Results of the study read from their files: which verdicts there are, as rows and as a table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import baal_widgets
from baal_widgets.simulation.study.registration import tables

Report: TypeAlias = dict[str, Any]

WORDS = ("reproduced", "not reproduced", "opposite", "inconclusive")
PLACE = Path("benchmarks", "study")
HEAD = "| claim | | from | verdict | difference, 95 % | seeds for it |\n|---|---|---|---|---|---|\n"


def read(folder: str | os.PathLike[str] | None = None) -> dict[str, Report]:
    """The reports of a folder by table, in the order of the registration; without a folder, the repository's own.

    Those are looked for in and above the working directory, then beside the package. Raises `FileNotFoundError` where
    there are none.
    """
    places = _places() if folder is None else [Path(folder)]
    for place in places:
        found = {name: place / f"{name}.json" for name in tables() if (place / f"{name}.json").exists()}
        if found:
            return {name: cast("Report", json.loads(path.read_text(encoding="utf8"))) for name, path in found.items()}
    raise FileNotFoundError(
        f"No results in {', '.join(map(str, places)) if folder is not None else PLACE}. Read them in a clone of the "
        "repository, or make some: python -m baal_widgets.simulation --size tiny --out FOLDER, then read(FOLDER)."
    )


def verdicts(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    """All answers as rows: their table, what they claim, the verdict, and the reading that it is made from."""
    rows = []
    for name, report in reports.items():
        for answer in report["answers"]:
            row = {key: answer[key] for key in ("id", "says", "source", "kind", "verdict")}
            told = {"at": "steps", "mean": answer["factor"], **answer} if "factor" in answer else answer["readings"][0]
            row |= {key: told.get(key) for key in ("at", "mean", "interval", "wins", "seeds")}
            rows.append({"table": name, **row, "p": answer.get("p_holm"), "claimed": answer.get("claimed")})
    return rows


def summary(reports: Mapping[str, Report]) -> str:
    """How often each verdict was given, in a line."""
    counted = Counter(row["verdict"] for row in verdicts(reports))
    return ", ".join(f"{counted[word]} {word}" for word in WORDS)


def markdown(reports: Mapping[str, Report]) -> str:
    """Every verdict as a table in Markdown, with a row to say which of the study's tables follows.

    Tables of the study that are not among the reports are named below it.
    """
    lines = []
    before = None
    for row in verdicts(reports):
        if row["table"] != before:
            before = row["table"]
            lines.append(f"| | **{reports[before]['title']}** | | | | |")
        word = row["verdict"] if row["verdict"] == "reproduced" else f"**{row['verdict']}**"
        seeds = "" if row["seeds"] is None else f"{row['wins']} of {row['seeds']}"
        lines.append(f"| {row['id']} | {row['says']} | {row['source']} | {word} | {difference(row)} | {seeds} |")
    page = HEAD + "\n".join(lines) + "\n"
    missing = [name for name in tables() if name not in reports]
    return page + (f"\nNot run yet: {', '.join(missing)}.\n" if missing else "")


def difference(row: Mapping[str, Any]) -> str:
    """A row's difference with its interval, or how many times as fast something is."""
    low, high = row["interval"]
    if row["kind"] == "factor":
        return f"{row['mean']:.2f} times ({low:.2f} to {high:.2f}), claimed {row['claimed']:g}"
    return f"{row['mean']:+.3f} ({low:+.3f} to {high:+.3f})"


def _places() -> list[Path]:
    here = Path.cwd()
    return [place / PLACE for place in (here, *here.parents, Path(baal_widgets.__file__).parents[1])]
