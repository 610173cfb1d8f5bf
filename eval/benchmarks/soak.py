#!/usr/bin/env python3
"""Does the server stay as it is under many clients for a long time?

Starts `dtrnet serve` and holds many connections to it at once: scores, texts, streams, tokenizing, bad requests, clients that leave in the
middle of a request or of an answer, that close one half, or that send slowly. Before that every request is asked alone; while it lasts each
answer must be that one to the bit, or one that the policy names: 503 with Retry-After. No request may wait longer than --wait, and in the
end nothing may be left over. Memory is judged without what fills once and stays: as many rows of K and V as were in use at a time, the
prefix tree beside them and the stacks of threads. Of the rest the heap, which follows the requests under way, is bounded for each client,
what lies outside of it must be as large in the last quarter of the time as in the second, and ten seconds after the last client has left
all must be within a tenth of before the first.
Prints a line every ten seconds and a summary; exit status 1 if something was not as it must be.

usage: soak.py [--seconds 600] [--connections 1000] [--pause 2] [--wait 120] [--program build/dtrnet] [--model DIR] [--seed 1]
               [--any-memory] [FLAGS FOR SERVE]
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from resident import resident

ROOT = Path(__file__).resolve().parents[2]
HEAP_KIB = 128  # what the requests under way of one client may hold; a burst's memory stays in the heap until a quarter of it is left
VOLATILE = {"id", "created", "computed_tokens", "cached_tokens"}
KINDS = {"whole": 78, "leave while asking": 5, "leave while answered": 7, "half closed": 3, "slow": 5, "refused bytes": 2}


def requests_of(rng: random.Random) -> list[tuple[str, Any]]:
    """What is asked: path and body."""
    word = ["river", "bench", "old man", "winter", "bread", "the road to the town", "a dog"]
    out: list[tuple[str, Any]] = []
    for i in range(12):
        text = "The " + " and the ".join(rng.choice(word) for _ in range(1 + 6 * i))
        out.append(("/v1/loglikelihood", {"requests": [{"context": text, "continuations": [" was", " is not", " " + rng.choice(word)]}]}))
        out.append(("/v1/completions", {"prompt": text, "max_tokens": 1 + i, "temperature": 0, "logprobs": 2, "echo": i % 2 == 0}))
    for i in range(6):
        body = {"prompt": [5 + i, 60, 700], "max_tokens": 16, "temperature": 0.8, "top_p": 0.9, "seed": i, "n": 2, "ignore_eos": True}
        out += [("/v1/completions", body), ("/v1/completions", {**body, "stream": True})]
        out.append(("/v1/loglikelihood_rolling", {"text": "It rained. " * (20 * i + 1), "max_length": 64}))
        out.append(("/tokenize", {"prompt": "It rained the whole day. " * (i + 1)}))
    out += [("/v1/completions", {"prompt": "x", "logprobs": 50}), ("/v1/loglikelihood", {"requests": []}), ("/nowhere", {})]
    return out


def stable(data: bytes, events: bool) -> Any:
    """An answer without what may differ each time."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in VOLATILE}
        return [strip(v) for v in value] if isinstance(value, list) else value

    if not events:
        return strip(json.loads(data))
    assert data.endswith(b"data: [DONE]\n\n"), data[-100:]
    texts: dict[int, str] = collections.defaultdict(str)  # where a stream is cut depends on time; what it says does not
    for part in data.decode().split("\n\n")[:-2]:
        for choice in json.loads(part[6:])["choices"] if part.startswith("data: ") else []:
            texts[choice["index"]] += choice["text"]
    return dict(texts)


