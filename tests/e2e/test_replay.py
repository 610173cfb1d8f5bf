"""Sends the requests that lm-evaluation-harness really sent (../shared/harness/captured_requests.jsonl), headers included, and
checks of each answer what the harness reads there.
"""

import json
import sys
from collections import Counter
from typing import Any

from http_support import Client, Process
from server_process import ROOT

CAPTURED = ROOT.parent / "shared" / "harness" / "captured_requests.jsonl"
# The harness ran against models with other vocabularies; ids are folded into this one's.
VOCAB = 16384
NOT_SERVED = {"/v1/chat/completions": 400, "/v1/engines/local/logprob": 404, "/v1/engines/local/completions": 404}


def fold(prompt: Any) -> Any:
    if isinstance(prompt, list):
        return [fold(p) for p in prompt]
    return prompt % VOCAB if isinstance(prompt, int) else prompt


def prompts(body: dict[str, Any]) -> list[Any]:
    p = body["prompt"]
    return [p] if isinstance(p, str) or isinstance(p[0], int) else p


def check_completion(client: Client, body: dict[str, Any], answer: dict[str, Any]) -> None:
    asked = prompts(body)
    assert sorted(c["index"] for c in answer["choices"]) == list(range(len(asked)))
    for choice in answer["choices"]:
        assert isinstance(choice["text"], str)
        for stop in body.get("stop", []):
            assert stop not in choice["text"]
        if not body.get("echo"):
            continue
        prompt = asked[choice["index"]]
        n = len(prompt) if isinstance(prompt, list) else client.post("/tokenize", {"prompt": prompt, "add_special_tokens": False})["count"]
        lists = choice["logprobs"]
        assert {len(lists[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")} == {n + 1}
        assert all(
            lp is not None and top and max(top.values()) >= lp for lp, top in zip(lists["token_logprobs"][1:], lists["top_logprobs"][1:])
        )
        best = max(lists["top_logprobs"][-1], key=lists["top_logprobs"][-1].get)
        assert best == lists["tokens"][-1] and lists["token_logprobs"][-1] == lists["top_logprobs"][-1][best]
        if isinstance(prompt, str):
            assert choice["text"].startswith(prompt)


def is_chat(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("prompt"), list) and isinstance(body["prompt"][0], dict)


def main() -> int:
    if not CAPTURED.exists():
        print("skipped: ../shared/harness/captured_requests.jsonl is not beside the source tree")
        return 77
    counts: Counter[str] = Counter()
    with Process("--dtype", "f32", "--max-model-len", "4096") as server:
        for line in CAPTURED.read_text().splitlines():
            case = json.loads(line)
            path, body = case["path"], case["body"]
            if isinstance(body, dict):
                body = {k: fold(v) if k in ("prompt", "tokens") else v for k, v in body.items()}
            headers = {k: v for k, v in case["headers"].items() if k not in ("Content-Length", "Host", "Accept-Encoding")}
            answer = server.client.call(case["method"], path, body, headers=headers)
            want = 400 if is_chat(body) else NOT_SERVED.get(path, 200)
            assert answer.status == want, (case["case"], path, answer.status, answer.data[:300])
            if answer.status == 200 and path == "/v1/completions":
                check_completion(server.client, body, answer.json)
            counts[f"{path} {answer.status}"] += 1
    print(dict(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
