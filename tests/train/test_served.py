"""A checkpoint that training wrote is loaded by the real server and says there what it says in PyTorch: `dtrnet-train check`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dtrnet_train import check
from dtrnet_train.errors import UserError
from dtrnet_train.model import load
from support import VARIANTS, corpus, golden, trainer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("DTRNET_BIN", ROOT / "build" / "dtrnet"))
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"there is no {PROGRAM}; build it first")


@contextmanager
def served(folder: Path, *flags: str) -> Iterator[str]:
    """The address of a server that has loaded the checkpoint."""
    words = [PROGRAM, "serve", "--model", folder, "--port", "0", "--threads", "1", "--kv-cache-memory", "16M", *flags]
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        process = subprocess.Popen(words, stderr=log, env={**os.environ, "DTRNET_SHUTDOWN_DELAY": "0"})
        try:
            while not (found := re.search(r"listening on (http://[^\s\"]*)", Path(log.name).read_text())):
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.02)
            yield found[1]
        finally:
            process.terminate()
            process.wait()


def trained(tmp_path: Path, variant: str, **changes: object) -> Path:
    """A checkpoint after a few steps."""
    changes = {"train__steps": 12, "train__batch": 4, "routing__initial_bias": 0.1, "routing__target_attn": 0.4} | changes
    trainer(tmp_path, variant, **changes).run()
    return next((tmp_path / "run").glob("step-*"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_loads_and_agrees(tmp_path: Path, variant: str, capsys: pytest.CaptureFixture) -> None:
    folder = trained(tmp_path, variant)
    with served(folder, "--dtype", "f32") as url:
        status = check.main([str(folder), "--server", url, "--sequences", "2", "--length", "60"])
    said = capsys.readouterr().out
    assert status == 0, said
    assert "note:" not in said, said
    assert re.search(r"; 0 of \d+ decisions differ: equal", said), said


@pytest.mark.parametrize("folder", golden(), ids=lambda p: p.name)
def test_golden_models_agree(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """The engine in float32 and this package over ids that neither has stored answers for."""
    with served(folder, "--dtype", "f32") as url:
        status = check.main([str(folder), "--server", url, "--sequences", "1", "--length", "48"])
    assert status == 0, capsys.readouterr().out


def test_sharded_bf16(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Stored in halves and in shards: the server in float32 computes with the same rounded weights."""
    folder = trained(tmp_path, "nested_mamba", train__export="bf16", train__shard_bytes=1_000_000)
    folder = reshard(folder)
    with served(folder, "--dtype", "f32") as url:
        assert check.main([str(folder), "--server", url, "--sequences", "1", "--length", "40"]) == 0, capsys.readouterr().out


def reshard(folder: Path) -> Path:
    """The same checkpoint in shards of a few tensors, by the exporter's own hand (its least shard size is larger than this model)."""
    from dtrnet_train.checkpoint import export

    model = load(folder)
    out = folder.with_name("sharded")
    export(out, model.state_dict(), model.shape, "bf16", 60_000, {}, None)
    assert len(list(out.glob("*.safetensors"))) > 2
    return out


def test_names_where_they_part(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One router of the served copy is changed: the layer is named, and that the files are not the same."""
    folder = trained(tmp_path, "bilayer")
    other = folder.with_name("changed")
    shutil.copytree(folder, other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.3.router.weight_predictor.2.bias"] += torch.tensor([30.0, -30.0])
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with served(other, "--dtype", "f32") as url:
        status = check.main([str(folder), "--server", url, "--sequences", "1", "--length", "60"])
    said = capsys.readouterr().out
    assert status == 1
    assert "has other bytes" in said
    assert "routers part first in layer 3 at token" in said
    assert "decisions part first in layer 3 at token" in said, said
    assert "PyTorch takes the linear path, the server attends" in said


def test_what_is_no_server(tmp_path: Path) -> None:
    folder = trained(tmp_path, "dense", train__steps=1)
    for url, pattern in (("127.0.0.1:1", "no http"), ("http://127.0.0.1:1", "no server at http://127.0.0.1:1")):
        with pytest.raises(UserError, match=pattern):
            check.main([str(folder), "--server", url])


def test_another_model_is_refused(tmp_path: Path) -> None:
    folder = trained(tmp_path, "dense", train__steps=1)
    with served(ROOT / "tests" / "golden" / "dtrnet-bilayer") as url, pytest.raises(UserError, match="320 pieces, the checkpoint 256"):
        check.main([str(folder), "--server", url])


def test_config_of_the_checkpoint(tmp_path: Path) -> None:
    """What the server must find in config.json, and nothing that it would not know."""
    raw = json.loads((trained(tmp_path, "nested", train__steps=1) / "config.json").read_text())
    assert raw["layer_layout"] == "TSTS" and raw["torch_dtype"] == "float32"
    assert "family" not in raw


def test_card(tmp_path: Path) -> None:
    """Each checkpoint has one; the last also what was measured."""
    trainer(tmp_path, "nested", train__steps=4, train__save_every=2, data__valid=corpus(tmp_path)).run()
    early, late = (path.read_text() for path in sorted((tmp_path / "run").glob("step-*/README.md")))
    for said in ("2 dense, 2 skipped, linear or attention (TSTS)", "tracked: attention 0.1, execution 0.6", "hidden 64"):
        assert said in early and said in late
    assert "1,024 in 2 of 4 steps of 512" in early and "held-out loss" not in early
    assert "held-out loss" in late and "of these attend" in late and "of the dense model's FLOPs" in late
