"""Two processes (gloo) against one with the same global batch: losses, shares and weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from support import corpus, trainer
from two_processes import SHORT

CASES = {"dense": "ddp", "bilayer": "ddp", "nested": "fsdp", "mod": "ddp", "nested_mamba": "fsdp"}
LIMIT = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have trained every case."""
    out = tmp_path_factory.mktemp("parallel")
    corpus(out)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [str(Path(__file__).with_name("two_processes.py")), str(out), *(f"{variant}:{kind}" for variant, kind in CASES.items())]
    done = subprocess.run([*start, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def result(run: Path) -> tuple[list[dict], dict]:
    """The log's lines and the last checkpoint's tensors."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return lines, load_file(sorted(run.glob("step-*"))[-1] / "model.safetensors")


@pytest.mark.parametrize("variant", CASES)
def test_two_equal_one(folder: Path, variant: str) -> None:
    trainer(folder, variant, f"{variant}-one", show=True, train__micro=4, **SHORT).run()
    (one, weights), (two, others) = result(folder / f"{variant}-one"), result(folder / f"{variant}-two")
    for a, b in zip(one, two, strict=True):
        assert abs(a["loss"] - b["loss"]) <= LIMIT * max(1, a["loss"]), (a, b)
        assert a["shares"] == pytest.approx(b["shares"], abs=1e-3)
    worst = {name: float((weights[name] - others[name]).abs().max()) for name in weights}
    assert max(worst.values()) <= LIMIT, max(worst.items(), key=lambda x: x[1])