def encode(path: str, body: Any, close: bool = False) -> bytes:
    """A request."""
    data = json.dumps(body).encode()
    more = "Connection: close\r\n" if close else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        + data
    )


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    """Status, head and body; interim answers are skipped."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if not head.startswith("HTTP/1.1 100"):
            break
    if found := re.search(r"\r\ncontent-length: *(\d+)", head, re.I):
        return int(head[9:12]), head, await reader.readexactly(int(found[1]))
    data = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        data += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return int(head[9:12]), head, data


class Soak:
    """The clients of one run, what they must be answered, and what they saw."""

    def __init__(self, args: argparse.Namespace, port: int) -> None:
        self.args, self.port, self.rng = args, port, random.Random(args.seed)
        self.requests = requests_of(random.Random(args.seed))
        self.want: list[tuple[int, Any]] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.waits: dict[str, list[float]] = collections.defaultdict(list)
        self.faults: list[str] = []
        self.until = 0.0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)

    async def ask_alone(self) -> None:
        """Fills `want`, one request after the other. Before that two that make the engine touch what it has for whole steps."""
        reader, writer = await self.connect()
        for more in ({"prompt": [[7 + i] * 900 for i in range(8)]}, {"prompt": [5], "n": 128, "temperature": 1}):
            writer.write(encode("/v1/completions", {"max_tokens": 2, "temperature": 0, **more}))
            await read_answer(reader)
        for path, body in self.requests:
            writer.write(encode(path, body))
            status, head, data = await read_answer(reader)
            self.want.append((status, stable(data, "event-stream" in head)))
            if "connection: close" in head.lower():
                writer.close()
                reader, writer = await self.connect()
        writer.close()

    def judge(self, i: int, status: int, head: str, data: bytes) -> None:
        """Counts an answer to request i, and notes it if it is another than alone."""
        path = self.requests[i][0]
        if status == 503 and re.search(r"\r\nretry-after:", head, re.I):
            self.counts["503 with Retry-After"] += 1
            return
        self.counts[f"{status}"] += 1
        if (status, stable(data, "event-stream" in head)) != self.want[i]:
            self.faults.append(f"{path} {json.dumps(self.requests[i][1])[:100]}: {status} {data[:200]!r}")

    async def whole(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, i: int, kind: str) -> bool:
        """One request to its end; false if the connection ends with it."""
        path, body = self.requests[i]
        data = encode(path, body)
        begin = time.monotonic()
        if kind == "slow":
            for k in range(0, len(data), max(1, len(data) // 5)):
                writer.write(data[k : k + max(1, len(data) // 5)])
                await asyncio.sleep(self.rng.random())
            begin = time.monotonic()
        else:
            writer.write(data)
        if kind == "half closed":
            writer.write_eof()
        status, head, answer = await read_answer(reader)
        self.waits[path].append(time.monotonic() - begin)
        self.judge(i, status, head, answer)
        return kind != "half closed" and "connection: close" not in head.lower()

    async def once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str) -> bool:
        """One request of a kind; false if the connection ends with it."""
        i = self.rng.randrange(len(self.requests))
        data = encode(*self.requests[i])
        self.counts[kind] += 1
        if kind == "leave while asking":
            writer.write(data[: self.rng.randrange(1, len(data))])
            await asyncio.sleep(0.2 * self.rng.random())
            return False
        if kind == "leave while answered":
            writer.write(data)
            await asyncio.sleep(0.3 * self.rng.random())
            return False
        if kind == "refused bytes":
            writer.write(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")
            status, head, _body = await read_answer(reader)
            if status != 400 or "connection: close" not in head.lower():
                self.faults.append(f"two lengths: {head!r}")
            return False
        return await self.whole(reader, writer, i, kind)

    async def client(self) -> None:
        """Asks and rests until the time is over."""
        await asyncio.sleep(self.args.pause * self.rng.random())
        connection = None
        while time.monotonic() < self.until:
            kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
            kept, fresh = False, connection is None
            try:
                connection = connection or await self.connect()
                kept = await asyncio.wait_for(self.once(*connection, kind), self.args.wait)
            except asyncio.TimeoutError:
                self.faults.append(f"a request waited longer than {self.args.wait} s")
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                self.counts["idle connection ended"] += not fresh  # it may give way while a request is on its way
                if fresh:
                    self.faults.append(f"{kind}: {error!r}")
            except (ValueError, AssertionError) as error:
                self.faults.append(f"{kind}: {error!r}")
            if connection and not kept:
                connection[1].close()
                connection = None
            await asyncio.sleep(self.args.pause * self.rng.random() * 2)
        if connection:
            connection[1].close()


class Sample(NamedTuple):
    """Memory of the server, in MiB."""

    at_s: float
    whole: float
    stacks: float
    pool: float  # as many rows of K and V as were in use at a time; pages of free ones stay with the process
    tree: float  # what the prefix tree keeps beside them, on the heap
    heap: float  # all else there
    in_flight: float  # requests

    def __str__(self) -> str:
        """All in one line."""
        parts = {"stacks": self.stacks, "K and V": self.pool, "prefix tree": self.tree, "heap": self.heap, "other": self.other}
        return f"{self.whole:.1f} MiB ({', '.join(f'{name} {mb:.1f}' for name, mb in parts.items())}), {self.in_flight:.0f} in flight"

    @property
    def other(self) -> float:
        """Weights, workspace, buffers of connections, files."""
        return self.rest - self.heap

    @property
    def rest(self) -> float:
        """What must stay as it is."""
        return self.whole - self.stacks - self.pool - self.tree


async def metrics(port: int) -> dict[str, float]:
    """Those without labels but the model's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return {m[1]: float(m[2]) for m in re.finditer(r"^(dtrnet_\w+)(?:{[^,}]*})? (\S+)$", text, re.M)}


async def sample(begin: float, pid: int, port: int) -> Sample:
    """Memory now."""
    told = await metrics(port)
    mb = resident(pid)
    held, tree = (told[f"dtrnet_{name}_bytes"] / (1 << 20) for name in ("kv_most", "prefix_tree"))
    requests = told["dtrnet_http_requests_in_flight"]
    return Sample(time.monotonic() - begin, sum(mb.values()), mb.get("stacks", 0), held, tree, mb.get("heap", 0) - tree, requests)


