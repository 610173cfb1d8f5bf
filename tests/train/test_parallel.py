"""Two processes (gloo) against one with the same global batch: losses and weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from support import TINY, VARIANTS, corpus

CASES = [("dense", "ddp"), ("bilayer", "ddp"), ("nested", "fsdp"), ("mod", "ddp"), ("nested_mamba", "fsdp")]
STEPS = 6


def run(folder: Path, out: str, variant: str, processes: int, *more: str) -> tuple[list[dict], dict]:
    """The log's lines and the last checkpoint's tensors."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    settings = [f"data.train=[{corpus(folder)}]", *(f"model.{k}={v}" for k, v in VARIANTS[variant].items())]
    settings += [f"train.steps={STEPS}", "train.log_every=1", *more]
    words = ["-m", "dtrnet_train", "run", str(TINY), "--device", "cpu", "--out", str(folder / out), *settings]
    done = subprocess.run([sys.executable, *start, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (folder / out / "log.jsonl").read_text().splitlines()]
    return lines, load_file(sorted((folder / out).glob("step-*"))[-1] / "model.safetensors")


@pytest.mark.parametrize(("variant", "kind"), CASES)
def test_two_equal_one(tmp_path: Path, variant: str, kind: str) -> None:
    one, weights = run(tmp_path, "one", variant, 1, "train.micro=4")
    two, others = run(tmp_path, "two", variant, 2, f"train.parallel={kind}")
    for a, b in zip(one, two, strict=True):
        assert abs(a["loss"] - b["loss"]) <= 1e-5 * max(1, a["loss"]), (a, b)
        assert a["shares"] == pytest.approx(b["shares"], abs=1e-4)
    worst = {name: float((weights[name] - others[name]).abs().max()) for name in weights}
    assert max(worst.values()) <= 1e-5, max(worst.items(), key=lambda x: x[1])
