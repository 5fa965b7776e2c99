"""Ten thousand messages that no page of ours would send: each is answered, none changes anything.

Of the 40 images, card 80 is the first to be looked at again and card 120 the first to be settled.
"""

import random

from baal_widgets import Labeller
from baal_widgets.journal import Journal
from tests.widgets.test_labeller import Page, make_session

SOUND = [
    ("ops", {"id": "a", "op": "label", "card": 1, "value": 0}, ("id", "op", "card", "value", "group", "text", "on")),
    ("ops", {"id": "a", "op": "skip", "card": 2}, ("id", "op", "card", "group", "text", "on")),
    ("ops", {"id": "a", "op": "keep", "card": 80}, ("id", "op", "card", "group", "text", "on")),
    ("ops", {"id": "a", "op": "label", "card": 120, "value": 1}, ("id", "op", "card", "value", "group", "text", "on")),
    ("ops", {"id": "a", "op": "flag", "card": 3, "on": True}, ("id", "op", "card", "on")),
    ("ops", {"id": "a", "op": "note", "card": 3, "text": "blurred"}, ("id", "op", "card", "text")),
    ("ops", {"id": "a", "op": "class", "text": "cow"}, ("id", "op", "text")),
    ("ops", {"id": "a", "op": "rename", "value": 0, "text": "cow"}, ("id", "op", "value", "text")),
    ("ops", {"id": "a", "op": "merge", "value": 0, "text": "cow"}, ("id", "op", "value", "text")),
    ("pictures", {"cards": [1, 2]}, ("cards",)),
    ("turn", {"id": "t", "cards": [1, 2]}, ("id", "cards")),
    ("why", {"card": 1}, ("card",)),
    ("do", {"do": "learn"}, ("do",)),
]
NEVER = [
    -1, 10**30, -(2**63), 1.5, float("inf"), True and "true", "", "x" * 100_000, "\0", "../../etc/passwd", "__class__",
    "'; DROP TABLE events; --", "<script>window.canary = 1</script>", {}, {"id": {"id": {}}}, [[]], [None], [-1],
    ["1"], [10**30], [0] * 5_000, {"$ref": "#"}, "\ud83d", b"bytes",
]  # fmt: skip
ALLOWED = {
    "text": lambda value: isinstance(value, str) and len(value) <= 10_000,
    "id": lambda value: isinstance(value, str) and 1 <= len(value) <= 80,
    "group": lambda value: isinstance(value, str) and 1 <= len(value) <= 80,
}


def hostile(rng):
    """A message with a field that is not as it must be: gone, or of a value that nothing of ours has there."""
    kind, fields, open_to = rng.choice(SOUND)
    fields, field = dict(fields), rng.choice(open_to)
    bad = [value for value in NEVER if not ALLOWED.get(field, lambda _: False)(value)]
    if field in fields and field != "on" and rng.random() < 0.2:
        del fields[field]
    else:
        fields[field] = rng.choice(bad)
    if kind != "ops":
        return {"kind": kind, **fields}
    ops = rng.choice([[fields], [fields, fields], fields, [[fields]], None, "ops"])
    return {"kind": kind, "ops": ops}


def test_ten_thousand_malformed_messages_change_nothing(tmp_path):
    path, rng = tmp_path / "labels.db", random.Random(0)
    page = Page(Labeller(make_session(path)))
    page.do("label", 0, 1)
    before = page.view()
    journal = Journal(path)
    facts = journal.verify()
    for _ in range(10_000):
        message, heard = hostile(rng), len(page.heard)
        page.labeller.grid._handle_custom_msg(message, [])
        assert len(page.heard) > heard, message
        reply = page.heard.pop()
        assert reply.get("errors"), message
        assert all(len(error) < 1_000 for error in reply["errors"]), message
    assert journal.verify() == facts
    journal.close()
    assert page.view() == before
    assert page.do("label", 4, 0)["view"]["answers"]["4"] == 0
    page.labeller.session.close()
