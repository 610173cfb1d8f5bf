#!/usr/bin/env python3
"""What a one-token score waits for beside each load that would take a whole server, in steps and seconds.

Two clients with keys of their own: one makes the load, the other asks for one score after another for --seconds. Steps are the
server's own count (dtrnet_start_steps of /metrics, lane "alone"): launched from a request's submission to the one with its first
row. The share is what the load computed a second beside the scores, over what it did before them. Last, what a score waits for beside
n 128 x 60 tokens that are drawn, over the same beside greedy ones, by turns: medians of --pairs. Needs only Python.

usage: fairness.py [--dtrnet build/dtrnet] [--model DIR] [--seconds 10] [--scale 1] [SERVER ARGUMENT ...]
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import select
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STEPS = re.compile(r'dtrnet_start_steps_bucket\{lane="alone",le="([^"]+)"\} (\d+)')


def ids(n: int) -> list[int]:
    """Random token ids."""
    return [random.randrange(5, 4000) for _ in range(n)]


class Server:
    """`dtrnet serve` with a key for each of two clients."""

    def __init__(self, program: str, arguments: list[str]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        keys = Path(self.folder.name) / "keys"
        keys.write_text("load key-of-load\nscore key-of-score\n")
        keys.chmod(0o600)
        command = [program, "serve", "--port", "0", "--api-key-file", str(keys), *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "listening on" in line:
                self.port = int(line.rsplit(":", 1)[1])
                break
        else:
            raise SystemExit("the server did not start")

    def ask(self, key: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {"Authorization": f"Bearer key-of-{key}", "Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {data[:300]!r}")
        return data.decode() if path == "/metrics" else json.loads(data)

    def send(self, path: str, body: dict[str, Any]) -> socket.socket:
        """A request of the load, whose answer nobody reads."""
        data = json.dumps(body, separators=(",", ":")).encode()
        s = socket.create_connection(("127.0.0.1", self.port))
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key-of-load\r\nContent-Type: application/json\r\n"
        s.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(data) + data)
        return s

    def rows(self) -> float:
        """Rows that were computed so far, of prompts and of generation."""
        text = self.ask("score", "/metrics")
        return sum(float(m) for m in re.findall(r"^dtrnet_rows_(?:computed|rescored)_total (\S+)", text, re.M))

    def starts(self) -> list[tuple[str, int]]:
        """Scores by the steps within which they began."""
        return [(le, int(n)) for le, n in STEPS.findall(self.ask("score", "/metrics"))]


def load(name: str, scale: float, longest: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Paths and bodies of a load."""
    endless = {"ignore_eos": True, "temperature": 0}
    if name in ("n 128 x 1,500 tokens", "all at once"):
        yield "/v1/completions", {"prompt": ids(3), "n": 128, "max_tokens": min(1500, longest - 8), **endless}
    if name in ("640 sequences of generation", "all at once"):
        yield "/v1/completions", {"prompt": [ids(3) for _ in range(5)], "n": 128, "max_tokens": min(256, longest - 8), **endless}
    if name in ("65,536 continuations", "all at once"):
        n = max(1, int(4096 * scale))
        yield "/v1/loglikelihood", {"requests": [{"context": ids(4), "continuations": [ids(10) for _ in range(n)]} for _ in range(16)]}
    if name in ("20k prompts", "all at once"):
        n = min(20000, longest - 8)
        yield "/v1/completions", {"prompt": [ids(n) for _ in range(max(2, int(40000 * 8 * scale) // n))], "max_tokens": 1}


def percentile(starts: list[tuple[str, int]], before: list[tuple[str, int]]) -> tuple[int, str]:
    """How many scores began, and the steps within which the last of them did."""
    counts = [(le, n - m) for (le, n), (_, m) in zip(starts, before)]
    total = counts[-1][1]
    return total, next(le for le, n in counts if n == total)


def run(server: Server, name: str, seconds: float, scale: float, longest: int) -> None:
    """One load, and its line of the table."""
    sockets = [server.send(path, body) for path, body in load(name, scale, longest)]
    time.sleep(3)
    begin, rows = time.perf_counter(), server.rows()
    time.sleep(seconds / 2)
    alone = (server.rows() - rows) / (time.perf_counter() - begin)
    before, took = server.starts(), []
    begin, rows = time.perf_counter(), server.rows()
    while time.perf_counter() - begin < seconds:
        at = time.perf_counter()
        server.ask("score", "/v1/loglikelihood", {"requests": [{"context": ids(9), "continuations": [ids(1)]}]})
        took.append(time.perf_counter() - at)
    beside = (server.rows() - rows - 9 * len(took)) / (time.perf_counter() - begin)
    n, steps = percentile(server.starts(), before)
    share = f"{beside / alone:5.2f}" if alone and name != "nothing" else "    -"
    print(f"{name:30} {n:6} {steps:>6} {statistics.median(took):9.3f} {max(took):9.3f}   {share}", flush=True)
    for s in sockets:
        s.close()
    while re.search(r"^dtrnet_running_sequences [1-9]", server.ask("score", "/metrics"), re.M):
        time.sleep(0.1)


def beside_tokens(server: Server, temperature: float, longest: int) -> tuple[list[float], float]:
    """Seconds of the scores asked for while n 128 x 60 tokens are generated, and of the generation."""
    body = {"prompt": ids(3), "n": 128, "max_tokens": min(60, longest - 8), "ignore_eos": True, "temperature": temperature, "seed": 1}
    begin, took = time.perf_counter(), []
    load = server.send("/v1/completions", body)
    while True:
        at = time.perf_counter()
        server.ask("score", "/v1/loglikelihood", {"requests": [{"context": ids(9), "continuations": [ids(1)]}]})
        if select.select([load], [], [], 0)[0]:
            load.close()
            return took, time.perf_counter() - begin
        took.append(time.perf_counter() - at)


def run_drawn(server: Server, pairs: int, longest: int) -> None:
    """Drawn tokens over greedy ones."""
    scores, loads = [], []
    for i in range(pairs + 1):
        greedy, drawn = (beside_tokens(server, temperature, longest) for temperature in (0, 1))
        if not i or not greedy[0] or not drawn[0]:  # the first pair warms up
            continue
        scores.append((statistics.median(greedy[0]), statistics.median(drawn[0])))
        loads.append((greedy[1], drawn[1]))
    for name, both in (("a score", scores), ("the generation", loads)):
        medians = [statistics.median(column) for column in zip(*both)]
        ratio = statistics.median(drawn / greedy for greedy, drawn in both)
        print(
            f"n 128 x 60 tokens, {name}: greedy {medians[0]:.4f} s, drawn {medians[1]:.4f} s, ratio {ratio:.2f} ({len(both)} pairs)",
            flush=True,
        )


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtrnet", default=str(ROOT / "build" / "dtrnet"))
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--scale", type=float, default=1, help="of continuations and of long prompts")
    parser.add_argument("--pairs", type=int, default=7, help="of drawn and greedy generations")
    parser.add_argument("--only-drawn", action="store_true", help="nothing but these")
    options, arguments = parser.parse_known_args()
    server = Server(options.dtrnet, arguments)
    longest = server.ask("score", "/v1/models")["data"][0]["max_model_len"]
    loads = ("nothing", "n 128 x 1,500 tokens", "640 sequences of generation", "65,536 continuations", "20k prompts", "all at once")
    if not options.only_drawn:
        print(f"{'beside':30} {'scores':>6} {'steps':>6} {'median s':>9} {'worst s':>9}   share of the load")
    for name in () if options.only_drawn else loads:
        run(server, name, options.seconds, options.scale, longest)
    run_drawn(server, options.pairs, longest)
    server.process.terminate()
    server.process.wait()


if __name__ == "__main__":
    main()
