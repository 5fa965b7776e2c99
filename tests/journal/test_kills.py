"""A labelling process is killed at random moments: what it promised is there, once, and whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FAULTS = ("lost", "doubled", "torn", "damaged", "replay differs")

# A process that promises before it writes: to see that the count of losses counts.
EARLY = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import kills
from baal_widgets.journal import Journal

class Hasty(Journal):
    def append(self, *drafts):
        if drafts[0].kind != "opened":
            os.write(self.tell, (json.dumps(["did", [draft.op_id for draft in drafts]]) + "\\n").encode())
        return super().append(*drafts)

def label(path, rng, tell):
    Hasty.tell, kills.Journal = tell, Hasty
    kept(path, rng, tell)

kept, kills.label = kills.label, label
print(json.dumps(kills.run(40)))
"""


def found_by(*arguments):
    told = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert told.stdout, told.stderr
    return json.loads(told.stdout)


@pytest.mark.slow
def test_300_kills_lose_double_and_tear_nothing():
    found = found_by(str(BENCHMARKS / "kills.py"), "--kills", "300")
    assert {name: found[name] for name in FAULTS if found.get(name)} == {}
    assert found["acknowledged"] > 300
    assert found["committed, not acknowledged"] > 0  # some kills did fall between the commit and the promise


def test_a_promise_before_the_commit_is_found_out():
    assert found_by("-c", EARLY, str(BENCHMARKS))["lost"] > 0
