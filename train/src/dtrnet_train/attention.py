"""Attention among the rows of each segment, or among chosen ones; rotary positions; projections."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtrnet_train.errors import fail
from dtrnet_train.rows import Rows, Subset, put, take
from dtrnet_train.shape import Shape

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10: the plain form below serves
    varlen_attn = None


# ---- rotary positions ----


def frequencies(shape: Shape) -> tuple[Tensor, float]:
    """Rotary frequencies [head_dim / 2] in float32, and the factor that multiplies cosine and sine."""
    d, base, scaling = shape.head_dim, float(shape.rope_theta), shape.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type")) or "default"
    f = 1.0 / torch.tensor(base) ** (torch.arange(0, d, 2, dtype=torch.float32) / d)
    if kind == "default":
        return f, 1.0
    if kind == "linear":
        return f / scaling["factor"], 1.0
    if kind == "llama3":
        return _llama3(f, scaling), 1.0
    if kind == "yarn":
        return _yarn(f, scaling, d, base, shape.max_position_embeddings)
    fail(f"rope_scaling: type {kind!r} is not supported; default, linear, llama3 and yarn are")


def _llama3(f: Tensor, scaling: dict) -> Tensor:
    old, low, high = scaling["original_max_position_embeddings"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    wave = 2 * math.pi / f
    smooth = (old / wave - low) / (high - low)
    out = torch.where(wave > old / low, f / scaling["factor"], (1 - smooth) * f / scaling["factor"] + smooth * f)
    return torch.where(wave < old / high, f, out)


def _yarn(f: Tensor, scaling: dict, d: int, base: float, longest: int) -> tuple[Tensor, float]:
    old = scaling.get("original_max_position_embeddings")
    factor = longest / old if old else scaling["factor"]  # with an original length, `factor` itself is not used
    old = old or longest

    def scale(m: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0

    def correction(rotations: float) -> float:
        return d * math.log(old / (rotations * 2 * math.pi)) / (2 * math.log(base))

    m = scaling.get("attention_factor")
    if m is None:
        both = scaling.get("mscale") and scaling.get("mscale_all_dim")
        m = scale(scaling["mscale"]) / scale(scaling["mscale_all_dim"]) if both else scale(1)
    low = max(math.floor(correction(scaling.get("beta_fast") or 32)), 0)
    high = min(math.ceil(correction(scaling.get("beta_slow") or 1)), d - 1)
    ramp = ((torch.arange(d // 2, dtype=torch.float32) - low) / ((high - low) or 0.001)).clamp(0, 1)
    return f / factor * ramp + f * (1 - ramp), m


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [N, heads, d] turned by its position; cos, sin [N, d / 2] float32. Halves are turned, not neighbours."""
    low, high = x.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(x.dtype)


# ---- softmax attention over segments ----


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """x [N, K, d] -> [N, heads, d]: each key or value head for its group of query heads."""
    return x[:, :, None].expand(-1, -1, heads // x.shape[1], -1).flatten(1, 2)


def _masked(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor) -> Tensor:
    """The same as `varlen_attn` for any device and dtype, by one mask over all rows: a graph that does not depend on the data."""
    row = torch.arange(len(q), device=q.device)
    segment = torch.searchsorted(bounds, row.int(), right=True)
    visible = (segment[:, None] == segment[None]) & (row[:, None] >= row[None])
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)[0].transpose(0, 1)


def _by_segment(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor) -> Tensor:
    """The same segment by segment, for the CPU: work grows with the segments' lengths, and reading the bounds waits for nothing."""
    ends = bounds.tolist()
    sizes = [end - first for first, end in itertools.pairwise(ends)] + [len(q) - ends[-1]]
    parts = [tuple(t.transpose(0, 1)[None] for t in one) for one in zip(*(x.split(sizes) for x in (q, k, v)))]
    out = [F.scaled_dot_product_attention(*one, is_causal=True)[0].transpose(0, 1) for one, n in zip(parts, sizes) if n]
    return torch.cat(out)


