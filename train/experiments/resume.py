"""A training that SIGTERM stops and the same command resumes, against one that nothing stops: both must end with the same bits.

    python3 train/experiments/resume.py CONFIG WORK STEPS [SECTION.KEY=VALUE...]

Trains three times with train.deterministic=true (the second is stopped half way, the third resumes it) and compares the exported
weights and all that the last states hold: weights, optimizer, random numbers, share control. Exit status 1: they differ.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "train" / "src"))


def train(config: str, out: Path, settings: list[str], stop_at: int = 0) -> list[str]:
    """One process, told to stop once it has reported step `stop_at`; its lines."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "train" / "src"), "PYTHONUNBUFFERED": "1"}
    environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(out.parent / "inductor"))  # what was tuned once is not tuned otherwise later
    line = [sys.executable, "-m", "dtrnet_train", "run", config, "--out", str(out), "train.deterministic=true", "train.log_every=1"]
    process = subprocess.Popen([*line, *settings], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines, told = [], False
    for text in process.stdout or ():
        lines.append(text.rstrip())
        step = re.match(r"step +(\d+)/", text)
        if stop_at and step and int(step[1]) >= stop_at and not told:
            process.send_signal(signal.SIGTERM)
            told = True
    if process.wait() != 0:
        sys.exit(f"resume.py: the training ended with status {process.returncode}\n" + "\n".join(lines[-15:]))
    return lines


def last(folder: Path, kind: str) -> Path:
    """The newest checkpoint (`step`) or state (`state`)."""
    return sorted(folder.glob(f"{kind}-*"))[-1]


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and sequences by their path."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else None
    if pairs is None:
        yield name, value
        return
    for key, inside in pairs:
        yield from flat(inside, f"{name}/{key}")


def state_of(folder: Path) -> dict[str, Any]:
    """Everything that a run's last state holds."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    found = last(folder, "state")
    with tempfile.NamedTemporaryFile(suffix=".pt") as whole:
        dcp_to_torch_save(found, whole.name)
        shared = torch.load(whole.name, map_location="cpu", weights_only=False)
    own = torch.load(found / "process-0.pt", map_location="cpu", weights_only=False)
    del own["random"]["python"]  # not seeded, and nothing draws from it
    return dict(flat({"shared": shared, "own": own}))


def same(a: Any, b: Any) -> bool:
    """Equal type, shape and bits."""
    import numpy as np
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy(force=True).tobytes() == b.numpy(force=True).tobytes()
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def digest(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights."""
    sums = hashlib.sha256()
    for path in sorted(last(folder, "step").glob("*.safetensors")):
        sums.update(path.read_bytes())
    return sums.hexdigest()


def main() -> int:
    """The command line."""
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    config, work, steps, settings = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    whole, parts = work / "whole", work / "parts"
    for folder in (whole, parts):
        shutil.rmtree(folder, ignore_errors=True)
    settings = [*settings, f"train.steps={steps}", "train.epochs=null", "train.tokens=null"]
    train(config, whole, settings)
    print(train(config, parts, settings, steps // 2)[-1])
    print(train(config, parts, settings)[-1])
    a, b = state_of(whole), state_of(parts)
    differ = sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or not same(a[name], b[name]))
    print(f"weights {digest(whole)} whole, {digest(parts)} in two parts; {len(differ)} of {len(a)} values of the state differ")
    for name in differ[:10]:
        print(f"    {name}")
    return int(bool(differ) or digest(whole) != digest(parts))


if __name__ == "__main__":
    sys.exit(main())
