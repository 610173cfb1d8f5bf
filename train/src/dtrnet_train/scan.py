"""The recurrence of a Mamba router: S_t = exp(delta_t A) S_{t-1} + delta_t B_t u_t, y_t = C_t S_t, from zero at each segment.

On a GPU it is one Triton kernel (scan_triton.py); elsewhere the loop below, which is what the kernel is tested against.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dtrnet_train.rows import Rows


def scan_loop(delta: Tensor, u: Tensor, b: Tensor, c: Tensor, a: Tensor, rows: Rows) -> Tensor:
    """Step by step, all windows at once. delta, u [N, E]; b, c [N, S]; a [E, S] (negative) -> y [N, E]; all float32."""
    windows, length = rows.windows, rows.length
    goes_on = (rows.position > 0).to(delta.dtype)[:, None, None]
    decay = torch.exp(delta[:, :, None] * a) * goes_on
    added = (delta * u)[:, :, None] * b[:, None]
    decay, added, seen = (t.unflatten(0, (windows, length)) for t in (decay, added, c))
    state, out = torch.zeros_like(added[:, 0]), []
    for t in range(length):
        state = decay[:, t] * state + added[:, t]
        out.append((state * seen[:, t, None]).sum(-1))
    return torch.stack(out, 1).flatten(0, 1)


def selective_scan(delta: Tensor, u: Tensor, b: Tensor, c: Tensor, a: Tensor, rows: Rows) -> Tensor:
    """The fastest form of `scan_loop` that the tensors' device has."""
    if not delta.is_cuda:
        return scan_loop(delta, u, b, c, a, rows)
    from dtrnet_train.scan_triton import scan

    return scan(delta, u, b, c, a, rows.position, rows.windows, rows.length)
