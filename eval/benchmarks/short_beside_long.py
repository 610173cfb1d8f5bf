#!/usr/bin/env python3
"""How long short requests take alone, and while long ones run.

A question of 60 tokens with four continuations of 10, one after another over one connection, beside --longs connections that each keep
a fresh prompt of --length tokens in the server. Needs only Python; prints median and 99th percentile of both, and what the long ones take.

usage: short_beside_long.py [--dtrnet build/dtrnet] [--shorts 200] [--longs 2] [--length 20000] [SERVER ARGUMENT ...]
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import threading
import time

from reuse import ROOT, Server, ids


class Asker:
    """One kept connection, and the seconds of every request that it made."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection(server.connection.host, server.connection.port)
        self.seconds: list[float] = []

    def ask(self, context: int, continuations: int, continuation: int) -> None:
        """One question of random tokens."""
        body = json.dumps({"requests": [{"context": ids(context), "continuations": [ids(continuation) for _ in range(continuations)]}]})
        begin = time.perf_counter()
        self.connection.request("POST", "/v1/loglikelihood", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        data = answer.read()
        self.seconds.append(time.perf_counter() - begin)
        if answer.status != 200:
            raise SystemExit(data.decode())


def ask_shorts(server: Server, n: int) -> list[float]:
    """Sorted seconds of n short requests."""
    asker = Asker(server)
    for _ in range(n):
        asker.ask(60, 4, 10)
    return sorted(asker.seconds)


def line(what: str, seconds: list[float]) -> str:
    """Median, 99th percentile and the worst."""
    median, late, worst = (1000 * s for s in (statistics.median(seconds), seconds[-1 - len(seconds) // 100], seconds[-1]))
    return f"{what:34} median {median:8.1f} ms   99 % {late:8.1f}   worst {worst:8.1f}"


def main() -> None:
    """The run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtrnet", default=str(ROOT / "build" / "dtrnet"))
    parser.add_argument("--shorts", type=int, default=200)
    parser.add_argument("--longs", type=int, default=2)
    parser.add_argument("--length", type=int, default=20000)
    a, arguments = parser.parse_known_args()
    random.seed(1)
    server = Server(a.dtrnet, "--max-model-len", str(a.length + 100), *arguments)
    ask_shorts(server, 10)
    alone = ask_shorts(server, a.shorts)
    print(line("short, alone", alone), flush=True)
    first = Asker(server)
    first.ask(a.length - 10, 1, 10)
    print(f"{'long, alone':34} {first.seconds[0]:15.2f} s", flush=True)
    ended = threading.Event()
    askers = [Asker(server) for _ in range(a.longs)]

    def keep_asking(asker: Asker) -> None:
        while not ended.is_set():
            asker.ask(a.length - 10, 1, 10)

    threads = [threading.Thread(target=keep_asking, args=(asker,)) for asker in askers]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    beside = ask_shorts(server, a.shorts)
    print(line(f"short, beside {a.longs} long ones", beside), flush=True)
    ended.set()
    for thread in threads:
        thread.join()
    slow = [s for asker in askers for s in asker.seconds]
    print(f"{f'long, {a.longs} at a time, beside short ones':34} {statistics.median(slow):15.2f} s, {len(slow)} of them")
    print(f"a short request takes {statistics.median(beside) / statistics.median(alone):.1f} times as long beside long ones (medians)")
    server.stop()


if __name__ == "__main__":
    main()
