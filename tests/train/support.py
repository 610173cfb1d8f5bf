"""Tiny runs for the tests: a corpus with something to learn, configs of every variant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dtrnet_train import config, tokens
from dtrnet_train.config import Config
from dtrnet_train.parallel import begin
from dtrnet_train.trainer import Trainer

TINY = Path(__file__).resolve().parents[2] / "configs" / "train" / "tiny.yaml"
# What a model section may say beyond tiny.yaml's, by name.
VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "bilayer": {"family": "dtrnet", "layer_layout": "bilayer"},
    "trilayer": {"family": "dtrnet", "layer_layout": "trilayer"},
    "4attn": {"family": "dtrnet", "layer_layout": "4attn", "num_hidden_layers": 6},
    "0attn": {"family": "dtrnet", "layer_layout": "0attn"},
    "mod": {"family": "mod"},
    "dllm": {"family": "dllm"},
    "nested": {"family": "dtrnet", "layer_layout": "nested_bilayer"},
    "nested_trilayer": {"family": "dtrnet", "layer_layout": "nested_trilayer"},
    "nested_mamba": {"family": "dtrnet", "layer_layout": "nested_bilayer", "router_type": "mamba"},
    "lns": {"family": "dtrnet", "layer_layout": "bilayer", "norm_method": "lns"},
    "hybridnorm": {"family": "dtrnet", "layer_layout": "bilayer", "norm_method": "hybridnorm"},
    "hybridnorm*": {"family": "dtrnet", "layer_layout": "bilayer", "norm_method": "hybridnorm*"},
    "expert": {"family": "dtrnet", "layer_layout": "bilayer", "routing": "expert_choice", "attn_capacity": 0.3},
    "nested_expert": {"family": "dtrnet", "layer_layout": "TSTS", "routing": "expert_choice", "attn_capacity": 0.3, "exec_capacity": 0.6},
}


def golden() -> list[Path]:
    """Directories of tests/golden and tests/ultradeep with models that this package has; LLaMA's relatives are only served."""
    found = [p.parent for root in ("golden", "ultradeep") for p in TINY.parents[2].glob(f"tests/{root}/*/expected.safetensors")]
    return sorted(p for p in found if json.loads((p / "config.json").read_text()).get("model_type", "llama") == "llama")


def corpus(folder: Path) -> Path:
    """A token file of documents in which a token follows from the last one (0.6), from the one before that (0.3) or is noise; BOS is 1."""
    path = folder / "train.bin"
    if not path.exists():
        random, parts = np.random.default_rng(1), []
        one, two = (random.permutation(40) + 2 for _ in range(2))
        for _ in range(400):
            ids = [1, *random.integers(2, 42, 2)]
            while len(ids) < random.integers(20, 300):
                kind = random.random()
                ids.append(one[ids[-1] - 2] if kind < 0.6 else two[ids[-2] - 2] if kind < 0.9 else random.integers(2, 42))
            parts.append(np.array(ids))
        tokens.write(path, parts, 1, 256)
    return path


def settings(folder: Path, variant: str, **changes: Any) -> Config:
    """tiny.yaml with a variant's model and SECTION__KEY changes."""
    text = [f"data.train=[{corpus(folder)}]", *(f"model.{k}={v!r}" for k, v in VARIANTS[variant].items())]
    text += [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return config.read(TINY, text)


def trainer(folder: Path, variant: str, out: str = "run", show: bool = False, **changes: Any) -> Trainer:
    """A trainer in this process on the CPU."""
    return Trainer(settings(folder, variant, **changes), folder / out, begin("cpu"), show)
