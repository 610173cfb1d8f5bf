#!/usr/bin/env python3
"""Does float32 have the same bits everywhere that this machine can compute?

Scores and generates on the golden models, UltraDeep's and the shipped model at every CPU level, with one and two threads, and on a CUDA
device, and prints a hash of each program's answers (log probabilities as printed, which is exact; tokens; routing). Ends with status 1 if two
of a model differ. A level or device that the machine lacks is left out. Several programs can take part: builds by other compilers, or at
-O0.

usage: portable_bits.py PROGRAM [PROGRAM ...] [--places cpu:scalar:1,cpu:avx2:2,cuda] [--models DIR ...] [--jobs N]
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compare_bits import ROOT, answers

PLACES = "cpu:scalar:2,cpu:avx2:1,cpu:avx2:2,cpu:avx512:2,cpu:avx512bf16:2,cpu:amx:2,cuda"


def flags_of(place: str) -> list[str]:
    """The server's flags for "device:level:threads", of which the last two may be absent."""
    device, level, threads = [*place.split(":"), "", ""][:3]
    flags = ["--device", device, "--dtype", "f32", "--kv-cache-memory", "256M"]
    flags += [f"--{device}-level", level] if level else []
    return flags + (["--threads", threads] if threads else [])


def main() -> int:
    """Runs all combinations; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--places", default=PLACES)
    parser.add_argument("--models", nargs="*", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    a = parser.parse_args()
    tests = [p.parent for folder in ("golden", "ultradeep") for p in sorted((ROOT / "tests" / folder).glob("*/config.json"))]
    combinations = [(program, place) for program in a.programs for place in a.places.split(",")]
    different = seen = 0
    with ThreadPoolExecutor(a.jobs) as pool:
        for model in a.models or [*tests, ROOT / "models/dtrnet-26m"]:
            hashes = list(pool.map(lambda c, m=model: answers(c[0], m, flags_of(c[1])), combinations))
            found = {h for h in hashes if h}
            seen = max(seen, sum(h is not None for h in hashes))
            different += len(found) != 1
            print(f"{model.name:36} {'same ' + found.pop() if len(found) == 1 else 'DIFFERENT'}", flush=True)
            if len(found) > 1:
                for (program, place), h in zip(combinations, hashes, strict=True):
                    print(f"    {program} {place:18} {h or '-'}", flush=True)
    print(f"{seen} of {len(combinations)} combinations ran, {different} models differ")
    return 1 if different or seen < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
