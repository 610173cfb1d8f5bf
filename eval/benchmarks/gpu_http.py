"""/v1/loglikelihood over HTTP: items of a context and four continuations, as ids, from several connections.

    python3 gpu_http.py http://127.0.0.1:8000 [--items 10000] [--vocab 16384] [--connections 8] [--chunk 250]
    python3 gpu_http.py http://127.0.0.1:8000 --rolling 2048 --items 64 --chunk 8     # /v1/loglikelihood_rolling of documents that long

Prints seconds from the first byte sent to the last byte read, and unique tokens a second (a context counts once). Bodies are built
before the clock starts. Every run sends other ids, so that no run finds those of the one before in the cache.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import threading
import time
from urllib.parse import urlparse


def make_documents(n: int, vocab: int, length: int) -> tuple[list[list[int]], int]:
    """Documents of `length` tokens with the first, BOS, which the server adds."""
    rng = random.Random()
    return [[rng.randrange(3, vocab) for _ in range(length - 1)] for _ in range(n)], n * length


def make_items(n: int, vocab: int) -> tuple[list[dict], int]:
    """Contexts of 60 to 120 tokens, four continuations of 10 to 40 each."""
    rng, items, tokens = random.Random(), [], 0
    for _ in range(n):
        context = [rng.randrange(3, vocab) for _ in range(rng.randint(60, 120))]
        rest = [[rng.randrange(3, vocab) for _ in range(rng.randint(10, 40))] for _ in range(4)]
        tokens += len(context) + sum(map(len, rest))
        items.append({"context": context, "continuations": rest})
    return items, tokens


def send(host: str, port: int, path: str, bodies: list[bytes], failures: list[str]) -> None:
    """Posts every body over one connection; what is not a 200 goes to `failures`."""
    c = http.client.HTTPConnection(host, port, timeout=300)
    for body in bodies:
        c.request("POST", path, body, {"Content-Type": "application/json"})
        r = c.getresponse()
        text = r.read()
        if r.status != 200:
            failures.append(text[:200].decode())


def main() -> None:
    """Items a second and unique tokens a second of a running server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--items", type=int, default=10000)
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=250, help="items of a request")
    parser.add_argument("--rolling", type=int, help="an item is a document of so many tokens")
    args = parser.parse_args()
    url = urlparse(args.url)
    if args.rolling:
        path, field, what = "/v1/loglikelihood_rolling", "texts", f"documents of {args.rolling} tokens"
        items, tokens = make_documents(args.items, args.vocab, args.rolling)
    else:
        path, field, what = "/v1/loglikelihood", "requests", "items x 4"
        items, tokens = make_items(args.items, args.vocab)
    bodies = [json.dumps({field: items[i : i + args.chunk]}).encode() for i in range(0, len(items), args.chunk)]
    failures: list[str] = []
    threads = [
        threading.Thread(target=send, args=(url.hostname, url.port, path, bodies[i :: args.connections], failures))
        for i in range(args.connections)
    ]
    start = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    seconds = time.perf_counter() - start
    print(
        f"{args.items} {what} over HTTP: {seconds:.3f} s, {args.items / seconds:.0f} items/s, {tokens / seconds:.0f} unique tokens/s, "
        f"{len(failures)} failures {failures[:1]}",
        flush=True,
    )


if __name__ == "__main__":
    main()
