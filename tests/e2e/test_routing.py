"""POST /v1/routing: decisions and probabilities of the golden checkpoints, the decisions of scoring, costs, and the page's files."""

import sys
from pathlib import Path

import support  # isort: skip  (first: it finds the Python that has the other packages)
import numpy as np

from http_support import faults
from support import ROOT, Server
from test_golden_http import read_expected

PROB_TOLERANCE = 1e-5
# A checkpoint of every kind, and flags. "thr_" are the golden data of expert choice by thresholds.
CASES = [
    ("golden/dense-gqa-tied", [], ""),
    ("golden/dtrnet-bilayer", [], ""),
    ("golden/mod", [], ""),
    ("golden/dllm", [], ""),
    ("ultradeep/nested-mlp", [], ""),
    ("ultradeep/nested-mamba-bf16", [], ""),
    ("ultradeep/mamba-defaults-bf16", [], ""),
    ("ultradeep/expert-bilayer-bf16", ["--expert-choice", "exact"], ""),
    ("ultradeep/expert-nested-mamba-lns-bf16", ["--expert-choice", "threshold"], "thr_"),
]


def prompts(folder: Path, mode: str) -> list[dict[str, np.ndarray]]:
    """The golden data of each prompt."""
    data = read_expected(folder / "expected.safetensors")
    out = []
    while f"p{len(out)}.tokens" in data:
        start = f"p{len(out)}."
        want = {name.removeprefix(start): value for name, value in data.items() if name.startswith(start)}
        out.append({**want, **{name.removeprefix(mode): value for name, value in want.items() if mode and name.startswith(mode)}})
    return out


def ask(server: Server, **body: object) -> dict:
    """An answer that fits its schema."""
    answer = server.post("/v1/routing", body)
    wrong = faults(answer, {"$ref": "#/components/schemas/Routing"})
    assert not wrong, wrong[:3]
    return answer


def numbers(values: list[float | None]) -> np.ndarray:
    """Nulls become 0, which is what golden data hold there."""
    return np.array([0 if v is None else v for v in values], np.float32)


def check_layers(answer: dict, want: dict[str, np.ndarray]) -> float:
    """Decisions, rows of K and V, probabilities; the worst difference of the latter."""
    routed = nested = 0
    worst = 0.0
    for layer, kv_len in zip(answer["layers"], want["kv_len"]):
        codes = layer["routing"]
        assert layer["attended"] == codes.count("1") and layer["executed"] == len(codes) - codes.count("-")
        assert layer["kv"].count("1") == kv_len, (layer["layer"], layer["kv"])
        if layer["router"] == "none":
            assert set(codes) == {"1"} and "p" not in layer and "s0" not in layer
            continue
        assert [c == "1" for c in codes] == want["route"][routed].tolist(), f"decisions of layer {layer['layer']}"
        p = want["prob"][routed].copy()
        if layer["skip_router"] != "none":
            executed = want["exec"][nested].astype(bool)
            assert [c != "-" for c in codes] == executed.tolist(), f"skipped tokens of layer {layer['layer']}"
            assert [v is None for v in layer["p"]] == (~executed).tolist()
            p[~executed] = 0
            worst = max(worst, float(np.abs(numbers(layer["s0"]) - want["exec_prob"][nested]).max()))
            nested += 1
        worst = max(worst, float(np.abs(numbers(layer["p"]) - p).max()))
        routed += 1
    return worst


def check_scoring(server: Server, tokens: list[int], answer: dict) -> None:
    """What /v1/loglikelihood says of the same positions: decisions, and what they cost."""
    request = {"requests": [{"context": tokens, "continuations": [[tokens[0]]]}], "routing": True}
    scored = server.post("/v1/loglikelihood", request)
    nested = [layer["skip_router"] != "none" for layer in answer["layers"]]
    codes = [layer["routing"] if n else layer["routing"].replace("-", "0") for layer, n in zip(answer["layers"], nested)]
    assert scored["results"][0]["continuations"][0]["routing"] == codes
    assert scored["usage"]["cost"] == answer["usage"]["cost"]


