"""scan.py's recurrence as one Triton kernel forward and one backward, float32, one program a window and block of channels.

A program walks over the window in tiles of TIME steps and scans inside a tile in parallel. The forward keeps the state at each tile's
start; the backward walks the tiles from the end, computes the states of a tile again from there, and scans the gradients in reverse.
Sums over channel blocks and windows are left to PyTorch, so that no atomics are needed and every run gives the same bits.
"""

# ruff: noqa: ANN001, ANN202 (a kernel's arguments have no Python types)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TIME, CHANNELS = 16, 8


@triton.jit
def _then(decay1, added1, decay2, added2):
    """Two steps of S = decay * S + added as one."""
    return decay1 * decay2, decay2 * added1 + added2


@triton.jit
def _step(delta, u, b, a, first, at, inside, e, e_ok, s, s_ok, ne: tl.constexpr, ns: tl.constexpr):
    """delta, u [T, E] and b [T, S] of rows `at`, and from them decay and added [T, E, S]; nothing happens in rows outside."""
    ok = inside[:, None] & e_ok[None, :]
    d = tl.load(delta + at[:, None] * ne + e[None, :], mask=ok, other=0.0)
    x = tl.load(u + at[:, None] * ne + e[None, :], mask=ok, other=0.0)
    w = tl.load(b + at[:, None] * ns + s[None, :], mask=inside[:, None] & s_ok[None, :], other=0.0)
    new = tl.load(first + at, mask=inside, other=1) == 0
    decay = tl.where((new & inside)[:, None, None], 0.0, tl.exp(d[:, :, None] * a[None, :, :]))
    return d, x, w, decay, (d * x)[:, :, None] * w[:, None, :]


@triton.jit
def _forward(
    delta,
    u,
    b,
    c,
    a,
    position,
    y,
    states,
    length: tl.constexpr,
    tiles: tl.constexpr,
    ne: tl.constexpr,
    ns: tl.constexpr,
    te: tl.constexpr,
    ts: tl.constexpr,
    tt: tl.constexpr,
):
    window, e, s, t = tl.program_id(0), tl.program_id(1) * te + tl.arange(0, te), tl.arange(0, ts), tl.arange(0, tt)
    e_ok, s_ok = e < ne, s < ns
    grid = e[:, None] * ns + s[None, :]
    grid_ok = e_ok[:, None] & s_ok[None, :]
    rates = tl.load(a + grid, mask=grid_ok, other=0.0)
    state = tl.zeros([te, ts], tl.float32)
    for tile in range(tiles):
        tl.store(states + (window * tiles + tile) * ne * ns + grid, state, mask=grid_ok)
        inside = tile * tt + t < length
        at = window * length + tile * tt + t
        _, _, _, decay, added = _step(delta, u, b, rates, position, at, inside, e, e_ok, s, s_ok, ne, ns)
        decay, added = tl.associative_scan((decay, added), 0, _then)
        now = decay * state[None, :, :] + added
        seen = tl.load(c + at[:, None] * ns + s[None, :], mask=inside[:, None] & s_ok[None, :], other=0.0)
        tl.store(y + at[:, None] * ne + e[None, :], tl.sum(now * seen[:, None, :], 2), mask=inside[:, None] & e_ok[None, :])
        state = tl.sum(tl.where((t == tt - 1)[:, None, None], now, 0.0), 0)


