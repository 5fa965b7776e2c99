"""What is in the items of a dataset, as a number that tells it: SHA-256 of a file's bytes, or of an array."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from baal_widgets.journal import Hashes
from baal_widgets.sources import Source, input_of

CHUNK = 1 << 20  # bytes of a file in memory
TRIES = 3
SETTLED = 2 * 10**9  # nanoseconds: the coarsest clock of a file system, within which a change leaves no trace
READERS = min(8, os.cpu_count() or 1)
PROBED = 4  # items that are read twice, to know whether a dataset gives the same each time


class Content(NamedTuple):
    """How many bytes, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


class Contents:
    """The contents of a dataset's items, each read when it is asked for.

    A file is read again where its size, times or inode have changed since; `hashes` remembers them from one session to
    the next. Items without files are known by the arrays they are read as, where reading them twice gives the same and
    draws no random number. May be used from several threads.
    """

    def __init__(
        self,
        files: Sequence[Path] | None,
        root: Path | None = None,
        read: Callable[[int], Any] | None = None,
        hashes: Hashes | None = None,
        n_items: int = 0,
    ) -> None:
        self.files, self._root, self._read, self._hashes = files, root, read, hashes
        self._n_items = n_items if files is None else len(files)
        self._kept: dict[str, tuple[str, str]] | None = None
        self._fresh: dict[str, tuple[str, str]] = {}
        self._steady: bool | None = None
        self._lock = threading.Lock()

    @classmethod
    def of_source(cls, source: Source, hashes: Hashes | None = None) -> Contents:
        def read(item: int) -> Any:
            return input_of(source.dataset.pool_dataset[item])

        return cls(source.files, source.root, read, hashes, len(source.keys))

    def __getitem__(self, item: int) -> Content | None:
        """What is in an item now; `None` where it cannot be told: it is gone, cannot be read, or changes."""
        if self.files is None:
            return self._of_array(item)
        if (content := self._remembered(item)) is not None:
            return content
        path = self.files[item]
        with suppress(OSError, ValueError):
            begun = time.time_ns()
            content, told = hash_file(path, self._root)
            if max(told.st_mtime_ns, told.st_ctime_ns) < begun - SETTLED:
                with self._lock:
                    self._fresh[_name(path)] = _stamp(told), content.sha256
            return content
        return None

    def look(self, items: Sequence[int], sizes: set[int] | None = None) -> dict[int, Content | None]:
        """What is in each of some items, of files those of certain sizes only. Shows its progress after a second."""
        wanted = [item for item in items if sizes is None or self.files is None or self.size(item) in sizes]
        found: dict[int, Content | None] = {item: self._remembered(item) for item in wanted}
        unread = [item for item, content in found.items() if content is None]
        with _progress(len(unread)) as advance, ThreadPoolExecutor(READERS) as readers:
            # a user's dataset may not bear several readers
            told = map(self.__getitem__, unread) if self.files is None else readers.map(self.__getitem__, unread)
            for item, content in zip(unread, told, strict=True):
                found[item] = content
                advance()
        self.remember()
        return found

    def size(self, item: int) -> int | None:
        """The bytes of an item's file, without reading it; `None` where there is none."""
        if self.files is None:
            return None
        with suppress(OSError, ValueError):
            return _regular(self.files[item], self._root).st_size
        return None

    def is_there(self, item: int) -> bool:
        return self.files is None or os.path.exists(self.files[item])

    def told(self, item: int) -> dict[str, Any]:
        """What a fact about an item says of its content; nothing where it cannot be told."""
        content = self[item]
        return {} if content is None else {"bytes": content.size, "sha256": content.sha256}

    def remember(self) -> None:
        """Keep what was found out of the files for the next session. A cache: an error costs time alone."""
        with self._lock:
            fresh, self._fresh = self._fresh, {}
            self._kept = {**(self._kept or {}), **fresh} if fresh else self._kept
        if fresh and self._hashes is not None:
            with suppress(SQLAlchemyError, OSError):
                self._hashes.write(fresh)

    def _remembered(self, item: int) -> Content | None:
        """What is in a file that has not changed since it was read."""
        if self.files is None:
            return None
        path = self.files[item]
        with suppress(OSError, ValueError):
            told = _regular(path, self._root)
            if (known := self._known(_name(path))) is not None and known[0] == _stamp(told):
                return Content(told.st_size, known[1])
        return None

    def _known(self, name: str) -> tuple[str, str] | None:
        if self._kept is None:
            self._kept = {}
            if self._hashes is not None:
                with suppress(SQLAlchemyError, OSError):
                    self._kept = self._hashes.read()
        return self._fresh.get(name) or self._kept.get(name)

    def _of_array(self, item: int) -> Content | None:
        if self._steady is None:
            self._steady = self._n_items > 0 and self._is_steady()
        if not self._steady or self._read is None:
            return None
        with suppress(Exception):  # whatever a user's dataset raises
            return hash_value(self._read(item))
        return None

    def _is_steady(self) -> bool:
        """Whether reading an item twice gives the same, and leaves the random numbers of the process alone."""
        assert self._read is not None
        before = _random_states()
        try:
            for item in np.linspace(0, self._n_items - 1, min(PROBED, self._n_items)).astype(int).tolist():
                if hash_value(self._read(item)) != hash_value(self._read(item)):
                    return False
            return _random_states() == before
        except Exception:
            return False
        finally:
            _put_back(before)


