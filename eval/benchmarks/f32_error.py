"""Errors of PyTorch's float32 products (cuBLAS, no TF32) against double, beside those of a plain float32 chain of fused multiply-adds.

    python3 f32_error.py [--seed 0] [--product build/tests/bench/bench_product] [--model DIR --ids FILE]

The data are those of tests/kernels/check_accuracy.c: x even in [-scale, scale), w in [-0.05, 0.05), about one element of a row times
2^10 where outliers are named. With --model they are what a model's products are given on a text, too (ids: POST /tokenize). --product
puts the precision `high` beside cuBLAS. Needs torch and a CUDA device.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import torch

from torch_dtrnet import TorchModel

ROWS, COLUMNS = 48, 80


def values(rows: int, k: int, scale: float, outliers: bool) -> torch.Tensor:
    """[rows, k] float32."""
    v = (torch.rand(rows, k, device="cuda") * 2 - 1) * scale
    if outliers:
        v[torch.arange(rows, device="cuda"), torch.randint(k, (rows,), device="cuda")] *= 1024
    return v


def chain(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Each element of x w^T as one chain of fused multiply-adds: a product of two floats is exact in double, then rounded once to float."""
    acc = torch.zeros(len(x), len(w), device=x.device)
    for i in range(x.shape[1]):
        acc = (acc.double() + x[:, i : i + 1].double() * w[:, i].double()).float()
    return acc


def multiply(product: Path, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The product x w^T at precision `high`, by tests/bench/bench_product."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in "xwy"]
        for path, t in zip(paths, (x, w), strict=False):
            path.write_bytes(t.contiguous().cpu().numpy().tobytes())
        subprocess.run([product, "cuda", "high", str(x.shape[1]), *paths], check=True)
        y = torch.frombuffer(bytearray(paths[2].read_bytes()), dtype=torch.float32)
    return y.reshape(len(x), len(w)).to(x.device)


class Recorded(TorchModel):
    """A model that keeps what its products are given: by the weight's name, input rows."""

    inputs: dict[str, torch.Tensor]

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        self.inputs[name] = x.reshape(-1, x.shape[-1])
        return super()._linear(x, name)


def recorded(folder: Path, ids: list[int]) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Of the first, middle and last layer: name, input and weights of each product, in float32."""
    model = Recorded(folder, torch.float32)
    model.inputs = {}
    model.forward(ids)
    layers = model.cfg["num_hidden_layers"]
    found = []
    for layer in (0, layers // 2, layers - 1):
        for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
            name = f"model.layers.{layer}.{part}"
            found.append((name, model.inputs[name].cuda(), model.w[name + ".weight"].cuda()))
    return found


def errors(exact: torch.Tensor, plain: torch.Tensor, y: torch.Tensor) -> str:
    """Root of the mean square and the largest of y's error, over the plain chain's."""
    own, chains = y.double() - exact, plain.double() - exact
    rms, largest = (own.pow(2).mean() / chains.pow(2).mean()).sqrt().item(), (own.abs().max() / chains.abs().max()).item()
    return f"{rms:.3f}, {largest:.3f}"


def compare(what: str, x: torch.Tensor, w: torch.Tensor, product: Path | None) -> None:
    """A line."""
    exact, plain = x.double() @ w.double().T, chain(x, w)
    ours = f"; high {errors(exact, plain, multiply(product, x, w))}" if product else ""
    print(f"{what}: error beside the chain's, rms and largest: cuBLAS {errors(exact, plain, x @ w.T)}{ours}", flush=True)


def main() -> None:
    """A line for each depth, scale and kind of outliers, then one for each product of a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--product", type=Path, help="tests/bench/bench_product of a build")
    parser.add_argument("--model", type=Path, help="a DTRNet or LLaMA checkpoint with default RoPE")
    parser.add_argument("--ids", type=Path, help="ids of a text for the model, with spaces between")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = False
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    for k in [384, 960, 2560]:
        for outliers in ["none", "x", "x and w"]:
            x, w = values(ROWS, k, 1, outliers != "none"), values(COLUMNS, k, 0.05, outliers == "x and w")
            compare(f"k {k}, outliers {outliers}", x, w, args.product)
    if args.model:
        for name, x, w in recorded(args.model, [int(word) for word in args.ids.read_text().split()]):
            compare(f"{name}, {list(x.shape)} x {list(w.shape)}", x, w, args.product)


if __name__ == "__main__":
    main()
