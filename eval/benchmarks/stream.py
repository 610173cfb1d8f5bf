#!/usr/bin/env python3
"""What streaming costs: 8 tokens of one sequence as a stream of events and in one answer, by turns over one kept connection.

First on an idle server, then beside --load connections that ask short questions one after another. Needs only Python; prints the medians of
both ways and of the ratio of neighbours, with the middle half of the ratios.

usage: stream.py [--dtrnet build/dtrnet] [--pairs 200] [--tokens 8] [--load 2] [SERVER ARGUMENT ...]
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
from short_beside_long import Asker


def complete(connection: http.client.HTTPConnection, tokens: int, stream: bool) -> float:
    """Seconds of one completion of a fresh prompt of 30 tokens, until its last byte is read."""
    body = {"prompt": ids(30), "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": stream}
    begin = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    data = answer.read()
    seconds = time.perf_counter() - begin
    if answer.status != 200 or (stream and not data.endswith(b"data: [DONE]\n\n")):
        raise SystemExit(data.decode())
    return seconds


def measure(server: Server, what: str, pairs: int, tokens: int) -> None:
    """Prints one line; the order within a pair changes from pair to pair."""
    whole, streamed = [], []
    for i in range(pairs):
        for stream in (False, True) if i % 2 else (True, False):
            (streamed if stream else whole).append(complete(server.connection, tokens, stream))
    ratios = sorted(s / w for s, w in zip(streamed, whole))
    one, other = (1000 * statistics.median(s) for s in (whole, streamed))
    spread = f"{ratios[pairs // 4]:.3f} to {ratios[3 * pairs // 4]:.3f}"
    worst = 1000 * max(streamed)
    print(
        f"{what:24} whole {one:7.2f} ms   streamed {other:7.2f} ms, worst {worst:7.2f}   ratio {statistics.median(ratios):.3f} ({spread})",
        flush=True,
    )


def main() -> None:
    """The run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtrnet", default=str(ROOT / "build" / "dtrnet"))
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--load", type=int, default=2)
    a, arguments = parser.parse_known_args()
    random.seed(1)
    server = Server(a.dtrnet, *arguments)
    assert server.process.stderr
    threading.Thread(target=server.process.stderr.read, daemon=True).start()
    for stream in (False, True):
        complete(server.connection, a.tokens, stream)
    measure(server, "idle", a.pairs, a.tokens)
    ended = threading.Event()
    askers = [Asker(server) for _ in range(a.load)]

    def keep_asking(asker: Asker) -> None:
        while not ended.is_set():
            asker.ask(60, 4, 10)

    threads = [threading.Thread(target=keep_asking, args=(asker,)) for asker in askers]
    for thread in threads:
        thread.start()
    measure(server, f"beside {a.load} that score", a.pairs, a.tokens)
    ended.set()
    for thread in threads:
        thread.join()
    server.stop()


if __name__ == "__main__":
    main()