@triton.jit
def _backward(
    delta,
    u,
    b,
    c,
    a,
    position,
    dy,
    states,
    ddelta,
    du,
    db,
    dc,
    da,
    rows,
    length: tl.constexpr,
    tiles: tl.constexpr,
    ne: tl.constexpr,
    ns: tl.constexpr,
    te: tl.constexpr,
    ts: tl.constexpr,
    tt: tl.constexpr,
):
    window, block, s, t = tl.program_id(0), tl.program_id(1), tl.arange(0, ts), tl.arange(0, tt)
    e = block * te + tl.arange(0, te)
    e_ok, s_ok = e < ne, s < ns
    grid = e[:, None] * ns + s[None, :]
    grid_ok = e_ok[:, None] & s_ok[None, :]
    rates = tl.load(a + grid, mask=grid_ok, other=0.0)
    later = tl.zeros([te, ts], tl.float32)  # gradient of the first state of the tile behind this one
    drates = tl.zeros([te, ts], tl.float32)
    for back in range(tiles):
        tile = tiles - 1 - back
        step = tile * tt + t
        inside, at = step < length, window * length + tile * tt + t
        ok, ok_s = inside[:, None] & e_ok[None, :], inside[:, None] & s_ok[None, :]
        # the state before each step: the tile's steps shifted by one
        _, _, _, shifted, added = _step(delta, u, b, rates, position, at - 1, inside & (t > 0), e, e_ok, s, s_ok, ne, ns)
        shifted, added = tl.associative_scan((shifted, added), 0, _then)
        before = shifted * tl.load(states + (window * tiles + tile) * ne * ns + grid, mask=grid_ok, other=0.0)[None, :, :] + added
        d, x, w, decay, added = _step(delta, u, b, rates, position, at, inside, e, e_ok, s, s_ok, ne, ns)
        # dS_t = C_t dy_t + decay_{t+1} dS_{t+1}, from the end
        grad = tl.load(dy + at[:, None] * ne + e[None, :], mask=ok, other=0.0)
        seen = tl.load(c + at[:, None] * ns + s[None, :], mask=ok_s, other=0.0)
        _, _, _, following, _ = _step(delta, u, b, rates, position, at + 1, step + 1 < length, e, e_ok, s, s_ok, ne, ns)
        following = tl.where((step + 1 < length)[:, None, None], following, 0.0)
        following, ds = tl.associative_scan((following, grad[:, :, None] * seen[:, None, :]), 0, _then, reverse=True)
        ds = following * later[None, :, :] + ds
        later = tl.sum(tl.where((t == 0)[:, None, None], ds, 0.0), 0)
        dlog = ds * before * decay  # gradient of delta * a, where decay = exp(delta * a)
        drates += tl.sum(dlog * d[:, :, None], 0)
        tl.store(ddelta + at[:, None] * ne + e[None, :], tl.sum(dlog * rates[None, :, :] + ds * x[:, :, None] * w[:, None, :], 2), mask=ok)
        tl.store(du + at[:, None] * ne + e[None, :], tl.sum(ds * d[:, :, None] * w[:, None, :], 2), mask=ok)
        tl.store(db + (block * rows + at[:, None]) * ns + s[None, :], tl.sum(ds * (d * x)[:, :, None], 1), mask=ok_s)
        now = decay * before + added
        tl.store(dc + (block * rows + at[:, None]) * ns + s[None, :], tl.sum(now * grad[:, :, None], 1), mask=ok_s)
    tl.store(da + window * ne * ns + grid, drates, mask=grid_ok)


def _sizes(delta: Tensor, a: Tensor, windows: int, length: int) -> tuple[tuple[int, int], int, dict[str, int]]:
    blocks, tiles = triton.cdiv(delta.shape[1], CHANNELS), triton.cdiv(length, TIME)
    return (
        (windows, blocks),
        tiles,
        {"ne": a.shape[0], "ns": a.shape[1], "te": CHANNELS, "ts": triton.next_power_of_2(a.shape[1]), "tt": TIME},
    )


@torch.library.custom_op("dtrnet::scan", mutates_args=())
def _scan(delta: Tensor, u: Tensor, b: Tensor, c: Tensor, a: Tensor, position: Tensor, windows: int, length: int) -> tuple[Tensor, Tensor]:
    grid, tiles, sizes = _sizes(delta, a, windows, length)
    y, states = torch.empty_like(delta), delta.new_empty(windows, tiles, *a.shape)
    _forward[grid](delta, u, b, c, a, position, y, states, length, tiles, **sizes)
    return y, states


@_scan.register_fake
def _(delta: Tensor, u: Tensor, b: Tensor, c: Tensor, a: Tensor, position: Tensor, windows: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(delta), delta.new_empty(windows, triton.cdiv(length, TIME), *a.shape)


@torch.library.custom_op("dtrnet::scan_backward", mutates_args=())
def _scan_backward(
    dy: Tensor, delta: Tensor, u: Tensor, b: Tensor, c: Tensor, a: Tensor, position: Tensor, states: Tensor, windows: int, length: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grid, tiles, sizes = _sizes(delta, a, windows, length)
    ddelta, du = torch.empty_like(delta), torch.empty_like(u)
    db, dc = b.new_empty(grid[1], *b.shape), c.new_empty(grid[1], *c.shape)
    da = a.new_empty(windows, *a.shape)
    _backward[grid](delta, u, b, c, a, position, dy, states, ddelta, du, db, dc, da, len(delta), length, tiles, **sizes)
    return ddelta, du, db.sum(0), dc.sum(0), da.sum(0)


@_scan_backward.register_fake
def _(
    dy: Tensor, delta: Tensor, u: Tensor, b: Tensor, c: Tensor, a: Tensor, position: Tensor, states: Tensor, windows: int, length: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(torch.empty_like(t) for t in (delta, u, b, c, a))


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.windows, ctx.length = inputs
    ctx.save_for_backward(*tensors, output[1])


def _gradients(ctx: Any, dy: Tensor, dstates: Tensor) -> tuple:
    grads = torch.ops.dtrnet.scan_backward(dy.contiguous(), *ctx.saved_tensors, ctx.windows, ctx.length)
    return *grads, None, None, None


_scan.register_autograd(_gradients, setup_context=_setup)


def scan(delta: Tensor, u: Tensor, b: Tensor, c: Tensor, a: Tensor, position: Tensor, windows: int, length: int) -> Tensor:
    """scan.py's `scan_loop` on a GPU."""
    parts = (t.float().contiguous() for t in (delta, u, b, c, a))
    return torch.ops.dtrnet.scan(*parts, position, windows, length)[0]
