"""A run that is stopped and goes on gives the bits of one that was not: in one process, and as the command with SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dtrnet_train import checkpoint
from dtrnet_train.__main__ import main
from dtrnet_train.progress import Progress
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


def test_told_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The command, with SIGTERM after some steps, and again; its held-out loss and weights are those of an undisturbed one."""
    model = [f"model.{k}={v}" for k, v in VARIANTS["bilayer"].items()]
    data = [f"data.train=[{corpus(tmp_path)}]", f"data.valid={corpus(tmp_path)}", "train.steps=8", "train.batch=4", "train.log_every=1"]

    def command(out: str) -> str:
        monkeypatch.setattr(sys, "argv", ["dtrnet-train", "run", str(TINY), "--device", "cpu", "--out", str(tmp_path / out), *model, *data])
        assert main() == 0, capsys.readouterr().err
        return capsys.readouterr().out

    assert re.search(r"step      8/8  loss .*  attend (0\.\d\d\.\.){2}\d\.\d\d  [\d,]+ tokens/s  eta 0:00\n", command("whole"))
    say = Progress.step

    def say_and_be_told(self: Progress, step: int, numbers: dict[str, float]) -> dict[str, Any]:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return say(self, step, numbers)

    with monkeypatch.context() as told:
        told.setattr(Progress, "step", say_and_be_told)
        assert command("parts").splitlines()[-1] == "stopped at step 3; the same command goes on"
    again = command("parts")
    assert again.startswith("goes on at step 3 of 8\n") and "step      8/8 " in again
    same(tmp_path / "whole", tmp_path / "parts")
    results = [json.loads((tmp_path / name / "valid.json").read_text()) for name in ("whole", "parts")]
    assert results[0] == results[1]
    assert (tmp_path / "parts" / "finished.json").is_file()
