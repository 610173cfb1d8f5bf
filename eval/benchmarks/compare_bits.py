#!/usr/bin/env python3
"""Do two builds of the server give the same bits?

Scores and generates on the golden models and the shipped model with both programs, in every dtype and at every level that is asked for, and
prints a hash of each program's answers (log probabilities as printed, which is exact; tokens; routing). Ends with status 1 if any differs.

usage: compare_bits.py OLD NEW [--levels scalar,avx2] [--device cpu|cuda] [--dtypes f32,bf16] [--models DIR ...]
       compare_bits.py PROGRAM PROGRAM --new-flag=--tensor-parallel=2 --documents 16 ...    # one program, with other flags
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import random
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def requests_of(vocab: int, max_len: int) -> tuple[list[dict], list[dict]]:
    """Bodies for /v1/loglikelihood and for /v1/completions, the same for every program."""
    rng = random.Random(7)
    score, complete = [], []
    for _ in range(6):
        context = [rng.randrange(3, vocab) for _ in range(rng.randrange(1, max_len // 2))]
        endings = [[rng.randrange(3, vocab) for _ in range(rng.randrange(1, 9))] for _ in range(4)]
        score.append({"requests": [{"context": context, "continuations": endings}], "tokens": True, "routing": True})
        for temperature in (0, 1):
            complete.append(
                {
                    "prompt": context,
                    "max_tokens": 12,
                    "logprobs": 5,
                    "echo": True,
                    "temperature": temperature,
                    "seed": 5,
                    "ignore_eos": True,
                    "return_tokens_as_token_ids": True,
                }
            )
    return score, complete


def long_request(vocab: int, length: int, n: int) -> dict:
    """A body for /v1/loglikelihood_rolling: steps of many rows."""
    rng = random.Random(8)
    return {"texts": [[rng.randrange(3, vocab) for _ in range(length - 1)] for _ in range(n)], "tokens": True}


def answers(program: str, model: Path, arguments: list[str], documents: int) -> str | None:
    """A hash over everything that the program answers; None: it does not start with these arguments."""
    config = json.loads((model / "config.json").read_text())
    vocab, longest = config["vocab_size"], config.get("max_position_embeddings", 256)
    score, complete = requests_of(vocab, min(longest, 400))
    asked = [("/v1/loglikelihood", score), ("/v1/completions", complete)]
    if documents:
        asked.append(("/v1/loglikelihood_rolling", [long_request(vocab, min(longest, 2000), documents)]))
    return serve(program, model, arguments, asked)


def serve(program: str, model: Path, arguments: list[str], asked: list[tuple[str, list[dict]]]) -> str | None:
    """The same for bodies by path."""
    process = subprocess.Popen([program, "serve", "--model", str(model), "--port", "0", *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        address = next((f for line in process.stderr if (f := re.search(r"listening on http://([\d.]+):(\d+)", line))), None)
        if not address:
            return None
        connection, digest = http.client.HTTPConnection(address[1], int(address[2])), hashlib.sha256()
        for path, bodies in asked:
            for body in bodies:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = json.loads(connection.getresponse().read())
                digest.update(json.dumps(answer.get("results") or [c | {"text": ""} for c in answer["choices"]]).encode())
        return digest.hexdigest()[:16]
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    """Runs all combinations; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--levels", default="scalar,avx2,avx512,avx512bf16,amx")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--models", nargs="*", type=Path)
    parser.add_argument("--documents", type=int, default=0, help="of 2,000 tokens at most, to be scored in one call as well")
    parser.add_argument("--new-flag", action="append", default=[], help="for NEW alone")
    a = parser.parse_args()
    models = a.models or [p.parent for p in sorted((ROOT / "tests/golden").glob("*/config.json"))] + [ROOT / "models/dtrnet-26m"]
    different = compared = 0
    for model in models:
        for dtype in a.dtypes.split(","):
            for level in a.levels.split(","):
                flags = ["--device", a.device, "--dtype", dtype, f"--{a.device}-level", level]
                old = answers(a.old, model, flags, a.documents)
                new = answers(a.new, model, flags + a.new_flag, a.documents) if old else None
                if old:
                    compared += 1
                    different += old != new
                    verdict = "same" if old == new else "DIFFERENT" if new else "NEW does not start with these flags"
                    print(f"{model.name:32} {dtype:5} {level:10} {old} {new} {verdict}", flush=True)
    print(f"{compared} compared, {different} different")
    return 1 if different or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
