"""A batch as one list of rows, and subsets of it.

A batch is `windows` windows of `length` tokens, laid one after another: N = windows * length rows. A window holds one document, a piece of
one, or several; each such piece is a *segment*. Attention, selection and router state never cross from one segment to another.

Shapes never depend on the data: what varies (how many segments, how many rows are chosen) is in tensors, so nothing waits for the device
and torch.compile sees one graph.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Rows(NamedTuple):
    """Where each of N rows stands."""

    windows: int
    length: int
    position: Tensor  # [N] int64, place within the segment, from 0
    segment: Tensor  # [N] int64, number of the segment
    bounds: Tensor  # [M + 1] int32, first row of each segment, then N; M is a fixed maximum, segments not used are empty
    ragged: bool = False  # rows behind the last bound exist and mean nothing


class Subset(NamedTuple):
    """Chosen rows first, in their order, then the others."""

    chosen: Tensor  # [N] bool
    order: Tensor  # [N] int64, row at each place
    place: Tensor  # [N] int64, place of each row
    bounds: Tensor  # [M + 1] int32, as Rows.bounds, over the places of chosen rows


def starts_of(tokens: np.ndarray, bos: int) -> np.ndarray:
    """[windows, length] bool: True where a segment begins, at a window's start and at each BOS."""
    starts = tokens == bos
    starts[:, 0] = True
    return starts


def make_rows(starts: np.ndarray, segments: int = 0) -> Rows:
    """Rows on the CPU from `starts_of`; room for `segments` segments, 0 = as many as there are."""
    windows, length = starts.shape
    first = np.flatnonzero(starts.reshape(-1))
    room = max(segments, len(first))
    bounds = np.full(room + 1, windows * length, np.int32)
    bounds[: len(first)] = first
    segment = np.cumsum(starts.reshape(-1)) - 1
    position = np.arange(windows * length) - first[segment]
    return Rows(windows, length, torch.from_numpy(position), torch.from_numpy(segment), torch.from_numpy(bounds))


def to_device(rows: Rows, device: torch.device) -> Rows:
    """The same rows with their tensors on a device, without waiting for it."""
    move = {name: getattr(rows, name).to(device, non_blocking=True) for name in ("position", "segment", "bounds")}
    return rows._replace(**move)


def subset(chosen: Tensor, rows: Rows) -> Subset:
    """Places for the chosen rows [N] bool and for the others, by counting."""
    before = torch.cumsum(chosen.long(), 0)
    total = before[-1]
    index = torch.arange(len(chosen), device=chosen.device)
    place = torch.where(chosen, before - 1, total + index - before)
    order = torch.empty_like(index).scatter_(0, place, index)
    counted = torch.cat([before.new_zeros(1), before])
    return Subset(chosen, order, place, counted[rows.bounds.long()].int())


def first_rows(part: Subset, room: int) -> Subset:
    """The subset with only the first `room` places; the caller knows that no more rows are chosen."""
    return part._replace(order=part.order[:room])


def _spread(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *([1] * (like.dim() - 1)))


class _Take(torch.autograd.Function):
    """x[order]. Its gradient is a gather by `place`, not a scatter with atomics; what lies behind the chosen rows gets none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, chosen: Tensor, order: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(chosen, place)
        ctx.room = len(order)
        return x[order]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        chosen, place = ctx.saved_tensors
        back = grad[place.clamp(max=ctx.room - 1)]
        return torch.where(_spread(chosen, back), back, 0), None, None, None


class _Put(torch.autograd.Function):
    """Rows of y at their places, 0 for rows that are not chosen (y may hold anything behind the chosen ones)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, chosen: Tensor, order: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(chosen, order)
        out = y[place.clamp(max=len(order) - 1)]
        return torch.where(_spread(chosen, out), out, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        chosen, order = ctx.saved_tensors
        return torch.where(_spread(chosen[order], grad), grad[order], 0), None, None, None


def take(x: Tensor, part: Subset) -> Tensor:
    """x [N, ...] -> [room, ...]: the chosen rows first; gradients flow to chosen rows only."""
    return _Take.apply(x, part.chosen, part.order, part.place)


def put(y: Tensor, part: Subset) -> Tensor:
    """y [room, ...] -> [N, ...]: back to the rows' own places, 0 elsewhere."""
    return _Put.apply(y, part.chosen, part.order, part.place)