def check_scores(server: Server, tokens: list[int], answer: dict) -> None:
    """Logprobs and alternatives are those of /v1/completions."""
    body = {"prompt": tokens, "max_tokens": 1, "echo": True, "logprobs": 5, "temperature": 0, "return_tokens_as_token_ids": True}
    got = server.post("/v1/completions", body)["choices"][0]["logprobs"]
    assert got["token_logprobs"][:-1] == answer["token_logprobs"]
    for top, best in zip(got["top_logprobs"][1:], answer["next"]):
        assert [f"token_id:{b['id']}" for b in best] == list(top)[: len(best)] and all(
            top[f"token_id:{b['id']}"] == b["logprob"] for b in best
        )


def check_model(name: str, flags: list[str], mode: str) -> float:
    """Every prompt, cold and warm."""
    worst = 0.0
    with Server(ROOT / "tests" / name, "--dtype", "f32", "--max-model-len", "512", *flags) as server:
        for want in prompts(ROOT / "tests" / name, mode):
            tokens = want["tokens"].tolist()
            answer = ask(server, text=tokens)
            worst = max(worst, check_layers(answer, want))
            check_scoring(server, tokens, answer)
            check_scores(server, tokens, answer)
            warm = ask(server, text=tokens)
            assert warm["layers"] == answer["layers"] and warm["next"] == answer["next"], "a warm cache changes the answer"
            spare = ask(server, text=tokens, probabilities=False, top_logprobs=0)
            assert "next" not in spare and [layer["routing"] for layer in spare["layers"]] == [
                layer["routing"] for layer in answer["layers"]
            ]
    print(f"{name} {' '.join(flags)}: worst difference of a probability {worst:.1e}")
    return worst


def check_dense_layers() -> None:
    """Layers that a flag makes dense attend and have no probabilities."""
    with Server(ROOT / "tests/golden/dtrnet-bilayer", "--dense-layers", "all") as server:
        answer = ask(server, text=[5, 6, 7])
        assert any(layer["forced_dense"] for layer in answer["layers"])
        assert all(layer["routing"] == layer["kv"] == "111" and "p" not in layer for layer in answer["layers"])
        cost = answer["usage"]["cost"]
        assert cost["kv_rows"] == cost["dense_kv_rows"] and cost["flops_causal"] == cost["dense_flops_causal"]


def check_limits() -> None:
    """Texts, BOS, lengths and errors; the shipped model has a tokenizer. Long answers come in pieces, whole."""
    with Server(support.SHIPPED, "--dtype", "f32", "--max-model-len", "600") as server:
        text = "The old man sat on the bench. " * 60
        answer = ask(server, text=text)
        assert len(answer["tokens"]) > 400 and "".join(answer["token_strings"]) == text
        whole = ask(server, text=text, top_logprobs=20)  # more than is sent in one piece
        assert [best[:5] for best in whole["next"]] == answer["next"] and whole["layers"] == answer["layers"]
        assert ask(server, text="x", add_bos=True)["tokens"] == [1, *ask(server, text="x")["tokens"]]
        assert ask(server, text="")["tokens"] == [1]
        assert len(ask(server, text=[7] * 600)["tokens"]) == 600
        for body, param in [
            ({}, "text"),
            ({"text": 5}, "text"),
            ({"text": [7] * 601}, "text"),
            ({"text": [-1]}, "text"),
            ({"text": "x", "top_logprobs": 21}, "top_logprobs"),
            ({"text": "x", "probabilities": 1}, "probabilities"),
        ]:
            got = server.session.post(server.url + "/v1/routing", json=body)
            assert got.status_code == 400 and got.json()["error"]["param"] == param, (body, got.text)


def main() -> int:
    """All cases."""
    bad = [name for name, flags, mode in CASES if not check_model(name, flags, mode) <= PROB_TOLERANCE]
    check_dense_layers()
    check_limits()
    print(f"{len(CASES) - len(bad)} of {len(CASES)} checkpoints agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
