"""What 92 layers keep of 20,480 positions: K and V only of rows that attend, router states of the size that `inspect` says.

    python3 eval/benchmarks/deep_memory.py build/dtrnet [--positions 20480] [--device cpu]

A random model of 92 layers (dense and nested ones in the trilayer's pattern, Mamba routers, LNS, executing 0.6 and attending 0.15 of
the executed) scores one sequence that fills its positions. Exit status 1 where what is kept is not what was routed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

LAYERS, VOCABULARY = 92, 256
SHAPE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "layer_layout": ("TSS" * LAYERS)[: LAYERS - 1] + "T",
    "router_type": "mamba",
    "router_dim": 24,
    "norm_method": "lns",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def run(*command: str) -> str:
    """Standard output of a command that must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def metrics(url: str) -> dict[str, float]:
    """/metrics: series to value."""
    text = urllib.request.urlopen(f"{url}/metrics").read().decode()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")}


def score(url: str, positions: int) -> dict[str, Any]:
    """Scores one sequence that feeds `positions` tokens; the answer's usage."""
    draw = random.Random(92)
    ids = [draw.randrange(3, VOCABULARY) for _ in range(positions)]
    body = json.dumps({"requests": [{"context": ids, "continuations": [[7]]}]}).encode()
    request = urllib.request.Request(f"{url}/v1/loglikelihood", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["usage"]


def main() -> int:
    """Makes the model, serves it, scores, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--positions", type=int, default=20480)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = str(Path(scratch) / "model")
        config = Path(scratch) / "config.json"
        config.write_text(json.dumps({**SHAPE, "max_position_embeddings": args.positions}))
        rates = ["--route-rate", "0.15", "--execute-rate", "0.6"]
        run(args.program, "synth", "--config", str(config), "--out", model, "--tokens", "4096", *rates)
        about = json.loads(run(args.program, "inspect", "--model", model, "--json", *rates))
        command = [args.program, "serve", "--model", model, "--port", "0", "--device", args.device, "--max-model-len", str(args.positions)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            try:
                assert server.stderr is not None
                url = next(m[1] for line in server.stderr if (m := re.search(r"listening on (http://\S+)", line)))
                usage = score(url, args.positions)
                series = metrics(url)
            finally:
                server.terminate()
        return report(args.positions, about, usage, series)


def report(positions: int, about: dict[str, Any], usage: dict[str, Any], series: dict[str, float]) -> int:
    """Prints what is kept beside what should be; 0 if they agree."""
    attended = sum(usage["rows_routed"])
    executed = sum(n for name, n in series.items() if name.startswith("dtrnet_layer_rows_executed_total"))
    states, held = series["dtrnet_router_states"], series["dtrnet_kv_held_rows"]
    slots = series['dtrnet_device_memory_held_bytes{use="router_states"}']
    per = LAYERS * positions
    print(f"{LAYERS} layers x {positions} positions: executed {executed / per:.4f}, attended {attended / per:.4f}")
    print(f"K and V: {held:.0f} rows held, {attended} attended, a dense model holds {per}")
    print(f"router states: {about['router_state_bytes']} bytes a sequence by inspect; {states:.0f} copies in a pool of {slots:.0f} bytes")
    return 0 if held == attended and slots % about["router_state_bytes"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
