"""Kill a labelling process at random moments, many times: nothing it acknowledged may be lost or come twice.

Run as a script, `python tests/test_kill.py JOURNAL KILLS SEED` does the same as often as you like.
"""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

KILLS = 150
LEARNS = 5  # of ten processes, the one that lives until it has learned


@pytest.mark.slow
def test_every_acknowledged_answer_survives_a_kill_once(tmp_path):
    told = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "labels.db"), str(KILLS), "7"],
        capture_output=True,
        text=True,
        timeout=570,
        check=False,
    )
    print(told.stdout)
    assert told.returncode == 0, told.stderr[-3000:]
    summary = json.loads(told.stdout)
    assert summary["kills"] == KILLS
    assert summary["acknowledged"] > KILLS
    assert summary["lost"] == summary["doubled"] == 0
    assert summary["rounds"] > 1


def annotate(path, seed, pipe):
    """A person's process: opens the session, tells what it found, then acts and tells each act when it is kept."""
    import torch

    torch.set_num_threads(1)
    session = open_session(path)
    found = {"labels": session.labels, "query": session.query.items, "round": session.round, "n": session.query.number}
    os.write(pipe, (json.dumps(found) + "\n").encode())
    rng = random.Random(seed)
    for number in range(10_000):
        often = 15 if seed % 10 == LEARNS else 2
        op, op_id = (
            rng.choices(["label", "skip", "undo", "redo", "learn"], [70, 8, 12, 8, often])[0],
            f"{seed}-{number}",
        )
        item = rng.choice(session.ask().items)
        if op == "label":
            session.label(item, rng.randrange(3), op_id=op_id)
        elif op == "skip":
            session.skip(item, op_id=op_id)
        elif op == "learn":
            if session.labels:
                os.write(pipe, (json.dumps({"learned": session.learn().number}) + "\n").encode())
            continue
        elif getattr(session, op)(op_id=op_id) is None:
            continue
        os.write(pipe, (json.dumps({"kept": op_id}) + "\n").encode())


def open_session(path):
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    from baal_widgets import LabellingSession, Training

    generator = torch.Generator().manual_seed(0)
    pool = TensorDataset(torch.rand(5000, 4, generator=generator))
    test = TensorDataset(pool.tensors[0][:20], torch.from_numpy(np.arange(20) % 3))
    model = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(4, 3))
    training = Training(min_steps=2, max_steps=2, window=1)
    return LabellingSession(
        pool, model, ["a", "b", "c"], test_set=test, journal=path, query_size=8, iterations=2, training=training
    )


def main(path, kills, seed):
    import baal_widgets.session  # noqa: F401  once, here, so that each fork begins at once
    from baal_widgets.journal import Journal, fold

    rng, kept, before = random.Random(seed), [], {"query": ()}
    for number in range(kills):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                annotate(path, seed * 100_000 + number, writer)
            finally:
                os._exit(1)
        os.close(writer)
        # some die while they open the journal, most while they label, some after a lesson
        wait = rng.uniform(0, 0.08 if number % 10 else 0.3)
        heard, deadline = b"", None if number % 10 else time.monotonic() + wait
        while deadline is None or time.monotonic() < deadline:
            left = 60 if deadline is None else max(0, deadline - time.monotonic())
            if not select.select([reader], [], [], left)[0]:
                break
            heard += os.read(reader, 65536)
            if number % 10 != LEARNS or b"learned" in heard:
                deadline = deadline or time.monotonic() + wait
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while chunk := os.read(reader, 65536):
            heard += chunk
        os.close(reader)
        lines = [json.loads(line) for line in heard.split(b"\n")[:-1]]
        if lines and before["query"]:  # it found what the one before left
            assert lines[0] == before, (lines[0], before)
        kept += [line["kept"] for line in lines if "kept" in line]
        journal = Journal(path)
        journal.verify()
        state = fold(journal.events(), {str(item): item for item in range(5000)})
        journal.close()
        query = state.query
        before = json.loads(
            json.dumps(
                {
                    "labels": state.labels,
                    "query": query.items if query else (),
                    "round": state.round,
                    "n": query.number if query else 0,
                }
            )
        )
    written = Counter(event.op_id for event in Journal(path).events())
    told = {
        "kills": kills,
        "acknowledged": len(kept),
        "lost": sum(written[op_id] == 0 for op_id in kept),
        "doubled": sum(count > 1 for count in written.values()),
        "facts": sum(written.values()),
        "rounds": state.round,
    }
    print(json.dumps(told))
    return 0 if told["lost"] == told["doubled"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
