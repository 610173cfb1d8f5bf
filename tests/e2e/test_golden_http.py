"""Every golden checkpoint over HTTP: routing, KV rows, echo logprobs and greedy tokens against the references' numbers.

tests/golden holds what the published modules give, tests/ultradeep what its reference gives. Checkpoints with expert choice are run
in both ways to select: by thresholds as any other, and by rank, where a request is one pass over all of its tokens.

The server runs with --max-model-len 512, since some prompts exceed a checkpoint's own limit. Logits are not on the wire; their
log-softmax is, within twice the tolerance of the logits.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import support  # isort: skip  (first: it finds the Python that has the other packages)
import numpy as np

from support import Server

TESTS = support.ROOT / "tests"
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
    codes = np.array([list(row) for row in answer["results"][0]["continuations"][0]["routing"]])
    routing, nested = (codes == "1").astype(np.uint8), want["nested"]
    assert answer["usage"]["rows_routed"] == routing.sum(1).tolist()
    decided = [layer for layer in range(len(routing)) if "route" in want and layer in want["layers"]]
    assert not decided or (routing[decided] == want["route"]).all(), "routing differs"
    assert (np.delete(routing, decided, 0) == 1).all(), "a dense layer left tokens out"
    assert not nested or ((codes[nested] != "-") == want["exec"]).all(), "execution differs"
    assert (np.delete(codes, nested, 0) != "-").all(), "a layer without a skip router skipped"
    held = server.idle_metrics()["dtrnet_kv_held_rows"] - before
    if not want["by_rank"] and answer["usage"]["cached_tokens"] == 0:
        assert held == want["kv_len"].sum(), f"{held} KV rows held, {want['kv_len'].sum()} expected"


def check_buckets(server: Server, tokens: list[int], want: dict[str, np.ndarray]) -> None:
    """Rows by position, summed over two buckets, are the decisions of the rows that scored."""
    body = {"text": [*tokens, tokens[0]], "add_bos": False, "routing": True, "bucket_edges": [1, len(tokens) // 2 + 2]}
    bucket = server.post("/v1/loglikelihood_rolling", body)["results"][0]["buckets"]["by_position"]
    for name, layers, decided in (("rows_routed", "layers", "route"), ("rows_executed", "nested", "exec")):
        got = np.array(bucket.get(name, [])).reshape(-1, 2).sum(1)
        assert not want[layers] or (got[want[layers]] == want[decided].sum(1)).all(), f"{name} by position differ"
    assert ("rows_executed" in bucket) == bool(want["nested"])


def check_echo(server: Server, tokens: list[int], want: dict[str, np.ndarray]) -> float:
    """Worst difference of echoed logprobs where the golden data have logits; top 20 checked as well. By rank every token counts, so there
    the prompt is one token longer than the pass that scores it.
    """
    prompt = [*tokens, tokens[0]] if want["by_rank"] else tokens
    answer = server.post("/v1/completions", {**BODY, "prompt": prompt, "max_tokens": 1, "echo": True, "logprobs": 20})
    got = answer["choices"][0]["logprobs"]
    assert len(got["token_logprobs"]) == len(prompt) + 1 and got["token_logprobs"][0] is None
    following = [int(name.removeprefix("token_id:")) for name in got["tokens"]][1:]
    assert following[: len(prompt) - 1] == prompt[1:]
    worst = 0.0
    for at, row in zip(want["logit_pos"], log_softmax(want["logits"])):
        worst = max(worst, abs(got["token_logprobs"][at + 1] - row[following[at]]))
        best = got["top_logprobs"][at + 1]
        assert max(best, key=best.get) == f"token_id:{row.argmax()}"
        for name, value in best.items():
            worst = max(worst, abs(value - row[int(name.removeprefix("token_id:"))]))
    return worst


def check_generation(server: Server, tokens: list[int], want: dict[str, np.ndarray]) -> float:
    """Greedy tokens must be equal; worst difference of their logprobs. By rank there is one: the next would need a threshold."""
    kind = "genfull" if "genfull_tokens" in want else "gen"
    expected = want[f"{kind}_tokens"].tolist()[: 1 if want["by_rank"] else None]
    body = {**BODY, "prompt": tokens, "max_tokens": len(expected), "logprobs": 1}
    got = server.post("/v1/completions", body)["choices"][0]["logprobs"]
    assert got["tokens"] == [f"token_id:{t}" for t in expected], (got["tokens"], expected)
    rows = log_softmax(want[f"{kind}_logits"])
    return max(abs(value - row[t]) for value, row, t in zip(got["token_logprobs"], rows, expected))


def prompts(expected: dict[str, np.ndarray], by_thresholds: bool) -> Iterator[dict[str, np.ndarray]]:
    """The tensors of each prompt, under their names in the mode."""
    n = 0
    while f"p{n}.tokens" in expected:
        want = {name.split(".", 1)[1]: value for name, value in expected.items() if name.startswith(f"p{n}.")}
        yield want | {name.removeprefix("thr_"): value for name, value in want.items() if by_thresholds and name.startswith("thr_")}
        n += 1


def check_model(folder: Path, mode: str | None) -> float:
    """All prompts of one checkpoint; `mode` says how an expert-choice model selects."""
    expected = read_expected(folder / "expected.safetensors")
    about = json.loads((folder / "expected.json").read_text())
    worst, n = 0.0, 0
    with Server(folder, "--dtype", "f32", "--max-model-len", "512", *(["--expert-choice", mode] if mode else [])) as server:
        for want in prompts(expected, mode == "threshold"):
            want |= {"layers": about["routed_layers"], "nested": about.get("nested_layers", []), "by_rank": mode == "exact"}
            tokens = want["tokens"].tolist()
            check_routing(server, tokens, want)
            check_buckets(server, tokens, want)
            worst = max(worst, check_echo(server, tokens, want), check_generation(server, tokens, want))
            n += 1
    print(f"{folder.name}{f' ({mode})' if mode else ''}: {n} prompts, worst difference of a logprob {worst:.1e}", flush=True)
    return worst


def modes(folder: Path) -> list[str | None]:
    """The ways of an expert-choice model, or the only one."""
    routing = json.loads((folder / "config.json").read_text()).get("routing")
    return ["exact", "threshold"] if routing == "expert_choice" else [None]


def main() -> int:
    """Every directory of tests/golden and tests/ultradeep that holds a checkpoint."""
    folders = sorted(path.parent for kind in ("golden", "ultradeep") for path in (TESTS / kind).glob("*/expected.safetensors"))
    if not folders:
        support.skip("no golden checkpoints in tests/golden")
    runs = [(folder, mode) for folder in folders for mode in modes(folder)]
    bad = [run for run in runs if not check_model(*run) < TOLERANCE]
    print(f"{len(runs) - len(bad)} of {len(runs)} runs agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
