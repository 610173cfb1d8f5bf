#!/usr/bin/env python3
"""What start-up and prefix reuse cost, over HTTP on the shipped model.

Time from start to the first answer, four continuations of one context with the cache and without, and a long request repeated. Needs
only Python; prints medians and ratios.

usage: reuse.py [--dtrnet build/dtrnet] [--repeat 5] [SERVER ARGUMENT ...]
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """`dtrnet serve` on a free port, and the seconds that it took to answer a first request."""

    def __init__(self, program: str, *arguments: str) -> None:
        begin = time.perf_counter()
        self.process = subprocess.Popen([program, "serve", "--port", "0", *arguments], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        for line in self.process.stderr:
            if found := re.search(r"listening on http://([\d.]+):(\d+)", line):
                self.connection = http.client.HTTPConnection(found[1], int(found[2]))
                break
        else:
            raise SystemExit("the server did not start")
        self.post([5, 6, 7], 1)
        self.start_s = time.perf_counter() - begin

    def post(self, prompt: list[int] | list[list[int]], max_tokens: int) -> tuple[float, dict]:
        """Seconds and usage of one echo request, as the harness sends it."""
        body = json.dumps({"prompt": prompt, "max_tokens": max_tokens, "echo": True, "logprobs": 1, "temperature": 0})
        begin = time.perf_counter()
        self.connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        data = answer.read()
        seconds = time.perf_counter() - begin
        if answer.status != 200:
            raise SystemExit(data.decode())
        return seconds, json.loads(data)["usage"]

    def stop(self) -> None:
        """SIGTERM, and waits."""
        self.process.terminate()
        self.process.wait()


def ids(n: int) -> list[int]:
    """Random token ids."""
    return [random.randrange(3, 16000) for _ in range(n)]


def siblings(server: Server, repeat: int) -> tuple[float, int]:
    """Median seconds and rows of 4 continuations of 10 tokens after 400, scored from the first continuation token on."""
    seconds, rows = [], 0
    for _ in range(repeat):
        context = ids(400)
        body = json.dumps({"requests": [{"context": context, "continuations": [ids(10) for _ in range(4)]}]})
        begin = time.perf_counter()
        server.connection.request("POST", "/v1/loglikelihood", body, {"Content-Type": "application/json"})
        answer = json.loads(server.connection.getresponse().read())
        seconds.append(time.perf_counter() - begin)
        rows = answer["usage"]["computed_tokens"]
    return statistics.median(seconds), rows


def main() -> None:
    """Runs all three and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtrnet", default=str(ROOT / "build" / "dtrnet"))
    parser.add_argument("--repeat", type=int, default=5)
    options, arguments = parser.parse_known_args()
    random.seed(1)
    starts, shared, alone, first, again = [], [], [], [], []
    for _ in range(options.repeat):
        on, off = Server(options.dtrnet, *arguments), Server(options.dtrnet, "--prefix-cache", "off", *arguments)
        starts += [on.start_s, off.start_s]
        shared.append(siblings(on, options.repeat))
        alone.append(siblings(off, options.repeat))
        prompt = ids(2000)
        first.append(on.post(prompt, 0)[0])
        again.append(statistics.median(on.post(prompt, 0)[0] for _ in range(5)))
        on.stop()
        off.stop()
    ms = lambda values: f"{1000 * statistics.median(values):.1f} ms"  # noqa: E731
    print(f"start to first answer           {ms(starts)} (worst {1000 * max(starts):.0f} ms)")
    print(f"4 x (400 + 10), cache on        {ms([s for s, _ in shared])}, {shared[0][1]} rows")
    print(
        f"4 x (400 + 10), cache off       {ms([s for s, _ in alone])}, {alone[0][1]} rows: "
        f"{statistics.median(a / s for (a, _), (s, _) in zip(alone, shared)):.1f}x the time"
    )
    print(f"2,000 tokens, first             {ms(first)}")
    print(f"2,000 tokens, repeated          {ms(again)}: {statistics.median(f / a for f, a in zip(first, again)):.0f}x faster")


if __name__ == "__main__":
    main()