def _plain(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor) -> Tensor:
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    form = _masked if q.device.type != "cpu" or torch.compiler.is_compiling() else _by_segment
    return form(q, k, v, bounds)


def _clear_tail(x: Tensor, bounds: Tensor) -> Tensor:
    """Zero behind the last bound, forward and backward: what the kernel leaves there must not reach a weight's gradient."""
    real = torch.arange(len(x), device=x.device) < bounds[-1]
    return torch.where(real[:, None, None], x, 0)


def causal(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """Causal attention within segments: q [N, A, d], k and v [N, K, d] -> [N, A, d]. Rows behind the last bound give anything."""
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and varlen_attn is not None:
        return varlen_attn(q, k, v.contiguous(), bounds, bounds, longest, longest, window_size=(-1, 0))
    return _plain(q, k, v, bounds)


# ---- modules ----


def linear(x: Tensor, *parts: nn.Linear) -> Tensor:
    """The outputs of several linear layers of one input side by side, as one product in x's dtype (weights stay float32)."""
    weight = torch.cat([p.weight for p in parts]) if len(parts) > 1 else parts[0].weight
    bias = None if parts[0].bias is None else torch.cat([p.bias for p in parts]).to(x.dtype)
    return F.linear(x, weight.to(x.dtype), bias)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


class Attention(nn.Module):
    """Projections, q/k/v norms where the norm method has them, attention of all or of chosen rows, and the linear path."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, heads, kv, bias = shape.head_dim, shape.num_attention_heads, shape.num_key_value_heads, shape.attention_bias
        self.sizes = (heads * d, kv * d, kv * d)
        self.heads, self.kv, self.d = heads, kv, d
        self.q_proj = nn.Linear(shape.hidden_size, heads * d, bias=bias)
        self.k_proj = nn.Linear(shape.hidden_size, kv * d, bias=bias)
        self.v_proj = nn.Linear(shape.hidden_size, kv * d, bias=bias)
        self.o_proj = nn.Linear(heads * d, shape.hidden_size, bias=bias)
        self.normed = shape.norm_method.startswith("hybridnorm")
        if self.normed:
            self.q_norm, self.k_norm, self.v_norm = (RMSNorm(d, shape.rms_norm_eps) for _ in range(3))

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u [N, H] -> q [N, A, d], k and v [N, K, d], normed but not rotated."""
        q, k, v = linear(u, self.q_proj, self.k_proj, self.v_proj).split(self.sizes, -1)
        q, k, v = q.unflatten(-1, (self.heads, self.d)), k.unflatten(-1, (self.kv, self.d)), v.unflatten(-1, (self.kv, self.d))
        return (self.q_norm(q), self.k_norm(k), self.v_norm(v)) if self.normed else (q, k, v)

    def forward(self, u: Tensor, rows: Rows, turn: tuple[Tensor, Tensor], part: Subset | None = None) -> Tensor:
        """[N, H] -> [N, H] by o_proj. With a subset, its rows attend to each other and the others take the linear path."""
        q, k, v = self.project(u)
        if rows.ragged:
            q, k, v = (_clear_tail(t, rows.bounds) for t in (q, k, v))
        if part is None:
            mixed = causal(rotate(q, *turn), rotate(k, *turn), v, rows.bounds, rows.length)
            mixed = _clear_tail(mixed, rows.bounds) if rows.ragged else mixed
        else:
            cos, sin = (t[part.order] for t in turn)
            seen = rotate(take(q, part), cos, sin), rotate(take(k, part), cos, sin), take(v, part)
            alone = repeat_heads(v, self.heads)
            mixed = torch.where(part.chosen[:, None, None], put(causal(*seen, part.bounds, rows.length), part), alone)
        return linear(mixed.flatten(1), self.o_proj)


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=shape.mlp_bias)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=shape.mlp_bias)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=shape.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = linear(x, self.gate_proj, self.up_proj).chunk(2, -1)
        return linear(F.silu(gate) * up, self.down_proj)
