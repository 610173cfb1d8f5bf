"""Errors of PyTorch's float32 products (cuBLAS, no TF32) against double, beside those of a plain float32 chain of fused multiply-adds.

    python3 f32_error.py [--seed 0]

The data are those of tests/kernels/check_accuracy.c: x even in [-scale, scale), w in [-0.05, 0.05), about one element of a row times
2^10 where outliers are named. `check_kernels --dtype f32 --precision high` prints the same ratios of the precision `high`. Needs
torch and a CUDA device.
"""

from __future__ import annotations

import argparse

import torch

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


def main() -> None:
    """A line for each depth, scale and kind of outliers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    torch.manual_seed(parser.parse_args().seed)
    torch.backends.cuda.matmul.allow_tf32 = False
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    for k in [384, 960, 2560]:
        for outliers in ["none", "x", "x and w"]:
            x, w = values(ROWS, k, 1, outliers != "none"), values(COLUMNS, k, 0.05, outliers == "x and w")
            exact = x.double() @ w.double().T
            plain, ours = (chain(x, w).double() - exact), ((x @ w.T).double() - exact)
            rms, largest = (ours.pow(2).mean() / plain.pow(2).mean()).sqrt().item(), (ours.abs().max() / plain.abs().max()).item()
            print(f"k {k}, outliers {outliers}: error beside the chain's: rms {rms:.3f}, largest {largest:.3f}")


if __name__ == "__main__":
    main()
