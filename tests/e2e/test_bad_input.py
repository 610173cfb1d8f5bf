"""Bad requests, one table: every field of every endpoint with a wrong type, below and above its range, and bodies and bytes that are
no requests at all. Each gets a 4xx in OpenAI's error shape that names the field, and the server goes on serving.
"""

import json
import random
import socket
import struct
import sys
import time
from typing import Any

from http_support import Client, Process, run_tests
from server_process import PATIENCE_S

server: Process
client: Client
PROMPT = {"prompt": "x", "max_tokens": 1}
SCORE = {"requests": [{"context": "a", "continuations": [" b"]}]}
ROLL = {"text": "some words"}
WRONG = {
    "int": ["1", 1.5, [], {}, True],
    "number": ["1", [], {}, True],
    "bool": ["true", 1, [], {}],
    "string": [[], {}, True, 1.5],
}
HUGE = [10**18, -(10**18)]

# endpoint, a good body, field, its kind, values out of range
FIELDS: list[tuple[str, dict[str, Any], str, str, list[Any]]] = [
    ("/v1/completions", PROMPT, "max_tokens", "int", [-1, 100000, *HUGE]),
    ("/v1/completions", PROMPT, "logprobs", "int", [-1, 21, *HUGE]),
    ("/v1/completions", PROMPT, "n", "int", [0, 129, *HUGE]),
    ("/v1/completions", PROMPT, "best_of", "int", [0, 2, 129, *HUGE]),
    ("/v1/completions", PROMPT, "top_k", "int", [-2, *HUGE]),
    ("/v1/completions", PROMPT, "temperature", "number", [-0.1, 2.1, 1e300, *HUGE]),
    ("/v1/completions", PROMPT, "top_p", "number", [0, -0.1, 1.1, 1e300]),
    ("/v1/completions", PROMPT, "seed", "int", [2**63, -(2**64), 1e30]),
    ("/v1/completions", PROMPT, "echo", "bool", []),
    ("/v1/completions", PROMPT, "stream", "bool", []),
    ("/v1/completions", PROMPT, "ignore_eos", "bool", []),
    ("/v1/completions", PROMPT, "add_bos", "bool", []),
    ("/v1/completions", PROMPT, "return_tokens_as_token_ids", "bool", []),
    ("/v1/completions", PROMPT, "skip_special_tokens", "bool", []),
    ("/v1/completions", PROMPT, "include_stop_str_in_output", "bool", []),
    ("/v1/completions", PROMPT, "stop_token_ids", "", [5, "a", {}, ["a"], [-1], [16384], [1.5], [[1]], [5] * 4097]),
    ("/v1/completions", PROMPT, "presence_penalty", "number", [-2.1, 2.1, 1e300]),
    ("/v1/completions", PROMPT, "frequency_penalty", "number", [-2.1, 2.1]),
    ("/v1/completions", PROMPT, "repetition_penalty", "number", [0, -1, 101]),
    ("/v1/completions", PROMPT, "min_p", "number", [-0.1, 1.1]),
    ("/v1/completions", PROMPT, "min_tokens", "int", [-1, 2, *HUGE]),
    (
        "/v1/completions",
        PROMPT,
        "logit_bias",
        "",
        [5, "a", [5], {"a": 1}, {"-1": 1}, {"16384": 1}, {"05": 1}, {"5": "x"}, {"5": 101}, {"": 1}, {str(i): 0 for i in range(4097)}],
    ),
    ("/v1/completions", PROMPT, "prompt_logprobs", "int", [-1, 21, *HUGE]),
    ("/v1/completions", {**PROMPT, "stream": True}, "prompt_logprobs", "", [1]),
    ("/v1/completions", PROMPT, "model", "string", ["a\0b"]),
    ("/v1/completions", PROMPT, "stream_options", "", [5, [], {"include_usage": True}]),
    ("/v1/completions", {**PROMPT, "stream": True}, "stream_options", "", [5, [], {"include_usage": 3}]),
    ("/v1/completions", PROMPT, "stop", "", [5, {}, [5], [""], "", ["a" * 4097], ["a"] * 4097, [["a"]]]),
    (
        "/v1/completions",
        PROMPT,
        "prompt",
        "",
        [
            5,
            True,
            {},
            [],
            [1.5],
            [-1],
            [16384],
            [10**18],
            [[1], "a", [16384]],
            [1, "a"],
            ["a", 1],
            [[1.5]],
            [["a"]],
            [[[1]]],
            [None],
            [{"role": "user", "content": "hi"}],
            [5] * 3000,
            ["a"] * 70000,
        ],
    ),
    ("/v1/completions", {"prompt": [[5]] * 500, "n": 128, "logprobs": 20}, "max_tokens", "int", [2000]),
    *[
        ("/v1/completions", PROMPT, name, "", [value])
        for name, value in {
            "suffix": "x",
            "use_beam_search": True,
            "bad_words": ["a"],
            "response_format": {"type": "json_object"},
            "guided_json": {"a": 1},
            "structured_outputs": {"regex": "a"},
            "n_predict": 5,
            "xtc_probability": 0.5,
            "grammar": "root ::= a",
            "add_special_tokens": True,
            "truncate_prompt_tokens": 5,
            "length_penalty": 0.9,
        }.items()
    ],
    ("/v1/loglikelihood", SCORE, "max_length", "int", [0, -1, 2049, *HUGE]),
    ("/v1/loglikelihood", SCORE, "add_bos", "bool", []),
    ("/v1/loglikelihood", SCORE, "routing", "bool", []),
    ("/v1/loglikelihood", SCORE, "tokens", "bool", []),
    ("/v1/loglikelihood", SCORE, "truncate", "", ["right", 1, [], {}]),
    ("/v1/loglikelihood", SCORE, "model", "string", []),
    ("/v1/loglikelihood", SCORE, "requests", "", [5, "a", {}, [], [5], [[]], None]),
    ("/v1/loglikelihood_rolling", ROLL, "max_length", "int", [0, -1, 2049, *HUGE]),
    ("/v1/loglikelihood_rolling", ROLL, "stride", "int", [0, -1, 2049, *HUGE]),
    ("/v1/loglikelihood_rolling", {**ROLL, "max_length": 8}, "stride", "int", [9]),
    ("/v1/loglikelihood_rolling", ROLL, "add_bos", "bool", []),
    ("/v1/loglikelihood_rolling", ROLL, "tokens", "bool", []),
    ("/v1/loglikelihood_rolling", {**ROLL, "bucket_edges": [0]}, "routing", "bool", []),
    ("/v1/loglikelihood_rolling", ROLL, "routing", "", [True]),
    ("/v1/loglikelihood_rolling", ROLL, "bucket_edges", "", [5, "a", {}, [-1], [1, 1], [2, 1], ["a"], [1.5], [10**18], list(range(1025))]),
    ("/v1/loglikelihood_rolling", {}, "text", "", [5, True, {}, [-1], [16384], ["a"], None]),
    ("/v1/loglikelihood_rolling", {}, "texts", "", [5, "a", {}, [], [5], [[16384]], ["a"] * 4097]),
    ("/v1/routing", {"text": "a"}, "add_bos", "bool", []),
    ("/v1/routing", {"text": "a"}, "probabilities", "bool", []),
    ("/v1/routing", {"text": "a"}, "top_logprobs", "int", [-1, 21, *HUGE]),
    ("/v1/routing", {"text": "a"}, "model", "string", []),
    ("/v1/routing", {}, "text", "", [5, True, {}, [-1], [16384], ["a"], [5] * 2049, None]),
    ("/tokenize", {"prompt": "x"}, "prompt", "string", [None, [{"role": "user", "content": "hi"}]]),
    ("/tokenize", {}, "content", "string", []),
    ("/tokenize", {"prompt": "x"}, "add_special_tokens", "bool", []),
    ("/detokenize", {}, "tokens", "", [None, 5, "a", {}, ["a"], [1.5], [-1], [16384], [10**18], [[1]]]),
]
PAIRS: list[Any] = [
    {"context": "a"}, {"continuations": ["b"]}, {"context": None, "continuations": ["b"]}, {"context": 5, "continuations": ["b"]},
    {"context": "a", "continuations": "b"}, {"context": "a", "continuations": []}, {"context": "a", "continuations": [5]},
    {"context": "a", "continuations": [[5]]}, {"context": [5], "continuations": ["a"]}, {"context": [5], "continuations": [[]]},
    {"context": "a", "continuations": [""]}, {"context": [16384], "continuations": [[5]]}, {"context": [5], "continuations": [[-1]]},
    {"context": [], "continuations": [[1]]}, {"context": [5], "continuations": [[5] * 3000]},
    {"context": "a", "continuations": ["b"] * 4097},
]  # fmt: skip
BODIES: list[bytes] = [
    b"", b" ", b"{", b"}", b"[]", b"null", b"5", b'"a"', b"nonsense", b'{"prompt": }', b'{"prompt": "x"', b'{"prompt": "x"} x',
    b"{'prompt': 'x'}",
    b'{"prompt": "x", "prompt": "y"}', b'{"prompt": "\x00"}', b'{"prompt": "\xff\xfe"}',
    b'{"prompt": "\xed\xa0\x80"}',
    b'{"prompt": "\\ud800"}', b'{"max_tokens": 1' + b"0" * 5000 + b', "prompt": "x"}', b'{"temperature": 1e999, "prompt": "x"}',
    b'{"temperature": NaN, "prompt": "x"}', b"\xef\xbb\xbf{}", b"[" * 100000, b'{"a":' * 100000,
    b'{"prompt":' + b"[" * 65 + b"]" * 65 + b"}",
    b'{"prompt": "x"}\x00', b'{"' + b"k" * 1000000 + b'": 1}', b"\x1f\x8b\x08\x00", bytes(range(256)),
]  # fmt: skip


