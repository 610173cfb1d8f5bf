"""A run that is stopped and goes on gives the bits of one that was not: in one process, and as the command with SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dtrnet_train import checkpoint
from support import TINY, VARIANTS, corpus, trainer

# Each has something of its own to carry: random numbers (dllm, published), coefficients (steered), biases (tracked).
CASES = [
    ("bilayer", "tracked"),
    ("nested_mamba", "steered"),
    ("bilayer", "published"),
    ("dllm", "none"),
    ("mod", "none"),
    ("dense", "none"),
]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint's tensors."""
    return load_file(sorted(folder.glob("step-*"))[-1] / "model.safetensors")


def same(a: Path, b: Path) -> None:
    """Equal bits."""
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, different


@pytest.mark.parametrize(("variant", "control"), CASES)
def test_in_two_parts(tmp_path: Path, variant: str, control: str) -> None:
    changes = {"train__steps": 8, "routing__control": control}
    trainer(tmp_path, variant, "whole", **changes).run()
    trainer(tmp_path, variant, "parts", **changes).run(until=3)
    second = trainer(tmp_path, variant, "parts", **changes)
    assert second.resume() and second.step == 3
    second.run()
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_changed_run_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, "dense", train__steps=2).run()
    with pytest.raises(Exception, match=r"train\.learning_rate"):
        trainer(tmp_path, "dense", train__steps=2, train__learning_rate=0.5)


def test_old_states_go(tmp_path: Path) -> None:
    trainer(tmp_path, "dense", train__steps=6, train__save_every=1, train__keep=2).run()
    assert [p.name for p in checkpoint.saved_states(tmp_path / "run")] == ["state-00000005", "state-00000006"]


def command(folder: Path, out: str, steps: int) -> list[str]:
    """`dtrnet-train run` on the tiny corpus."""
    model = [f"model.{k}={v}" for k, v in VARIANTS["bilayer"].items()]
    data = [f"data.train=[{corpus(folder)}]", f"data.valid={corpus(folder)}"]
    more = [f"train.steps={steps}", "train.log_every=1"]
    return [sys.executable, "-m", "dtrnet_train", "run", str(TINY), "--device", "cpu", "--out", str(folder / out), *model, *data, *more]


def wait_for_step(log: Path, step: int, process: subprocess.Popen) -> None:
    """Until the log has a line of this step."""
    while process.poll() is None:
        lines = log.read_text().splitlines() if log.exists() else []
        if any(json.loads(line)["step"] >= step for line in lines if line.endswith("}")):
            return
        time.sleep(0.02)
    raise AssertionError(f"the run ended with {process.returncode}")


def test_told_to_stop(tmp_path: Path) -> None:
    steps = 100
    subprocess.run(command(tmp_path, "whole", steps), check=True, stdout=subprocess.DEVNULL)
    parts = command(tmp_path, "parts", steps)
    with subprocess.Popen(parts, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        wait_for_step(tmp_path / "parts" / "log.jsonl", 3, process)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[0]
    assert process.returncode == 0
    assert "the same command goes on" in said
    again = subprocess.run(parts, check=True, capture_output=True, text=True).stdout
    assert "goes on at step" in again
    assert f"step    {steps}/{steps}" in again
    same(tmp_path / "whole", tmp_path / "parts")
    results = [json.loads((tmp_path / name / "valid.json").read_text()) for name in ("whole", "parts")]
    assert results[0] == results[1]
