"""DTRNet and dense LLaMA in PyTorch, written the way such modules usually are, for comparisons of numbers and speed.

Activations have the dtype the model is loaded in. As in the published modules and Hugging Face's LLaMA, these are float32 whatever
that is: the inside of the RMS norm, rotary angles (cos and sin are cast), and softmax inside attention. The router's softmax is
rounded to the activations' dtype before it is compared with 0.5. Sequences are computed one at a time, attention is
torch.nn.functional.scaled_dot_product_attention.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
import torch.nn.functional as F

TORCH_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_tensors(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file, converted to dtype."""
    raw = bytearray(path.read_bytes())
    (size,) = struct.unpack("<Q", raw[:8])
    out = {}
    for name, info in json.loads(bytes(raw[8 : 8 + size])).items():
        if name != "__metadata__":
            begin, end = info["data_offsets"]
            flat = torch.frombuffer(raw, dtype=torch.uint8, offset=8 + size + begin, count=end - begin)
            out[name] = flat.view(TORCH_DTYPES[info["dtype"]]).reshape(info["shape"]).to(dtype)
    return out


class TorchModel:
    """One checkpoint with default RoPE; `forward` gives logits and routing of a whole sequence."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.cfg = cfg = json.loads((folder / "config.json").read_text())
        self.w = load_tensors(folder / "model.safetensors", dtype)
        self.dtype = dtype
        self.heads = cfg["num_attention_heads"]
        self.kv_heads = cfg.get("num_key_value_heads") or self.heads
        self.head_dim = cfg.get("head_dim") or cfg["hidden_size"] // self.heads
        j = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        self.freq = 1.0 / cfg.get("rope_theta", 10000.0) ** j
        self.head = self.w["model.embed_tokens.weight" if cfg.get("tie_word_embeddings") else "lm_head.weight"]

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.cfg.get("rms_norm_eps", 1e-6))
        return self.w[name] * y.to(self.dtype)

    def _rope(self, x: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
        angle = torch.cat([pos.float()[:, None] * self.freq] * 2, -1)
        low, high = x.chunk(2, -1)
        return x * angle.cos().to(self.dtype) + torch.cat([-high, low], -1) * angle.sin().to(self.dtype)

    def _values(self, xn: torch.Tensor, layer: str) -> torch.Tensor:
        v = self._linear(xn, layer + "self_attn.v_proj").view(len(xn), self.kv_heads, self.head_dim)
        return v.repeat_interleave(self.heads // self.kv_heads, 1)

    def _attention(self, xn: torch.Tensor, pos: torch.Tensor, layer: str) -> torch.Tensor:
        n, group = len(xn), self.heads // self.kv_heads
        q = self._linear(xn, layer + "self_attn.q_proj").view(n, self.heads, self.head_dim).transpose(0, 1)
        k = self._linear(xn, layer + "self_attn.k_proj").view(n, self.kv_heads, self.head_dim).transpose(0, 1)
        k = self._rope(k, pos).repeat_interleave(group, 0)
        v = self._values(xn, layer).transpose(0, 1)
        out = F.scaled_dot_product_attention(self._rope(q, pos)[None], k[None], v[None], is_causal=True)[0]
        return self._linear(out.transpose(0, 1).reshape(n, -1), layer + "self_attn.o_proj")

    def _routed(self, x: torch.Tensor, xn: torch.Tensor, pos: torch.Tensor, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = F.silu(self._linear(x, layer + "router.weight_predictor.0"))
        p = self._linear(hidden, layer + "router.weight_predictor.2").softmax(-1)
        sel = p[:, 0] > 0.5
        y = torch.empty_like(x)
        if sel.any():
            y[sel] = self._attention(xn[sel], pos[sel], layer) * p[sel, :1]
        y[~sel] = self._linear(self._values(xn[~sel], layer).flatten(1), layer + "self_attn.o_proj") * p[~sel, 1:]
        return y, sel

    @torch.no_grad()
    def forward(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [n, vocabulary] and routing [routed layers, n] (True = attends) of one sequence."""
        x = self.w["model.embed_tokens.weight"][torch.tensor(ids)]
        pos = torch.arange(len(ids))
        routing = []
        for i in range(self.cfg["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            xn = self._norm(x, layer + "input_layernorm.weight")
            if layer + "router.weight_predictor.0.weight" in self.w:
                y, sel = self._routed(x, xn, pos, layer)
                routing.append(sel)
            else:
                y = self._attention(xn, pos, layer)
            x = x + y
            xn = self._norm(x, layer + "post_attention_layernorm.weight")
            up = F.silu(self._linear(xn, layer + "mlp.gate_proj")) * self._linear(xn, layer + "mlp.up_proj")
            x = x + self._linear(up, layer + "mlp.down_proj")
        return F.linear(self._norm(x, "model.norm.weight"), self.head), torch.stack(routing) if routing else torch.zeros(0, len(ids))

    def score(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probabilities [n - 1] of ids[1:] (log-softmax in float32) and routing."""
        logits, routing = self.forward(ids[:-1])
        logprobs = logits.float().log_softmax(-1)
        return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0], routing
