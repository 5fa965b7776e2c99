"""A table of the study as a file and as text, with where it comes from."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import baal_widgets
from baal_widgets.simulation.study.answering import Found, measured
from baal_widgets.simulation.study.registration import Reference, Size, Table, fingerprint
from baal_widgets.simulation.study.worlds import FREQUENT, RARE
from baal_widgets.simulation.verdicts import bootstrap_interval

MEASURED = ("nll_det", "nll_bma", "nll_logit", "accuracy_bma", "macro_f1_bma", "ece_det", "ece_bma", "ece_logit",
            "ece_mass_bma")  # fmt: skip
SPREAD = ("nll_bma", "nll_det", "accuracy_bma", "ece_det", "ece_bma", "ece_logit", "f1_rare", "f1_frequent")
"""Of these also the standard deviation over the seeds is told, and the 95 % interval of the mean."""

ENOUGH = 20
"""So many seeds a verdict takes that is to be quoted."""


def report(table: Table, size: Size, found: Found, answered: Sequence[dict[str, Any]], command: str) -> dict[str, Any]:
    """All that is worth keeping of a table: the answers, the mean curves with their spread, and the provenance."""
    return {
        "table": table.name,
        "title": table.title,
        "answers": list(answered),
        "curves": [
            _curve(results, setting, case, method)
            for (setting, case), results in found.items()
            for method in table.methods_of(setting)
        ],
        "provenance": provenance(size, command)
        | {"settings": {name: dataclasses.asdict(protocol) for name, protocol in table.settings.items()}},
    }


def provenance(size: Size, command: str) -> dict[str, Any]:
    """Where numbers come from: command, seeds, versions, machine, day, commit, and the registration's hash."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "command": command,
        "size": size.name,
        "seeds": [size.seeds[0], size.seeds[-1]],
        "data": {"features": size.features, "items": size.items, "tests": size.tests},
        "registration_sha256": fingerprint(),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {"device": device, "cpus": os.cpu_count(), "system": platform.system()},
        "versions": {
            "baal_widgets": baal_widgets.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def write(told: dict[str, Any], folder: Path) -> Path:
    """Write a report as `table.json`, a line for each curve and answer."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{told['table']}.json"
    lines = []
    for key, value in told.items():
        if isinstance(value, list):
            rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in value)
            lines.append(f" {json.dumps(key)}: [\n  {rows}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf8")
    return path


def text(told: dict[str, Any]) -> str:
    """The answers for reading: a line for each claim, and one for each of its readings."""
    lines = [f"{told['table']}: {told['title']}"]
    first, last = told["provenance"]["seeds"]
    if last - first + 1 < ENOUGH:
        lines.append(f"  {last - first + 1} seeds show that it runs; a verdict takes {ENOUGH}.")
    for answer in told["answers"]:
        lines.append(f"  {answer['verdict'].upper():14} {answer['id']}: {answer['says']} ({answer['source']})")
        if "factor" in answer:
            lines.append(f"    {answer['factor']} times as fast, by steps {_interval(answer['interval'])}")
        for reading in answer.get("readings", ()):
            lines.append(
                f"    {reading['at']:7} {reading['mean']:+.4f} {_interval(reading['interval'])} "
                f"{reading['wins']}/{reading['seeds']}, p {reading['p']:.2g}"
            )
    return "\n".join(lines)


def _interval(bounds: Sequence[float]) -> str:
    return f"[{', '.join(f'{bound:+.4f}' for bound in bounds)}]"


def _curve(results: Any, setting: str, case: str, method: str) -> dict[str, Any]:
    names = list(MEASURED)
    if len(results.runs[0].measured["class_f1"][0]) > max(RARE[1], FREQUENT, 10):
        names += ["f1_rare", "f1_frequent"]
    told: dict[str, Any] = {"setting": setting, "case": case, "method": method}
    places = _places(len(results.n_labelled))
    told["n_labelled"] = results.n_labelled[places].tolist()
    for name in names:
        values = measured(results, Reference(setting, case, method, name))[:, places]
        told[name] = values.mean(axis=0).round(4).tolist()
        if name in SPREAD and len(values) > 1:
            told[f"{name}_sd"] = values.std(axis=0, ddof=1).round(4).tolist()
            told[f"{name}_interval"] = np.round([bootstrap_interval(each) for each in values.T], 4).tolist()
    seconds = {part: results.curve(f"seconds_{part}", method, case)[:, :-1] for part in ("train", "score", "test")}
    return told | {"seconds_a_step": {part: float(f"{values.mean():.3g}") for part, values in seconds.items()}}


def _places(steps: int, most: int = 25) -> list[int]:
    """Which steps are told: all, or so many evenly spread ones with the first and the last."""
    return sorted({round(at) for at in np.linspace(0, steps - 1, min(steps, most))})


def _commit() -> str | None:
    """The commit of the working tree, "+" where it has changes; `None` for an installed package."""
    root = Path(baal_widgets.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        told = [
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603, S607
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"The commit is not known: {error}", file=sys.stderr)
        return None
    return told[0] + ("+" if told[1] else "")
