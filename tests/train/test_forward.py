"""The forward pass against the numbers of the golden models: logits, probabilities, hidden states, decisions, rows kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dtrnet_train.model import Model, attends, load
from dtrnet_train.rows import make_rows
from support import golden

FOLDERS = [folder / "expected.safetensors" for folder in golden()]
LOGITS, PROB, HIDDEN = 2e-4, 2e-5, 1e-4


def one(tokens: torch.Tensor) -> tuple:
    starts = np.zeros((1, len(tokens)), bool)
    starts[:, 0] = True
    return tokens.long(), make_rows(starts)


def near(got: torch.Tensor, wanted: torch.Tensor, limit: float) -> None:
    assert got.shape == wanted.shape
    if wanted.numel():
        assert float((got - wanted).abs().max()) <= limit


def decisions(model: Model, records: list) -> dict[str, torch.Tensor]:
    """Rows of expected.safetensors from the records."""
    letters = model.shape.layer_layout
    out: dict[str, list] = {"route": [], "prob": [], "exec": [], "exec_prob": [], "gate": []}
    for letter, record in zip(letters, records):
        main = record.attend or record.execute
        if main is None:
            continue
        out["route"].append(main.chosen)
        out["prob"].append(torch.where(main.among, main.prob, 0))
        if letter == "S":
            out["exec"].append(record.execute.chosen)
            out["exec_prob"].append(record.execute.prob)
        if letter == "M":
            out["gate"].append(record.gate)
    return {name: torch.stack(rows) for name, rows in out.items() if rows}


def check_prompt(model: Model, x: dict[str, torch.Tensor], prefix: str) -> None:
    tokens, rows = one(x["tokens"])
    stream, records = model.run(tokens, rows)
    logits = model.logits(stream[-1])
    near(logits[x["logit_pos"].long()], x[prefix + "logits"], LOGITS)
    for name, got in decisions(model, records).items():
        wanted = x[prefix + name]
        near(got.float(), wanted.float(), PROB if wanted.dtype == torch.float32 else 0)
    kept = [int(attends(record, letter, tokens).sum()) for letter, record in zip(model.shape.layer_layout, records)]
    assert kept == x[prefix + "kv_len"].tolist()
    if prefix + "hidden" in x and not prefix:
        near(torch.stack([*stream[:-1], model.model.norm(stream[-1])])[:, : len(tokens)], x["hidden"], HIDDEN)


def check_generated(model: Model, x: dict[str, torch.Tensor], name: str) -> None:
    """Greedy tokens fed back as one longer prompt give the logits that each was chosen from."""
    new = x[name + "_tokens"]
    tokens, rows = one(torch.cat([x["tokens"], new]))
    logits = model.logits(model.run(tokens, rows)[0][-1])
    near(logits[len(x["tokens"]) - 1 : -1], x[name + "_logits"], LOGITS)


@pytest.mark.parametrize("expected", FOLDERS, ids=lambda p: p.parent.name)
@torch.no_grad()
def test_golden(expected: Path) -> None:
    model, numbers = load(expected.parent), load_file(expected)
    prompts = json.loads((expected.parent / "expected.json").read_text())["prompts"]
    expert = model.shape.routing == "expert_choice"
    for i in range(len(prompts)):
        x = {key.split(".", 1)[1]: value for key, value in numbers.items() if key.startswith(f"p{i}.")}
        for mode, prefix in (("exact", ""), ("threshold", "thr_")) if expert else (("token", ""),):
            for _, layer in model.routed_layers():
                layer.mode = mode
            check_prompt(model, x, prefix)
            if mode != "exact":
                check_generated(model, x, "genfull" if model.shape.family == "dllm" else prefix + "gen")
