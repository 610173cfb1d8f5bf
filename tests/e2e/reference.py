"""A float32 reference of dense LLaMA and DTRNet checkpoints in numpy, packed so that whole test sets pass through it.

A context with its continuations is a group of rows, the context computed once; many groups lie behind one another in one array.
Matrix products see all rows at once, attention walks group by group: a row sees the earlier rows of the context and of its own
continuation. It shares no code with the server.
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


@dataclass
class Rows:
    """Rows of many groups, behind one another.

    Attributes:
        ids: token of each row [n].
        pos: its position in its sequence [n].
        branch: 0 for a row of the context, else the number of its continuation in the group [n].
        cu: rows cu[g] .. cu[g + 1] are group g.
    """

    ids: np.ndarray
    pos: np.ndarray
    branch: np.ndarray
    cu: np.ndarray

    def select(self, which: np.ndarray) -> Rows:
        """The rows where `which` [n] is True."""
        cu = np.concatenate([[0], np.cumsum(which)])[self.cu]
        return Rows(self.ids[which], self.pos[which], self.branch[which], cu)


def pack(groups: list[tuple[list[int], list[list[int]]]]) -> Rows:
    """Rows of (context, continuations) groups."""
    ids, pos, branch, size = [], [], [], [0]
    for context, continuations in groups:
        parts = [context, *continuations]
        ids += [np.array(part, np.int64) for part in parts]
        pos += [np.arange(len(part)) + (len(context) if i else 0) for i, part in enumerate(parts)]
        branch += [np.full(len(part), i) for i, part in enumerate(parts)]
        size.append(sum(map(len, parts)))
    return Rows(np.concatenate(ids), np.concatenate(pos), np.concatenate(branch), np.cumsum(size))


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

    def _attention(self, xn: np.ndarray, rows: Rows, layer: str) -> np.ndarray:
        """Attention inside each group; xn [n, d]."""
        n, group = len(xn), self.heads // self.kv_heads
        shape = (n, self.kv_heads, self.head_dim)
        q = self._rope(self._linear(xn, layer + "self_attn.q_proj").reshape(n, self.heads, self.head_dim), rows.pos)
        k = self._rope(self._linear(xn, layer + "self_attn.k_proj").reshape(shape), rows.pos).repeat(group, 1)
        v = self._linear(xn, layer + "self_attn.v_proj").reshape(shape).repeat(group, 1)
        q, k, v = (np.ascontiguousarray(a.transpose(1, 0, 2)) for a in (q, k, v))
        out = np.empty((self.heads, n, self.head_dim), F32)
        for a, b in itertools.pairwise(rows.cu):
            if a == b:
                continue
            at, of = rows.pos[a:b], rows.branch[a:b]
            hidden = (at[None, :] > at[:, None]) | ((of[None, :] != of[:, None]) & (of[None, :] != 0))
            scores = q[:, a:b] @ k[:, a:b].transpose(0, 2, 1) * F32(self.head_dim**-0.5)
            scores[:, hidden] = -np.inf
            out[:, a:b] = _softmax(scores) @ v[:, a:b]
        return self._linear(out.transpose(1, 0, 2).reshape(n, self.heads * self.head_dim), layer + "self_attn.o_proj")

    def _bypass(self, xn: np.ndarray, layer: str) -> np.ndarray:
        v = self._linear(xn, layer + "self_attn.v_proj").reshape(len(xn), self.kv_heads, self.head_dim)
        v = v.repeat(self.heads // self.kv_heads, 1)
        return self._linear(v.reshape(len(xn), self.heads * self.head_dim), layer + "self_attn.o_proj")

    def _mix(self, x: np.ndarray, rows: Rows, layer: str, margin: np.ndarray) -> np.ndarray:
        """What the attention half of a layer adds to x; lowers margin [n] to the routing distance of each row."""
        xn = self._norm(x, layer + "input_layernorm.weight")
        if layer + "router.weight_predictor.0.weight" not in self.w:
            return self._attention(xn, rows, layer)
        hidden = _silu(self._linear(x, layer + "router.weight_predictor.0"))
        p = _softmax(self._linear(hidden, layer + "router.weight_predictor.2"))
        np.minimum(margin, np.abs(p[:, 0] - F32(0.5)), out=margin)
        routed = p[:, 0] > 0.5
        y = np.empty_like(x)
        y[routed] = self._attention(xn[routed], rows.select(routed), layer) * p[routed, :1]
        y[~routed] = self._bypass(xn[~routed], layer) * p[~routed, 1:]
        return y

    def hidden(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Final-norm rows [n, d] and routing margins [n]."""
        x = self.w["model.embed_tokens.weight"][rows.ids]
        margin = np.full(len(x), np.inf, F32)
        for i in range(self.cfg["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            x = x + self._mix(x, rows, layer, margin)
            xn = self._norm(x, layer + "post_attention_layernorm.weight")
            up = _silu(self._linear(xn, layer + "mlp.gate_proj")) * self._linear(xn, layer + "mlp.up_proj")
            x = x + self._linear(up, layer + "mlp.down_proj")
        return self._norm(x, "model.norm.weight"), margin

    def score(self, pairs: list[tuple[list[int], list[int]]], max_rows: int = 4096) -> list[Scored]:
        """Scores (context ids, continuation ids); contexts are not empty. About `max_rows` rows pass at a time."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (context, _) in enumerate(pairs):
            groups.setdefault(tuple(context), []).append(i)
        out: dict[int, Scored] = {}
        batch: list[tuple[int, ...]] = []
        held = 0
        for context in sorted(groups, key=len):
            batch.append(context)
            held += len(context) + sum(len(pairs[i][1]) for i in groups[context])
            if held >= max_rows:
                out |= self._score_batch(pairs, {c: groups[c] for c in batch})
                batch, held = [], 0
        if batch:
            out |= self._score_batch(pairs, {c: groups[c] for c in batch})
        return [out[i] for i in range(len(pairs))]

    def _score_batch(self, pairs: list[tuple[list[int], list[int]]], groups: dict[tuple[int, ...], list[int]]) -> dict[int, Scored]:
        rows = pack([(list(context), [pairs[i][1][:-1] for i in which]) for context, which in groups.items()])
        x, margin = self.hidden(rows)
        out = {}
        for begin, (context, which) in zip(rows.cu, groups.items()):
            last = begin + len(context) - 1
            base = float(margin[begin : last + 1].min())
            at = last + 1
            for i in which:
                own = np.arange(at, at + len(pairs[i][1]) - 1)
                at += len(own)
                near = float(margin[own].min()) if len(own) else np.inf
                out[i] = self._read(x[np.concatenate([[last], own])], pairs[i][1], min(base, near))
        return out

    def _read(self, x: np.ndarray, target: list[int], margin: float) -> Scored:
        """Scores the tokens `target` from the rows that predict them."""
        logits = x @ self.head.T
        best = np.partition(logits, -2, axis=-1)[:, -2:]
        picked, top = logits[np.arange(len(target)), target], best[:, 1]
        lse = np.log(np.exp((logits - top[:, None]).astype(np.float64)).sum(-1)) + top
        return Scored((picked - lse).astype(F32), bool((picked == top).all()), margin, float((top - best[:, 0]).min()))
