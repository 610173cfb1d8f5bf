"""A float32 reference of dense LLaMA and DTRNet checkpoints in numpy, packed so that whole test sets pass through it.

Many sequences lie behind one another as rows of one array: matrix products see all rows at once, attention walks sequence by
sequence. Formulas: docs/routing.md, the published modules' order of operations. It shares no code with the server.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

F32 = np.float32


@dataclass
class Scored:
    """What one (context, continuation) pair gives.

    Attributes:
        logprobs: natural log probability of each continuation token, float32.
        greedy: True if every continuation token is the most probable one.
        margin: smallest |p0 - 0.5| of a routing decision in the whole sequence; infinity without routers.
        top_gap: smallest distance between the two best logits of a scored row.
    """

    logprobs: np.ndarray
    greedy: bool
    margin: float
    top_gap: float

    @property
    def total(self) -> float:
        """Summed log probability of the continuation."""
        return float(self.logprobs.astype(np.float64).sum())


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of one file as float32."""
    raw = np.fromfile(path, np.uint8)
    size = int(raw[:8].view("<u8")[0])
    out = {}
    for name, info in json.loads(raw[8 : 8 + size].tobytes()).items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        data = raw[8 + size + begin : 8 + size + end]
        if info["dtype"] == "BF16":  # the high half of a float32
            values = (data.view("<u2").astype(np.uint32) << 16).view(F32)
        else:
            values = data.view({"F32": "<f4", "F16": "<f2"}[info["dtype"]]).astype(F32)
        out[name] = values.reshape(info["shape"])
    return out


