"""Kill a labelling process at random moments, again and again: `python benchmarks/kills.py --kills 10000`.

After each kill the journal is opened as a person would open it. Counted are answers that had been acknowledged and are
gone, answers that are there twice, places where the hash chain or the copy beside it does not fit, and states that
differ from a replay of all facts. All of them must be zero. An answer whose acknowledgement was cut off is sent once
more by the next process under the same id, as the page does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from baal_widgets.journal import Draft, Journal, checkpoint, fold, resume

ITEMS = 200
CLASSES = ("cat", "dog", "bird")
KILLS_A_FILE = 100  # then a new journal: verifying it whole after each kill stays cheap
LATEST = 0.02  # seconds into the opening or the labelling, at the latest
INDEX = {str(item): item for item in range(ITEMS)}


def drafts(rng, state):
    """What a hand does next, as one commit: mostly a label, sometimes several at once, or a step back."""
    op_id, kind = f"{rng.getrandbits(80):x}", rng.random()
    if kind < 0.1 and (change := state.last_done("me")):
        return [Draft("undo", item=change.item, annotator="me", payload={"target": change.seq}, op_id=op_id)]
    if kind < 0.15 and (change := state.last_undone("me")):
        return [Draft("redo", item=change.item, annotator="me", payload={"target": change.seq}, op_id=op_id)]
    several = range(rng.choice((1, 1, 1, 1, 5)))
    made = []
    for place in several:
        item, value = rng.randrange(ITEMS), rng.choice((*CLASSES, None))
        told = {"item": item, "key": str(item), "annotator": "me", "op_id": f"{op_id}.{place}"}
        payload = {"group": op_id} if len(several) > 1 else {}
        made.append(Draft("label" if value else "skip", value=value, payload=payload, **told))
    return made


def label(path, rng, tell):
    """Label until killed. What goes out before a commit is the intention, what goes out after it the promise."""
    journal = Journal(path)
    state = resume(journal, INDEX)
    while True:
        made = drafts(rng, state)
        os.write(tell, (json.dumps(["will", [vars(draft) for draft in made]]) + "\n").encode())
        written = journal.append(*made)
        os.write(tell, (json.dumps(["did", [event.op_id for event in written]]) + "\n").encode())
        for event in journal.events(state.seq):
            state.apply(event, INDEX)


def killed(path, rng):
    """A process that labels, killed at a random moment: what it promised, and what it had begun last."""
    read, write = os.pipe()
    seed = rng.getrandbits(64)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            label(path, random.Random(seed), write)
        finally:
            os._exit(status)
    os.close(write)
    if rng.random() < 0.8:  # else it is killed while it opens the journal
        select.select([read], [], [], 10)
    time.sleep(rng.random() * LATEST)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        lines = [json.loads(line) for line in pipe if line.endswith("\n")]
    promised = {op_id for what, told in lines if what == "did" for op_id in told}
    begun = [told for what, told in lines if what == "will"]
    open_ = [Draft(**told) for told in begun[-1]] if begun and lines[-1][0] == "will" else []
    return promised, open_


def run(kills, seed=0, progress=lambda done: None):
    """Kill that many times; what was found."""
    checkpoint.EVERY = 20  # so that kills fall into the writing of checkpoints too
    rng, found = random.Random(seed), Counter(kills=kills)
    for start in range(0, kills, KILLS_A_FILE):
        with tempfile.TemporaryDirectory() as folder:
            path, promised = Path(folder) / "labels.db", set()
            journal = Journal(path)
            journal.append(Draft("opened", payload={"classes": CLASSES}))
            journal.close()
            for _ in range(min(KILLS_A_FILE, kills - start)):
                told, cut_off = killed(path, rng)
                promised |= told
                check(path, promised, cut_off, found)
            found["acknowledged"] += len(promised)
        progress(start + KILLS_A_FILE)
    return dict(found)


def check(path, promised, cut_off, found):
    journal = Journal(path)
    there = Counter(event.op_id for event in journal.events())
    found["committed, not acknowledged"] += sum(draft.op_id in there for draft in cut_off)
    torn = {draft.op_id in there for draft in cut_off}
    found["torn"] += len(torn) > 1  # of one commit all or nothing
    if cut_off:
        journal.append(*cut_off)
        promised |= {draft.op_id for draft in cut_off}
        there = Counter(event.op_id for event in journal.events())
    found["lost"] += len(promised - there.keys())
    found["doubled"] += sum(n > 1 for n in there.values())
    try:
        found["facts checked"] += journal.verify()
    except RuntimeError as error:
        found["damaged"] += 1
        print(error, file=sys.stderr)
    events = journal.events()
    found["replay differs"] += resume(journal, INDEX) != fold(events, INDEX)
    journal.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.perf_counter()
    found = run(options.kills, options.seed, lambda done: print(f"{done} kills", file=sys.stderr))
    print(json.dumps({**found, "seconds": round(time.perf_counter() - begun, 1)}, indent=1))
    names = ("lost", "doubled", "torn", "damaged", "replay differs")
    return 1 if any(found.get(name) for name in names) else 0


if __name__ == "__main__":
    sys.exit(main())