async def watch(soak: Soak, pid: int) -> list[Sample]:
    """One every ten seconds."""
    begin, out = time.monotonic(), []
    while time.monotonic() < soak.until:
        await asyncio.sleep(min(10.0, max(0.1, soak.until - time.monotonic())))
        out.append(await sample(begin, pid, soak.port))
        done = sum(len(v) for v in soak.waits.values())
        print(f"{out[-1].at_s:5.0f} s  {done:8d} answers  {out[-1]}  {len(soak.faults)} faults", flush=True)
    return out


async def left_over(port: int) -> list[str]:
    """What the server still holds when all have gone."""
    wanted = {"dtrnet_running_sequences": 0, "dtrnet_queue_sequences": 0, "dtrnet_http_requests_in_flight": 1}
    for _ in range(100):
        now = await metrics(port)
        wrong = [f"{name} is {now.get(name)}, not {want}" for name, want in wanted.items() if now.get(name) != want]
        if not wrong:
            break
        await asyncio.sleep(0.1)
    return wrong


def judge_memory(before: Sample, samples: list[Sample], after: Sample, connections: int) -> list[str]:
    """Prints what was seen; what was not as it must be."""
    end = samples[-1].at_s
    early, late = (statistics.median([s.other for s in samples if low <= s.at_s / end <= low + 0.25]) for low in (0.25, 0.75))
    heap = max(s.heap for s in samples) - before.heap
    print(f"before the clients {before}\nten seconds after  {after}")
    print(f"with them at most {max(s.whole for s in samples):.0f} MiB")
    print(f"heap: {heap:.0f} MiB more than before, {1024 * heap / connections:.0f} KiB a client")
    print(f"other: {early:.0f} MiB in the second quarter, {late:.0f} MiB in the last")
    faults = [f"memory beyond K, V, prefix tree, stacks and heap grew from {early:.0f} to {late:.0f} MiB"] if late > 1.1 * early + 8 else []
    if 1024 * heap > HEAP_KIB * connections:
        faults.append(f"the heap grew by more than {HEAP_KIB} KiB a client")
    if after.rest > 1.1 * before.rest:
        faults.append(f"memory beyond K, V, tree and stacks: {before.rest:.0f} MiB before the clients, {after.rest:.0f} MiB after them")
    return faults


async def run(args: argparse.Namespace, process: subprocess.Popen[str], port: int) -> list[str]:
    """The whole run; what was not as it must be."""
    soak = Soak(args, port)
    await soak.ask_alone()
    begin = time.monotonic()
    before = await sample(begin, process.pid, port)
    soak.until = begin + args.seconds
    clients = [asyncio.create_task(soak.client()) for _ in range(args.connections)]
    memory = await watch(soak, process.pid)
    await asyncio.gather(*clients)
    faults = soak.faults + await left_over(port)
    await asyncio.sleep(10)
    after = await sample(begin, process.pid, port)
    for path, waits in sorted(soak.waits.items()):
        waits.sort()
        print(f"{path:28s} {len(waits):8d} answers, median {statistics.median(waits):.2f} s, 99 % {waits[len(waits) * 99 // 100]:.2f} s, "
              f"most {waits[-1]:.2f} s")  # fmt: skip
    print(", ".join(f"{name}: {n}" for name, n in soak.counts.most_common()))
    grown = judge_memory(before, memory, after, args.connections)
    return faults + (grown if not args.any_memory else [])


def main() -> int:
    """Reads the flags and starts the server; the exit status."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seconds", type=float, default=600)
    ap.add_argument("--connections", type=int, default=1000)
    ap.add_argument("--pause", type=float, default=2, help="seconds that a client rests between requests, on average")
    ap.add_argument("--wait", type=float, default=120, help="seconds that a request may take at most")
    ap.add_argument("--program", default=str(ROOT / "build" / "dtrnet"))
    ap.add_argument("--model", default=str(ROOT / "models" / "dtrnet-26m"))
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--any-memory", action="store_true", help="do not judge memory; for builds with sanitizers, which keep what is freed")
    args, flags = ap.parse_known_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        command = [args.program, "serve", "--port", "0", "--model", args.model, "--max-connections", str(args.connections + 100), *flags]
        process = subprocess.Popen(command, stderr=log, text=True, env={**os.environ, "DTRNET_SHUTDOWN_DELAY": "0"})
        try:
            while not (found := re.search(r"listening on http://[\d.]+:(\d+)", Path(log.name).read_text())):
                if process.poll() is not None:
                    sys.exit(f"the server ended:\n{Path(log.name).read_text()}")
                time.sleep(0.05)
            faults = asyncio.run(run(args, process, int(found[1])))
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(120)
        if status:
            faults.append(f"the server ended with status {status}")
        text = Path(log.name).read_text(errors="replace")
    said = collections.Counter(m[1] for m in re.finditer(r" (warn|error)  ", text))
    print(f"log: {said.get('warn', 0)} warnings, {said.get('error', 0)} errors")
    faults += re.findall(r"^.*(?:Sanitizer:|runtime error:).*$", text, re.M)
    for fault in faults[:20]:
        print(f"FAULT {fault}")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
