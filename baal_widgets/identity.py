"""Which item of the dataset each key of the journal means: by path while the content there fits, else by content.

The journal knows an item by the path it had when it was first heard of. A fact `moved` says at which paths items are
from then on; a path that another item had before gets a key of its own, `path//2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from baal_widgets.journal import Draft, Event

SHOWN = 5  # of each kind, in the text of a report
AT_ONCE = 5_000  # keys in one fact

Content = tuple[int, str]
Look = Callable[[Sequence[int], set[int] | None], Mapping[int, Content | None]]
"""What some items hold; of files those of certain sizes only."""


@dataclass(frozen=True)
class Files:
    """What has become of the items that the journal tells of, by their paths.

    `moved` are found under another path by their content, `{old: new}`, and their labels with them. `changed`,
    `{item: path}`, hold something else than what was labelled; the labels stay. `missing` are not in the dataset.
    `duplicates` are groups of items of the same content: a label given to one says nothing of the others. Printed, it
    is a summary.
    """

    moved: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[int, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        told = [
            ("moved", "their labels have followed", [f"{old} -> {new}" for old, new in self.moved.items()]),
            ("changed", "labelled when they held something else; look at them again", list(self.changed.values())),
            ("missing", "their labels count again once they are back", list(self.missing)),
            ("groups of duplicates", "the same content; labels are not shared", list(map(_listed, self.duplicates))),
        ]
        lines = []
        for title, meaning, rows in told:
            if rows:
                lines.append(f"{len(rows):>6,} {title} ({meaning})")
                lines += [f"         {row if row.isprintable() else ascii(row)}" for row in rows[:SHOWN]]
                lines += [f"         and {len(rows) - SHOWN:,} more"] * (len(rows) > SHOWN)
        return "\n".join(lines) or "Every item is where it was, and holds what it held."

    def warning(self) -> str | None:
        """What a person should know of it and do about it; `None` where there is nothing."""
        told = []
        if self.moved:
            such = ", ".join(f"{old} -> {new}" for old, new in list(self.moved.items())[:3])
            told.append(f"{len(self.moved)} items have moved (such as {such}). Their labels have followed them.")
        if self.changed:
            such = ", ".join(list(self.changed.values())[:3])
            told.append(
                f"{len(self.changed)} items hold something else than when they were labelled (such as {such}). Their "
                "labels stay: look at each again, session.review(item) keeps a label, session.label(item, ...) changes "
                "it."
            )
        if self.missing:
            such = ", ".join(self.missing[:3])
            told.append(
                f"{len(self.missing)} items of the journal are not in the dataset (such as {such}). Their labels "
                "stay in the journal and count again once the files are back."
            )
        return " ".join([*told, "print(session.files) tells all of it."]) if told else None


@dataclass(frozen=True)
class Settled:
    """The key of each item, what is new of it by path, and the items that moved or changed."""

    keys: tuple[str, ...]
    fresh: Mapping[str, str] = field(default_factory=dict)
    moved: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[int, ...] = ()


def places_in(moves: Iterable[Event]) -> dict[str, str]:
    """The keys of the items at paths that `moved` facts tell of, those told last at the end. Elsewhere a path is the
    key of its item."""
    places = dict[str, str]()
    for event in moves:
        for path, key in event.payload.get("paths", {}).items():
            places.pop(path, None)
            places[path] = key
    return places


def paths_by_key(places: Mapping[str, str]) -> dict[str, str]:
    """Where items were last, those that were elsewhere before."""
    return {key: path for path, key in places.items()}


def settle(
    paths: Sequence[str],
    places: Mapping[str, str],
    contents: Mapping[str, Content],
    held: Iterable[str],
    look: Look,
) -> Settled:
    """Give each item of a dataset its key. Changes nothing.

    `contents` is what the items of some keys held when they were labelled. Such a key stays at its path while that
    holds the same. Else it goes to an item that does and that no such key stays at, one of the same file name first,
    and where there is none it stays at its path all the same. `held` are the keys that something is said of: those of
    unknown content are known by path alone. Items are looked at only where that takes it: those of keys in `contents`,
    and where some of these are not found, others of the same size.
    """
    told, last = {*held, *contents}, paths_by_key(places)
    rank = {path: place for place, path in enumerate(places)}
    claims: dict[str, list[int]] = {}
    for item, path in enumerate(paths):
        claims.setdefault(places.get(path, path), []).append(item)
    for items in claims.values():
        items.sort(key=lambda item: -rank.get(paths[item], -1))
    now = look([item for key in contents for item in claims.get(key, ())], None)
    at: dict[str, int] = {}
    for key, items in claims.items():
        fits = (item for item in items if key not in contents or now[item] == contents[key])
        if (found := next(fits, None)) is not None:
            at[key] = found
    lost = [key for key in contents if key not in at]
    settled = {item for key, item in at.items() if key in told}
    followed = _followed(lost, [item for item in range(len(paths)) if item not in settled], paths, last, contents, look)
    keys = {item: key for key, item in at.items()} | {item: key for key, item in followed.items()}
    changed = []
    for key in lost:
        stays = next((item for item in claims.get(key, ()) if item not in keys), None)
        if key not in followed and stays is not None:
            keys[stays] = key
            if now[stays] is not None:
                changed.append(stays)
    used = {*told, *places.values(), *keys.values()}
    for item, path in enumerate(paths):
        if item not in keys:
            keys[item] = _unused(path, used)
            used.add(keys[item])
    moved = {last.get(key, key): paths[item] for item, key in keys.items() if key in told}
    moved = {old: new for old, new in sorted(moved.items()) if old != new}
    reached = set(moved.values())
    fresh = {path: keys[i] for i, path in enumerate(paths) if path in reached or places.get(path, path) != keys[i]}
    return Settled(tuple(keys[item] for item in range(len(paths))), fresh, moved, tuple(sorted(changed)))


def moved_facts(settled: Settled) -> list[Draft]:
    """The facts that tell a later session where the items are."""
    told = list(settled.fresh.items())
    parts = [dict(told[start : start + AT_ONCE]) for start in range(0, len(told), AT_ONCE)]
    return [Draft("moved", payload={"paths": part}) for part in parts]


def seen_facts(contents: Mapping[str, Content]) -> list[Draft]:
    """The facts that tell what items hold of which something was said before anybody looked."""
    told = [(key, list(content)) for key, content in contents.items()]
    parts = [dict(told[start : start + AT_ONCE]) for start in range(0, len(told), AT_ONCE)]
    return [Draft("seen", payload={"contents": part}) for part in parts]


def groups(paths: Sequence[str], contents: Mapping[int, Content | None]) -> tuple[tuple[str, ...], ...]:
    """The paths of items that hold the same, of those looked at."""
    alike: dict[Content, list[str]] = {}
    for item, content in sorted(contents.items()):
        if content is not None:
            alike.setdefault(content, []).append(paths[item])
    return tuple(tuple(group) for group in alike.values() if len(group) > 1)


def missing(journal_keys: Iterable[str], places: Mapping[str, str]) -> tuple[str, ...]:
    """The paths where the items of keys were last."""
    last = paths_by_key(places)
    return tuple(sorted(last.get(key, key) for key in journal_keys))


def _followed(
    lost: Sequence[str],
    free: Sequence[int],
    paths: Sequence[str],
    last: Mapping[str, str],
    contents: Mapping[str, Content],
    look: Look,
) -> dict[str, int]:
    """The items that lost keys are found at, each item for one of them: of the same file name first, then in order."""
    if not lost or not free:
        return {}
    sizes = {contents[key][0] for key in lost}
    holds = {item: content for item, content in look(free, sizes).items() if content is not None}
    found: dict[str, int] = {}
    by_name: tuple[Callable[[str], str], ...] = (str, lambda path: PurePosixPath(path).name, lambda path: "")
    for name in by_name:
        left: dict[tuple[Content, str], list[int]] = {}
        for item in sorted(holds.keys() - found.values(), reverse=True):
            left.setdefault((holds[item], name(paths[item])), []).append(item)
        for key in lost:
            if key not in found and (items := left.get((contents[key], name(last.get(key, key))))):
                found[key] = items.pop()
    return found


def _unused(path: str, used: set[str]) -> str:
    number = 2
    while f"{path}//{number}" in used:
        number += 1
    return f"{path}//{number}"


def _listed(group: tuple[str, ...]) -> str:
    return ", ".join(group[:SHOWN]) + (f" and {len(group) - SHOWN:,} more" if len(group) > SHOWN else "")
