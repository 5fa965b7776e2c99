"""What an import would do, before it does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baal_widgets.checks import check_class_name
from baal_widgets.exchange.locate import Look, locate
from baal_widgets.exchange.rows import Label, Labelled, short

SHOWN = 5  # of each kind, in the text of a plan


@dataclass(frozen=True)
class Proposed:
    """A label for an item, in the place of what stands there: a label, `None` for an item set aside or not labelled.

    `annotator` is who gave it, as the file tells.
    """

    item: int
    key: str
    old: Label | None
    new: Label
    annotator: str = ""


@dataclass(frozen=True)
class Duplicate:
    """An item that a file has several rows of, with what they say, each once. It is taken where they say the same."""

    item: int
    key: str
    labels: tuple[Label, ...]

    @property
    def conflicting(self) -> bool:
        return len(self.labels) > 1


@dataclass(frozen=True)
class ImportPlan:
    """What importing `source` does, or did: `written` labels, 0 after a dry run.

    `new` would be labelled; `same` are labelled so already; `changed` have another label or were set aside, and are
    left alone without `overwrite`. `unknown_items` are not in the dataset, `unknown_classes` (with the number of rows)
    not among the classes; those in `added_classes` were not and will be. `duplicates` come more than once,
    `without_label` counts rows that have none. `by_content` are the items that were found by what they hold, since that
    is elsewhere by now, `{path in the file: path now}`; `other_content` hold something else than the file says, and
    what it says is nowhere: their labels are taken all the same. Printed, it is a summary.
    """

    source: str
    new: tuple[Proposed, ...] = ()
    same: tuple[Proposed, ...] = ()
    changed: tuple[Proposed, ...] = ()
    unknown_items: tuple[str, ...] = ()
    unknown_classes: Mapping[str, int] | None = None
    added_classes: tuple[str, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    without_label: int = 0
    overwrite: bool = False
    written: int = 0
    by_content: Mapping[str, str] | None = None
    other_content: tuple[str, ...] = ()

    @property
    def conflicts(self) -> tuple[Duplicate, ...]:
        """The duplicates that contradict each other. None of their labels is taken."""
        return tuple(one for one in self.duplicates if one.conflicting)

    @property
    def to_write(self) -> tuple[Proposed, ...]:
        """The labels that the import writes."""
        return (*self.new, *self.changed) if self.overwrite else self.new

    def __str__(self) -> str:
        unknown = self.unknown_classes or {}
        left = "replaced" if self.overwrite else "left as they are; overwrite=True replaces them"
        told = [
            ("new", "not labelled so far", [f"{one.key}: {_told(one.new)}" for one in self.new]),
            ("the same", "labelled so already", [one.key for one in self.same]),
            ("changed", left, [f"{one.key}: {_told(one.old)} -> {_told(one.new)}" for one in self.changed]),
            ("unknown items", "not in this dataset; left out", list(map(_brief, self.unknown_items))),
            (
                "unknown classes",
                "their rows are left out; new_classes=True adds them",
                [f"{_brief(name)} ({n} row{'s' * (n > 1)})" for name, n in unknown.items()],
            ),
            ("new classes", "added", list(map(_brief, self.added_classes))),
            (
                "contradictions",
                "several rows that differ; none is taken",
                [f"{one.key}: {' or '.join(map(_told, one.labels))}" for one in self.conflicts],
            ),
            (
                "found by content",
                "moved since the file was written",
                [f"{_brief(old)} -> {new}" for old, new in (self.by_content or {}).items()],
            ),
            ("of other content", "changed since they were labelled; look at them again", list(self.other_content)),
        ]
        lines = [f"{self.source}: {self.written} labels written" if self.written else f"{self.source}: nothing written"]
        for title, meaning, rows in told:
            if rows:
                lines.append(f"  {len(rows):>6,} {title} ({meaning})")
                lines += [f"           {row}" for row in rows[:SHOWN]]
                lines += [f"           and {len(rows) - SHOWN:,} more"] * (len(rows) > SHOWN)
        again = len(self.duplicates) - len(self.conflicts)
        lines += [f"  {again:>6,} items more than once, each time with the same label"] * bool(again)
        lines += [f"  {self.without_label:>6,} rows without a label"] * bool(self.without_label)
        return "\n".join(lines)


def plan_import(
    rows: Sequence[Labelled],
    source: str,
    *,
    index_of: Mapping[str, int],
    by_number: bool,
    classes: Sequence[str],
    multi_label: bool,
    standing: Callable[[int], tuple[bool, Label | None]],
    look: Look | None = None,
    new_classes: bool = False,
    overwrite: bool = False,
) -> ImportPlan:
    """Set rows against what stands. Changes nothing.

    `index_of` maps keys to items; with `by_number` keys are but the items' numbers, so that a row without a key is
    known by its `item`. Rows that tell what their item held are set against what `look(items)` finds in it now: where
    that differs, the item is the one that holds it. `standing(item)` is whether somebody has answered, and the label,
    `None` for one set aside. Raises `ValueError` where a row has several classes and an item may have one, or a new
    class cannot have its name.
    """
    keys = {item: key for key, item in index_of.items()}
    places = locate(rows, index_of, by_number, look)
    told: dict[int, dict[Label, Labelled]] = {}
    times: dict[int, int] = {}
    unknown_items, unknown, added = dict[str, None](), dict[str, int](), dict[str, None]()
    order = {name: place for place, name in enumerate(classes)}
    without = 0
    for row, item in zip(rows, places.items, strict=True):
        if row.label is None:
            without += 1
        elif item is None:
            unknown_items[row.name] = None
        else:
            for name in dict.fromkeys(name for name in row.names if name not in order):
                if new_classes:
                    added[check_class_name(name)] = None
                    order[name] = len(order)
                else:
                    unknown[name] = unknown.get(name, 0) + 1
            times[item] = times.get(item, 0) + 1
            told.setdefault(item, {}).setdefault(_fitting(row, order, multi_label), row)
    parts: dict[str, list[Proposed]] = {"new": [], "same": [], "changed": []}
    for item, labels in told.items():
        ((label, row), *others) = labels.items()
        if others or not all(name in order for name in row.names):
            continue
        answered, old = standing(item)
        kind = "new" if not answered else "changed" if old is None or not _alike(old, label) else "same"
        parts[kind].append(Proposed(item, keys[item], old, label, row.annotator))
    taken = [*parts["new"], *(parts["changed"] if overwrite else [])]
    used = {name for one in taken for name in (one.new if isinstance(one.new, tuple) else (one.new,))}
    return ImportPlan(
        source=source,
        new=tuple(parts["new"]),
        same=tuple(parts["same"]),
        changed=tuple(parts["changed"]),
        unknown_items=tuple(unknown_items),
        unknown_classes=unknown,
        added_classes=tuple(name for name in added if name in used),
        duplicates=tuple(Duplicate(item, keys[item], tuple(told[item])) for item, n in times.items() if n > 1),
        without_label=without,
        overwrite=overwrite,
        by_content={rows[place].name: keys[item] for place, item in places.by_content.items()},
        other_content=tuple(keys[item] for item in places.other_content),
    )


def _fitting(row: Labelled, order: Mapping[str, int], multi_label: bool) -> Label:
    """The label as the session has it: one class, or several in the order of the classes."""
    names = tuple(sorted(set(row.names), key=lambda name: (order.get(name, len(order)), name)))
    if multi_label:
        return names
    if len(names) != 1:
        raise ValueError(
            f"Expected one class for {row.name}, got {short(list(names))}. Items of this session have one class each: "
            "a session for several is begun with multi_label=True."
        )
    return names[0]


def _alike(one: Any, other: Any) -> bool:
    return set(one) == set(other) if isinstance(one, tuple) and isinstance(other, tuple) else bool(one == other)


def _told(label: Label | None) -> str:
    if isinstance(label, tuple):
        return ", ".join(map(_brief, label)) or "none of the classes"
    return "set aside" if label is None else _brief(label)


def _brief(name: str) -> str:
    return name if name.isprintable() and len(name) <= 80 else short(name)
