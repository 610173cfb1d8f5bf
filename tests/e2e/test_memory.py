"""What requests may hold: bodies that parse to far more than they are, answers that nobody reads, long contexts shared by many
continuations, texts. Counted in bytes of the process: at most twice --request-memory above what it had, and given back after.
Needs nothing beyond Python's standard library.
"""

import contextlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from http_support import Client, Process, run_tests
from server_process import PATIENCE_S

MIB = 1 << 20
BUDGET = 64 * MIB
ENDLESS = {"prompt": [5, 6], "n": 16, "max_tokens": 1500, "ignore_eos": True}  # for longer than a test sleeps, on any machine


class Memory:
    """Resident bytes of a server, now and at most since `begin`."""

    def __init__(self, server: Process) -> None:
        self.folder = Path(f"/proc/{server.process.pid}")
        self.begin()

    def read(self, key: str) -> int:
        found = re.search(rf"^{key}:\s+(\d+) kB", (self.folder / "status").read_text(), re.M)
        assert found
        return int(found[1]) * 1024

    def begin(self) -> None:
        (self.folder / "clear_refs").write_text("5")
        self.before = self.read("VmRSS")

    def grown(self) -> int:
        return self.read("VmHWM") - self.before

    def wait_until_given_back(self, share: float = 0.1) -> None:
        """Within 10 % and a few threads' stacks of before."""
        until = time.monotonic() + PATIENCE_S
        while self.read("VmRSS") > (1 + share) * self.before + 8 * MIB:
            assert time.monotonic() < until, (self.read("VmRSS"), self.before)
            time.sleep(0.1)


@contextlib.contextmanager
def measured(*flags: str) -> Iterator[tuple[Process, Memory]]:
    with Process("--request-memory", str(BUDGET), "--kv-cache-memory", "64M", "--max-model-len", "2000", *flags) as server:
        for _ in range(3):  # threads, buffers and the engine's own memory are there
            server.client.post("/v1/completions", {"prompt": [[7 + i] * 900 for i in range(8)], "max_tokens": 2, "temperature": 0})
        yield server, Memory(server)


def ask(server: Process, path: str, body: bytes, out: list[int]) -> None:
    with contextlib.suppress(OSError):
        out.append(Client(server.url).call("POST", path, body, check=False).status)


