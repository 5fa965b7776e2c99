"""Which key is whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COMMANDS = {
    "skip": "s",
    "unsure": "d",
    "flag": "f",
    "note": "n",
    "undo": "u",
    "next": "Enter",
    "view": "g",
    "guess": "h",
    "confirm": "y",
    "why": "w",
    "again": "l",
    "settle": ",",
    "learn": "r",
    "export": "",
    "find": "/",
    "aid": "c",
    "larger": "+",
    "smaller": "-",
    "keys": "?",
}
"""What can be done by key, with the key that does it unless told otherwise."""

FOR_CLASSES = "1234567890abeijkmopqtvxz"
"""Keys of classes, in the order in which they are given out: digits, then the letters that commands leave free."""


def keymap(classes: Sequence[str], keys: Mapping[str, str] | None = None) -> dict[str, object]:
    """`{"classes": [a key or "" for each class], "commands": {name: key}}`.

    An empty name is a class that is no more and gets no key. `keys` gives keys of one's own, by class name or command
    (`{"cat": "c", "skip": "x"}`): single characters, letter case aside. What it takes from others goes without, or to
    the next free key. Raises `ValueError` where a name is unknown, a key is not one character, or two names want the
    same one.
    """
    wanted: dict[str, str] = {}
    for name, key in (keys or {}).items():
        if name not in COMMANDS and name not in classes:
            raise ValueError(
                f"keys= has {name!r}, which is neither a class ({', '.join(classes[:5])}...) nor a command "
                f"({', '.join(COMMANDS)})."
            )
        if not isinstance(key, str) or len(key) != 1 or key.isspace():
            raise ValueError(f"Expected one character as the key of {name!r}, got {key!r}.")
        if key.lower() in wanted.values():
            raise ValueError(f"keys= gives {key!r} to two of its names.")
        wanted[name] = key.lower()
    own = {name: wanted[name] for name in COMMANDS if name in wanted and name not in classes}
    taken = set(wanted.values())
    commands = {name: own.get(name, key if key not in taken else "") for name, key in COMMANDS.items()}
    taken |= set(commands.values())
    free = (key for key in FOR_CLASSES if key not in taken)
    given = []
    for name in classes:
        given.append(wanted[name] if name in wanted else next(free, "") if name else "")
    return {"classes": given, "commands": commands}