def is_refused(
    path: str, body: Any, field: str | None, headers: dict[str, str] | None = None, statuses: tuple[int, ...] = (400, 413)
) -> None:
    answer = client.call("POST", path, body, headers=headers)
    shown = body if isinstance(body, bytes) else json.dumps(body)
    assert answer.status in statuses, (path, shown[:200], answer.status, answer.data[:200])
    error = answer.json["error"]
    if field:
        assert field in (error["param"] or "") or field in error["message"], (path, shown[:200], error)


def still_serves() -> None:
    fresh = Client(server.url)
    assert fresh.post("/v1/completions", {"prompt": "The old man", "max_tokens": 1, "temperature": 0})["choices"]
    assert fresh.get("/health")["status"] == "ok"


def test_fields() -> None:
    n = 0
    for path, good, field, kind, values in FIELDS:
        for value in [*values, *WRONG.get(kind, [])]:
            is_refused(path, {**good, field: value}, field)
            n += 1
    print(f"        {n} cases")
    still_serves()


def test_pairs() -> None:
    for pair in PAIRS:
        is_refused("/v1/loglikelihood", {"requests": [SCORE["requests"][0], pair]}, "requests[1]")
    is_refused(
        "/v1/loglikelihood",
        {"requests": [{"context": [5] * 30, "continuations": [[6]]}], "max_length": 20, "truncate": False},
        "requests[0]",
    )
    is_refused("/v1/loglikelihood", {"requests": [{"context": [5], "continuations": [[6]] * 4000}] * 17}, "requests")
    is_refused("/v1/loglikelihood_rolling", {"text": [5] * 70000, "max_length": 4, "stride": 1}, "stride")
    is_refused("/v1/loglikelihood_rolling", {"text": "a", "texts": ["b"]}, "text")
    is_refused("/v1/loglikelihood_rolling", {"text": [], "add_bos": False}, "text")
    still_serves()


