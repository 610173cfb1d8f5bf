"""What clients without a key, and slow ones, can take from the others: nothing but a place that waits for nothing.

Nothing here is timed: what must go on is asked, and fails by its socket's own time limit.
"""

import contextlib
import json
import re
import resource
import select
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from http_support import Client, Process, begun, run_tests
from server_process import PATIENCE_S

BODY = json.dumps({"prompt": [5, 6], "max_tokens": 1}).encode()
KEY = {"Authorization": "Bearer sekret"}


def head(length: int | str, *headers: str, path: str = "/v1/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


@contextlib.contextmanager
def sockets(server: Process, n: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    """N connections that have sent `data`."""
    held = [socket.create_connection((server.client.host, int(server.client.port)), timeout=PATIENCE_S) for _ in range(n)]
    for s in held:
        with contextlib.suppress(OSError):
            s.sendall(data)
    try:
        yield held
    finally:
        for s in held:
            s.close()


def serves(server: Process) -> None:
    """Probes and key holders on new connections."""
    assert Client(server.url).get("/health")["status"] == "ok" and Client(server.url).get("/ready")["status"] == "ok"
    assert Client(server.url, "sekret").call("POST", "/v1/completions", BODY).status == 200


def test_refused_before_the_body() -> None:
    with Process("--api-key", "sekret") as server:
        for size in (64 << 20, 10**18):
            with sockets(server, 3, head(size)) as held:
                for s in held:
                    answer = s.recv(4096)
                    assert answer.startswith(b"HTTP/1.1 401 ") and b"Connection: close" in answer, answer
                    serves(server)
        with sockets(server, 1, head(len(BODY), "Expect: 100-continue")) as (s,):
            assert s.recv(4096).startswith(b"HTTP/1.1 401 ")
        with sockets(server, 1, b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n") as (s,):
            assert s.recv(4096).startswith(b"HTTP/1.1 401 ")
        stranger = Client(server.url)
        for _ in range(3):  # small bodies are read and dropped: the connection lives on
            assert stranger.call("POST", "/v1/completions", b"{" * 60000).status == 401
        for path, status in (("/nowhere", 404), ("/health", 405)):
            assert stranger.call("POST", path, BODY, check=False).status == status
        assert stranger.call("GET", "/health", b"x" * 100000).status == 413
        with sockets(server, 1, head(100000, path="/nowhere")) as (s,):
            assert s.recv(4096).startswith(b"HTTP/1.1 404 ")


def test_slow_strangers_hold_no_place() -> None:
    """Ten times as many connections as there are places, with nothing, a letter, half a head, or half of a body that is refused."""
    with Process("--api-key", "sekret", "--max-connections", "30") as server:
        for data in (b"", b"P", head(100)[:-3], head(1000) + b"{" * 500, head(50 << 20)):
            with sockets(server, 300, data) as held:
                serves(server)
                for s in held[-20:]:
                    with contextlib.suppress(OSError):
                        s.sendall(b"x")
                serves(server)
        serves(server)


def test_a_burst_beyond_all_places() -> None:
    """With the default places: more connections at once than are kept in all, none of which ends by itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    n = min(2000, hard - 200) if hard > 0 else 2000
    with Process("--api-key", "sekret") as server:
        for data in (b"GET /he", head(1000) + b"{" * 500):
            with sockets(server, n, data):
                serves(server)
        serves(server)


def test_slow_bodies_give_way() -> None:
    """Without keys at all, bodies of which nothing comes any more are the last to give way."""
    with Process("--max-connections", "10") as server, sockets(server, 100, head(1000) + b"{" * 500):
        for _ in range(3):
            assert Client(server.url).get("/health")["status"] == "ok"
        assert Client(server.url).call("POST", "/v1/completions", BODY).status in (200, 503)


def test_probes_get_through_when_all_work() -> None:
    endless = {"prompt": [5, 6], "n": 128, "max_tokens": 1500, "ignore_eos": True, "stream": True}
    with Process("--max-connections", "2", "--transfer-period", "3600") as server:
        server.client.connection.close()
        with server.ask(endless) as first, server.ask(endless) as second:  # nobody reads these
            assert begun(first) and begun(second)
            for _ in range(3):
                probe = Client(server.url).call("GET", "/health")
                assert probe.status == 200 and probe.headers["connection"] == "close"
            with sockets(server, 24, head(len(BODY)) + BODY) as waiting:  # 16 may wait for a place
                for _ in range(24 - 16):
                    refused = select.select(waiting, [], [], PATIENCE_S)[0][0]
                    waiting.remove(refused)
                    answer = refused.recv(4096)
                    assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in answer and b"in use" in answer, answer
                    refused.close()
                assert Client(server.url).call("GET", "/health").status == 200
                first.close()
                for s in waiting:
                    assert s.recv(100).startswith(b"HTTP/1.1 200 ")


def read_all(s: socket.socket) -> bytes:
    """Until the server ends the connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):  # it closed before it read
        while piece := s.recv(4096):
            data += piece
    return data


def test_deadlines() -> None:
    with Process(
        "--header-timeout", "1", "--idle-timeout", "2", "--transfer-period", "1", "--min-rate", "1M", "--log-level", "debug"
    ) as server:
        for data in (b"", b"GET /he", head(100)[:-2], head(5000) + b"{" * 4000):
            with sockets(server, 1, data) as (s,):
                assert read_all(s) == b"", data
        answer, until = b"", time.monotonic() + PATIENCE_S
        while b"ok" not in answer:  # where a second passes before the request is read there is none
            with sockets(server, 1, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as (s,):
                answer = read_all(s)
            assert time.monotonic() < until, "never answered"
        for why in ("--header-timeout", "--idle-timeout", "--min-rate"):
            assert why in server.text(), why


def test_key_file() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys"
        path.write_text("# of two teams\nteam-a sekret\nteam-b anders\n")
        with Process("--api-key-file", str(path)) as server:
            for key, name in (("sekret", "team-a"), ("anders", "team-b")):
                assert Client(server.url, key).call("POST", "/v1/completions", BODY).status == 200
                server.wait_for(rf"method=POST path=/v1/completions status=200 duration_ms=[\d.]+ tokens=\d+ rows=\d+ client={name}")
            for wrong in (None, "team-a", "sekre", "sekret anders"):
                assert Client(server.url, wrong).call("POST", "/v1/completions", BODY).status == 401
            assert not re.search("sekret|anders", server.text().split("listening")[1])


if __name__ == "__main__":
    sys.exit(run_tests(globals()))
