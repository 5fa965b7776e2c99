"""How long a journal takes to write, open, verify and label in: `python benchmarks/journal.py --events 1000000`.

Prints seconds, and milliseconds where it says so, and writes them as JSON with `--out`.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

from baal_widgets.journal import Draft, Journal, resume


def drafts(start, stop, items, rng):
    """Labels, with an undo in fifty and a skip in fifty, as a person gives them."""
    for place in range(start, stop):
        item = place % items
        told = {"item": item, "key": f"images/{item:07d}.png", "annotator": "me", "score": rng.random()}
        if place % 50 == 49:
            yield Draft("undo", payload={"target": place}, **told)
        elif place % 50 == 25:
            yield Draft("skip", **told)
        else:
            yield Draft("label", value=rng.choice(["cat", "dog", "bird"]), **told)


def timed(act):
    begun = time.perf_counter()
    told = act()
    return time.perf_counter() - begun, told


def measure(path, n_events, n_items, n_labels, batch):
    rng, told = random.Random(0), {}
    index_of = {f"images/{item:07d}.png": item for item in range(n_items)}
    journal = Journal(path)
    journal.append(Draft("opened", payload={"classes": ["cat", "dog", "bird"]}))
    spent = 0.0
    for start in range(1, n_events, batch):
        some = list(drafts(start, min(start + batch, n_events), n_items, rng))
        spent += timed(lambda some=some: journal.append(*some))[0]
    told["append in batches, ms a row"] = spent / n_events * 1e3
    journal.close()
    for name in ("open first", "open again"):
        journal = Journal(path)
        told[name], state = timed(lambda journal=journal: resume(journal, index_of))
        journal.close()
    told["answers"] = len(state.answers)
    journal = Journal(path)
    times = []
    for place in range(n_labels):
        draft = Draft("label", item=place % n_items, key=f"images/{place % n_items:07d}.png", value="cat")
        times.append(timed(lambda draft=draft: journal.append(draft))[0] * 1e3)
    if times:
        told["label, ms, median"] = statistics.median(times)
        told["label, ms, p95"] = statistics.quantiles(times, n=20)[-1]
    told["verify"], told["events"] = timed(journal.verify)
    journal.close()
    told["MB"] = {file.name: round(file.stat().st_size / 1e6) for file in sorted(path.parent.iterdir())}
    return told


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=200, help="how many single labels to time")
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = measure(Path(folder) / "labels.db", options.events, options.items, options.labels, options.batch)
    told["python"] = platform.python_version()
    for name, value in told.items():
        print(f"{name:30} {value:.4g}" if isinstance(value, float) else f"{name:30} {value}", flush=True)
    if options.out:
        Path(options.out).write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
