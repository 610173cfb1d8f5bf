"""Which tokens take the expensive way. Every function works on all rows at once, segment by segment.

A margin is the number that is ranked or compared: r0 - r1 for routers with two outputs. Positive = expensive.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dtrnet_train.rows import Rows


class Decision(NamedTuple):
    """What one router said about N rows."""

    margin: Tensor  # [N] float32
    prob: Tensor  # [N] float32, of the expensive choice
    chosen: Tensor  # [N] bool
    among: Tensor  # [N] bool, rows that could be chosen


def counts(capacity: float, size: Tensor) -> Tensor:
    """How many of `size` tokens expert choice takes: the share, rounded up, at least one of any."""
    wanted = torch.ceil(capacity * size.double() - 1e-6).long().clamp(min=1)  # 1e-6: 0.28 of 25 is 7, not 8
    return torch.minimum(wanted, size)


def rank(margin: Tensor, rows: Rows) -> Tensor:
    """[N] int64: a row's place in its segment by falling margin, 0 = largest; equal margins: the earlier row first."""
    by_margin = torch.argsort(margin, descending=True, stable=True)
    order = by_margin[torch.argsort(rows.segment[by_margin], stable=True)]
    place = torch.arange(len(margin), device=margin.device) - rows.bounds[rows.segment[order]]
    return torch.empty_like(order).scatter_(0, order, place)


def top_of_segment(margin: Tensor, among: Tensor, capacity: float, rows: Rows) -> Tensor:
    """Expert choice: the `counts` best rows of each segment among those allowed."""
    allowed = torch.cat([among.new_zeros(1, dtype=torch.long), torch.cumsum(among.long(), 0)])[rows.bounds.long()]
    take = counts(capacity, allowed.diff())[rows.segment]
    place = rank(torch.where(among, margin.detach(), float("-inf")), rows)
    return among & (place < take)


def at_least(chosen: Tensor, margin: Tensor, among: Tensor, share: float) -> Tensor:
    """Training only: the best by margin join until `share` of the allowed rows of the batch are chosen."""
    if share <= 0:
        return chosen
    order = torch.argsort(torch.where(among, margin.detach(), float("-inf")), descending=True, stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return chosen | (among & (place < torch.ceil(share * among.sum())))


def some_if_none(chosen: Tensor, among: Tensor, share: float = 0.15) -> Tensor:
    """Training only, as published: if nothing is chosen, a random 15 % of the allowed rows are."""
    lottery = torch.rand(chosen.shape, device=chosen.device) < share
    return torch.where(chosen.any(), chosen, among & lottery)
