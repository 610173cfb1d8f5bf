"""What a person gets wrong is one line that names it: configs, data, checkpoints, commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from dtrnet_train import config, model, prepare, tokens
from dtrnet_train.__main__ import main
from dtrnet_train.errors import UserError
from dtrnet_train.tokens import TokenFile
from support import TINY, corpus, trainer

CONFIGS = sorted(TINY.parent.glob("*.yaml"))
# A setting on top of tiny.yaml and what the line must say.
SETTINGS = [
    ("train.stepps=4", r"train: unknown key 'stepps'"),
    ("model.model_type=qwen2", r"model_type 'qwen2' is not one that is trained here"),
    ("model.hidden=4", r"unknown key 'hidden'"),
    ("extra.key=1", r"unknown section 'extra'"),
    ("steps", r"'steps' is no setting"),
    ("train.steps=four", r"train\.steps must be a whole number, not 'four'"),
    ("train.steps=1.5", r"train\.steps must be a whole number"),
    ("train.batch=0", r"train\.batch must be 1 to"),
    ("train.betas=[0.9]", r"betas must be two numbers"),
    ("train.compile=1", r"train\.compile must be true or false"),
    ("train.precision=fp8", r"train\.precision must be one of bf16, float32"),
    ("train.epochs=1", r"one of train\.steps, epochs and tokens"),
    ("routing.control=hope", r"routing\.control must be one of published, steered, tracked, none"),
    ("routing.target_attn=2", r"routing\.target_attn must be 1e-06 to 1, not 2"),
    ("routing.fall_from=0.9", r"fall_from must not be over"),
    ("model.layer_layout=TDX", r"layer_layout has 3 letters for 4 layers"),
    ("model.layer_layout=TDXT", r"layer_layout has the letter 'X'"),
    ("model.layer_layout=TDTD", r"'TDTD' has routed layers, but the family is dense"),
    ("model.layer_layout=[T,T,TT,T]", r"layer_layout has the letter"),
    ("model.num_hidden_layers=0", r"num_hidden_layers must be a whole number >= 1"),
    ("model.num_key_value_heads=3", r"4 is no multiple of num_key_value_heads 3"),
    ("model.head_dim=7", r"head_dim must be even, not 7"),
    ("model.family=rnn", r"family must be one of"),
    ("model.norm_method=batch", r"norm_method must be one of"),
    ("model.router_type=token_choice", r"it is `routing` that says"),
    ("model.expert_choice_inference=exact", r"no meaning with routing token_choice"),
]


@pytest.mark.parametrize(("setting", "said"), SETTINGS)
def test_settings(setting: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        config.read(TINY, [setting])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"routing": "expert_choice", "layer_layout": "TDTD"}, "attn_capacity is needed"),
        ({"routing": "expert_choice", "layer_layout": "TSTS", "attn_capacity": 0.2}, "exec_capacity is needed"),
        ({"routing": "expert_choice", "layer_layout": "TDTD", "attn_capacity": 1.5}, "attn_capacity must be over 0"),
        ({"layer_layout": "TDTD", "dtrnet_layers": [0]}, "does not name the T layers"),
    ],
)
def test_combinations(changes: dict, said: str) -> None:
    raw = yaml.safe_load(TINY.read_text())
    raw["model"] |= {"family": "dtrnet", **changes}
    with pytest.raises(UserError, match=said):
        config.parse(raw, [], "x.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_are_read(path: Path) -> None:
    config.read(path, [])


def test_configs_that_are_none(tmp_path: Path) -> None:
    for text, said in (
        ("[1, 2]", "must be a mapping"),
        ("a: [", "not YAML"),
        ("base: x.yaml", "refer to each other"),
        ("train: {}", "model is missing"),
    ):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(UserError, match=said):
            config.read(tmp_path / "x.yaml", [])
    with pytest.raises(UserError, match="no such file"):
        config.read(tmp_path / "y.yaml", [])


def test_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.train names no token file"):
        trainer(tmp_path, "dense", data__train="[]")
    with pytest.raises(UserError, match=r"nowhere\.bin: no such token file"):
        trainer(tmp_path, "dense", "b", data__train="[nowhere.bin]")
    with pytest.raises(UserError, match=r"data\.tokenizer: t\.model: no such file"):
        trainer(tmp_path, "dense", "e", data__tokenizer="t.model")
    with pytest.raises(UserError, match=r"no multiple of train\.micro"):
        trainer(tmp_path, "dense", "c", train__micro=3)
    with pytest.raises(UserError, match="fewer than one batch"):
        trainer(tmp_path, "dense", "d", train__batch=100000)
    short = tmp_path / "short.bin"
    tokens.write(short, [np.array([1, 2, 3])], 1, 256)
    with pytest.raises(UserError, match="3 tokens are fewer than one window of 64"):
        TokenFile(short, 64, 1)
    with pytest.raises(UserError, match="the file's BOS is 1, the config's is 0"):
        TokenFile(short, 1, 0)
    short.write_bytes(b"123")
    with pytest.raises(UserError, match="no multiple of 2 bytes"):
        TokenFile(short, 1, 1)
    short.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match=r"short\.json: not"):
        TokenFile(short, 1, 1)


def test_ids_outside_of_the_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    tokens.write(path, [np.r_[1, np.full(600, 300)]], 1, 1000)
    with pytest.raises(UserError, match=r"big\.bin: .*300.* vocab_size 256"):
        trainer(tmp_path, "dense", data__train=f"[{path}]")
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"big\.bin: .*300.* vocab_size 256"):
        trainer(tmp_path, "dense", "b", data__train=f"[{path}]")


def test_texts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        list(prepare.documents([tmp_path / "x"]))
    with pytest.raises(UserError, match=r"no \.txt or \.jsonl"):
        list(prepare.documents([tmp_path]))
    for line, said in (("{", r"a\.jsonl:1: not JSON"), ('{"b": 1}', "no text under 'text'"), ("[]", "no text under")):
        (tmp_path / "a.jsonl").write_text(line)
        with pytest.raises(UserError, match=said):
            list(prepare.documents([tmp_path]))
    (tmp_path / "a.jsonl").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"a\.jsonl: not UTF-8"):
        list(prepare.documents([tmp_path]))
    with pytest.raises(UserError, match="no such tokenizer"):
        prepare.encode([tmp_path], tmp_path / "t.model", tmp_path / "o.bin", "text", None, 100)


def test_checkpoints(tmp_path: Path) -> None:
    """Another shape, a missing tensor, one too many, cut files."""
    trainer(tmp_path, "bilayer", train__steps=1).run()
    folder = next((tmp_path / "run").glob("step-*"))
    file, raw = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    whole = load_file(file)

    def says(pattern: str, tensors: dict | None = None, **changes: object) -> None:
        save_file(tensors or whole, file, metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(raw | changes))
        with pytest.raises(UserError, match=pattern):
            model.load(folder)

    says(r"mlp\.gate_proj\.weight has the shape \[128, 64\], the model wants \[96, 64\]", intermediate_size=96)
    says(r"model\.layers\.2\.router\..* is missing", dtrnet_layers=[0])
    says(r"model\.norm\.weight is missing", {k: v for k, v in whole.items() if k != "model.norm.weight"})
    says(r"the tensor extra has no place", {**whole, "extra": whole["model.norm.weight"].clone()})
    says(r"unknown key 'color'", color="red")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not a JSON object"):
        model.load(folder)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors: not a safetensors file"):
        model.load(folder)
    file.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        model.load(folder)
    with pytest.raises(UserError, match="is no checkpoint"):
        model.load(tmp_path)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["run", "nothing.yaml", "--out", "x"], 1, "dtrnet-train run: nothing.yaml: no such file"),
        (["run", str(TINY), "--out", "x", "train.stepps=4"], 1, "dtrnet-train run: train: unknown key 'stepps'"),
        (["routing", ".", "x.bin"], 1, "dtrnet-train routing: . is no checkpoint: it has no config.json"),
        (["flops", "nothing"], 1, "dtrnet-train flops: nothing: no such file"),
        (["fly"], 2, "there is no command 'fly'"),
    ],
)
def test_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: list[str], status: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dtrnet-train", *words])
    assert main() == status
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_settings_may_stand_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    words = ["run", str(TINY), "--out", str(tmp_path / "r"), "train.steps=1", "--device", "cpu", f"data.train=[{corpus(tmp_path)}]"]
    monkeypatch.setattr(sys, "argv", ["dtrnet-train", *words])
    assert main() == 0, capsys.readouterr().err
    assert "step      1/1 " in capsys.readouterr().out
