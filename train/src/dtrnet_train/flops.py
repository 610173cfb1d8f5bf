"""Arithmetic of one forward pass by part, 2 for a multiply-add, with the shares that routing takes; KV rows; model FLOPs of training.

Shares: e = tokens that execute a layer, a = those of the executed that attend. T: both 1; D: e = 1; M: a = 1; L: every token computes
k and v.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dtrnet_train.routers import DLLM_WIDTH
from dtrnet_train.shape import Shape

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}  # dense bf16, by the vendor's data sheets
PARTS = ("projections", "scores", "mlp", "router", "head")


def pairs(rows: float, full: bool = False) -> float:
    """Query-key pairs of a pass over `rows` rows: those that a causal mask lets be seen, or all, as the papers count."""
    return rows * rows if full else rows * (rows + 1) / 2


def router(shape: Shape, letter: str) -> float:
    """One router for one token."""
    h = shape.hidden_size
    if letter == "M":
        return 4.0 * h
    if letter == "L":
        return 2.0 * (h * DLLM_WIDTH + 2 * DLLM_WIDTH)
    if shape.router_type == "mlp":
        return 2.0 * (h * (h // 2) + 2 * (h // 2))
    r, e, n, c, rank = shape.router_dim, shape.router_inner, shape.router_d_state, shape.router_d_conv, shape.router_dt_rank
    return 2.0 * (h * r + 2 * r * e + c * e + e * (rank + 2 * n) + rank * e + 3 * e * n + e * r + 2 * r)


def layer(shape: Shape, letter: str, tokens: int, execute: float, attend: float, full: bool = False) -> dict[str, float]:
    """One layer over a sequence."""
    h, heads = shape.hidden_size, shape.num_attention_heads * shape.head_dim
    kv = shape.num_key_value_heads * shape.head_dim
    ran, attending = execute * tokens, execute * attend * tokens
    valued, keyed = (tokens, tokens) if letter == "L" else (ran, attending)
    query_rows = ran if letter == "L" else attending
    seen = execute * pairs(tokens, full) if letter == "L" else pairs(attending, full)
    asked = {"T": 0.0, "S": 2.0 * tokens}.get(letter, float(tokens))
    if letter == "S" and shape.router_type == "mlp":
        asked = tokens + ran  # the attention router's word about a skipped token is not used
    return {
        "projections": 2.0 * h * (kv * valued + heads * ran + heads * query_rows + kv * keyed),
        "scores": 4.0 * heads * seen,
        "mlp": 6.0 * h * shape.intermediate_size * ran,
        "router": asked * router(shape, letter) if asked else 0.0,
    }


def forward(shape: Shape, tokens: int, execute: list[float], attend: list[float], full: bool = False) -> dict[str, float]:
    """A whole sequence: FLOPs by part. `execute` and `attend` have one share a layer."""
    out = dict.fromkeys(PARTS, 0.0)
    for letter, e, a in zip(shape.layer_layout, execute, attend):
        for part, value in layer(shape, letter, tokens, e, a, full).items():
            out[part] += value
    out["head"] = 2.0 * shape.hidden_size * shape.vocab_size * tokens
    return out


def shares_at(shape: Shape, attend: float, execute: float) -> tuple[list[float], list[float]]:
    """One share for all routed layers: (execute, attend) by layer."""
    e = [execute if letter in "SML" else 1.0 for letter in shape.layer_layout]
    return e, [attend if letter in "DS" else 1.0 for letter in shape.layer_layout]


def kv_rows(shape: Shape, execute: list[float], attend: list[float]) -> float:
    """KV rows a token, over all layers."""
    return sum(1.0 if letter == "L" else e * a for letter, e, a in zip(shape.layer_layout, execute, attend))


def training(shape: Shape, length: int, execute: list[float], attend: list[float]) -> float:
    """A token's share of forward and backward: three times the forward."""
    return 3 * sum(forward(shape, length, execute, attend).values()) / length


def peak(device_name: str) -> float | None:
    """The device's bf16 peak, if it is known."""
    return next((value for name, value in PEAK.items() if name in device_name), None)


def table(shape: Shape, lengths: list[int], execute: list[float], attend: list[float], full: bool = False) -> list[dict[str, Any]]:
    """FLOPs a token by part for each length, the whole against the dense model of the same shape, and KV rows against its."""
    ones = [1.0] * shape.num_hidden_layers
    dense = dataclasses.replace(shape, family="dense", layer_layout="T" * shape.num_hidden_layers)
    out = []
    for length in lengths:
        parts = forward(shape, length, execute, attend, full)
        whole, total = sum(forward(dense, length, ones, ones, full).values()), sum(parts.values())
        row = {"length": length, **{part: parts[part] / length for part in PARTS}, "total": total / length}
        out.append({**row, "of_dense": total / whole, "kv_of_dense": kv_rows(shape, execute, attend) / shape.num_hidden_layers})
    return out
