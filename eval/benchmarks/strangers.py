#!/usr/bin/env python3
"""What clients without a key take from those with one.

Starts `dtrnet serve` with a key and times one-token scores of a key holder, on a kept connection and on new ones, and /health on new ones,
while nobody else is there and while strangers are: 1,000 connections that send a head a byte a second, or 1,000 that have sent half a body
and go on a byte a second. All open another when the server ends theirs. Quiet and attacked periods take turns, so that other work on the
machine meets both. Exit status 1 if a key holder's median is over 1.5 times that of the quiet periods, or /health took over 100 ms.

usage: strangers.py [--seconds 10] [--rounds 4] [--strangers 1000] [--program build/dtrnet] [--model DIR] [FLAGS FOR SERVE]
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import http.client
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEY = "sekret"
BODY = json.dumps({"requests": [{"context": [5, 6, 7, 8], "continuations": [[9]]}]})
ATTACKS = {
    "slow heads": b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 60000,
    "half bodies": b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b"{" * 60000,
}
AT_ONCE = {"slow heads": 1, "half bodies": 30080}  # bytes, before one a second


async def stranger(port: int, name: str) -> None:
    """One connection after another."""
    data, at_once = ATTACKS[name], AT_ONCE[name]
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data[:at_once])
            for i in range(at_once, len(data)):
                await asyncio.sleep(1)
                if reader.at_eof() or writer.is_closing():
                    break
                writer.write(data[i : i + 1])
            writer.close()
        await asyncio.sleep(0.1)


async def attack(port: int, name: str, n: int) -> None:
    """Tells when all have begun; ends when it is killed."""
    strangers = [asyncio.create_task(stranger(port, name)) for _ in range(n)]
    await asyncio.sleep(3)
    print("there", flush=True)
    await asyncio.gather(*strangers)


@contextlib.contextmanager
def strangers(port: int, name: str, n: int) -> Iterator[None]:
    """N of them, in a process of their own."""
    command = [sys.executable, __file__, "--attack", name, "--port", str(port), "--strangers", str(n)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "there\n"
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Holder:
    """Who has the key; seconds by (period, what was asked)."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.kept = self.connect()
        self.took: dict[tuple[str, str], list[float]] = collections.defaultdict(list)

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def score(self, connection: http.client.HTTPConnection) -> None:
        """One token."""
        connection.request("POST", "/v1/loglikelihood", BODY, {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status == 200, data

    def score_on_new(self) -> None:
        """With the opening of its connection."""
        connection = self.connect()
        self.score(connection)
        connection.close()

    def health(self) -> None:
        """Without a key, on a new connection."""
        connection = self.connect()
        connection.request("GET", "/health")
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        connection.close()

    def ask_for(self, seconds: float, period: str) -> None:
        """Asks one after the other, some twenty times a second."""
        asked: dict[str, Callable[[], None]] = {
            "score, kept connection": lambda: self.score(self.kept),
            "score, new connection": self.score_on_new,
            "/health, new connection": self.health,
        }
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for what, ask in asked.items():
                begin = time.monotonic()
                ask()
                self.took[period, what].append(time.monotonic() - begin)
                time.sleep(0.05)


def measure(holder: Holder, args: argparse.Namespace) -> None:
    """Quiet and attacked periods in turn."""
    holder.ask_for(2, "warming up")
    for i in range(args.rounds):
        for name in ATTACKS:
            holder.ask_for(args.seconds / 2, "quiet")
            with strangers(holder.port, name, args.strangers):
                holder.ask_for(args.seconds, name)
            time.sleep(1)
        print(f"round {i + 1} of {args.rounds}, load {os.getloadavg()[0]:.1f}", flush=True)


def report(took: dict[tuple[str, str], list[float]]) -> int:
    """A table; how many figures are beyond their bars."""
    bad = 0
    for (period, what), seconds in sorted(took.items(), key=lambda item: item[0][1]):
        if period == "warming up":
            continue
        seconds.sort()
        median, quiet = statistics.median(seconds), statistics.median(took["quiet", what])
        beyond = median > 1.5 * quiet or (what.startswith("/health") and period != "quiet" and seconds[-1] > 0.1)
        bad += beyond
        print(f"{what:24s} {period:12s} {len(seconds):5d} times, median {1e3 * median:7.2f} ms ({median / quiet:.2f} x quiet), "
              f"95 % {1e3 * seconds[len(seconds) * 95 // 100]:7.2f} ms, most {1e3 * seconds[-1]:7.2f} ms{'  BEYOND' * beyond}")  # fmt: skip
    return bad


def main() -> int:
    """Reads the flags and starts the server; the exit status."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seconds", type=float, default=10, help="of an attacked period; a quiet one has half")
    ap.add_argument("--rounds", type=int, default=4)
    ap.add_argument("--strangers", type=int, default=1000)
    ap.add_argument("--program", default=str(ROOT / "build" / "dtrnet"))
    ap.add_argument("--model", default=str(ROOT / "models" / "dtrnet-26m"))
    ap.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    ap.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args, flags = ap.parse_known_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.attack:
        asyncio.run(attack(args.port, args.attack, args.strangers))
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        command = [args.program, "serve", "--port", "0", "--model", args.model, "--api-key", KEY, *flags]
        process = subprocess.Popen(command, stderr=log, env={**os.environ, "DTRNET_SHUTDOWN_DELAY": "0"})
        try:
            while not (found := re.search(r"listening on http://[\d.]+:(\d+)", Path(log.name).read_text())):
                if process.poll() is not None:
                    sys.exit(f"the server ended:\n{Path(log.name).read_text()}")
                time.sleep(0.05)
            holder = Holder(int(found[1]))
            measure(holder, args)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
    return 1 if report(holder.took) else 0


if __name__ == "__main__":
    sys.exit(main())
