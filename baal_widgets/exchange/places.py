"""Where labels are written: files and folders that appear whole or not at all, and names that are safe there."""

from __future__ import annotations

import json
import os
import shutil
import stat
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST_NAME = 100  # bytes: file systems take 255
LARGEST_FILE = 512 * 2**20  # bytes of a file that is read as one piece
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A place beside the target to write to; it becomes the target at the end, and is gone after an error."""
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder. Give the name of a file in it.")
    part = _beside(target)
    try:
        yield part
        if target.is_file() and not target.is_symlink():  # whoever could not read it still cannot
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target to fill; it becomes the target at the end, and is gone after an error.

    Raises `FileExistsError` where the target is there already and is no empty folder.
    """
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there already. Give the name of a new folder, or of an empty one.")
    part = _beside(target)
    part.mkdir()
    try:
        yield part
        if target.exists():
            target.rmdir()  # still empty, or this fails
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class Names:
    """Names for files and folders, made of any text: each once, also where capitals are not told apart.

    >>> names = Names()
    >>> names.safe("../../x"), names.safe("Cat"), names.safe("cat"), names.safe("con"), names.safe("")
    ('x', 'Cat', 'cat-2', 'con_', '_')
    """

    def __init__(self) -> None:
        self._given: set[str] = set()

    def safe(self, text: str) -> str:
        """A name of letters, digits, `-` and `_`, at most 100 bytes, that was not given before."""
        plain = safe_name(text)
        name, n = plain, 1
        while name.casefold() in self._given:
            n += 1
            name = f"{plain}-{n}"
        self._given.add(name.casefold())
        return name


def safe_name(text: str) -> str:
    """A text as a single part of a path, in any alphabet: nothing that a file system or a shell takes for more."""
    folded = unicodedata.normalize("NFC", text[: 4 * LONGEST_NAME])
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in folded)
    name = unicodedata.normalize("NFC", kept).encode()[: LONGEST_NAME - 10].decode(errors="ignore")
    name = name.lstrip("-_") or "_"
    return f"{name}_" if name.casefold() in RESERVED else name


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises `ValueError` that says the line where it is none, too large or too deep."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"{path.name} has {size:,} bytes, more than the {LARGEST_FILE:,} that are read at once.")
    return parsed(path.read_bytes(), path.name)


def parsed(text: str | bytes, where: str) -> Any:
    """The value that a JSON text stands for; `ValueError` that begins with `where`."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        return json.loads(text, parse_constant=_refused)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if error.lineno > 1 else ""
        raise ValueError(f"{where}{line}: expected JSON, but {error.msg.lower()} at column {error.colno}.") from None
    except RecursionError:
        raise ValueError(f"{where}: expected labels, got JSON that is nested too deeply to be read.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: expected text in UTF-8, got another byte at place {error.start}.") from None
    except ValueError as error:
        raise ValueError(f"{where}: expected JSON, but {error}.") from None


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON, every alphabet written as it is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _beside(target: Path) -> Path:
    if not target.parent.is_dir():
        raise FileNotFoundError(f"No folder {target.parent} to write {target.name} in: create it first.")
    return target.parent / f".{safe_name(target.name)}-{uuid.uuid4().hex[:12]}.part"
