"""What PyTorch and transformers reach on this GPU: the figures that the CUDA backend is compared with.

    python3 gpu_reference.py [matmul] [attention] [routed] [prefill] [generate] [prefill_f32] [published] [--configs DIR] [--model DIR]

matmul: bf16 products of the models' shapes (cuBLAS). attention: scaled_dot_product_attention, causal, flash and cuDNN. routed:
the same where one row in ten attends, on rows laid side by side, and with the gathering and scattering of rows around it. prefill and
generate: transformers' LlamaForCausalLM with random weights, bf16, SDPA, the best of several batch sizes. prefill_f32: the same in
float32 without TF32, 2,048 tokens. published: a DTRNet
checkpoint (--model) as the published code runs it, torch_dtrnet.py: gathered rows through flash SDPA, one sequence at a time.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = {"360m": (960, 2560, 15, 5), "1.3b": (2048, 5632, 32, 32)}


def seconds(fn: Callable[[], object], calls: int = 10, tries: int = 5) -> float:
    """The best time of one call, by device events."""
    fn()
    best = 1e9
    for _ in range(tries):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            fn()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3 / calls)
    return best


def matmul(rows: int = 16384) -> None:
    """The matrices of a layer."""
    for name, (d, f, h, hk) in SHAPES.items():
        matrices = (("qkv", (h + 2 * hk) * 64, d), ("o", d, h * 64), ("gate_up", 2 * f, d), ("down", d, f), ("router f32", d // 2, d))
        for what, n, k in matrices:
            dtype = torch.float32 if "f32" in what else torch.bfloat16
            x, w = torch.randn(rows, k, device="cuda", dtype=dtype), torch.randn(n, k, device="cuda", dtype=dtype) * 0.02
            s = seconds(lambda x=x, w=w: F.linear(x, w), 20)
            rate = 2e-12 * rows * n * k / s
            print(f"torch {name:5} matmul {what:10} {rows} x {n} x {k} {s * 1e6:9.1f} us {rate:8.1f} TFLOP/s", flush=True)


def attention(tokens: int = 16384) -> None:
    """Causal attention of equal sequences by length."""
    for hd, heads in ((64, 32), (128, 16)):
        for length in (512, 2048, 8192, 16384):
            q, k, v = (torch.randn(tokens // length, heads, length, hd, device="cuda", dtype=torch.bfloat16) for _ in range(3))
            for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
                with sdpa_kernel(backend):
                    s = seconds(lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v, is_causal=True), 5)
                flops = 4 * tokens * heads * hd * (length + 1) / 2
                rate = flops / s * 1e-12
                print(f"torch attention hd {hd} length {length} {backend.name} {s * 1e6:9.1f} us {rate:8.1f} TFLOP/s", flush=True)


def routed(tokens: int = 16384) -> None:
    """Attention of every tenth row among themselves, with and without gathering and scattering them."""
    for name, h, hk, hd in (("360m", 15, 5, 64), ("1.3b", 32, 32, 64), ("hd128", 16, 16, 128)):
        for length in (512, 2048, 8192, 16384):
            n, rows = tokens // length, length // 10
            qkv = torch.randn(tokens, h + 2 * hk, hd, device="cuda", dtype=torch.bfloat16)
            out = torch.empty(tokens, h, hd, device="cuda", dtype=torch.bfloat16)
            some = (torch.arange(n, device="cuda")[:, None] * length + torch.arange(rows, device="cuda") * 10 + 9).flatten()

            def attend(x: torch.Tensor, n: int = n, rows: int = rows, h: int = h, hk: int = hk) -> torch.Tensor:
                q, k, v = x.view(n, rows, h + 2 * hk, -1).transpose(1, 2).split((h, hk, hk), 1)
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=h > hk)

            def whole(
                qkv: torch.Tensor = qkv, out: torch.Tensor = out, some: torch.Tensor = some, attend: Callable[..., torch.Tensor] = attend
            ) -> None:
                out[some] = attend(qkv[some]).transpose(1, 2).flatten(0, 1)

            x = qkv[some]
            for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
                try:
                    with sdpa_kernel(backend):
                        alone, moved = seconds(lambda x=x, attend=attend: attend(x), 20), seconds(whole, 20)
                except RuntimeError as e:
                    print(f"torch {name:5} routed length {length} {backend.name}: {str(e).splitlines()[0]}", flush=True)
                    continue
                flops = 4 * n * h * hd * rows * (rows + 1) / 2
                print(
                    f"torch {name:5} routed length {length} {backend.name} {alone * 1e6:9.1f} us {flops / alone * 1e-12:8.1f} TFLOP/s, "
                    f"with gather and scatter {moved * 1e6:9.1f} us",
                    flush=True,
                )


def load(config: Path) -> torch.nn.Module:
    """A random dense model of this shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    cfg = json.loads(config.read_text())
    model = LlamaForCausalLM(LlamaConfig(**{**cfg, "max_position_embeddings": 32768, "attn_implementation": "sdpa"}))
    return model.to("cuda", torch.bfloat16).eval()


