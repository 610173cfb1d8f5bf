"""The Triton scan, interpreted on the CPU, against the plain loop: values and gradients, with segments that begin inside a window."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
from dtrnet_train.rows import make_rows
from dtrnet_train.scan import scan_loop
from dtrnet_train.scan_triton import scan


@pytest.mark.parametrize(("windows", "length", "channels", "states"), [(2, 40, 12, 5), (1, 16, 8, 16), (3, 7, 3, 2)])
def test_equal(windows: int, length: int, channels: int, states: int) -> None:
    torch.manual_seed(windows)
    n = windows * length
    starts = np.random.default_rng(1).random((windows, length)) < 0.1
    starts[:, 0] = True
    rows = make_rows(starts)
    delta, u = torch.rand(n, channels), torch.randn(n, channels)
    b, c, a = torch.randn(n, states), torch.randn(n, states), -torch.rand(channels, states) * 4
    results = []
    for function in (lambda *x: scan_loop(*x, rows), lambda *x: scan(*x, rows.position, windows, length)):
        inputs = [t.clone().requires_grad_() for t in (delta, u, b, c, a)]
        y = function(*inputs)
        (y * torch.sin(torch.arange(y.numel()).view_as(y))).sum().backward()
        results.append([y.detach(), *(t.grad for t in inputs)])
    for wanted, got in zip(*results):
        assert torch.allclose(wanted, got, rtol=1e-4, atol=1e-5)
