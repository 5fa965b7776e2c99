"""Where a learner takes its inputs from: what was read is kept, and of a frozen backbone the features are."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from baal_widgets.batched import Batched
from baal_widgets.bayesian.frozen import Split
from baal_widgets.bayesian.swapping import own_class
from baal_widgets.features_store import FeatureStore, digest_of, mark_of
from baal_widgets.inputs import InputsOf, KeptInputs, reads_alike
from baal_widgets.utils.structures import inputs_of

N_PROBES = 8
AT_ONCE = 64  # images between two looks at whether the job is cancelled

Told = Callable[[int, int], None]


class Shelf:
    """The inputs of one dataset by item: as they are, or with a `Split` as the features that its head takes.

    Inputs are kept in at most `memory` bytes. Of a dataset of files the features know their file by path, size and
    time of change, and the transform by what it makes of eight of them; of other datasets they know their input.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        memory: int,
        device: torch.device,
        files: Sequence[Path] | None = None,
        keys: Sequence[str] = (),
    ) -> None:
        self.dataset, self.memory, self.device, self.files, self.keys = dataset, memory, device, files, keys
        self.n: int = len(dataset)  # type: ignore[arg-type]  # torch's Dataset does not promise a length
        self._kept: KeptInputs | None = None
        self._split: Split | None = None
        self._store: FeatureStore | None = None

    @property
    def has_features(self) -> bool:
        return self._store is not None

    def of(self, items: Sequence[int]) -> Batched | None:
        """What the model, or its head, takes of these items; `None` where nothing can be kept of this dataset."""
        if self._store is not None:
            return FeaturesOf(self._store, items)
        if self._kept is None:
            self._kept = KeptInputs(self.dataset, self.memory, self.device)
        return InputsOf(self._kept, items) if self._kept.keeps else None

    def take_features(self, split: Split | None, folder: Path | None) -> None:
        """From now on give what the head of the split takes, kept in the folder; without one the inputs again."""
        self._split, self._store = split, None
        if split is None:
            return
        self._kept = None  # each is read once more, and not again
        self._store = FeatureStore(folder, self.n)
        if folder is not None and self.files is not None and not self._transform_is_the_same(folder / "probes.json"):
            self._store.forget()

    def missing(self, items: Sequence[int], told: Told) -> list[int]:
        """The items whose features are to be computed. Looks at each file; without files it reads each input once."""
        if self._store is None:
            return []
        unmarked = [item for item in items if item not in self._store.marks]
        for first in range(0, len(unmarked), AT_ONCE):
            told(first, len(unmarked))
            for item in unmarked[first : first + AT_ONCE]:
                self._store.marks[item] = self._mark(item)
        return self._store.missing(items)

    def fill(self, items: Sequence[int], told: Told) -> None:
        """Compute the features that are missing, block by block. What `told` raises ends it between two batches."""
        assert self._store is not None
        assert self._split is not None
        split, done = self._split, 0

        def compute(some: list[int]) -> Tensor:
            nonlocal done
            parts = []
            for first in range(0, len(some), AT_ONCE):
                told(done, len(items))
                data = torch.stack([inputs_of(self.dataset[item]) for item in some[first : first + AT_ONCE]])
                parts.append(split.features(data.to(self.device)).cpu())
                done += len(data)
            return torch.cat(parts)

        for _ in self._store.fill(items, compute):
            pass

    def _mark(self, item: int) -> bytes:
        if self.files is None:
            return digest_of(inputs_of(self.dataset[item]))
        try:
            found = os.stat(self.files[item])
        except OSError as error:
            return mark_of(self.keys[item], error.errno)
        return mark_of(self.keys[item], found.st_size, found.st_mtime_ns)

    def _transform_is_the_same(self, file: Path) -> bool:
        """Whether unchanged files still give the inputs they gave; notes what they give now."""
        now, same = dict[str, list[str]](), True
        for item in np.unique(np.linspace(0, self.n - 1, N_PROBES).astype(int)).tolist():
            try:
                given = digest_of(inputs_of(self.dataset[item])).hex()
            except Exception:  # noqa: S112  # a damaged file says nothing of the transform
                continue
            now[self.keys[item]] = [self._mark(item).hex(), given]
        try:
            before = json.loads(file.read_text("utf-8"))
            same = all(now[key][1] == one[1] for key, one in before.items() if key in now and now[key][0] == one[0])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            same = False
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(now), "utf-8")
        os.replace(part, file)
        return same


class FeaturesOf(Batched):
    """The features of some items, `[item, ...]`, from those that are kept."""

    def __init__(self, store: FeatureStore, items: Sequence[int]) -> None:
        self.store, self.items = store, np.asarray(items, np.int64)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Tensor:
        return self.gather([place])[0]  # type: ignore[no-any-return]

    def gather(self, places: Sequence[int]) -> Any:
        return self.store.rows(self.items[np.asarray(places, np.int64)])


def splittable(dataset: Dataset[Any], items: Sequence[int]) -> bool:
    """Whether the inputs of a dataset are tensors that are the same at each read, judged by some items."""
    return reads_alike(dataset, [items[0], items[len(items) // 2], items[-1]])


def key_of(split: Split) -> str:
    """A name that changes with the weights, the layers and the code of what comes before the head."""
    whole = hashlib.blake2b(digest_size=16)
    for name, part in split.backbone():
        kind = own_class(part)
        whole.update(f"{name} {kind.__module__}.{kind.__qualname__} {part.extra_repr()} {_options(part)}\n".encode())
        if not kind.__module__.startswith("torch."):
            whole.update(_code(kind).encode())
        tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        for own, tensor in tensors:
            whole.update(own.encode() + digest_of(tensor.float() if tensor.dtype == torch.bfloat16 else tensor))
    return whole.hexdigest()


def _options(part: nn.Module) -> str:
    plain = (int, float, str, tuple, list)
    told = {name: value for name, value in vars(part).items() if isinstance(value, plain) and name != "training"}
    return repr(sorted((name, value) for name, value in told.items() if " at 0x" not in repr(value)))


def _code(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""
