"""Random checkpoints of the real shapes, with routers that send a stated share of the tokens to attention.

    python3 gpu_models.py CONFIG.json OUT_DIR [--rate 0.1] [--seed 0]

Weights are normal with the config's initializer_range, bf16. A DTRNet layer's router gets the bias at which the stated share of random
tokens attends; layers are set one after another, each on the activations that the layers before it leave.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import torch
import torch.nn.functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """One safetensors file of bf16 tensors."""
    header, at = {}, 0
    for name, t in tensors.items():
        size = t.numel() * 2
        header[name] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.contiguous().view(torch.int16).cpu().numpy().tobytes())


class Maker:
    """Makes the tensors, and runs them on one sequence to set the biases."""

    def __init__(self, cfg: dict, rate: float, seed: int) -> None:
        torch.manual_seed(seed)
        self.cfg, self.rate, self.std = cfg, rate, cfg.get("initializer_range", 0.02)
        self.d, self.hd = cfg["hidden_size"], cfg.get("head_dim") or cfg["hidden_size"] // cfg["num_attention_heads"]
        self.h, self.hk = cfg["num_attention_heads"], cfg["num_key_value_heads"]
        self.tensors: dict[str, torch.Tensor] = {}

    def weight(self, name: str, *shape: int) -> torch.Tensor:
        """A random matrix, kept under its name."""
        t = (torch.randn(*shape, device=DEVICE) * self.std).to(torch.bfloat16)
        self.tensors[name] = t
        return t

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """RMSNorm with weights of one, kept under its name."""
        self.tensors[name] = torch.ones(self.d, device=DEVICE, dtype=torch.bfloat16)
        return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)).to(torch.bfloat16)

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Without rotation: only the size of the activations matters here."""
        q, k, v = (t.view(len(t), -1, self.hd).transpose(0, 1)[None] for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return out[0].transpose(0, 1).reshape(-1, self.h * self.hd)

    def router(self, prefix: str, x: torch.Tensor) -> torch.Tensor:
        """Which rows attend; the bias is set so that `rate` of them do."""
        w0, w2 = self.weight(prefix + "0.weight", self.d // 2, self.d), self.weight(prefix + "2.weight", 2, self.d // 2)
        self.tensors[prefix + "0.bias"] = torch.zeros(self.d // 2, device=DEVICE, dtype=torch.bfloat16)
        z = F.silu(x @ w0.float().T) @ w2.float().T
        shift = torch.quantile(z[:, 0] - z[:, 1], 1 - self.rate)
        self.tensors[prefix + "2.bias"] = torch.tensor([-shift, 0.0], device=DEVICE).to(torch.bfloat16)
        bias = self.tensors[prefix + "2.bias"].float()
        return z[:, 0] + bias[0] > z[:, 1]

    def layer(self, i: int, routed: bool, x: torch.Tensor) -> torch.Tensor:
        """One layer made and run, so that the next one sees what it will see."""
        p, d, q, kv = f"model.layers.{i}.", self.d, self.h * self.hd, self.hk * self.hd
        chosen = self.router(p + "router.weight_predictor.", x) if routed else torch.ones(len(x), dtype=torch.bool, device=DEVICE)
        xn = self.norm(p + "input_layernorm.weight", x)
        wq, wk, wv = (self.weight(f"{p}self_attn.{n}_proj.weight", rows, d) for n, rows in (("q", q), ("k", kv), ("v", kv)))
        wo = self.weight(p + "self_attn.o_proj.weight", d, q)
        values = xn @ wv.T
        out = values.view(len(x), self.hk, 1, self.hd).expand(-1, -1, self.h // self.hk, -1).reshape(len(x), q).clone()
        if chosen.any():
            out[chosen] = self.attention(xn[chosen] @ wq.T, xn[chosen] @ wk.T, values[chosen])
        x = x + (out @ wo.T).float() * (0.5 if routed else 1.0)
        xn = self.norm(p + "post_attention_layernorm.weight", x)
        f = self.cfg["intermediate_size"]
        gate, up, down = (self.weight(f"{p}mlp.{n}_proj.weight", *s) for n, s in (("gate", (f, d)), ("up", (f, d)), ("down", (d, f))))
        return x + ((F.silu(xn @ gate.T) * (xn @ up.T)) @ down.T).float()

    @torch.no_grad()
    def make(self) -> dict[str, torch.Tensor]:
        """All tensors by name."""
        embed = self.weight("model.embed_tokens.weight", self.cfg["vocab_size"], self.d)
        dense = self.cfg.get("dtrnet_layers")
        x = embed[torch.randint(0, self.cfg["vocab_size"], (4096,), device=DEVICE)].float()
        for i in range(self.cfg["num_hidden_layers"]):
            x = self.layer(i, dense is not None and i not in dense, x)
        self.norm("model.norm.weight", x)
        if not self.cfg.get("tie_word_embeddings"):
            self.weight("lm_head.weight", self.cfg["vocab_size"], self.d)
        return self.tensors


def main() -> None:
    """Writes config.json and model.safetensors."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cfg = json.loads(args.config.read_text())
    cfg["torch_dtype"] = "bfloat16"
    args.out.mkdir(parents=True, exist_ok=True)
    save(args.out / "model.safetensors", Maker(cfg, args.rate, args.seed).make())
    (args.out / "config.json").write_text(json.dumps(cfg, indent=2))


if __name__ == "__main__":
    main()
