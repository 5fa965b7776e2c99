"""The weights that a model had after each lesson: a safetensors file a round, told apart by its SHA-256."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Weights:
    """A folder for the weights of each round. Reading and writing need `safetensors` (extra `weights`)."""

    folder: Path

    def write(self, round_: int, state: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Write the weights of a round, whole or not at all; the file's name and hash, for the journal.

        Only the owner can read it. No file is ever written over: the name tells of the content too.
        """
        from safetensors.torch import save

        # tensors may share their memory, which the format does not know
        data = save({name: value.detach().cpu().contiguous().clone() for name, value in state.items()})
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.folder / f"round-{round_:04}-{sha256[:12]}.safetensors"
        handle, written = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(written, path)
        except BaseException:
            os.unlink(written)
            raise
        return {"file": path.name, "sha256": sha256}

    def read(self, told: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The weights that the journal tells of. Raises `FileNotFoundError`, or `ValueError` where the file is not as
        it was written."""
        from safetensors.torch import load

        path = self.folder / Path(told["file"]).name
        if not path.is_file():
            raise FileNotFoundError(f"The weights were kept in {path}, which is not there. Say where: weights=FOLDER.")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != told["sha256"]:
            raise ValueError(f"{path} is not as it was written after that lesson: learn() again, or restore the file.")
        return load(data)


def weights_folder(place: str | os.PathLike[str] | bool | None, journal: Path | None) -> Weights | None:
    """Where weights are kept: in a folder, beside the journal for `True`, or nowhere."""
    if place is None or place is False:
        return None
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        raise ImportError("To keep weights takes safetensors: pip install 'baal-widgets[weights]'.") from error
    if place is not True:
        return Weights(Path(place).expanduser())
    if journal is None:
        raise ValueError("weights=True keeps them beside the journal's file, and there is none. Give weights=FOLDER.")
    return Weights(journal.with_name(f"{journal.name}.weights"))
