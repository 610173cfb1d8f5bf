"""dtrnet beside vLLM on one checkpoint, in one run: prefill, generation, items, and the harness's requests over HTTP.

    python3 vllm_compare.py --model DIR [--program build/dtrnet] [--device cuda] [--items 1000] [--rounds 3] [--only dtrnet,vllm]

DIR is a dense LLaMA checkpoint with a tokenizer (gpu_models.py makes random ones), as both must read it. Each round runs both, one after
the other, each in processes of its own, so that only one holds the GPU; the table has the best of the rounds, their ratio, and the
versions. vLLM is whatever `import vllm` finds for this Python; the figures of results-h100.md are beside 0.22.0 (compiled, CUDA graphs,
FlashAttention 3).

    prefill    --sequences sequences of --length ids, one token made; no prefix cache
    items      a context of 60 to 120 ids and four continuations of 10 to 40: scores of the continuations; items a second. dtrnet by
               /v1/loglikelihood with 8 clients, vLLM in process by prompt_logprobs
    http       the same over /v1/completions as lm-evaluation-harness asks (http_cost.py): echo, logprobs 1, 32 prompts a request, 8 clients
    generate   prompts of 32 ids, 64 greedy tokens each, end-of-sequence ignored; at each of --batches

Needs the standard library, and vLLM for its half.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import http_cost

ROOT = Path(__file__).resolve().parents[2]
PROMPT, NEW = 32, 64
DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}  # as vLLM names them


def ids(rng: random.Random, vocab: int, n: int) -> list[int]:
    """Ids of a random prompt, without the first few, which may be special."""
    return [rng.randrange(10, vocab) for _ in range(n)]


# ---- HTTP: both ------------------------------------------------------------------------------------------------------------


def http_rate(args: argparse.Namespace, port: int, endpoint: str, seed: int) -> float:
    """Items a second of --items items by the clients of http_cost.py."""
    clients = http_cost.Clients(args, port, endpoint, seed)
    seconds, _ = clients.run()
    clients.end()
    return args.items / seconds


# ---- dtrnet ----------------------------------------------------------------------------------------------------------------


def dtrnet_round(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """One round; figures by name."""

    def bench(*flags: str) -> list[dict]:
        command = [args.program, "bench", "--model", args.model, "--device", args.device, "--dtype", args.dtype, "--log-level", "error"]
        done = subprocess.run([*command, "--json", *flags], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)["workloads"]

    found = {}
    row = bench("--workloads", "prefill", "--lengths", str(args.length), "--batches", str(args.sequences), "--prefix-cache", "off")[0]
    found["prefill tokens/s"] = row["tokens_per_s"]
    for row in bench("--workloads", "generate", "--generate", str(NEW), "--batches", args.batches):
        found[f"generate batch {row['batch']} tokens/s"] = row["tokens_per_s"]
    server = http_cost.Server(args, args.program, args.model)
    try:
        for name, endpoint in [("items/s", "loglikelihood"), ("http items/s", "completions")]:
            http_rate(args, server.port, endpoint, seed + 1)  # to warm up; no item comes twice
            found[name] = http_rate(args, server.port, endpoint, seed)
    finally:
        server.stop()
    return found


# ---- vLLM ------------------------------------------------------------------------------------------------------------------


def timed(llm: object, prompts: list[list[int]], params: object) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
    return time.perf_counter() - began


def vllm_worker(args: argparse.Namespace, seed: int) -> None:
    """What runs in process; prints JSON as its last line."""
    import vllm

    rng = random.Random(seed)
    llm = vllm.LLM(model=str(args.model), dtype=DTYPES[args.dtype], seed=0)
    found: dict[str, float] = {}
    one = vllm.SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    for _ in range(2):  # the first warms up; no prompt comes twice, since vLLM keeps prefixes
        prompts = [ids(rng, args.vocab, args.length) for _ in range(args.sequences)]
        found["prefill tokens/s"] = args.sequences * args.length / timed(llm, prompts, one)
    scored = vllm.SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1)
    for i in range(2):
        items = http_cost.make_items(args.items, args.vocab, seed + i)
        found["items/s"] = args.items / timed(llm, [context + more for context, rest in items for more in rest], scored)
    many = vllm.SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True)
    for batch in map(int, args.batches.split(",")):
        for _ in range(2):
            prompts = [ids(rng, args.vocab, PROMPT) for _ in range(batch)]
            found[f"generate batch {batch} tokens/s"] = batch * NEW / timed(llm, prompts, many)
    print(json.dumps({"version": vllm.__version__, **found}))


@contextmanager
def vllm_server(args: argparse.Namespace) -> Iterator[int]:
    """`vllm serve` from its start until /health says yes; its port."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", args.model, "--served-model-name", "m"]
    command += ["--port", str(args.vllm_port), "--dtype", DTYPES[args.dtype]]
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL)
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"vLLM's server ended with {process.returncode}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{args.vllm_port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield args.vllm_port
    finally:
        process.terminate()
        process.wait(120)


def vllm_round(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """One round; figures by name, and the version."""
    flags = [a for a in sys.argv[1:] if a != "--vllm-worker"]
    done = subprocess.run([sys.executable, __file__, *flags, "--vllm-worker", str(seed)], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    few = argparse.Namespace(**{**vars(args), "items": max(args.items // 10, args.processes * 8)})  # it answers some 35 items a second
    with vllm_server(args) as port:
        http_rate(few, port, "completions", seed + 1)
        found["http items/s"] = http_rate(few, port, "completions", seed)
    return found


# ---- the table -------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Rounds in turn, then a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--program", default=str(ROOT / "build/dtrnet"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bf16", choices=list(DTYPES))
    parser.add_argument("--length", type=int, default=2048, help="ids of a prefill sequence")
    parser.add_argument("--sequences", type=int, default=64, help="of prefill")
    parser.add_argument("--batches", default="1,64", help="of generation")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="dtrnet,vllm")
    parser.add_argument("--vllm-port", type=int, default=8123)
    parser.add_argument("--vllm-worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.vocab = json.loads((args.model / "config.json").read_text())["vocab_size"]
    vars(args).update(processes=8, prompts=32, chunk=8, client="read", encoding="identity", flag=[])
    if args.vllm_worker is not None:
        return vllm_worker(args, args.vllm_worker)
    runs = {"dtrnet": dtrnet_round, "vllm": vllm_round}
    if unknown := set(args.only.split(",")) - set(runs):
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(runs)}")
    best: dict[str, dict] = {name: {} for name in args.only.split(",")}
    for i in range(args.rounds):
        for name, found in best.items():
            for what, value in runs[name](args, 100 * i).items():
                found[what] = value if isinstance(value, str) else max(value, found.get(what, 0.0))
                print(f"round {i + 1} {name} {what}: {value if isinstance(value, str) else round(value, 1)}", flush=True)
    ours, theirs = best.get("dtrnet", {}), best.get("vllm", {})
    print(f"\n{args.model.name}, {args.dtype}, best of {args.rounds}; vLLM {theirs.get('version', 'not run')}\n")
    print("| what | dtrnet | vLLM | ratio |\n|---|---|---|---|")
    for what in ours or theirs:
        if what != "version":
            a, b = ours.get(what), theirs.get(what)
            print(f"| {what} | {a and round(a, 1)} | {b and round(b, 1)} | {a / b if a and b else 0:.2f} |")


if __name__ == "__main__":
    main()
