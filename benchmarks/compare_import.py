"""How long importing takes over what torch takes anyway, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Comparison, whatever

LOOP = "ActiveLearningDataset, ActiveLearningLoop, FileDataset, MCDropoutModule, ModelWrapper"
OURS = f"from baal_widgets import {LOOP}, heuristics"
THEIRS = """
from baal import ModelWrapper
from baal.active import FileDataset, heuristics
from baal.active.active_loop import ActiveLearningLoop
from baal.active.dataset import ActiveLearningDataset
from baal.bayesian.dropout import MCDropoutModule
"""
TIMED = """
import sys, time, warnings
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
import torch
began = time.process_time()
{what}
print("took", time.process_time() - began)
"""


def seconds(what):
    """CPU seconds of an import over torch's own, told by a process of its own."""
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(what=what), root], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def ways(device, ours, theirs):
    return {"baal_widgets": lambda: seconds(ours), "Baal 2.1": lambda: seconds(theirs)}


COMPARISONS = [
    Comparison(
        "loop",
        "import what an active learning script needs, over `import torch`",
        "Baal 2.1",
        5,
        ways,
        sizes={"ours": OURS, "theirs": THEIRS},
        quick={"ours": "import baal_widgets", "theirs": "import plotly"},  # Baal takes half a minute on a busy machine
        measures="told",
        agree=whatever,
        repetitions=3,
    ),
]
