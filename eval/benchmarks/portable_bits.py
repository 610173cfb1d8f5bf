#!/usr/bin/env python3
"""Does float32 have the same bits everywhere that this machine can compute?

Scores and generates on the golden models, UltraDeep's and the shipped model at every CPU level, with one and two threads, and on a CUDA
device, and prints a hash of each program's answers (log probabilities as printed, which is exact; tokens; routing). Ends with status 1 if
two of a model differ. A level or device that the machine lacks is left out. Several programs can take part: builds by other compilers,
or at -O0. With --long, the shipped model alone: one text of 8,192 tokens, with YaRN.

usage: portable_bits.py PROGRAM [PROGRAM ...] [--places cpu:scalar:1,cpu:avx2:2,cuda] [--models DIR ...] [--jobs N] [--long]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compare_bits import ROOT, answers, serve

PLACES = "cpu:scalar:2,cpu:avx2:1,cpu:avx2:2,cpu:avx512:2,cpu:avx512bf16:2,cpu:amx:2,cuda"


LONG = ["--rope-scaling", '{"rope_type": "yarn", "factor": 4}', "--max-model-len", "8193"]


def long_answer(program: str, model: Path, arguments: list[str]) -> str | None:
    """A hash over the log probabilities of a text of 8,192 tokens; None: the server does not start."""
    rng = random.Random(11)
    tokens = [rng.randrange(3, json.loads((model / "config.json").read_text())["vocab_size"]) for _ in range(8192)]
    body = {"requests": [{"context": tokens[:1], "continuations": [tokens[1:]]}], "tokens": True, "routing": True}
    return serve(program, model, [*arguments, *LONG], [("/v1/loglikelihood", [body])])


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
    parser.add_argument("--long", action="store_true")
    a = parser.parse_args()
    tests = [p.parent for folder in ("golden", "ultradeep") for p in sorted((ROOT / "tests" / folder).glob("*/config.json"))]
    combinations = [(program, place) for program in a.programs for place in a.places.split(",")]
    different = seen = 0
    ask, models = answers, a.models or [*tests, ROOT / "models/dtrnet-26m"]
    if a.long:
        ask, models = long_answer, [ROOT / "models/dtrnet-26m"]
    with ThreadPoolExecutor(a.jobs) as pool:
        for model in models:
            hashes = list(pool.map(lambda c, m=model: ask(c[0], m, flags_of(c[1])), combinations))
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
