"""Several processes on one file."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from baal_widgets.journal import Journal

WRITERS, LABELS = 4, 500

WRITE = """
import sys
from baal_widgets.journal import Draft, Journal
place, writer, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
journal = Journal(place)
for item in range(n):
    op_id = f"{writer}-{item}"
    (event,) = journal.append(Draft("label", item=item, key=str(item), value="cat", annotator=writer, op_id=op_id))
    assert event.op_id == op_id
journal.close()
"""


def write_at_once(place, n):
    told = [sys.executable, "-W", "error", "-c", WRITE, place]
    writers = [
        subprocess.Popen([*told, f"w{writer}", str(n)], stderr=subprocess.PIPE, text=True) for writer in range(WRITERS)
    ]
    return [(writer.communicate(timeout=300)[1], writer.returncode) for writer in writers]


@pytest.mark.slow
def test_four_processes_with_500_labels_each_lose_none_and_see_no_lock(tmp_path):
    path = tmp_path / "labels.db"
    for said, status in write_at_once(str(path), LABELS):
        assert "locked" not in said
        assert (status, said) == (0, "")
    journal = Journal(path)
    assert journal.verify() == WRITERS * LABELS
    assert Counter(event.annotator for event in journal.events()) == {f"w{w}": LABELS for w in range(WRITERS)}
    journal.close()
    lines = (tmp_path / "labels.db.jsonl").read_bytes().splitlines()
    assert [json.loads(line)[0] for line in lines] == list(range(1, WRITERS * LABELS + 1))


@pytest.mark.slow
def test_writers_of_a_server_wait_for_each_other(postgresql):
    for said, status in write_at_once(postgresql, LABELS // 5):
        assert (status, said) == (0, "")
    journal = Journal(postgresql)
    assert journal.verify() == WRITERS * LABELS // 5
    journal.close()
