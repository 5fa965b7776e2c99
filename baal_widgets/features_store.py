"""What a frozen backbone makes of each item, computed once a project and kept on disk in blocks.

A block is written whole, beside where it belongs, and then renamed; it carries a checksum of itself and the mark of
each item it was made of. So what is torn, damaged or of another file is never used, and a process that is killed loses
the block that it worked on. Numbers are float32: half of the bits change features by up to 0.05 %, and what is read
from here is to be what would be computed.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float32]
Marks = npt.NDArray[np.uint8]

BLOCK = 1024
MARK = 16  # bytes


@dataclass(eq=False)
class FeatureStore:
    """Rows of features of `n` items; `marks[item]` are 16 bytes that change with what the item is.

    `folder` holds the blocks, which are mapped, so that the system decides what of them is in memory; without one
    all is in memory. 4 bytes a number: 512 MB for 100,000 items of 1,280 features.
    """

    folder: Path | None
    n: int
    marks: dict[int, bytes] = field(default_factory=dict)
    _blocks: dict[int, tuple[Marks, Floats]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take in what is there already and sound: each file is read once."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for number in range(-(-self.n // BLOCK)):
                block = read_block(self._file(number))
                if block is not None and len(block[0]) == self._size(number):
                    self._blocks[number] = block

    def missing(self, items: Sequence[int]) -> list[int]:
        """Those of the items that are not here as they are now, in order."""
        return [item for number, some in _by_block(np.unique(items)) for item in self._missing_of(number, some)]

    def fill(self, items: Sequence[int], compute: Callable[[list[int]], Tensor]) -> Iterator[int]:
        """Compute what is missing of the items, block by block; yields how many are done after each block."""
        missing, done = self.missing(items), 0
        for number, some in _by_block(missing):
            rows = compute(some).detach().float().cpu().numpy()
            self._put(number, some, rows)
            done += len(some)
            yield done

    def rows(self, items: Sequence[int] | npt.NDArray[np.int64]) -> Tensor:
        """Features `[item, ...]` in the order asked for. Raises `KeyError` for an item that is not here."""
        wanted = np.asarray(items, np.int64)
        numbers = wanted // BLOCK
        shape = next((rows.shape[1:] for _, rows in self._blocks.values()), (0,))
        found = np.empty((len(wanted), *shape), np.float32)
        for number in np.unique(numbers).tolist():
            here = np.flatnonzero(numbers == number)
            if number not in self._blocks:
                raise KeyError(f"The features of item {int(wanted[here[0]])} are not computed yet: call fill first.")
            block, places = self._blocks[number][1], wanted[here] - number * BLOCK
            if here[-1] - here[0] + 1 == len(here) and places.max() < len(block):
                np.take(block, places, axis=0, out=found[here[0] : here[-1] + 1], mode="clip")  # copies but once
            else:
                found[here] = block[places]
        return torch.from_numpy(found)

    def forget(self) -> None:
        """Use nothing of what is here."""
        self._blocks.clear()

    def _missing_of(self, number: int, items: list[int]) -> list[int]:
        block = self._blocks.get(number)
        if block is None:
            return items
        # a void of 16 bytes compares as a whole; an item without a mark is missing, whatever is here
        here = block[0].view(f"V{MARK}")[:, 0][np.asarray(items) - number * BLOCK].tolist()
        return [item for item, mark in zip(items, here, strict=True) if mark != self.marks.get(item)]

    def _put(self, number: int, items: Sequence[int], rows: Floats) -> None:
        places = [item - number * BLOCK for item in items]
        marks, held = np.zeros((self._size(number), MARK), np.uint8), self._blocks.get(number)
        whole = np.zeros((len(marks), *rows.shape[1:]), np.float32)
        if held is not None and held[1].shape == whole.shape:
            marks[:], whole[:] = held
        whole[places] = rows
        marks[places] = np.frombuffer(b"".join(self.marks[item] for item in items), np.uint8).reshape(-1, MARK)
        del held
        self._blocks.pop(number, None)
        if self.folder is None:
            self._blocks[number] = marks, whole
            return
        write_block(self._file(number), marks, whole)
        self._blocks[number] = marks, _mapped(self._file(number), whole)

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:06d}.block"

    def _size(self, number: int) -> int:
        return min(BLOCK, self.n - number * BLOCK)


def write_block(file: Path, marks: Marks, rows: Floats) -> None:
    """Write a block where nobody sees it until it is whole and on disk."""
    content = io.BytesIO()
    np.save(content, marks, allow_pickle=False)
    np.save(content, rows, allow_pickle=False)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(_digest(content.getbuffer()))
            stream.write(content.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_block(file: Path) -> tuple[Marks, Floats] | None:
    """The marks and the rows of a block, `None` where there is none or where it is not what was written."""
    try:
        content = file.read_bytes()
        if len(content) <= MARK or _digest(memoryview(content)[MARK:]) != content[:MARK]:
            return None
        stream = io.BytesIO(content)
        stream.seek(MARK)
        marks = np.load(stream, allow_pickle=False)
        rows = np.load(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    known = marks.dtype == np.uint8 and marks.shape == (len(rows), MARK) and rows.dtype == np.float32
    return (marks, _mapped(file, rows)) if known else None


def mark_of(*told: object) -> bytes:
    """16 bytes that stand for some values."""
    return _digest("\x1f".join(map(str, told)).encode(errors="surrogateescape"))


def digest_of(value: Any) -> bytes:
    """16 bytes that stand for an array or tensor: its kind, shape and numbers."""
    array = np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
    return _digest(f"{array.dtype} {array.shape} ".encode() + array.tobytes())


def _by_block(items: Sequence[int] | npt.NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """The items, which are in order, by the number of their block."""
    wanted = np.asarray(items, np.int64)
    numbers, begins = np.unique(wanted // BLOCK, return_index=True)
    for number, some in zip(numbers.tolist(), np.split(wanted, begins[1:]), strict=True):
        yield number, some.tolist()


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=MARK).digest()


def _mapped(file: Path, rows: Floats) -> Floats:
    """The same rows, which are the end of the file, as far as the system keeps them in memory."""
    if not rows.nbytes:
        return rows
    offset = file.stat().st_size - rows.nbytes
    return np.memmap(file, np.float32, "r", offset, rows.shape)