def at_once(server: Process, path: str, bodies: list[bytes]) -> list[int]:
    out: list[int] = []
    threads = [threading.Thread(target=ask, args=(server, path, body, out)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def test_bodies_that_grow() -> None:
    with measured() as (server, memory):
        for unit in (b"{}", b"[]", b"1", b'""', b'{"a":{"a":{}}}', b'"some text of some length"'):
            for mib in (1, 6, 63):
                body = b'{"prompt":"a","max_tokens":1,"zz":[' + (unit + b",") * (mib * MIB // (len(unit) + 1)) + b"1]}"
                answer = Client(server.url).call("POST", "/v1/completions", body)
                assert answer.status in (200, 413), (unit, mib, answer.status, answer.data[:200])
                if answer.status == 413:
                    assert "--request-memory" in answer.json["error"]["message"], answer.data
                assert memory.grown() < 2 * BUDGET, (unit, mib, memory.grown() / MIB)
                del body
        memory.wait_until_given_back()


def test_many_large_bodies() -> None:
    with measured() as (server, memory):
        body = json.dumps({"prompt": "some words here " * (MIB // 16), "max_tokens": 1}).encode()  # 1 MiB of text each
        statuses = at_once(server, "/v1/completions", [body] * 12)
        assert set(statuses) <= {400, 503} and 400 in statuses, statuses  # 400: the text is too long for the model
        assert memory.grown() < 2 * BUDGET, memory.grown() / MIB
        memory.wait_until_given_back()


def test_answers_that_nobody_reads() -> None:
    """A body of a few KB whose answer has a hundred MB."""
    ids = [(i * 7) % 16000 + 5 for i in range(1500)]
    body = {"prompt": ids, "n": 128, "max_tokens": 0, "echo": True, "logprobs": 20}
    with measured() as (server, memory):
        held = [server.ask(body) for _ in range(5)]
        heads = [s.recv(12) for s in held]
        assert set(heads) <= {b"HTTP/1.1 200", b"HTTP/1.1 503"} and b"HTTP/1.1 200" in heads, heads
        assert memory.grown() < 2 * BUDGET, memory.grown() / MIB
        for s in held:
            s.close()
        server.wait_metric("dtrnet_http_requests_in_flight", lambda n: n <= 1)
        memory.wait_until_given_back()
        whole = {"prompt": ids[:600], "n": 16, "max_tokens": 0, "echo": True, "logprobs": 20}
        answer = server.client.call("POST", "/v1/completions", whole)
        assert answer.headers.get("transfer-encoding") == "chunked" and len(answer.json["choices"]) == 16 and len(answer.data) > 2 * MIB
        small = server.client.call("POST", "/v1/completions", {**whole, "prompt": ids[:9], "n": 1})
        assert "content-length" in small.headers


def test_memory_is_given_back_after_many_requests() -> None:
    """What small requests held is free when they have ended, but stays with the process unless it is given back."""
    with measured("--log-level", "debug") as (server, memory):
        pool = server.metric("dtrnet_kv_most_bytes")
        for n, told in ((5, r"[4-9]"), (24, r"[12]\d")):
            held = [server.ask(ENDLESS) for _ in range(n)]
            server.wait_metric("dtrnet_http_requests_in_flight", lambda in_flight, n=n: in_flight >= n * 5 // 6)
            for s in held:
                s.close()
            memory.before += int(server.metric("dtrnet_kv_most_bytes") - pool)
            pool = server.metric("dtrnet_kv_most_bytes")
            server.wait_for(f"gave memory back after {told} requests at a time")
            memory.wait_until_given_back()


def test_memory_is_given_back_after_many_connections() -> None:
    """Of clients that ask one at a time, so that there is no burst of requests."""
    with measured("--log-level", "debug") as (server, _):
        held = [socket.create_connection((server.client.host, int(server.client.port))) for _ in range(100)]
        for s in held:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert s.recv(12) == b"HTTP/1.1 200"
        for s in held:
            s.close()
        server.wait_for(r"gave memory back after [0-3] requests at a time on 1\d\d connections")


def test_drawing_gives_memory_back() -> None:
    """Logits of 512 tokens take 32 MiB where all are drawn at once, of which 8 stay (test_drawer); rows of K and V are the pool's."""

    def draw(prompts: int) -> None:
        ids = [[5 + i, 60, 700] for i in range(prompts)]
        answer = server.client.post("/v1/completions", {"prompt": ids, "n": 128, "max_tokens": 2, "temperature": 1, "ignore_eos": True})
        assert len(answer["choices"]) == 128 * prompts

    with measured() as (server, memory):
        draw(1)
        memory.begin()
        pool = server.metric("dtrnet_kv_most_bytes")
        draw(4)
        memory.before += int(server.metric("dtrnet_kv_most_bytes") - pool)
        memory.wait_until_given_back(share=0)


def test_arenas_are_few() -> None:
    """Glibc would have eight a core, and cannot give back what is free at the end of each: here as many as 128 cores have."""
    with Process("--kv-cache-memory", "64M", env={"GLIBC_TUNABLES": "glibc.malloc.arena_max=1024"}) as server:
        held = [server.ask(ENDLESS) for _ in range(40)]
        server.wait_metric("dtrnet_http_requests_in_flight", lambda n: n >= 40)
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        begins = [int(found[1], 16) for found in re.finditer(r"^([0-9a-f]+)-\S+ rw-p \S+ 00:00 0 *$", maps, re.M)]
        arenas = sum(begin % (64 * MIB) == 0 for begin in begins)
        assert 1 < arenas <= 17, arenas
        for s in held:
            s.close()


def test_many_continuations_of_long_contexts() -> None:
    """Each context is there once, not once for each continuation (16 x 4096 x 1900 ids would be 500 MB)."""
    requests = [
        {"context": [5 + j] + [5 + i % 9000 for i in range(1899)], "continuations": [[5 + i] for i in range(4096)]} for j in range(16)
    ]
    body = json.dumps({"requests": requests}, separators=(",", ":")).encode()
    with measured() as (server, memory):
        before = server.metric("dtrnet_sequences_done_total")
        s = server.ask(body, "/v1/loglikelihood")
        server.wait_metric("dtrnet_sequences_done_total", lambda n: n >= before + 200)
        assert memory.grown() < 2 * BUDGET, memory.grown() / MIB
        s.close()
        server.wait_metric("dtrnet_http_requests_in_flight", lambda n: n <= 1)
        memory.wait_until_given_back()


def test_what_can_never_fit_is_told() -> None:
    with measured() as (server, _):
        cases: list[tuple[str, dict[str, Any]]] = [
            ("/v1/completions", {"prompt": [[5, 6]] * 400, "n": 128, "max_tokens": 1, "logprobs": 20}),
            ("/tokenize", {"prompt": "a" * (8 * MIB)}),
            ("/v1/loglikelihood_rolling", {"text": [5, 6] * 60000, "max_length": 2, "stride": 2, "routing": True, "bucket_edges": [0]}),
        ]
        for path, body in cases:
            answer = server.client.call("POST", path, body)
            assert answer.status in (200, 413), (path, answer.data[:300])
            if answer.status == 413:
                assert "--request-memory" in answer.json["error"]["message"], answer.data
        assert server.client.call("POST", "/tokenize", {"prompt": "a" * (8 * MIB)}).status == 413
        assert server.client.get("/health")


if __name__ == "__main__":
    sys.exit(run_tests(globals()))
