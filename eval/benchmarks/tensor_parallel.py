"""Tensor parallel against one device: prefill and generation of a random model, and its share of the sum of its parts.

    python3 tensor_parallel.py --config ../../configs/models/llama-2-13b.json [--ranks 1,2,4,8] [--device cuda] [--build build]

For each number of devices `dtrnet bench --random-weights --tensor-parallel N` fills the model on the devices and measures
steps of --rows rows, made of prompts of each of --lengths, and --generate tokens of --batch sequences;
tests/bench/bench_ranks measures products, attention and gathers of such a step alone. Prints a table: tokens a second, the
speed against the first number of devices that could hold the model, and which share of the time the parts take when they
are measured alone. A number of devices that cannot hold the model is a row that says so. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMPT = 32  # of a sequence of the generate workload


def bench(args: argparse.Namespace, ranks: int, *flags: str) -> list[dict]:
    """The workloads of one run; an error is raised with the program's last line."""
    command = [args.build / "dtrnet", "bench", "--random-weights", "--model", args.config, "--device", args.device, "--dtype", args.dtype]
    command += ["--tensor-parallel", str(ranks), "--repeats", str(args.repeats), "--log-level", "error", "--json", *flags, *args.flag]
    done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    report = json.loads(done.stdout)
    return [{**row, "weight_bytes": report["weight_bytes"]} for row in report["workloads"]]


def shape_of(args: argparse.Namespace) -> dict[str, int]:
    """The sizes of the config that bench_ranks is given, in its order."""
    c = json.loads(Path(args.config).read_text())
    heads, hidden = c["num_attention_heads"], c["hidden_size"]
    return {
        "hidden": hidden,
        "ffn": c["intermediate_size"],
        "heads": heads,
        "kv_heads": c.get("num_key_value_heads", heads),
        "head_dim": c.get("head_dim", hidden // heads),
        "layers": c["num_hidden_layers"],
        "vocab": c["vocab_size"],
    }


def kv_bytes(args: argparse.Namespace, ranks: int) -> int:
    """K and V of everything that a workload computes at once, with room to spare, on each device."""
    s = shape_of(args)
    of_token = s["layers"] * 2 * max(1, s["kv_heads"] // ranks) * s["head_dim"] * (4 if args.dtype == "f32" else 2)
    tokens = max(args.rows, args.batch * (PROMPT + args.generate), *args.lengths)
    return 3 * tokens * of_token // 2


def parts(args: argparse.Namespace, ranks: int, rows: int, length: int, context: int) -> dict[str, float]:
    """Seconds of a step's parts, each measured alone."""
    numbers = [ranks, rows, length, context, *shape_of(args).values()]
    command = [args.build / "tests" / "bench" / "bench_ranks", args.device, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    found = json.loads(done.stdout)
    return {name: found[name] for name in ("products", "attention", "gathers")}


def measure(args: argparse.Namespace, ranks: int) -> list[dict]:
    """Every workload on so many devices with the parts of one of its steps; a routed model's depend on the routing and are left out."""
    longest = max(*args.lengths, PROMPT + args.generate)
    common = ["--max-model-len", str(longest + 1), "--max-batch-tokens", str(args.rows), "--kv-cache-memory", str(kv_bytes(args, ranks))]
    routed = "dtrnet_layers" in json.loads(Path(args.config).read_text())
    found = []
    for length in args.lengths:
        batch = max(1, args.rows // length)
        row = bench(args, ranks, *common, "--workloads", "prefill", "--lengths", str(length), "--batches", str(batch))[0]
        found.append({**row, "name": f"prefill {length}", "steps": 1})
        if not routed and length * batch <= args.rows:
            found[-1]["parts"] = parts(args, ranks, length * batch, length, 0)
    row = bench(
        args, ranks, *common, "--workloads", "generate", "--lengths", "1", "--batches", str(args.batch), "--generate", str(args.generate)
    )[0]
    found.append({**row, "name": f"generate, batch {args.batch}", "steps": args.generate - 1})
    if not routed:
        found[-1]["parts"] = parts(args, ranks, args.batch, 1, PROMPT + args.generate // 2)
    return found


def print_row(ranks: int, row: dict, base: dict) -> None:
    """One line of the table."""
    step = row["seconds"] / row["steps"]
    text = f"| {row['name']} | {ranks} | {row['tokens'] / row['seconds']:,.0f} | {base['seconds'] / row['seconds']:.2f}x | {1e3 * step:.2f}"
    alone = row.get("parts")
    if alone:
        each = " + ".join(f"{1e3 * s:.2f}" for s in alone.values())
        text += f" | {each} = {1e3 * sum(alone.values()):.2f} | {100 * sum(alone.values()) / step:.0f} %"
    else:
        text += f" | rows attended {row['rows_attended']:.2f} | " if "rows_attended" in row else " | | "
    print(f"{text} |", flush=True)


def numbers(text: str) -> list[int]:
    """A list with commas between."""
    return [int(n) for n in text.split(",")]


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--config", default=str(ROOT / "configs" / "models" / "llama-2-13b.json"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--ranks", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--lengths", type=numbers, default=[2048, 8192])
    parser.add_argument("--rows", type=int, default=16384, help="of a prefill step")
    parser.add_argument("--batch", type=int, default=64, help="sequences that generate together")
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--flag", action="append", default=[], help="for dtrnet bench, e.g. --flag=--kv-cache-memory=8G")
    args = parser.parse_args()
    print(f"{Path(args.config).stem}, {args.dtype}, random weights; steps of {args.rows} rows")
    print("| workload | devices | tokens/s | speed | step, ms | products + attention + gathers alone, ms | share |")
    print("|---|---|---|---|---|---|---|")
    base: dict[str, dict] = {}
    for ranks in args.ranks:
        began = time.monotonic()
        try:
            rows = measure(args, ranks)
        except RuntimeError as e:
            print(f"| - | {ranks} | {e} | | | | |", flush=True)
            continue
        for row in rows:
            print_row(ranks, row, base.setdefault(row["name"], row))
        print(f"| (measured in {time.monotonic() - began:.0f} s) | {ranks} | | | | | |", flush=True)


if __name__ == "__main__":
    main()
