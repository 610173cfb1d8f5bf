"""The layers, written once: a block (attention and MLP in one of four norm methods) and three ways to route tokens around it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtrnet_train import selection
from dtrnet_train.attention import Attention, Mlp, RMSNorm
from dtrnet_train.errors import require
from dtrnet_train.routers import DllmRouter, MambaRouter, MlpRouter, ModAuxRouter, ModRouter
from dtrnet_train.rows import Rows, first_rows, subset, take
from dtrnet_train.rows import put as put_back
from dtrnet_train.selection import Decision
from dtrnet_train.shape import Shape

Turn = tuple[Tensor, Tensor]  # cosine and sine, [N, head_dim / 2] float32
DLLM_FORCED = 2  # the first positions of a segment are always executed


class Practice(NamedTuple):
    """What training does to selection that inference does not."""

    random_if_none: bool = False
    min_attn: float = 0.0
    min_exec: float = 0.0
    mod_capacity: float = 0.7


class Record(NamedTuple):
    """What a layer's routers said; None where it has none."""

    attend: Decision | None = None
    execute: Decision | None = None
    aux: Tensor | None = None  # a loss of the layer itself (MoD's stand-in)
    gate: Tensor | None = None  # MoD


class Block(nn.Module):
    """x -> x after attention and MLP. `norm_method` decides where norms stand and what is added to what."""

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        hybrid = shape.norm_method.startswith("hybridnorm")
        self.norm_first = not hybrid or (shape.norm_method == "hybridnorm*" and index == 0)
        self.scaled = shape.norm_method == "lns"
        if self.norm_first:
            self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn, self.mlp = Attention(shape), Mlp(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        # A tensor and not a number, so that layers that differ only in it share one compiled graph.
        self.register_buffer("scale", torch.tensor(1 / math.sqrt(index + 1)) if self.scaled else None, persistent=False)

    def lns(self, x: Tensor) -> Tensor:
        """LayerNorm scaling: a norm's output times 1 / sqrt(layer number)."""
        return (x * self.scale).to(x.dtype) if self.scaled else x

    def ffn(self, h: Tensor) -> Tensor:
        """The MLP and its residual; HybridNorm takes the residual behind the norm."""
        z = self.post_attention_layernorm(h)
        return (h if self.norm_first else z) + self.mlp(self.lns(z))

    def block(self, x: Tensor, rows: Rows, turn: Turn, attend: Decision | None = None) -> Tensor:
        """All rows, or with a decision: attention for the chosen ones gated by p0, the linear path gated by p1 for the others."""
        u = self.lns(self.input_layernorm(x)) if self.norm_first else x
        if attend is None:
            return self.ffn(x + self.self_attn(u, rows, turn))
        gate = torch.where(attend.chosen, attend.prob, 1 - attend.prob)[:, None]
        y = self.self_attn(u, rows, turn, subset(attend.chosen, rows))
        return self.ffn(x + (gate * y).to(x.dtype))


class Layer(Block):
    """T, D or S: see shape.py."""

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__(shape, index)
        self.letter = shape.layer_layout[index]
        self.capacity = (shape.attn_capacity or 0.0, shape.exec_capacity or 0.0)
        self.mode = "token" if shape.routing == "token_choice" else shape.expert_choice_inference or "exact"
        self.practice = Practice()
        router = MlpRouter if shape.router_type == "mlp" else MambaRouter
        if self.letter != "T":
            self.router = router(shape)
        if self.letter == "S":
            self.skip_router = router(shape)
        for module in self.routers().values():
            module.register_buffer("threshold", None)

    def routers(self) -> dict[str, nn.Module]:
        """This layer's routers in the order of the file."""
        return {name: getattr(self, name) for name in ("skip_router", "router") if hasattr(self, name)}

    def decide(self, router: nn.Module, x: Tensor, rows: Rows, among: Tensor, capacity: float, least: float) -> Decision:
        """Which of the allowed rows take the expensive way; the last rules hold in training only."""
        r = router(x, rows)
        margin = r[:, 0] - r[:, 1]
        prob = torch.sigmoid(margin)  # softmax of two numbers
        if self.mode == "exact" or (self.training and self.mode == "threshold"):
            chosen = selection.top_of_segment(margin, among, capacity, rows)
        elif self.mode == "threshold":
            require(router.threshold is not None, "the checkpoint has no thresholds, so expert choice can only run in mode exact")
            chosen = among & (margin > router.threshold)
        else:
            chosen = among & (margin > 0)
        if self.training:
            chosen = selection.at_least(chosen, margin, among, least)
            if self.practice.random_if_none:
                chosen = selection.some_if_none(chosen, among)
        return Decision(margin, prob, chosen, among)

    def forward(self, x: Tensor, rows: Rows, turn: Turn) -> tuple[Tensor, Record]:
        if self.letter == "T":
            return self.block(x, rows, turn), Record()
        execute, among = None, torch.ones_like(rows.position, dtype=torch.bool)
        if self.letter == "S":
            execute = self.decide(self.skip_router, x, rows, among, self.capacity[1], self.practice.min_exec)
            among = execute.chosen
        attend = self.decide(self.router, x, rows, among, self.capacity[0], self.practice.min_attn)
        after = self.block(x, rows, turn, attend)
        if execute is not None:
            old = x.float()
            mixed = (old + execute.prob[:, None] * (after.float() - old)).to(x.dtype)
            after = torch.where(execute.chosen[:, None], mixed, x)
        return after, Record(attend, execute)


class ModLayer(nn.Module):
    """MoD: chosen tokens become x + gate * block(x). Training takes the top of each segment, inference what `aux_router` learnt of it."""

    letter = "M"

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        self.expert1 = Block(shape, index)
        self.router, self.aux_router = ModRouter(shape), ModAuxRouter(shape)
        self.practice = Practice()

    def forward(self, x: Tensor, rows: Rows, turn: Turn) -> tuple[Tensor, Record]:
        score, guess = self.router(x), self.aux_router(x)
        everyone = torch.ones_like(rows.position, dtype=torch.bool)
        room, aux = len(x), None
        if self.training:
            capacity = self.practice.mod_capacity
            chosen = selection.top_of_segment(score, everyone, capacity, rows)
            aux = F.binary_cross_entropy_with_logits(guess, chosen.float())
            most = math.ceil(capacity * len(x)) + len(rows.bounds)  # each segment rounds up
            room = min(len(x), (most + 127) // 128 * 128)
        else:
            chosen = guess > 0
        part = first_rows(subset(chosen, rows), room)
        inside = rows._replace(bounds=part.bounds, ragged=True)
        after = self.expert1.block(take(x, part), inside, (turn[0][part.order], turn[1][part.order]))
        gate = torch.sigmoid(score)
        out = x + (gate[:, None] * put_back(after, part)).to(x.dtype)
        return out, Record(execute=Decision(guess, torch.sigmoid(guess), chosen, everyone), aux=aux, gate=gate)


class DllmLayer(Block):
    """D-LLM: every token leaves keys and values, one that is not executed drops the result. Trained by a straight-through Gumbel choice."""

    letter = "L"

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__(shape, index)
        self.router = DllmRouter(shape)

    def forward(self, x: Tensor, rows: Rows, turn: Turn) -> tuple[Tensor, Record]:
        r = self.router(x)
        margin = r[:, 1] - r[:, 0]
        prob, forced = torch.sigmoid(margin), rows.position < DLLM_FORCED
        everyone, after = torch.ones_like(forced), self.block(x, rows, turn)
        if not self.training:
            chosen = (margin >= 0) | forced
            return torch.where(chosen[:, None], after, x), Record(execute=Decision(margin, prob, chosen, everyone))
        noise = torch.rand_like(margin).clamp(1e-6, 1 - 1e-6)
        noisy = margin + torch.log(noise) - torch.log1p(-noise)  # the difference of two Gumbel variables is logistic
        chosen, soft = (noisy >= 0) | forced, torch.sigmoid(noisy)
        weight = torch.where(forced, 1.0, chosen.float() + soft - soft.detach())  # 0 or 1 forward, the soft choice's gradient
        old = x.float()
        out = (old + weight[:, None] * (after.float() - old)).to(x.dtype)
        return out, Record(execute=Decision(margin, weight, chosen, everyone))


def make_layer(shape: Shape, index: int) -> nn.Module:
    """The layer of the layout's letter."""
    return {"M": ModLayer, "L": DllmLayer}.get(shape.layer_layout[index], Layer)(shape, index)
