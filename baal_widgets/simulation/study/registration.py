"""The study as it was registered: its sizes, tables and claims, read from registration.toml."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from baal_widgets.simulation.protocol import Protocol
from baal_widgets.simulation.verdicts import Kind

EVERYWHERE = ("early", "middle", "late")


@dataclass(frozen=True)
class Reference:
    """A curve: of which setting, case and method, and which measure."""

    setting: str
    case: str
    method: str
    measure: str

    @classmethod
    def of(cls, text: str) -> Reference:
        parts = text.split("/")
        if len(parts) != 4:
            raise ValueError(f"Expected setting/case/method/measure, got {text!r}.")
        return cls(*parts)


@dataclass(frozen=True)
class Claim:
    """That `higher` exceeds `lower`: one reference each, or one for each of the `levels` of a trend."""

    id: str
    says: str
    source: str
    kind: Kind | str
    higher: tuple[Reference, ...]
    lower: tuple[Reference, ...]
    at: tuple[str, ...]
    margin: float
    levels: tuple[float, ...]
    factor: float


@dataclass(frozen=True)
class Size:
    """How large a study is, and how its networks learn."""

    name: str
    seeds: tuple[int, ...]
    features: str
    items: int
    tests: int
    lanes: int
    counts: Mapping[str, int]
    protocol: Protocol


@dataclass(frozen=True)
class Table:
    """Runs that belong together, and the claims that they answer: one family.

    Every setting has the `methods`, but for those for which `only` some are registered.
    """

    name: str
    title: str
    world: str
    cases: tuple[str, ...]
    methods: tuple[str, ...]
    only: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Protocol]
    counts: Mapping[str, int]
    claims: tuple[Claim, ...]

    def methods_of(self, setting: str) -> tuple[str, ...]:
        return self.only.get(setting, self.methods)


def fingerprint() -> str:
    """The SHA-256 of the registration."""
    return sha256(_text().encode()).hexdigest()


def sizes() -> list[str]:
    return list(_registered()["size"])


def tables() -> list[str]:
    return list(_registered()["table"])


def size(name: str) -> Size:
    told = _registered()["size"][name]
    first = _registered()["first_seed"]
    protocol = _protocol(Protocol(), told["protocol"])
    rest = {key: told[key] for key in ("features", "items", "tests", "lanes", "counts")}
    return Size(name, tuple(range(first, first + told["seeds"])), protocol=protocol, **rest)


def table(name: str, at: Size) -> Table:
    """A table at a size."""
    told = _registered()["table"][name]
    settings = {
        setting: _protocol(at.protocol, {**changes.get("all", {}), **changes.get(at.name, {})})
        for setting, changes in told.get("settings", {"base": {}}).items()
    }
    return Table(
        name,
        told["title"],
        told["world"],
        tuple(told.get("cases", ["plain"])),
        tuple(told["methods"]),
        {setting: tuple(methods) for setting, methods in told.get("only", {}).items()},
        settings,
        told.get("counts", {}).get(at.name, at.counts),
        tuple(_claim(each) for each in told["claim"]),
    )


def _claim(told: Mapping[str, Any]) -> Claim:
    sides = [told[side] if isinstance(told[side], list) else [told[side]] for side in ("higher", "lower")]
    higher, lower = (tuple(map(Reference.of, side)) for side in sides)
    margin = told.get("margin", _registered()["margin"])
    levels = tuple(map(float, told.get("levels", ())))
    at = tuple(told.get("at", ("area",)))
    words = (told["id"], told["says"], told["source"], told["kind"])
    return Claim(*words, higher, lower, at, margin, levels, told.get("factor", 1.0))


def _protocol(base: Protocol, changes: Mapping[str, Any]) -> Protocol:
    values: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in changes.items()}
    return dataclasses.replace(base, **values)


@cache
def _registered() -> dict[str, Any]:
    return tomllib.loads(_text())


def _text() -> str:
    return (files("baal_widgets.simulation.study") / "registration.toml").read_text(encoding="utf8")
