"""The items of a dataset as the journal knows them, and what has become of them since it was last open."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from baal_widgets.contents import Contents
from baal_widgets.identity import (
    Content,
    Files,
    Settled,
    groups,
    missing,
    moved_facts,
    places_in,
    seen_facts,
    settle,
)
from baal_widgets.images import image_files
from baal_widgets.journal import Journal, JournalMovedError, State, fold, resume
from baal_widgets.sources import Source

LOOKED_AT = 100  # items without files that are read at least, to know that a dataset is in its old order
PATIENCE = 2.0  # seconds that reading more of them may take


class Register:
    """The keys by which the journal knows the items of one dataset, and what the items hold.

    `index_of` maps the keys to items, `files` tells what was found when the journal was opened, or checked.
    """

    def __init__(self, source: Source, journal: Journal) -> None:
        self.paths = source.keys
        self.contents = Contents.of_source(source, journal.hashes)
        self.keys = source.keys
        self.index_of = {key: item for item, key in enumerate(self.keys)}
        self.files = Files()
        self._in_files = source.files is not None
        self._places: dict[str, str] = {}
        self._journal = journal

    def open(self, check: Callable[[State], None]) -> State:
        """The state of the journal, once each item has its key. What is new of that is written down.

        `check(state)` may refuse the dataset before anything of it is read.
        """
        while True:
            self._places = self._told_places()
            self._take(tuple(self._places.get(path, path) for path in self.paths))
            state = resume(self._journal, self.index_of)
            if self._told_places() != self._places:  # somebody has written between the two looks
                continue
            check(state)
            looked: dict[int, Content | None] = {}

            def look(items: Sequence[int], sizes: set[int] | None = None) -> Mapping[int, Content | None]:
                found = self.contents.look(items, sizes)
                looked.update(found)  # noqa: B023  called in this round alone
                return found

            held = self._held(state)
            same = not self._in_files and self._is_in_order(state)
            settled = Settled(self.keys) if same else settle(self.paths, self._places, state.contents, held, look)
            fresh = self._fresh_contents(state, settled, held, look)
            facts = [*moved_facts(settled), *seen_facts(fresh)]
            try:
                events = self._journal.append(*facts, after=state.seq)
            except JournalMovedError:  # somebody else has written, perhaps the same
                continue
            if settled.keys != self.keys:
                self._take(settled.keys)
                state = resume(self._journal, self.index_of)
            else:
                for event in events:
                    state.apply(event, self.index_of)
            self._places = self._told_places() if facts else self._places
            known = {self.index_of[key]: content for key, content in state.contents.items() if key in self.index_of}
            self.files = Files(
                settled.moved,
                {item: self.paths[item] for item in settled.changed},
                missing(state.unknown, self._places),
                groups(self.paths, {**known, **looked}),
            )
            return state

    def checking(self, state: State) -> Callable[[], Files]:
        """What checks every item that something is said of, and those that hold the same as another; a function, since
        it takes its time and `state` is of this moment.

        It reads each labelled item, and each file that is as long as another.
        """
        contents, held = dict(state.contents), self._held(state)
        lost = missing(state.unknown, self._places)
        told = sorted(self.index_of[key] for key in {*contents, *held} if key in self.index_of)

        def check() -> Files:
            now = self.contents.look(sorted({*told, *same_size(self.contents, len(self.paths))}))
            changed = {
                item: self.paths[item]
                for item in told
                if now[item] is not None and now[item] != contents.get(self.keys[item], now[item])
            }
            gone = [self.paths[item] for item in told if not self.contents.is_there(item)]
            self.files = Files(self.files.moved, changed, tuple(sorted({*lost, *gone})), groups(self.paths, now))
            return self.files

        return check

    def told(self, item: int) -> dict[str, Any]:
        """What a fact about an item says of its content."""
        return self.contents.told(item)

    def by_path(self) -> dict[str, int]:
        """Items by every path that they are known by: what lies there now comes before what was there once."""
        now = {path: item for item, path in enumerate(self.paths)}
        once = {key: item for key, item in self.index_of.items() if key not in now}
        return {**once, **now}

    def _told_places(self) -> dict[str, str]:
        """The key of what lies at a path, where the journal says that it was moved there."""
        return places_in(self._journal.events(kinds=("moved",)))

    def _take(self, keys: tuple[str, ...]) -> None:
        self.keys, self.index_of = keys, {key: item for item, key in enumerate(keys)}

    def _held(self, state: State) -> set[str]:
        """The keys that something is said of."""
        items = {*state.answers, *state.flagged, *state.notes}
        return {self.keys[item] for item in items} | state.unknown

    def _fresh_contents(
        self, state: State, settled: Settled, held: set[str], look: Callable[[Sequence[int]], Mapping[int, Any]]
    ) -> dict[str, Content]:
        """What is worth writing down of items about which something was said before: of files whose content nobody
        had looked at, and of arrays that are read in another way now."""
        keys = settled.keys
        if not self._in_files:
            return {keys[i]: content for i, content in look(settled.changed).items() if content is not None}
        items = [item for item, key in enumerate(keys) if key in held and key not in state.contents]
        return {keys[item]: content for item, content in look(items).items() if content is not None} if items else {}

    def _is_in_order(self, state: State) -> bool:
        """Whether items without files hold what they held, as far as two seconds tell, or a hundred of them."""
        known = [(self.index_of[key], told) for key, told in state.contents.items() if key in self.index_of]
        begun = time.monotonic()
        for n, place in enumerate(np.random.default_rng(0).permutation(len(known)).tolist()):
            if n >= LOOKED_AT and time.monotonic() - begun > PATIENCE:
                break
            item, told = known[place]
            now = self.contents[item]
            if now is not None and now != told:
                return False
        return True


def check_folder(journal: Journal, folder: str | os.PathLike[str]) -> Files:
    """What has become of the files of a folder that a journal tells of. Writes nothing.

    Reads those that are labelled, those that might be one that was moved, and those that are as long as another.
    """
    root, files = image_files(folder)
    paths = tuple(file.relative_to(root).as_posix() for file in files)
    contents = Contents(files, root)
    places = places_in(journal.events(kinds=("moved",)))
    state = fold(journal.events(), {})
    looked = dict(contents.look(same_size(contents, len(files))))

    def look(items: Sequence[int], sizes: set[int] | None = None) -> Mapping[int, Content | None]:
        looked.update(contents.look([item for item in items if item not in looked], sizes))
        return {item: looked[item] for item in items if item in looked}

    settled = settle(paths, places, state.contents, state.unknown, look)
    lost = missing(state.unknown - set(settled.keys), {**places, **settled.fresh})
    changed = {item: paths[item] for item in settled.changed}
    return Files(settled.moved, changed, lost, groups(paths, looked))


def same_size(contents: Contents, n_items: int) -> list[int]:
    """The files that are as long as another."""
    sizes: dict[int, list[int]] = {}
    for item in range(n_items):
        if (size := contents.size(item)) is not None:
            sizes.setdefault(size, []).append(item)
    return [item for items in sizes.values() if len(items) > 1 for item in items]