@torch.no_grad()
def prefill(configs: Path) -> None:
    """Without the head, as the bar counts: the decoder stack alone."""
    for name in SHAPES:
        model = load(configs / f"{name}-dense.json")
        for length, batches in ((2048, (4, 8, 16)), (20480, (1,)), (512, (1,))):
            best = 0.0
            for batch in batches:
                ids = torch.randint(0, 32000, (batch, length), device="cuda")
                best = max(best, batch * length / seconds(lambda ids=ids, m=model: m.model(ids, use_cache=False), 3, 3))
            print(f"transformers {name:5} prefill {length} {best:10.0f} tokens/s", flush=True)
        del model


@torch.no_grad()
def prefill_f32(configs: Path) -> None:
    """The same in float32 (PyTorch's default does without TF32)."""
    for name in SHAPES:
        model = load(configs / f"{name}-dense.json").float()
        best = 0.0
        for batch in (4, 16):
            ids = torch.randint(0, 32000, (batch, 2048), device="cuda")
            best = max(best, batch * 2048 / seconds(lambda ids=ids, m=model: m.model(ids, use_cache=False), 2, 2))
        print(f"transformers {name:5} float32 prefill 2048 {best:10.0f} tokens/s", flush=True)
        del model


@torch.no_grad()
def generate(configs: Path) -> None:
    """Tokens a second of transformers' own generation."""
    model = load(configs / "360m-dense.json")
    for batch in (1, 64):
        ids = torch.randint(0, 32000, (batch, 128), device="cuda")
        model.generate(ids, max_new_tokens=8, do_sample=False)
        torch.cuda.synchronize()
        t = time.perf_counter()
        out = model.generate(ids, max_new_tokens=64, min_new_tokens=64, do_sample=False)
        torch.cuda.synchronize()
        rate = (out.numel() - ids.numel()) / (time.perf_counter() - t)
        print(f"transformers 360m generate batch {batch} {rate:10.0f} tokens/s", flush=True)


def published(model: Path) -> None:
    """HellaSwag-like items: a context of 60 to 120 tokens and four continuations of 10 to 40, each a sequence of its own."""
    from torch_dtrnet import TorchModel

    torch.set_default_device("cuda")
    m = TorchModel(model, torch.bfloat16)
    m.w = {name: t.cuda() for name, t in m.w.items()}
    m.head = m.head.cuda()
    rng, n = random.Random(1), 20
    items = [[rng.randint(60, 120) + rng.randint(10, 40) for _ in range(4)] for _ in range(n)]
    sequences = [[rng.randrange(m.cfg["vocab_size"]) for _ in range(length)] for item in items for length in item]
    for ids in sequences[:4]:
        m.score(ids)
    torch.cuda.synchronize()
    t = time.perf_counter()
    for ids in sequences:
        m.score(ids)[0].sum().item()
    print(f"torch DTRNet, one sequence at a time: {n / (time.perf_counter() - t):8.1f} items/s", flush=True)
    torch.set_default_device("cpu")


def main() -> None:
    """The measurements named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=["matmul", "attention", "routed", "prefill", "generate"])
    parser.add_argument("--model", type=Path, help="DTRNet checkpoint for `published`")
    parser.add_argument("--configs", type=Path, default=Path("tests/golden/configs"))
    args = parser.parse_args()
    print(torch.cuda.get_device_name(), torch.__version__)
    for what in args.what:
        if what == "published":
            published(args.model)
        elif what in ("prefill", "generate", "prefill_f32"):
            globals()[what](args.configs)
        else:
            globals()[what]()


if __name__ == "__main__":
    main()
