"""A checkpoint with the shape of another and random weights: what a trained model is compared with."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np


def write_twin(model: Path, out: Path, seed: int = 0) -> None:
    """Copies `model` to `out` with matrices drawn from N(0, 0.02), norms 1 and biases 0, stored in float32."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.model"):
        shutil.copy(model / name, out / name)
    raw = (model / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    random = np.random.default_rng(seed)
    header: dict[str, object] = {}
    data: list[bytes] = []
    at = 0
    for name, info in json.loads(raw[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        shape = info["shape"]
        if len(shape) > 1:
            values = random.standard_normal(shape, np.float32) * np.float32(0.02)
        else:
            values = np.full(shape, 0.0 if name.endswith(".bias") else 1.0, np.float32)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + values.nbytes]}
        data.append(values.tobytes())
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