def _silu(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Reference:
    """One checkpoint: a directory with config.json and model.safetensors (dense or DTRNet layers, default RoPE)."""

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        self.cfg = cfg = json.loads((folder / "config.json").read_text())
        if cfg.get("rope_scaling"):
            raise ValueError("the reference knows default RoPE only")
        self.w = read_safetensors(folder / "model.safetensors")
        self.heads = cfg["num_attention_heads"]
        self.kv_heads = cfg.get("num_key_value_heads") or self.heads
        self.head_dim = cfg.get("head_dim") or cfg["hidden_size"] // self.heads
        self.eps = F32(cfg.get("rms_norm_eps", 1e-6))
        j = np.arange(0, self.head_dim, 2).astype(F32) / F32(self.head_dim)
        self.freq = F32(1) / (F32(cfg.get("rope_theta", 10000.0)) ** j)
        self.head = self.w["model.embed_tokens.weight" if cfg.get("tie_word_embeddings") else "lm_head.weight"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name]

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def _rope(self, x: np.ndarray, pos: np.ndarray) -> np.ndarray:
        angle = (pos.astype(F32)[:, None] * self.freq)[:, None, :]
        cos, sin = np.cos(angle), np.sin(angle)
        low, high = np.split(x, 2, axis=-1)
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], -1)

    def _attention(self, xn: np.ndarray, pos: np.ndarray, cu: np.ndarray, layer: str) -> np.ndarray:
        """Causal attention inside each sequence; rows cu[s] .. cu[s+1] of xn [n, d] are sequence s."""
        n, group = len(xn), self.heads // self.kv_heads
        shape = (n, self.kv_heads, self.head_dim)
        q = self._rope(self._linear(xn, layer + "self_attn.q_proj").reshape(n, self.heads, self.head_dim), pos)
        k = self._rope(self._linear(xn, layer + "self_attn.k_proj").reshape(shape), pos).repeat(group, 1)
        v = self._linear(xn, layer + "self_attn.v_proj").reshape(shape).repeat(group, 1)
        q, k, v = (np.ascontiguousarray(a.transpose(1, 0, 2)) for a in (q, k, v))
        out = np.empty((self.heads, n, self.head_dim), F32)
        for a, b in itertools.pairwise(cu):
            if a == b:
                continue
            s = q[:, a:b] @ k[:, a:b].transpose(0, 2, 1) * F32(self.head_dim**-0.5)
            s += np.triu(np.full((b - a, b - a), F32(-np.inf)), 1)
            out[:, a:b] = _softmax(s) @ v[:, a:b]
        return self._linear(out.transpose(1, 0, 2).reshape(n, self.heads * self.head_dim), layer + "self_attn.o_proj")

    def _bypass(self, xn: np.ndarray, layer: str) -> np.ndarray:
        v = self._linear(xn, layer + "self_attn.v_proj").reshape(len(xn), self.kv_heads, self.head_dim)
        v = v.repeat(self.heads // self.kv_heads, 1)
        return self._linear(v.reshape(len(xn), self.heads * self.head_dim), layer + "self_attn.o_proj")

    def _mix(self, x: np.ndarray, pos: np.ndarray, cu: np.ndarray, layer: str, margin: np.ndarray) -> np.ndarray:
        """What the attention half of a layer adds to x; lowers margin [n] to the routing distance of each row."""
        xn = self._norm(x, layer + "input_layernorm.weight")
        if layer + "router.weight_predictor.0.weight" not in self.w:
            return self._attention(xn, pos, cu, layer)
        hidden = _silu(self._linear(x, layer + "router.weight_predictor.0"))
        p = _softmax(self._linear(hidden, layer + "router.weight_predictor.2"))
        np.minimum(margin, np.abs(p[:, 0] - F32(0.5)), out=margin)
        routed = p[:, 0] > 0.5
        y = np.empty_like(x)
        kept = np.concatenate([[0], np.cumsum(routed)])[cu]
        y[routed] = self._attention(xn[routed], pos[routed], kept, layer) * p[routed, :1]
        y[~routed] = self._bypass(xn[~routed], layer) * p[~routed, 1:]
        return y

    def hidden(self, sequences: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Final-norm rows of all sequences behind one another [n, d], offsets [s + 1] and routing margins [n]."""
        cu = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
        pos = np.concatenate([np.arange(len(s)) for s in sequences])
        x = self.w["model.embed_tokens.weight"][np.concatenate(sequences)]
        margin = np.full(len(x), np.inf, F32)
        for i in range(self.cfg["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            x = x + self._mix(x, pos, cu, layer, margin)
            xn = self._norm(x, layer + "post_attention_layernorm.weight")
            up = _silu(self._linear(xn, layer + "mlp.gate_proj")) * self._linear(xn, layer + "mlp.up_proj")
            x = x + self._linear(up, layer + "mlp.down_proj")
        return self._norm(x, "model.norm.weight"), cu, margin

    def score(self, pairs: list[tuple[list[int], list[int]]], rows: int = 4096) -> list[Scored]:
        """Scores (context ids, continuation ids); contexts are not empty. About `rows` rows pass at a time."""
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        out: list[Scored | None] = [None] * len(pairs)
        batch: list[int] = []
        held = 0
        for i in order:
            batch.append(i)
            held += len(pairs[i][0]) + len(pairs[i][1])
            if held >= rows or i == order[-1]:
                for j, scored in zip(batch, self._score_batch([pairs[j] for j in batch])):
                    out[j] = scored
                batch, held = [], 0
        return out

    def _score_batch(self, pairs: list[tuple[list[int], list[int]]]) -> list[Scored]:
        x, cu, margin = self.hidden([list(ctx) + list(cont[:-1]) for ctx, cont in pairs])
        wanted = np.concatenate([np.arange(b - len(p[1]), b) for b, p in zip(cu[1:], pairs)])
        logits = x[wanted] @ self.head.T
        best = np.partition(logits, -2, axis=-1)[:, -2:]
        target = np.concatenate([cont for _, cont in pairs])
        picked = logits[np.arange(len(target)), target]
        top = best[:, 1]
        lse = np.log(np.exp((logits - top[:, None]).astype(np.float64)).sum(-1)) + top
        logprobs = (picked - lse).astype(F32)
        out, at = [], 0
        for (_, cont), a, b in zip(pairs, cu[:-1], cu[1:]):
            rows = slice(at, at + len(cont))
            at += len(cont)
            gap = float((best[rows, 1] - best[rows, 0]).min())
            out.append(Scored(logprobs[rows], bool((picked[rows] == top[rows]).all()), float(margin[a:b].min()), gap))
        return out
