"""Several processes label one pool, some are killed: nothing is lost, and no image is handed to two people.

Run as a script, `python tests/journal/test_people_at_once.py PLACE ITEMS KILLS OVERLAP`, it does the labelling alone.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from datetime import datetime

import pytest

PEOPLE, SIZE = 4, 20
LONG, SHORT = 600.0, 20.0  # seconds that claims live: many times what lies between two facts of somebody who lives


def label_all(place, n_items, who, overlap, claim):
    """A person who labels until nothing is left in the pool, waiting for what others hold."""
    with open_session(place, n_items, who, overlap, claim) as session:
        while True:
            items = session.ask().items
            for item in items:
                session.label(item, len(who) % 2)
            if not items:
                spoken = (len(said) >= overlap for said in session.ratings().values())
                if session.progress["n_pool"] == 0 and all(spoken):
                    return
                time.sleep(0.2)


def open_session(place, n_items, who, overlap, claim):
    import torch
    from torch.utils.data import TensorDataset

    from baal_widgets import LabellingSession

    torch.set_num_threads(1)
    return LabellingSession(
        TensorDataset(torch.zeros(n_items, 4)),
        torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(4, 2)),
        ["a", "b"],
        journal=place,
        query_size=SIZE,
        annotator=who,
        overlap=overlap,
        claim_minutes=claim / 60,
    )


def main(place, n_items, kills, overlap):
    """So many people at once; after a while one of them is killed, and somebody new begins, as often as told."""
    rng, running, count, failed, claim = random.Random(0), {}, 0, 0, SHORT if kills else LONG

    def begin():
        nonlocal count
        count += 1
        child = os.fork()
        if child == 0:
            status = 1
            try:
                label_all(place, n_items, f"p{count}", overlap, claim)
                status = 0
            finally:
                os._exit(status)
        running[child] = f"p{count}"

    import baal_widgets.session  # noqa: F401  once, here, so that each fork begins at once

    open_session(place, n_items, "nobody", overlap, claim).close()
    for _ in range(PEOPLE):
        begin()
    killed = []
    while running:
        if len(killed) < kills:
            time.sleep(rng.uniform(0.2, 0.8))
            child = rng.choice(sorted(running))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed.append(running.pop(child))
            begin()
        else:
            child, status = os.wait()
            running.pop(child)
            failed += status != 0
    print(json.dumps({"killed": killed, "failed": failed}))


def labelled_at_once(place, n_items, kills=0, overlap=1):
    """What the processes told, and the facts that they left."""
    from baal_widgets.journal import Journal

    told = subprocess.run(
        [sys.executable, "-W", "error", __file__] + [str(place), str(n_items), str(kills), str(overlap)],
        capture_output=True,
        text=True,
        timeout=570,
        check=False,
    )
    assert (told.returncode, told.stderr) == (0, ""), told.stderr[-3000:]
    journal = Journal(place)
    events = journal.events()
    assert journal.verify() == len(events)
    journal.close()
    told = json.loads(told.stdout)
    assert told["failed"] == 0
    assert len(told["killed"]) == kills
    return told, events


def handed_twice(events, overlap=1, claim=LONG):
    """The items that were asked of somebody while as many others as are wanted still had claims to them or answers."""
    asked, last, answered, found = {}, {}, defaultdict(set), []
    for event in events:
        at = datetime.fromisoformat(event.time).timestamp()
        who = event.payload.get("for", event.annotator)
        if event.kind == "label":
            answered[event.item].add(who)
        if event.kind == "asked":
            for item in event.payload["items"]:
                live = {q for q, items in asked.items() if q != who and item in items and at - last[q] < claim}
                if len(answered[item] - {who} | live) >= overlap:
                    found.append((event.seq, item))
            asked[who] = set(event.payload["items"])
        last[who] = at
    return found


@pytest.mark.slow
def test_four_people_who_label_2000_images_at_once_lose_none_and_share_none(place):
    _, events = labelled_at_once(place, 2000)
    labels = [event for event in events if event.kind == "label"]
    assert Counter(event.item for event in labels) == dict.fromkeys(range(2000), 1)
    asked = [item for event in events if event.kind == "asked" for item in event.payload["items"]]
    assert sorted(asked) == list(range(2000))
    assert handed_twice(events) == []
    assert len({event.annotator for event in labels}) > 1  # else they did not meet


@pytest.mark.slow
def test_the_images_of_those_who_are_killed_come_back_and_all_are_labelled_once(tmp_path):
    told, events = labelled_at_once(tmp_path / "labels.db", 700, kills=8)
    labels = [event for event in events if event.kind == "label"]
    assert Counter(event.item for event in labels) == dict.fromkeys(range(700), 1)
    assert handed_twice(events, claim=SHORT) == []
    owner = {event.item: event.annotator for event in labels}
    asked = {(item, e.payload["for"]) for e in events if e.kind == "asked" for item in e.payload["items"]}
    back = [item for item, who in asked if who in told["killed"] and owner[item] != who]
    assert back  # some did die with images in their hands


@pytest.mark.slow
def test_with_overlap_two_each_image_is_labelled_by_two_people(tmp_path):
    _, events = labelled_at_once(tmp_path / "labels.db", 200, overlap=2)
    said = defaultdict(list)
    for event in events:
        if event.kind == "label":
            said[event.item].append(event.annotator)
    assert {(len(people), len(set(people))) for people in said.values()} == {(2, 2)}
    assert len(said) == 200
    assert handed_twice(events, overlap=2) == []


def test_an_image_handed_out_twice_is_found():
    from baal_widgets.journal import Draft, Journal

    journal = Journal()
    for who in ("ann", "bob"):
        journal.append(Draft("asked", annotator="model", payload={"items": [1, 2], "number": 0, "for": who}))
    assert handed_twice(journal.events()) == [(2, 1), (2, 2)]
    assert handed_twice(journal.events(), overlap=2) == []
    journal.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
