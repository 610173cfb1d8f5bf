"""What the trainer is measured against: a dense LLaMA and a training loop as one writes them in PyTorch, with nothing of this package.

Whole windows, causal attention without document borders, bf16 autocast, one compiled graph, fused AdamW.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A decoder layer."""

    def __init__(self, h: int, ffn: int, heads: int, kv: int) -> None:
        super().__init__()
        d = h // heads
        self.heads, self.kv, self.d = heads, kv, d
        self.norm1, self.norm2 = nn.RMSNorm(h, 1e-5), nn.RMSNorm(h, 1e-5)
        self.qkv = nn.Linear(h, (heads + 2 * kv) * d, bias=False)
        self.out = nn.Linear(heads * d, h, bias=False)
        self.up, self.down = nn.Linear(h, 2 * ffn, bias=False), nn.Linear(ffn, h, bias=False)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary positions."""
        low, high = x.float().chunk(2, -1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(torch.bfloat16)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, h = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, -1, self.d).transpose(1, 2).split([self.heads, self.kv, self.kv], 1)
        y = F.scaled_dot_product_attention(self.turn(q, cos, sin), self.turn(k, cos, sin), v, is_causal=True, enable_gqa=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, h))
        gate, up = self.up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Plain(nn.Module):
    """Embedding, layers, tied head, mean loss."""

    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        h, d = c["hidden_size"], c["hidden_size"] // c["num_attention_heads"]
        self.embed = nn.Embedding(c["vocab_size"], h)
        sizes = (h, c["intermediate_size"], c["num_attention_heads"], c["num_key_value_heads"])
        self.layers = nn.ModuleList(Block(*sizes) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(h, 1e-5)
        self.register_buffer("frequency", 1.0 / 10000.0 ** (torch.arange(0, d, 2) / d))
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        angle = torch.arange(tokens.shape[1], device=tokens.device)[:, None] * self.frequency
        cos, sin, x = angle.cos(), angle.sin(), self.embed(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits = F.linear(self.norm(x), self.embed.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def measure(c: dict[str, Any], windows: int, length: int, warm: int, steps: int, device: torch.device) -> dict[str, float]:
    """Tokens a second of the loop on random tokens."""
    model = Plain(c).to(device)
    run = torch.compile(model) if device.type == "cuda" else model
    opt = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.randint(2, c["vocab_size"], (windows, length + 1), device=device)
    for step in range(warm + steps):
        if step == warm:
            if device.type == "cuda":
                torch.cuda.synchronize()
            since = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            loss = run(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
    last = loss.item()
    seconds = time.perf_counter() - since
    return {"tokens_per_second": windows * length * steps / seconds, "loss": last}
