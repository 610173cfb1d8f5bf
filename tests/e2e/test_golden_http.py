"""Every golden checkpoint over HTTP: routing, KV rows, echo logprobs and greedy tokens against the published modules' numbers.

The server runs with --max-model-len 512, since some prompts exceed a checkpoint's own limit. Logits are not on the wire; their
log-softmax is, within twice the tolerance of the logits.
"""

import json
import sys
from pathlib import Path

import support  # isort: skip  (first: it finds the Python that has the other packages)
import numpy as np

from support import Server

GOLDEN = support.ROOT / "tests" / "golden"
BODY = {"temperature": 0, "ignore_eos": True, "return_tokens_as_token_ids": True}
TOLERANCE = 4e-4  # of a log probability: 2e-4 for the logit, 2e-4 for the normaliser


def read_expected(path: Path) -> dict[str, np.ndarray]:
    """Tensors of expected.safetensors."""
    raw = np.fromfile(path, np.uint8)
    size = int(raw[:8].view("<u8")[0])
    out = {}
    for name, info in json.loads(raw[8 : 8 + size].tobytes()).items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in info["data_offsets"])
            out[name] = raw[begin:end].view({"F32": "<f4", "I32": "<i4", "U8": "u1"}[info["dtype"]]).reshape(info["shape"])
    return out


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    x = logits.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def check_routing(server: Server, tokens: list[int], want: dict[str, np.ndarray]) -> None:
    """Decisions of every routed layer, rows that attend, and rows that the KV cache then holds."""
    before = server.idle_metrics()["dtrnet_kv_held_rows"]
    request = {"requests": [{"context": tokens, "continuations": [[tokens[0]]]}], "routing": True}
    answer = server.post("/v1/loglikelihood", request)
    routing = np.array([[int(bit) for bit in row] for row in answer["results"][0]["continuations"][0]["routing"]], np.uint8)
    assert answer["usage"]["rows_routed"] == routing.sum(1).tolist()
    decided = [layer for layer in range(len(routing)) if "route" in want and layer in want["layers"]]
    assert not decided or (routing[decided] == want["route"]).all(), "routing differs"
    assert (np.delete(routing, decided, 0) == 1).all(), "a dense layer left tokens out"
    held = server.idle_metrics()["dtrnet_kv_held_rows"] - before
    if answer["usage"]["cached_tokens"] == 0:
        assert held == want["kv_len"].sum(), f"{held} KV rows held, {want['kv_len'].sum()} expected"


def check_echo(server: Server, tokens: list[int], want: dict[str, np.ndarray]) -> float:
    """Worst difference of echoed logprobs where the golden data have logits; top 20 checked as well."""
    answer = server.post("/v1/completions", {**BODY, "prompt": tokens, "max_tokens": 1, "echo": True, "logprobs": 20})
    got = answer["choices"][0]["logprobs"]
    assert len(got["token_logprobs"]) == len(tokens) + 1 and got["token_logprobs"][0] is None
    following = [int(name.removeprefix("token_id:")) for name in got["tokens"]][1:]
    assert following[:-1] == tokens[1:]
    worst = 0.0
    for at, row in zip(want["logit_pos"], log_softmax(want["logits"])):
        worst = max(worst, abs(got["token_logprobs"][at + 1] - row[following[at]]))
        best = got["top_logprobs"][at + 1]
        assert max(best, key=best.get) == f"token_id:{row.argmax()}"
        for name, value in best.items():
            worst = max(worst, abs(value - row[int(name.removeprefix("token_id:"))]))
    return worst


def check_generation(server: Server, tokens: list[int], want: dict[str, np.ndarray]) -> float:
    """Greedy tokens must be equal; worst difference of their logprobs."""
    kind = "genfull" if "genfull_tokens" in want else "gen"
    expected = want[f"{kind}_tokens"].tolist()
    body = {**BODY, "prompt": tokens, "max_tokens": len(expected), "logprobs": 1}
    got = server.post("/v1/completions", body)["choices"][0]["logprobs"]
    assert got["tokens"] == [f"token_id:{t}" for t in expected], (got["tokens"], expected)
    rows = log_softmax(want[f"{kind}_logits"])
    return max(abs(value - row[t]) for value, row, t in zip(got["token_logprobs"], rows, expected))


def check_model(folder: Path) -> float:
    """All prompts of one checkpoint."""
    expected = read_expected(folder / "expected.safetensors")
    routed = json.loads((folder / "expected.json").read_text())["routed_layers"]
    worst, n = 0.0, 0
    with Server(folder, "--dtype", "f32", "--max-model-len", "512") as server:
        while f"p{n}.tokens" in expected:
            want = {name.split(".", 1)[1]: value for name, value in expected.items() if name.startswith(f"p{n}.")}
            want["layers"] = routed
            tokens = want["tokens"].tolist()
            check_routing(server, tokens, want)
            worst = max(worst, check_echo(server, tokens, want), check_generation(server, tokens, want))
            n += 1
    print(f"{folder.name}: {n} prompts, worst difference of a logprob {worst:.1e}")
    return worst


def main() -> int:
    """Every directory of tests/golden that holds a checkpoint."""
    folders = sorted(path.parent for path in GOLDEN.glob("*/expected.safetensors"))
    if not folders:
        support.skip("no golden checkpoints in tests/golden")
    bad = [folder.name for folder in folders if not check_model(folder) < TOLERANCE]
    print(f"{len(folders) - len(bad)} of {len(folders)} checkpoints agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
