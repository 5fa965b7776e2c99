"""A run that is killed again and again ends as one that nobody disturbed, to the last bit."""

import os
import random
import select
import signal
import time

import pytest
import torch

from baal_widgets.journal import Journal
from baal_widgets.session import LabellingSession
from tests.test_session import ORACLE, POOL, TEST, make_model, make_session, timeless

ROUNDS = 4


def run(path):
    """Answer and learn until there have been four rounds, from wherever the journal stands."""
    with make_session(path, model=make_model(), repeats=0.3) as session:
        while session.round < ROUNDS:
            query = session.query
            for item in query.items:
                if item not in session.labels:
                    session.label(item, ORACLE[item], op_id=f"{query.number}-{item}")
            session.learn()


def facts_of(path):
    """All that is in the journal but ids, times, hashes and how long things took."""
    journal = Journal(path)
    journal.verify()
    facts = [
        (e.seq, e.kind, e.item, e.key, e.value, e.annotator, e.round, e.score, *timeless([e.payload]))
        for e in journal.events()
    ]
    journal.close()
    return facts


def killed(path, rng, longest):
    """A process that goes on with the run, killed at a random moment; whether it got to the end before."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            run(path)
            os.write(write, b"done")
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    select.select([read], [], [], rng.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        return pipe.read() == b"done"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_is_killed_again_and_again_is_the_same_to_the_last_bit(tmp_path, seed):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the others: sums over more threads differ in the last bit
    try:
        began = time.monotonic()
        run(tmp_path / "whole.db")
        spent, rng, kills = time.monotonic() - began, random.Random(seed), 0
        while not killed(tmp_path / "parts.db", rng, spent / 4 * (1.1 ** max(0, kills - 20))):
            kills += 1
        assert kills >= 2
        assert facts_of(tmp_path / "parts.db") == facts_of(tmp_path / "whole.db")
        told = []
        for name in ("whole.db", "parts.db"):
            with LabellingSession.open(tmp_path / name, POOL, make_model(), test_set=TEST) as session:
                told.append((session.labels, session.query, timeless(session.history), session.round))
        assert told[0] == told[1]
    finally:
        torch.set_num_threads(threads)
