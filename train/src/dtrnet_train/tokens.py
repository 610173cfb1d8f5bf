"""Token files: what `dtrnet-train prepare` writes and training maps into memory.

NAME.bin is token ids, little-endian, 16 bits if NAME.json is absent or says so, else 32. A document begins with its BOS; nothing stands
between documents. NAME.json: {"dtype": "uint16", "bos": 1, "vocab_size": 16384, "tokens": ..., "documents": ...}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dtrnet_train.errors import require


def _description(path: Path) -> dict[str, Any]:
    """NAME.json, empty if it is absent."""
    try:
        info = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:
        info = None
    require(isinstance(info, dict), f"{path}: not a JSON object")
    return info


class TokenFile:
    """One file, mapped, in windows of `length` tokens and the one behind each (its last target)."""

    def __init__(self, path: Path | str, length: int, bos: int) -> None:
        path = Path(path)
        require(path.is_file(), f"{path}: no such token file")
        about = path.with_suffix(".json")
        info = _description(about)
        dtype = info.get("dtype", "uint16")
        require(dtype in ("uint16", "uint32"), f"{about}: dtype must be uint16 or uint32, not {dtype!r}")
        require(info.get("bos", bos) == bos, f"{about}: the file's BOS is {info.get('bos')}, the config's is {bos}")
        width = np.dtype(dtype).itemsize
        require(path.stat().st_size % width == 0, f"{path}: its size is no multiple of {width} bytes")
        self.path, self.length, self.bos = path, length, bos
        self.data = np.memmap(path, np.dtype(dtype).newbyteorder("<"), "r") if path.stat().st_size else np.zeros(0, dtype)
        self.windows = max(0, (len(self.data) - 1) // length)
        require(self.windows, f"{path}: {len(self.data)} tokens are fewer than one window of {length} and its last target")

    def fit(self, vocab_size: int) -> None:
        """Refuses ids that a model of this vocabulary does not have. Reads the file only if its description does not promise that."""
        if _description(self.path.with_suffix(".json")).get("vocab_size", vocab_size + 1) <= vocab_size:
            return
        most = max(int(part.max()) for part in np.array_split(self.data, 1 + len(self.data) // 2**24))
        require(most < vocab_size, f"{self.path}: has the id {most}, which a model with vocab_size {vocab_size} does not have")

    def window(self, index: int) -> np.ndarray:
        """[length + 1] int64."""
        return self.data[index * self.length : (index + 1) * self.length + 1].astype(np.int64)

    def segments(self) -> np.ndarray:
        """[windows] int64: how many segments each window has: one at its start and one at each later BOS."""
        body = self.data[: self.windows * self.length]
        starts = np.flatnonzero(body == self.bos)
        inside = starts[starts % self.length != 0] // self.length
        return 1 + np.bincount(inside, minlength=self.windows)

    def documents(self) -> list[np.ndarray]:
        """Each document's tokens, its BOS included."""
        starts = np.flatnonzero(np.asarray(self.data) == self.bos)
        require(len(starts), f"{self.path}: no document begins with BOS {self.bos}")
        return np.split(np.asarray(self.data), starts[1:])


def write(path: Path, parts: list[np.ndarray], bos: int, vocab_size: int) -> dict[str, int | str]:
    """A token file and its description from documents' ids (with their BOS)."""
    dtype = "uint16" if vocab_size <= 2**16 else "uint32"
    count = 0
    with path.open("wb") as out:
        for part in parts:
            out.write(np.asarray(part).astype(np.dtype(dtype).newbyteorder("<")).tobytes())
            count += len(part)
    info = {"dtype": dtype, "bos": bos, "vocab_size": vocab_size, "tokens": count, "documents": len(parts)}
    path.with_suffix(".json").write_text(json.dumps(info) + "\n")
    return info
