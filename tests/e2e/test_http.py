"""Every endpoint of a real server (SERVED of server_process.py): forms, semantics, agreement between the ways in."""

import json
import random
import sys
from typing import Any

from http_support import OPENAPI, Client, Process, run_tests
from server_process import SERVED

server: Process
client: Client
CONFIG = json.loads((SERVED / "config.json").read_text())
LAYERS = CONFIG["num_hidden_layers"]
TEXT = "The old man walked down to the river and sat on the bank."


def entries(choice: dict[str, Any]) -> list[tuple[str, float | None, dict[str, float] | None, int]]:
    """The four lists of a choice's logprobs, zipped; they must have one length."""
    lists = [choice["logprobs"][key] for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")]
    assert len({len(one) for one in lists}) == 1
    return list(zip(*lists))


def ids_of(text: str) -> list[int]:
    return client.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]


def score(prompt: Any, **more: Any) -> dict[str, Any]:
    return client.post("/v1/completions", {"prompt": prompt, "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, **more})


# ---- status ----


def test_status() -> None:
    assert client.get("/health")["status"] == "ok" and client.get("/ready")["status"] == "ok"
    version, models = client.get("/version"), client.get("/v1/models")
    name = models["data"][0]["id"]
    assert name == version["model"] == SERVED.name and client.get(f"/v1/models/{name}")["id"] == name
    assert client.call("GET", "/v1/models/other").status == 404
    assert version["family"] == "dtrnet" and version["dense_layers"] == CONFIG["dtrnet_layers"] and len(version["model_hash"]) == 64
    assert client.get("/openapi.json") == OPENAPI
    assert client.get("/v1/models?limit=3")["object"] == "list"


def test_methods() -> None:
    head = client.call("HEAD", "/health")
    assert head.status == 200 and head.data == b""
    for method, path, status, allow in [
        ("GET", "/v1/completions", 405, "POST"),
        ("DELETE", "/tokenize", 405, "POST"),
        ("POST", "/health", 405, "GET"),
        ("PATCH", "/metrics", 405, "GET"),
    ]:
        answer = client.call(method, path, check=False)
        assert answer.status == status and allow in answer.headers["allow"], (method, path, answer.status)
        assert answer.json["error"]["type"] == "invalid_request_error"
    options = client.call("OPTIONS", "/v1/completions")
    assert options.status == 204 and "POST" in options.headers["allow"]
    assert client.call("GET", "/nowhere").status == 404
    chat = client.call("POST", "/v1/chat/completions", {"messages": []})
    assert chat.status == 400 and "/v1/completions" in chat.json["error"]["message"]


def test_request_ids() -> None:
    given = client.call("GET", "/health", headers={"X-Request-Id": "run-7.a_B"})
    assert given.headers["x-request-id"] == "run-7.a_B"
    made = [
        client.call("GET", "/health", headers=h).headers["x-request-id"]
        for h in ({}, {"X-Request-Id": "a b\tc"}, {"X-Request-Id": "x" * 65})
    ]
    assert len(set(made)) == 3 and all(len(m) == 16 for m in made)
    bad = client.call("POST", "/v1/completions", {"prompt": 5}, headers={"X-Request-Id": "seen-in-log"})
    assert bad.status == 400 and "seen-in-log" in server.wait_for(".*seen-in-log.*")
    n = len(ids_of(TEXT + " logged"))
    client.call("POST", "/v1/completions", {"prompt": TEXT + " logged", "max_tokens": 2}, headers={"X-Request-Id": "counted"})
    server.wait_for(rf"\[counted\] request method=POST path=/v1/completions status=200 duration_ms=[\d.]+ tokens={n + 2} rows=\d+")


def test_metrics() -> None:
    before = server.metric("dtrnet_tokens_scored_total"), server.metric("dtrnet_prompt_tokens_total")
    n = len(ids_of(TEXT + " metrics"))
    score(TEXT + " metrics")
    assert server.metric("dtrnet_tokens_scored_total") == before[0] + n - 1
    assert server.metric("dtrnet_prompt_tokens_total") == before[1] + n
    text = client.call("GET", "/metrics").data.decode()
    for name in (
        "http_requests_total",
        "http_request_seconds_bucket",
        "layer_rows_routed_total",
        "kv_held_rows",
        "kv_pool_bytes",
        "time_to_first_token_seconds_count",
        "queue_seconds_count",
        "time_between_tokens_seconds_sum",
        "queue_sequences",
    ):
        assert f"\ndtrnet_{name}" in text, name
    series = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    times = {op: float(series[f'dtrnet_busy_op_seconds_total{{op="{op}"}}']) for op in ("matmul", "attention", "other")}
    busy = float(series["dtrnet_busy_seconds_total"])
    assert all(s > 0 for s in times.values()) and abs(sum(times.values()) - busy) < 0.01 * busy, (times, busy)
    memory = {use: int(series[f'dtrnet_device_memory_held_bytes{{use="{use}"}}']) for use in ("weights", "kv", "workspace")}
    size, free = (float(series[f"dtrnet_device_memory_{name}_bytes"]) for name in ("size", "free"))
    assert all(n > 0 for n in memory.values()) and 0 < free < size, (memory, free, size)
    assert float(series["process_resident_memory_bytes"]) > 0 and float(series["process_start_time_seconds"]) > 1e9


# ---- tokenizer ----


def test_tokenizer() -> None:
    info = client.get("/tokenizer_info")
    assert info["bos_token"] == "<s>" and info["eos_token"] == "</s>"
    assert ids_of("<s>") == [info["bos_token_id"]] and ids_of("</s>") == [info["eos_token_id"]]
    for text in ["", TEXT, "  two  blanks ", "naïve café 😀 日本", "line\nbreak\ttab"]:
        ids = ids_of(text)
        assert client.post("/detokenize", {"tokens": ids})["prompt"] == text, text
    special = client.post("/tokenize", {"content": TEXT, "add_special_tokens": True})
    assert special["tokens"] == [1, *ids_of(TEXT)] and special["count"] == len(special["tokens"])


# ---- completions ----


def test_echo() -> None:
    ids = ids_of(TEXT)
    answer = score([ids])
    found = entries(answer["choices"][0])
    assert len(found) == len(ids) + 1 and found[0][1] is None and found[0][2] is None
    assert all(lp is not None and 1 <= len(top) <= 2 and max(top.values()) >= lp and top[token] == lp for token, lp, top, _ in found[1:])
    _, lp, top, _ = found[-1]
    assert lp == max(top.values()), "the generated token is the greedy one"
    assert answer["choices"][0]["text"].startswith(TEXT)
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (len(ids), 1, len(ids) + 1)
    details = usage["prompt_tokens_details"]
    assert details["cached_tokens"] <= len(ids) <= details["cached_tokens"] + details["computed_tokens"]


def test_prompt_forms_agree() -> None:
    a, b = TEXT, "It rained the whole day."
    forms = [score(a), score(ids_of(a)), score([a, b]), score([ids_of(a), ids_of(b)])]
    firsts = [f["choices"][0]["logprobs"]["token_logprobs"] for f in forms]
    assert all(f == firsts[0] for f in firsts), "the same bits on every way in"
    assert [c["index"] for c in forms[3]["choices"]] == [0, 1]
    assert forms[2]["choices"][1]["logprobs"] == forms[3]["choices"][1]["logprobs"] == score(b)["choices"][0]["logprobs"]
    assert score("x", model=360)["choices"], "the harness sends a name of digits as a number"
    plain = client.post("/v1/completions", {"prompt": a, "max_tokens": 2, "temperature": 0, "logprobs": None, "stop": None, "n": None})
    assert plain["choices"][0]["logprobs"] is None


def test_text_offsets() -> None:
    text = "Naïve 😀 café — 日本 done"
    found = entries(score(text, logprobs=0)["choices"][0])
    assert found[0][3] == 0 and [f[3] for f in found] == sorted(f[3] for f in found)
    ids = ids_of(text)
    for i in range(1, len(ids)):
        before = client.post("/detokenize", {"tokens": ids[:i]})["prompt"]
        if "\ufffd" not in before:
            assert found[i][3] == len(before), (i, found[i])
    assert found[len(ids)][3] == len(text)


def test_top_logprobs() -> None:
    for k in (0, 1, 5, 20):
        found = entries(score(TEXT, logprobs=k)["choices"][0])
        for token, lp, top, _ in found[1:]:
            assert len(top) in ({1} if k == 0 else {k, k + 1}) and top[token] == lp
            assert list(top.values())[:k] == sorted(top.values(), reverse=True)[:k]
    one, twenty = (score(TEXT, logprobs=k)["choices"][0]["logprobs"]["token_logprobs"] for k in (1, 20))
    assert one == twenty, "asking for more alternatives changes no bit"


def test_token_ids_as_strings() -> None:
    ids = ids_of(TEXT)
    found = entries(score(ids, return_tokens_as_token_ids=True, logprobs=3)["choices"][0])
    assert [f[0] for f in found[:-1]] == [f"token_id:{i}" for i in ids]
    assert all(key.startswith("token_id:") for f in found[1:] for key in f[2])


def test_max_tokens() -> None:
    assert client.post("/v1/completions", {"prompt": TEXT, "temperature": 0, "ignore_eos": True})["usage"]["completion_tokens"] == 16
    for n in (0, 1, 7):
        answer = client.post("/v1/completions", {"prompt": TEXT, "temperature": 0, "max_tokens": n, "ignore_eos": True, "logprobs": 1})
        assert answer["usage"]["completion_tokens"] == n == len(entries(answer["choices"][0]))
        assert answer["choices"][0]["finish_reason"] == "length"
    assert len(entries(score(TEXT, max_tokens=0)["choices"][0])) == len(ids_of(TEXT))
    limit = client.get("/version")["max_model_len"]
    fits = {"prompt": [5] * limit, "max_tokens": 1, "temperature": 0}
    assert client.call("POST", "/v1/completions", fits).status == 200
    over = client.call("POST", "/v1/completions", {**fits, "max_tokens": 2}).json["error"]
    assert over["param"] == "max_tokens" and str(limit) in over["message"]
    assert (
        client.post("/v1/completions", {"prompt": [5] * (limit - 3), "temperature": 0, "ignore_eos": True})["usage"]["completion_tokens"]
        == 4
    )


def test_bos_and_empty() -> None:
    bos = client.get("/version")["bos_token_id"]
    ids = ids_of(TEXT)
    assert (
        score(TEXT, add_bos=True)["choices"][0]["logprobs"]["token_logprobs"]
        == score([bos, *ids])["choices"][0]["logprobs"]["token_logprobs"]
    )
    empty, alone = (client.post("/v1/completions", {"prompt": p, "max_tokens": 4, "temperature": 0}) for p in ("", [bos]))
    assert empty["choices"] == alone["choices"]
    assert entries(score(TEXT, add_bos=True)["choices"][0])[0][3] == 0


def greedy(at: int = 0, **more: Any) -> dict[str, Any]:
    """Choice `at` of an answer, put together again if it is streamed."""
    body = {"prompt": TEXT, "max_tokens": 24, "temperature": 0, "ignore_eos": True, **more}
    if not body.get("stream"):
        return client.post("/v1/completions", body)["choices"][at]
    parts = [c for e in client.stream("/v1/completions", body) for c in e["choices"] if c["index"] == at]
    lists = [p["logprobs"] for p in parts]
    merged = lists[0] and {key: [entry for one in lists for entry in one[key]] for key in lists[0]}
    return {**parts[-1], "text": "".join(p["text"] for p in parts), "logprobs": merged}


def test_stop() -> None:
    whole = greedy(logprobs=0)
    text, tokens = whole["text"], whole["logprobs"]["tokens"]
    border = len("".join(tokens[:5]))
    across = text[border - 2 : border + 2]  # begins in one token, ends in the next
    at = text.index(across)
    for stop in (across, [across], ["never there", across], [f"s{i}" * 9 for i in range(60)] + [across]):
        choice = greedy(stop=stop, logprobs=0)
        assert choice["text"] == text[:at] and choice["finish_reason"] == "stop", (stop, choice["text"])
        assert len(choice["logprobs"]["tokens"]) < len(tokens)
    assert greedy(stop=[])["text"] == greedy(stop=["never there"])["text"] == text
    first = greedy(stop=[text[4:6], text[1:3]])
    assert first["text"] == text[: min(text.index(text[4:6]), text.index(text[1:3]))], "the one that begins first counts"


def test_stream() -> None:
    for more in ({}, {"stop": [greedy()["text"][10:13]]}, {"n": 2}, {"echo": True}, {"logprobs": 2}, {"echo": True, "logprobs": 1}):
        body = {"prompt": [TEXT, "It was"], "max_tokens": 20, "temperature": 0, "ignore_eos": True, **more}
        want = client.post("/v1/completions", body)
        events = client.stream("/v1/completions", {**body, "stream_options": {"include_usage": True}})
        usage = events.pop()
        assert usage["choices"] == [] and usage["usage"]["total_tokens"] == want["usage"]["total_tokens"]
        assert len(events) == usage["usage"]["completion_tokens"], "one event a token"
        for choice in want["choices"]:
            parts = [c for e in events for c in e["choices"] if c["index"] == choice["index"]]
            assert "".join(p["text"] for p in parts) == choice["text"], more
            assert [p["finish_reason"] for p in parts][-1] == choice["finish_reason"] and not any(p["finish_reason"] for p in parts[:-1])
            if choice["logprobs"]:
                for key, whole in choice["logprobs"].items():
                    assert [entry for p in parts for entry in p["logprobs"][key]] == whole, (key, more)
    assert client.call("POST", "/v1/completions", {"prompt": 5, "stream": True}).status == 400
    alone = client.stream("/v1/completions", {"prompt": "x", "max_tokens": 0, "echo": True})
    assert [(c["text"], c["finish_reason"]) for e in alone for c in e["choices"]] == [("x", "length")]


def test_stop_ids_and_kept_stops() -> None:
    whole = greedy(logprobs=0, return_tokens_as_token_ids=True)
    ids, text = [int(t.split(":")[1]) for t in whole["logprobs"]["tokens"]], whole["text"]
    at = next(i for i in range(2, len(ids)) if ids[i] not in ids[:i])
    before, through = (client.post("/detokenize", {"tokens": [*ids_of(TEXT), *ids[:n]]})["prompt"][len(TEXT) :] for n in (at, at + 1))
    for stream in (False, True):
        for keep, want in ((False, before), (True, through)):
            choice = greedy(stop_token_ids=[ids[at]], include_stop_str_in_output=keep, logprobs=0, stream=stream)
            assert choice["text"] == want and choice["finish_reason"] == "stop", (stream, keep, choice["text"])
            assert len(choice["logprobs"]["tokens"]) == at + 1
        across = before[-2:] + text[len(before) : len(before) + 2]
        kept = greedy(stop=across, include_stop_str_in_output=True, stream=stream)
        assert kept["text"] == text[: text.index(across) + len(across)] and kept["finish_reason"] == "stop"


def test_prompt_logprobs() -> None:
    ids = ids_of(TEXT)
    want = score(TEXT, logprobs=3, max_tokens=0)["choices"][0]["logprobs"]
    for k, logprobs in ((0, None), (3, None), (2, 3), (3, 0)):
        choice = client.post(
            "/v1/completions", {"prompt": TEXT, "max_tokens": 1, "temperature": 0, "prompt_logprobs": k, "logprobs": logprobs}
        )["choices"][0]
        found = choice["prompt_logprobs"]
        assert len(found) == len(ids) and found[0] is None
        for i in range(1, len(ids)):
            own = found[i][str(ids[i])]
            assert (
                next(iter(found[i])) == str(ids[i])
                and own["logprob"] == want["token_logprobs"][i]
                and own["decoded_token"] == want["tokens"][i]
            )
            best = sorted(want["top_logprobs"][i].values(), reverse=True)[:k]
            ranked = sorted((v["rank"], v["logprob"]) for v in found[i].values() if v["rank"] and v["rank"] <= k)
            assert [lp for _, lp in ranked] == best and k <= len(found[i]) <= k + 1
        assert (choice["logprobs"] is None) == (logprobs is None)


def ids_made(**more: Any) -> list[int]:
    choice = greedy(**{"logprobs": 0, "return_tokens_as_token_ids": True, **more})
    return [int(token.split(":")[1]) for token in choice["logprobs"]["tokens"]]


def test_choice_is_changed() -> None:
    """Bias, penalties, min_p and min_tokens change what is chosen, and never what is scored."""
    plain = greedy(logprobs=3, max_tokens=8)
    ids = ids_made(max_tokens=8)
    assert ids_made(logit_bias={"500": 100}, max_tokens=5) == [500] * 5
    banned = greedy(logit_bias={str(ids[0]): -100}, logprobs=3, max_tokens=1)["logprobs"]
    assert banned["top_logprobs"][0].items() >= plain["logprobs"]["top_logprobs"][0].items(), "scores are the model's own"
    assert banned["tokens"][0] == list(plain["logprobs"]["top_logprobs"][0])[1], "the second best"
    again = ids_made(logit_bias={"500": 40}, frequency_penalty=2, max_tokens=40)
    assert again.count(500) > 8 and len(set(again)) > 1, "each time costs 2 of the 40"
    once = ids_made(presence_penalty=2, repetition_penalty=100, max_tokens=30)
    assert len(set(once)) == 30, "nothing twice"
    eos = client.get("/version")["eos_token_id"]
    for more, n in (({}, 1), ({"min_tokens": 6}, 7), ({"min_tokens": 6, "stream": True}, 7)):
        choice = greedy(ignore_eos=False, logit_bias={str(eos): 100}, logprobs=0, **more)
        assert len(choice["logprobs"]["tokens"]) == n and choice["finish_reason"] == "stop", (more, choice)
    text = plain["text"]
    assert greedy(max_tokens=8, stop=text[:2], min_tokens=8)["text"] == text, "no stop string ends before min_tokens"
    sampled = {"temperature": 1.5, "seed": 3, "n": 8, "max_tokens": 8}
    assert all(greedy(at=i, min_p=1, **sampled)["text"] == greedy(max_tokens=8)["text"] for i in (0, 7)), "min_p 1 leaves the best"
    some = {
        "frequency_penalty": 0.7,
        "presence_penalty": 0.2,
        "repetition_penalty": 1.2,
        "min_p": 0.02,
        "logit_bias": {"500": 3},
        **sampled,
    }
    assert greedy(at=3, **some) == greedy(at=3, **some) == greedy(at=3, stream=True, **some), "a seed repeats"
    assert greedy(at=3, **some)["text"] != greedy(at=3, **sampled)["text"]


def test_neutral_values() -> None:
    plain = greedy()
    for more in (
        {"response_format": {"type": "text"}},
        {"stop_token_ids": []},
        {"skip_special_tokens": False},
        {"logit_bias": {}},
        {"min_p": 0},
        {"min_tokens": 0},
        {"repetition_penalty": 1.0},
    ):
        assert greedy(**more) == plain, more
    assert ids_of("a\0b")[0] == ids_of("a")[0] and client.post("/detokenize", {"tokens": ids_of("a\0b")})["prompt"] == "a\0b"


def test_sampling() -> None:
    body = {"prompt": TEXT, "max_tokens": 12, "temperature": 1, "seed": 11, "n": 4}
    texts = [c["text"] for c in client.post("/v1/completions", body)["choices"]]
    assert texts == [c["text"] for c in client.post("/v1/completions", body)["choices"]], "a seed repeats"
    assert len(set(texts)) > 1, "the n sequences differ"
    assert client.post("/v1/completions", {**body, "n": 1})["choices"][0]["text"] == texts[0]
    other = client.post("/v1/completions", {**body, "prompt": ["something else", TEXT], "n": 1})["choices"][1]["text"]
    assert other == texts[0], "a neighbour in the batch changes nothing"
    assert [c["text"] for c in client.post("/v1/completions", {**body, "seed": 12})["choices"]] != texts
    top1 = client.post("/v1/completions", {**body, "top_k": 1, "n": 1})["choices"][0]["text"]
    assert top1 == client.post("/v1/completions", {**body, "temperature": 0, "n": 1})["choices"][0]["text"]
    seeds = [-(2**63) + 1, -1, 0, 2**53 + 1, 2**62 + 1, 2**63 - 2, 2**63 - 1]
    drawn = {tuple(c["text"] for c in client.post("/v1/completions", {**body, "seed": seed})["choices"]) for seed in seeds}
    assert len(drawn) == len(seeds), "every bit of a seed counts"
    assert client.post("/v1/completions", {**body, "best_of": 4, "top_p": 0.5, "user": "x", "logit_bias": {}, "presence_penalty": 0})[
        "choices"
    ]


def test_unknown_fields_are_noted_once() -> None:
    for _ in range(3):
        client.post("/v1/completions", {"prompt": "x", "max_tokens": 1, "do_the_thing": 1})
    server.wait_for("do_the_thing")
    assert server.text().count("do_the_thing") == 1


# ---- loglikelihood ----


def test_loglikelihood() -> None:
    context, continuations = "The old man walked down to the", [" river", " moon and back", "ologist"]
    answer = client.post("/v1/loglikelihood", {"requests": [{"context": context, "continuations": continuations}], "tokens": True})
    for continuation, got in zip(continuations, answer["results"][0]["continuations"]):
        whole, n = ids_of(context + continuation), len(ids_of(context))
        echo = score([whole])["choices"][0]["logprobs"]
        assert got["tokens"] == whole[n:] and got["token_logprobs"] == echo["token_logprobs"][n:-1], continuation
        assert abs(got["logprob"] - sum(got["token_logprobs"])) < 1e-6 and got["num_tokens"] == len(whole) - n and got["truncated"] == 0
        best = [max(top.values()) for top in echo["top_logprobs"][n:-1]]
        assert got["is_greedy"] == (best == got["token_logprobs"])
    same = client.post(
        "/v1/loglikelihood",
        {
            "requests": [
                {"context": ids_of(context), "continuations": [ids_of(context + c)[len(ids_of(context)) :] for c in continuations]}
            ],
            "tokens": True,
        },
    )
    assert same["results"] == answer["results"]


def test_loglikelihood_edges() -> None:
    bos = client.get("/version")["bos_token_id"]

    def ask(context: Any, continuation: Any, **more: Any) -> dict[str, Any]:
        body = {"requests": [{"context": context, "continuations": [continuation]}], "tokens": True, **more}
        return client.post("/v1/loglikelihood", body)["results"][0]["continuations"][0]

    ids = ids_of("river bank")
    assert ask("", "river bank") == ask([], ids) == ask([bos], ids)
    assert ask([], [bos, *ids]) == ask([bos], ids), "a continuation that begins with the prefix token brings it"
    assert ask([9, 8], ids, add_bos=True) == ask([bos, 9, 8], ids) == ask([bos, 9, 8], ids, add_bos=True)
    blank, moved = ask("walked to ", "the"), ask("walked to", " the")
    assert blank == moved, "white space at the context's end moves to the continuation"
    context = [random.Random(3).randrange(3, 16000) for _ in range(50)]
    cut = ask(context, ids, max_length=20)
    assert cut["truncated"] == 50 + len(ids) - 21
    assert cut["token_logprobs"] == ask(context[cut["truncated"] :], ids)["token_logprobs"]
    routed = ask(context, ids, routing=True)["routing"]
    assert len(routed) == LAYERS and {len(r) for r in routed} == {50 + len(ids) - 1} and set(routed[2]) == {"1"}


def check_rolling_routing(text: str, ids: list[int], bos: int) -> None:
    """Counts by bucket are those of the decisions that /v1/loglikelihood shows for the rows behind the scores."""
    edges, max_length, stride = [1, 8, 40], 48, 20
    asked = {"text": text, "max_length": max_length, "stride": stride, "bucket_edges": edges, "routing": True}
    buckets = client.post("/v1/loglikelihood_rolling", asked)["results"][0]["buckets"]
    want = {way: [[0] * len(edges) for _ in range(LAYERS)] for way in buckets}
    row, done = [bos, *ids], 0
    while done < len(ids):
        scored = min(stride if done else max_length, len(ids) - done)
        begin = max(0, done + scored - max_length)
        pair = {"context": row[begin : done + 1], "continuations": [row[done + 1 : done + scored + 1]]}
        bits = client.post("/v1/loglikelihood", {"requests": [pair], "routing": True})["results"][0]["continuations"][0]["routing"]
        for layer, decisions in enumerate(bits):
            for at in range(done + 1, done + scored + 1):
                for way, position in (("by_context", at - begin), ("by_position", at)):
                    want[way][layer][max(i for i, edge in enumerate(edges) if edge <= position)] += decisions[at - 1 - begin] == "1"
        done += scored
    assert {way: bucket["rows_routed"] for way, bucket in buckets.items()} == want
    assert buckets["by_context"]["rows_routed"][2] == buckets["by_context"]["num_tokens"], "layer 2 is dense"


def test_cost() -> None:
    """FLOPs and KV rows of two sequences by the formula of engine/tools/flops.h, written again."""
    hidden, heads, kv_heads, ffn = (
        CONFIG[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    )
    head = hidden // heads
    texts = [TEXT, " ".join(TEXT for _ in range(5))]
    answers = [client.post("/v1/loglikelihood_rolling", {"text": text})["usage"] for text in texts]
    both = client.post("/v1/loglikelihood_rolling", {"texts": texts})["usage"]["cost"]
    for usage in answers:
        n, cost = usage["prompt_tokens"] - 1, usage["cost"]
        causal = full = 0
        for layer, rows in enumerate(usage["rows_routed"]):
            router = n * (hidden * hidden // 2 + hidden) if layer not in CONFIG["dtrnet_layers"] else 0
            fixed = rows * hidden * head * (heads + kv_heads) + n * hidden * (head * (kv_heads + heads) + 3 * ffn) + router
            keys = rows * rows * 2 * heads * head
            causal += 2 * (fixed + (rows * rows + rows) * heads * head)
            full += 2 * (fixed + keys)
        assert abs(cost["flops_causal"] - causal) < 2 and abs(cost["flops_full"] - full) < 2, (cost, causal, full)
        assert cost["kv_rows"] == sum(usage["rows_routed"]) and cost["dense_kv_rows"] == LAYERS * n
        dense = LAYERS * n * (hidden * head * 2 * (heads + kv_heads) + 3 * hidden * ffn)
        assert cost["dense_flops_full"] == 2 * (dense + LAYERS * n * n * 2 * heads * head)
        assert cost["dense_flops_causal"] == 2 * (dense + LAYERS * n * (n + 1) * heads * head)
    assert all(abs(both[key] - sum(usage["cost"][key] for usage in answers)) <= 2 for key in both)


def test_rolling() -> None:
    bos = client.get("/version")["bos_token_id"]
    text = " ".join(TEXT for _ in range(9))
    ids = ids_of(text)
    for max_length, stride in ((32, 32), (32, 8), (len(ids), 5), (500, 500), (7, 1)):
        got = client.post(
            "/v1/loglikelihood_rolling",
            {"text": text, "max_length": max_length, "stride": stride, "tokens": True, "bucket_edges": [0, 1, 8, 64]},
        )
        one, want, done = got["results"][0], [], 0
        row = [bos, *ids]
        while done < len(ids):
            scored = min(stride if done else max_length, len(ids) - done)
            window = row[max(0, done + scored - max_length) : done + scored + 1]
            want += score([window], max_tokens=0)["choices"][0]["logprobs"]["token_logprobs"][-scored:]
            done += scored
        assert one["tokens"] == ids and one["token_logprobs"] == want, (max_length, stride)
        assert abs(one["logprob"] - sum(want)) < 1e-6 * len(ids) and one["num_bytes"] == len(text.encode())
        for way in ("by_context", "by_position"):
            assert sum(one["buckets"][way]["num_tokens"]) == len(ids) and one["buckets"][way]["num_tokens"][0] == 0
            assert abs(sum(one["buckets"][way]["logprob"]) - one["logprob"]) < 1e-6 * len(ids)
    check_rolling_routing(text, ids, bos)
    both = client.post("/v1/loglikelihood_rolling", {"texts": [text, ids, ""], "max_length": 64})["results"]
    assert both[0]["logprob"] == both[1]["logprob"] and both[1]["num_bytes"] is None and both[2]["num_tokens"] == 0
    bare = client.post("/v1/loglikelihood_rolling", {"text": ids, "add_bos": False, "max_length": 500, "tokens": True})["results"][0]
    assert bare["token_logprobs"] == score([ids], max_tokens=0)["choices"][0]["logprobs"]["token_logprobs"][1:]


def test_big_echo() -> None:
    n = client.get("/version")["max_model_len"] + 1  # of which the last is not fed
    ids = [random.Random(5).randrange(3, 16000) for _ in range(n)]
    found = entries(score([ids], max_tokens=0, logprobs=20)["choices"][0])
    assert len(found) == n and all(f[1] is not None for f in found[1:])


if __name__ == "__main__":
    with Process("--dtype", "f32", "--max-model-len", "512") as server:  # under sanitizers every position costs
        client = server.client
        status = run_tests(globals())
    sys.exit(status)