def hash_file(path: Path, root: Path | None = None) -> tuple[Content, os.stat_result]:
    """The content of a regular file, and its state while it was read: a megabyte at a time.

    With a `root` the file must lie below it, wherever links lead. Raises `OSError`; `ValueError` for what is no regular
    file (a pipe or a device is never opened), lies elsewhere, or changes each time it is read.
    """
    for _ in range(TRIES):
        looked = _regular(path, root)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
        with open(os.open(path, flags), "rb", buffering=0) as file:  # it may have become a pipe since
            before = os.fstat(file.fileno())
            if not os.path.samestat(before, looked):
                continue
            digest, size, chunk = hashlib.sha256(), 0, memoryview(bytearray(CHUNK))
            while size <= before.st_size and (n := file.readinto(chunk)):
                digest.update(chunk[:n])
                size += n
            if size == before.st_size and _stamp(os.fstat(file.fileno())) == _stamp(before):
                return Content(size, digest.hexdigest()), before
    raise ValueError(f"{path} changes while it is read.")


def hash_value(value: Any) -> Content:
    """The content of an array, tensor, image, number or text, or of a nest of them: types, shapes and bytes.

    Raises `TypeError` for anything else.
    """
    digest, size = hashlib.sha256(), 0
    for head, data in _parts(value):
        digest.update(f"{head} {len(data)} ".encode())
        digest.update(data)
        size += len(data)
    return Content(size, digest.hexdigest())


def _parts(value: Any) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, torch.Tensor):
        whole = value.detach().cpu().contiguous()
        data = whole.reshape(-1).view(torch.uint8).numpy().tobytes() if whole.numel() else b""
        yield f"array {str(whole.dtype).removeprefix('torch.')} {list(whole.shape)}", data
    elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        array = np.ascontiguousarray(value)
        yield f"array {array.dtype.name} {list(np.shape(value))}", array.tobytes()
    elif isinstance(value, Image.Image):
        yield f"image {value.mode} {list(value.size)}", value.tobytes()
    elif isinstance(value, (str, bytes, int, float, type(None))):
        yield type(value).__name__, value if isinstance(value, bytes) else repr(value).encode()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}", b""
        for name, part in value.items():
            yield from _parts(name)
            yield from _parts(part)
    elif isinstance(value, (list, tuple)):
        yield f"sequence {len(value)}", b""
        for part in value:
            yield from _parts(part)
    else:
        raise TypeError(f"Expected an array, an image, a number, a text or a nest of them, got {type(value).__name__}.")


def _regular(path: Path, root: Path | None) -> os.stat_result:
    """The state of a regular file, which with a `root` lies below it."""
    told = os.stat(path)
    if not stat.S_ISREG(told.st_mode):
        raise ValueError(f"{path} is no regular file.")
    if root is not None and not path.resolve().is_relative_to(root):
        raise ValueError(f"{path} leads out of {root}.")
    return told


def _stamp(told: os.stat_result) -> str:
    """What changes when somebody writes to a file, or puts another in its place."""
    return f"{told.st_size} {told.st_mtime_ns} {told.st_ctime_ns} {told.st_ino}"


def _name(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()


def _random_states() -> tuple[Any, ...]:
    kind, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    return random.getstate(), (kind, keys.tobytes(), *rest), bytes(torch.get_rng_state().tolist())


def _put_back(states: tuple[Any, ...]) -> None:
    plain, (kind, keys, *rest), tensor = states
    random.setstate(plain)
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))
    torch.set_rng_state(torch.tensor(list(tensor), dtype=torch.uint8))


@contextmanager
def _progress(n: int) -> Iterator[Callable[[], Any]]:
    from tqdm import tqdm

    with tqdm(total=n, desc="Reading items", delay=1, leave=False, disable=None) as bar:
        yield partial(bar.update, 1)
