#!/usr/bin/env python3
"""Is one build as fast as another? Runs bench_engine of both in turn and tells the ratio pair by pair.

Prints, for each workload, the median rates of both, the median of the ratios new / old and its 95 % interval (bootstrap over the pairs).

usage: compare_speed.py OLD NEW [--pairs 10] [--rows N] -- MODEL_DIR DEVICE DTYPE WORKLOAD... [-- another ...]

OLD and NEW are bench_engine programs; what follows each -- is one workload, as bench_engine takes it.
"""

from __future__ import annotations

import os
import random
import re
import statistics
import subprocess
import sys


def rate(program: str, arguments: list[str]) -> float:
    """Tokens a second of one run, the best of bench_engine's passes."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    found = re.search(r"(\d+) tokens/s", done.stdout)
    if not found:
        raise SystemExit(f"{program} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return float(found[1])


def interval(ratios: list[float]) -> tuple[float, float]:
    """The middle 95 % of medians of resampled pairs."""
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[1949]


def main() -> None:
    """See the head of this file."""
    parts: list[list[str]] = [[]]
    for word in sys.argv[1:]:
        if word == "--":
            parts.append([])
        else:
            parts[-1].append(word)
    head, workloads = parts[0], parts[1:]
    pairs = 10
    if "--pairs" in head:
        at = head.index("--pairs")
        pairs = int(head[at + 1])
        del head[at : at + 2]
    if "--rows" in head:
        at = head.index("--rows")
        os.environ["DTRNET_BENCH_ROWS"] = head[at + 1]
        del head[at : at + 2]
    if len(head) != 2 or not workloads:
        raise SystemExit(__doc__)
    for arguments in workloads:
        both = [(rate(head[0], arguments), rate(head[1], arguments)) for _ in range(pairs)]
        ratios = [new / old for old, new in both]
        low, high = interval(ratios)
        old, new = (statistics.median(r) for r in zip(*both))
        name = " ".join([os.path.basename(arguments[0]), *arguments[1:]])
        print(
            f"{name:50} old {old:10.0f} new {new:10.0f} tokens/s  ratio {statistics.median(ratios):.4f} [{low:.4f}, {high:.4f}]", flush=True
        )


if __name__ == "__main__":
    main()