def test_bodies() -> None:
    for path in ("/v1/completions", "/v1/loglikelihood", "/v1/loglikelihood_rolling", "/v1/routing", "/tokenize", "/detokenize"):
        for body in BODIES:
            is_refused(path, body, None)
    is_refused("/tokenize", b'{"prompt": "x"}', "Content-Encoding", headers={"Content-Encoding": "gzip"})
    still_serves()


def test_truncations() -> None:
    whole = json.dumps({"prompt": ["é😀\n", "b"], "logprobs": 1, "stop": ["a"]}).encode()
    for n in range(len(whole)):
        is_refused("/v1/completions", whole[:n], None)


def test_mutations() -> None:
    """Random bytes in good bodies: whatever the answer, it is well formed and the server lives."""
    draw = random.Random(1)
    goods = [
        ("/v1/completions", {**PROMPT, "logprobs": 1, "stop": ["a"]}),
        ("/v1/loglikelihood", SCORE),
        ("/v1/loglikelihood_rolling", ROLL),
        ("/v1/routing", {"text": [5, 6], "top_logprobs": 2}),
        ("/detokenize", {"tokens": [5, 6]}),
    ]
    for _ in range(600):
        path, good = draw.choice(goods)
        body = bytearray(json.dumps(good).encode())
        for _ in range(draw.randint(1, 4)):
            body[draw.randrange(len(body))] = draw.choice(b'{}[],:"0129eE.-\\ntf\x00\xff ')
        assert client.call("POST", path, bytes(body)).status in (200, 400)
    still_serves()


