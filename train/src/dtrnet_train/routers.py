"""Routers: from the residual stream (before any norm) to numbers that decide. Always float32, also in bf16 training.

A hard decision in bf16 would differ between training and serving for tokens near the border.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtrnet_train.attention import RMSNorm
from dtrnet_train.rows import Rows
from dtrnet_train.scan import selective_scan
from dtrnet_train.shape import Shape

DLLM_WIDTH, DLLM_EPS = 512, 1e-5  # fixed in the published module


class _Exact(torch.autograd.Function):
    """x W^T in float32 for a bf16 x; the gradients, which decide nothing, are bf16 products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x.float(), weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grad.to(x.dtype)
        return grad @ weight.to(x.dtype), (grad.T @ x).float()


def exact(x: Tensor, layer: nn.Linear) -> Tensor:
    """A linear layer in float32 accuracy: x [N, in] of any dtype -> [N, out] float32."""
    y = F.linear(x, layer.weight) if x.dtype == torch.float32 else _Exact.apply(x, layer.weight)
    return y if layer.bias is None else y + layer.bias


class MlpRouter(nn.Module):
    """r = W2 silu(W0 x + b0) + b2."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        half = shape.hidden_size // 2
        self.weight_predictor = nn.Sequential(nn.Linear(shape.hidden_size, half), nn.SiLU(), nn.Linear(half, 2))

    @property
    def last(self) -> nn.Linear:
        """The layer whose bias shifts every margin."""
        return self.weight_predictor[2]

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        return exact(F.silu(exact(x, self.weight_predictor[0])), self.weight_predictor[2])


class MambaMixer(nn.Module):
    """Mamba-1 over the rows of each segment: state and convolution start from zero where a segment does."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner, width = shape.router_inner, shape.router_dim
        self.splits = (shape.router_dt_rank, shape.router_d_state, shape.router_d_state)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, shape.router_d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, sum(self.splits), bias=False)
        self.dt_proj = nn.Linear(shape.router_dt_rank, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, shape.router_d_state))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def convolve(self, a: Tensor, rows: Rows) -> Tensor:
        """Depthwise and causal: tap j sees the row j places back if that is in the same segment. a [N, E]."""
        taps = self.conv1d.weight[:, 0]  # [E, C], the last meets the newest row
        out = self.conv1d.bias + taps[:, -1] * a
        for back in range(1, taps.shape[1]):
            before = F.pad(a, (0, 0, back, 0))[: len(a)]
            out = out + taps[:, -1 - back] * torch.where((rows.position >= back)[:, None], before, 0)
        return out

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        a, z = exact(x, self.in_proj).chunk(2, -1)
        c = F.silu(self.convolve(a, rows))
        dt, b, cm = exact(c, self.x_proj).split(self.splits, -1)
        delta = F.softplus(exact(dt, self.dt_proj))
        y = selective_scan(delta, c, b, cm, -torch.exp(self.A_log), rows)
        return exact((y + self.D * c) * F.silu(z), self.out_proj)


class MambaRouter(nn.Module):
    """r_t = W_out(u_t + mixer(norm(u))_t) with u = W_in x: a decision may depend on all earlier tokens of the segment."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.in_proj = nn.Linear(shape.hidden_size, shape.router_dim)
        self.norm = RMSNorm(shape.router_dim, shape.rms_norm_eps)
        self.mixer = MambaMixer(shape)
        self.out_proj = nn.Linear(shape.router_dim, 2)

    @property
    def last(self) -> nn.Linear:
        """The layer whose bias shifts every margin."""
        return self.out_proj

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        u = exact(x, self.in_proj)
        return exact(u + self.mixer(self.norm(u), rows), self.out_proj)

    @torch.no_grad()
    def start(self) -> None:
        """The initial values of state-spaces/mamba: A = -1..-N, D = 1, steps log-uniform in [0.001, 0.1]."""
        mixer = self.mixer
        mixer.A_log.copy_(torch.log(torch.arange(1, mixer.A_log.shape[1] + 1).float()).expand_as(mixer.A_log))
        mixer.D.fill_(1)
        for matrix in (mixer.in_proj.weight, mixer.x_proj.weight, mixer.out_proj.weight):
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))
        bound = mixer.dt_proj.in_features**-0.5
        mixer.dt_proj.weight.uniform_(-bound, bound)
        mixer.conv1d.reset_parameters()
        low, high = math.log(0.001), math.log(0.1)
        step = torch.exp(torch.rand(mixer.D.shape[0]) * (high - low) + low).clamp(min=1e-4)
        mixer.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus


class ModRouter(nn.Module):
    """MoD's gate."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight_predictor = nn.Linear(shape.hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        return exact(x, self.weight_predictor)[:, 0]


class ModAuxRouter(nn.Module):
    """MoD's causal stand-in for top-k: learns which tokens top-k takes, without moving the model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.predictor = nn.Linear(shape.hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        return exact(x.detach(), self.predictor)[:, 0]


class DllmRouter(nn.Module):
    """D-LLM's; index 1 of its output is the expensive choice."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(shape.hidden_size, DLLM_WIDTH)
        self.norm = RMSNorm(DLLM_WIDTH, DLLM_EPS)
        self.linear_2 = nn.Linear(DLLM_WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        return exact(F.silu(self.norm(exact(x, self.linear_1))), self.linear_2)
