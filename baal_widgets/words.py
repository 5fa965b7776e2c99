"""What each person said last of each item, and whether somebody has settled what they disagree on."""

from __future__ import annotations

from collections.abc import Iterable

from baal_widgets.journal import Answer, Change

Words = dict[int, dict[str, Answer]]


def last_words(done: Iterable[Change], *, reviews: bool = True) -> Words:
    """By item and person, the last answer that each gave and has not taken back, the latest given last.

    `done` are the answers that stand, of everybody, in their order. Without `reviews` the answers of a second look,
    given in sight of what others said, are passed over: what is left was said independently.
    """
    told: Words = {}
    for change in done:
        if reviews or not change.after.review:
            said = told.setdefault(change.item, {})
            said.pop(change.after.annotator, None)  # so that the latest comes last
            said[change.after.annotator] = change.after
    return told


def settlement(said: dict[str, Answer]) -> str | None:
    """The label by which the latest second look settled an item; `None` without one, or where somebody who answered
    later contradicts it. Setting an item aside contradicts nothing.

    >>> cat, dog = Answer("cat", 0, "ann", 1), Answer("dog", 0, "bob", 2)
    >>> looked = Answer("cat", 0, "eve", 3, review=True)
    >>> settlement({"ann": cat, "bob": dog, "eve": looked}), settlement({"ann": cat, "eve": looked, "bob": dog})
    ('cat', None)
    """
    later: set[str] = set()
    for answer in reversed(said.values()):
        if answer.value is None:
            continue
        later.add(answer.value)
        if answer.review:
            return answer.value if len(later) == 1 else None
    return None