def test_too_large() -> None:
    small = Process("--max-body", "100K", "--dtype", "f32")
    with small:
        one = small.client
        body = json.dumps({"prompt": "x" * 90000}).encode()
        assert one.call("POST", "/tokenize", body).status == 200
        for size in (110_000, 350_000):  # read to the end, so that the client sees the answer
            answer = one.call("POST", "/tokenize", b"x" * size)
            assert answer.status == 413 and "102400" in answer.json["error"]["message"], answer.data
        with socket.create_connection((one.host, int(one.port))) as s:  # told before it is sent
            s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            assert b" 413 " in s.recv(4096)
        with socket.create_connection((one.host, int(one.port))) as s:  # chunked, without end
            s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(200):
                    s.sendall(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
                assert s.recv(4096) == b""
            except OSError:
                pass
        assert one.get("/health")["status"] == "ok"


def raw(data: bytes, reset: bool = False) -> bytes:
    """Sends bytes and closes; what came back before that."""
    with socket.create_connection((client.host, int(client.port)), timeout=PATIENCE_S) as s:
        try:  # a server that has refused the head may be gone
            s.sendall(data)
            if reset:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b""
            s.shutdown(socket.SHUT_WR)
            return s.recv(65536)
        except OSError:
            return b""


def test_broken_connections() -> None:
    body = json.dumps(PROMPT).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    good = head % len(body) + body
    for n in range(0, len(good), 7):
        raw(good[:n])
        raw(good[:n], reset=True)
    for junk in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 1000, b"A" * 100000,
                 head % 5 + b"{}",
                 b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"GET /%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"GET /" + b"a" * 60000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /health HTTP/1.1\r\n" + b"X-A: b\r\n" * 20000 + b"\r\n",
                 b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):  # fmt: skip
        raw(junk)
    still_serves()


def test_disconnect_frees_the_work() -> None:
    """A client that leaves in the middle of a generation has its sequences cancelled, streamed or not."""
    for stream in (False, True):
        before = server.metric("dtrnet_sequences_cancelled_total")
        body = {"prompt": [[5, i] for i in range(10, 18)], "n": 128, "max_tokens": 2000, "ignore_eos": True, "stream": stream}
        with server.ask(body):  # for longer than this sleeps, on any machine
            server.wait_metric("dtrnet_running_sequences", lambda n: n >= 8)
        server.wait_metric("dtrnet_sequences_cancelled_total", lambda n, before=before: n == before + 8 * 128)
    still_serves()


def ask_half_closed(body: dict[str, Any], version: str = "1.1") -> bytes:
    """Sends a request, closes the sending half, and reads to the end."""
    data = json.dumps(body).encode()
    with socket.create_connection((client.host, int(client.port)), timeout=PATIENCE_S) as s:
        s.sendall(b"POST /v1/completions HTTP/%s\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (version.encode(), len(data)) + data)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while piece := s.recv(65536):
            got += piece
    return got


def test_half_closed_clients_get_their_answer() -> None:
    long = {"prompt": [5, 6], "max_tokens": 40, "ignore_eos": True, "temperature": 0}
    want = client.post("/v1/completions", long)["choices"][0]["text"]
    for version in ("1.1", "1.0"):
        for more in ({}, {"stop": ["never there"]}):
            head, _, data = ask_half_closed({**long, **more}, version).rpartition(b"\r\n\r\n")
            assert head.count(b" 200 OK") == 1 and json.loads(data)["choices"][0]["text"] == want, (version, head)
            assert version == "1.1" or b"100 Continue" not in head
        streamed = ask_half_closed({**long, "stream": True}, version)
        assert b" 200 OK" in streamed and b"data: [DONE]" in streamed, streamed[-200:]
    whole, until = b"", time.monotonic() + PATIENCE_S
    while b"\n:\n" not in whole:  # a comment asks whether the client still reads, unless all was told before its half was seen closed
        assert time.monotonic() < until, "no comment"
        whole = ask_half_closed({**long, "stream": True, "echo": True, "logprobs": 1})
        assert b"data: [DONE]" in whole


if __name__ == "__main__":
    with Process("--dtype", "f32") as server:
        client = server.client
        status = run_tests(globals())
    sys.exit(status)
