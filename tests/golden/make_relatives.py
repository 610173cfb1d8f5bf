#!/usr/bin/env python3
"""The golden checkpoints of LLaMA's dense relatives: Mistral, Qwen2, Qwen3 and SmolLM3.

    make_relatives.py OUT          writes the folders of MODELS below OUT; as transformers 4.57 and torch's CPU build compute
    make_relatives.py --check OUT  computes the numbers of the folders in OUT anew, with whatever version is installed, and compares

Needs torch and transformers (the numbers here: torch 2.11.0, transformers 4.57.6), which no test needs. README.md tells the files.
Weights are random and of one seed a model; norms and biases too, so that a norm or a bias that is left out shows.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

N_GEN = 8
SHORT = 8  # prompts of at most so many tokens have hidden states
ALL_LOGITS = 48
TOLERANCE = 2e-4
LEAST_GAP = 0.02  # between the two best logits of a greedy step

SHAPE = {
    "vocab_size": 192,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}

# name: class of config, what differs from SHAPE, stored dtype, lengths of prompts, keys deleted from the saved config.json, what it is
MODELS = {
    "mistral": (
        "Mistral",
        {"sliding_window": None, "rope_theta": 1e6, "rms_norm_eps": 1e-5, "tie_word_embeddings": False},
        "float32",
        [1, 5, 70],
        [],
        "no window, head_dim 12 of its own accord, untied",
    ),
    "mistral-window-bf16": (
        "Mistral",
        {"sliding_window": 512, "head_dim": 20, "tie_word_embeddings": False},
        "bfloat16",
        [1, 9, 120],
        [],
        "a window that no prompt reaches, head_dim 20",
    ),
    "qwen2": (
        "Qwen2",
        {
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 20,
            "rope_theta": 1e6,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
            "sliding_window": 32,
            "max_window_layers": 2,
        },
        "float32",
        [1, 6, 80],
        [],
        "biases of q, k and v, tied, head_dim 20, a window that is switched off",
    ),
    "qwen2-yarn-bf16": (
        "Qwen2",
        {"max_position_embeddings": 32, "rope_scaling": YARN, "tie_word_embeddings": False},
        "bfloat16",
        [1, 7, 110],
        ["layer_types"],
        "YaRN as Qwen's README adds it: the original length is max_position_embeddings, and factor counts",
    ),
    "qwen3": (
        "Qwen3",
        {"head_dim": 16, "rope_theta": 1e6, "tie_word_embeddings": True},
        "float32",
        [1, 4, 90],
        [],
        "norms of q and k, heads wider than hidden_size, tied",
    ),
    "qwen3-bias-bf16": (
        "Qwen3",
        {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 12, "attention_bias": True, "tie_word_embeddings": False},
        "bfloat16",
        [1, 8, 60],
        [],
        "norms of q and k after biases, MHA, head_dim 12",
    ),
    "smollm3": (
        "SmolLM3",
        {"no_rope_layers": [1, 0, 0, 1], "rope_theta": 5e6, "tie_word_embeddings": True},
        "float32",
        [1, 5, 75],
        [],
        "layers 1 and 2 without positions, head_dim 12",
    ),
    "smollm3-interval-yarn-bf16": (
        "SmolLM3",
        {"no_rope_layer_interval": 2, "max_position_embeddings": 128, "rope_scaling": YARN, "attention_bias": True, "mlp_bias": True},
        "bfloat16",
        [1, 6, 100],
        ["no_rope_layers", "layer_types", "tie_word_embeddings"],
        "every second layer without positions and so without YaRN's factor, biases, keys left to their defaults",
    ),
}


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random values in every tensor, of a size that keeps logits of a few units."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            x = torch.randn(p.shape, generator=g)
            if "norm" in name:
                p.copy_(1 + 0.2 * x)
            elif name.endswith(".bias"):
                p.copy_(0.3 * x)
            elif "embed" in name or "lm_head" in name:
                p.copy_(x * 0.5)
            else:
                p.copy_(x * 1.3 / p.shape[1] ** 0.5)


def forward(model: torch.nn.Module, tokens: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits [T, V], and the input of every layer with the normalised output [T, H]."""
    with torch.no_grad():
        out = model(torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
    return out.logits[0].numpy(), [h[0].numpy() for h in out.hidden_states]


def positions(n: int) -> list[int]:
    """Where logits are kept: all of a short prompt, else some and the last eight."""
    return list(range(n)) if n <= ALL_LOGITS else sorted({*range(0, n, max(1, n // 16)), *range(n - 8, n)})


def compute(model: torch.nn.Module, prompts: list[list[int]]) -> tuple[dict[str, np.ndarray], list[float]]:
    """What expected.safetensors holds, and the least gap of each prompt's continuation."""
    out, gaps = {}, []
    layers = model.config.num_hidden_layers
    for i, tokens in enumerate(prompts):
        logits, hidden = forward(model, tokens)
        at = positions(len(tokens))
        text, rows = list(tokens), []
        for _ in range(N_GEN):
            rows.append(forward(model, text)[0][-1])
            text.append(int(rows[-1].argmax()))
        best = np.sort(np.stack(rows), axis=1)
        gaps.append(float((best[:, -1] - best[:, -2]).min()))
        out |= {
            f"p{i}.tokens": np.array(tokens, np.int32),
            f"p{i}.logit_pos": np.array(at, np.int32),
            f"p{i}.logits": np.ascontiguousarray(logits[at], np.float32),
            f"p{i}.kv_len": np.full(layers, len(tokens), np.int32),
            f"p{i}.gen_tokens": np.array(text[len(tokens) :], np.int32),
            f"p{i}.gen_logits": np.stack(rows).astype(np.float32),
        }
        if len(tokens) <= SHORT:
            out[f"p{i}.hidden"] = np.stack(hidden).astype(np.float32)
    return out, gaps


def load(folder: pathlib.Path) -> torch.nn.Module:
    """The saved checkpoint, computed in float32."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()


def make(folder: pathlib.Path, seed: int) -> bool:
    """One checkpoint and its numbers; False if a greedy step is too close to call."""
    name, extra, dtype, lengths, drop, about = MODELS[folder.name]
    config = getattr(transformers, f"{name}Config")(**(SHAPE | extra))
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    fill(model, seed)
    model.tie_weights()
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text())
    for key in drop:
        saved.pop(key, None)
    (folder / "config.json").write_text(json.dumps(saved, indent=2) + "\n")
    g = np.random.default_rng(seed)
    prompts = [g.integers(3, SHAPE["vocab_size"], n).tolist() for n in lengths]
    expected, gaps = compute(load(folder), prompts)
    save_file(expected, folder / "expected.safetensors")
    words = {
        "variant": "dense",
        "about": about,
        "stored_dtype": dtype,
        "made_by": f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, seed {seed}",
        "routed_layers": [],
        "prompts": [{"id": i, "len": n, "gen_min_top2_gap": round(gap, 4)} for i, (n, gap) in enumerate(zip(lengths, gaps))],
    }
    (folder / "expected.json").write_text(json.dumps(words, indent=1) + "\n")
    return min(gaps) >= LEAST_GAP


def check(folder: pathlib.Path) -> float:
    """The worst difference of a logit or hidden value; infinity where a greedy token differs."""
    want = load_file(folder / "expected.safetensors")
    n = sum(key.endswith(".tokens") for key in want)
    got, _ = compute(load(folder), [want[f"p{i}.tokens"].tolist() for i in range(n)])
    worst = 0.0
    for key, value in want.items():
        exact = value.dtype == np.int32
        worst = max(worst, (0.0 if (value == got[key]).all() else float("inf")) if exact else float(np.abs(value - got[key]).max()))
    return worst


def main() -> int:
    """See the head of the file."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--check", action="store_true")
    ap.add_argument("names", nargs="*", default=list(MODELS))
    a = ap.parse_args()
    torch.set_num_threads(1)
    bad = 0
    for name in a.names:
        if a.check:
            worst = check(a.out / name)
            bad += not worst <= TOLERANCE
            print(f"{name}: worst difference {worst:.2g} with transformers {transformers.__version__}", flush=True)
            continue
        seed = next(seed for seed in range(1, 100) if make(a.out / name, seed))
        print(f"{name}: seed {seed}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
