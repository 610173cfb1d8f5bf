"""A DTRNet checkpoint with the shipped model's kinds of layers and its tokenizer, but small and with random weights: what the tests of
HTTP serve under a sanitizer, where a start on the shipped model takes up to 5 s of processor time.

usage: make_model.py SHIPPED OUT       writes config.json, model.safetensors and tokenizer.model into the folder OUT
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
from pathlib import Path

LAYERS, DENSE, HIDDEN, INNER, KV = 4, [2], 96, 128, 32
SHAPE = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "dtrnet_layers": DENSE,
}


def shapes(vocabulary: int) -> dict[str, list[int]]:
    """Tensor to shape."""
    found = {"model.embed_tokens.weight": [vocabulary, HIDDEN], "model.norm.weight": [HIDDEN]}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        found |= {
            f"{layer}input_layernorm.weight": [HIDDEN],
            f"{layer}post_attention_layernorm.weight": [HIDDEN],
            f"{layer}mlp.gate_proj.weight": [INNER, HIDDEN],
            f"{layer}mlp.up_proj.weight": [INNER, HIDDEN],
            f"{layer}mlp.down_proj.weight": [HIDDEN, INNER],
            f"{layer}self_attn.q_proj.weight": [HIDDEN, HIDDEN],
            f"{layer}self_attn.k_proj.weight": [KV, HIDDEN],
            f"{layer}self_attn.v_proj.weight": [KV, HIDDEN],
            f"{layer}self_attn.o_proj.weight": [HIDDEN, HIDDEN],
        }
        if i not in DENSE:
            router = f"{layer}router.weight_predictor."
            found |= {f"{router}0.weight": [HIDDEN // 2, HIDDEN], f"{router}0.bias": [HIDDEN // 2]}
            found |= {f"{router}2.weight": [2, HIDDEN // 2], f"{router}2.bias": [2]}
    return found


def bfloat16(draw: random.Random, n: int, norm: bool) -> bytes:
    """1 for norms, else n numbers of both signs between 0.03 and 0.13."""
    if norm:
        return b"\x80\x3f" * n
    out = bytearray(2 * n)
    out[0::2] = draw.randbytes(n)
    out[1::2] = draw.randbytes(n).translate(bytes(b"\x3d\xbd"[b & 1] for b in range(256)))
    return bytes(out)


def main() -> int:
    """Reads the two folders."""
    shipped, out = map(Path, sys.argv[1:])
    config = json.loads((shipped / "config.json").read_text())
    draw, header, data = random.Random(1), {}, bytearray()
    for name, shape in shapes(config["vocab_size"]).items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + 2 * n]}
        data += bfloat16(draw, n, "norm" in name)
    text = json.dumps(header).encode()
    (out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (out / "config.json").write_text(json.dumps(config | SHAPE, indent=2) + "\n")
    shutil.copyfile(shipped / "tokenizer.model", out / "tokenizer.model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
