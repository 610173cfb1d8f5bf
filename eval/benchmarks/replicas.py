"""Several devices behind one port against one device: /v1/loglikelihood over HTTP from several client processes.

    python3 replicas.py --program build/dtrnet --device cuda [--devices 0 --devices 0,1] [--model DIR] [--items 40000]

Serves a random model (360M unless --model or --config names another; `dtrnet synth` makes it), once for each --devices in turn, and
sends it the same items: a context and four continuations, as ids. Prints seconds to /ready, items a second, the speed and the rows
computed against the first setting's, and whether every score is the same to the bit. Rounds of a setting are told apart by their seed,
since the server keeps prefixes; the first round warms up with a tenth of the items. A setting may have flags of its own behind a
colon: --devices 0,1:--tensor-parallel=2. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import array
import hashlib
import http.client
import json
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_bodies(args: argparse.Namespace, seed: int, n: int) -> list[bytes]:
    """Requests of `chunk` items: contexts of 60 to 120 tokens, four continuations of 10 to 40 each."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [rng.randrange(3, args.vocab) for _ in range(rng.randint(low, high))]

    items = [{"context": ids(60, 120), "continuations": [ids(10, 40) for _ in range(4)]} for _ in range(n)]
    return [json.dumps({"requests": items[i : i + args.chunk]}).encode() for i in range(0, n, args.chunk)]


def scores_of(answer: bytes) -> bytes:
    """What an answer says of its continuations, to the bit."""
    found = array.array("d")
    for item in json.loads(answer)["results"]:
        for one in item["continuations"]:
            found.extend((one["logprob"], one["is_greedy"]))
    return hashlib.sha256(found.tobytes()).digest()


def send(port: int, bodies: list[tuple[int, bytes]], answers: dict[int, bytes]) -> None:
    """Posts bodies over one connection, one after another."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    for number, body in bodies:
        connection.request("POST", "/v1/loglikelihood", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {text[:300]!r}")
        answers[number] = text


def client(port: int, bodies: list[tuple[int, bytes]], connections: int, start: object, results: object) -> None:
    """One process: waits for the start, sends over its connections, tells when it was done and then what it got."""
    answers: dict[int, bytes] = {}
    threads = [threading.Thread(target=send, args=(port, bodies[i::connections], answers)) for i in range(connections)]
    start.wait()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    end = time.monotonic()
    results.put((end, {number: scores_of(text) for number, text in answers.items()}))


def run_round(args: argparse.Namespace, port: int, bodies: list[bytes]) -> tuple[float, list[bytes]]:
    """Seconds from the start to the last answer, and the scores of every body."""
    numbered = list(enumerate(bodies))
    start, results = multiprocessing.Barrier(args.processes + 1), multiprocessing.Queue()
    clients = [
        multiprocessing.Process(target=client, args=(port, numbered[i :: args.processes], args.connections, start, results))
        for i in range(args.processes)
    ]
    for c in clients:
        c.start()
    start.wait()
    began, ends, scores = time.monotonic(), [], {}
    for _ in clients:
        end, some = results.get(timeout=1800)
        ends.append(end)
        scores.update(some)
    for c in clients:
        c.join()
    if len(scores) != len(bodies):
        raise RuntimeError(f"{len(bodies) - len(scores)} of {len(bodies)} requests have no answer")
    return max(ends) - began, [scores[i] for i in range(len(bodies))]


def metrics(port: int) -> dict[str, float]:
    """/metrics, sample by sample."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
        lines = page.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


class Server:
    """`dtrnet serve` on some devices, from its start until /ready says yes."""

    def __init__(self, args: argparse.Namespace, model: Path, devices: str) -> None:
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115  (lives as long as the server)
        numbers, *own = devices.split(":")
        common = ["--port", "0", "--shutdown-delay", "0", "--max-queue", "1000000"]
        flags = ["--device", args.device, "--devices", numbers, *own, *common, *args.flag]
        began = time.monotonic()
        self.process = subprocess.Popen([args.program, "serve", "--model", str(model), *flags], stderr=self.log)
        while not (found := re.search(r"listening on http://[^:]*:(\d+)", Path(self.log.name).read_text())):
            if self.process.poll() is not None:
                raise RuntimeError(Path(self.log.name).read_text())
            time.sleep(0.02)
        self.ready_s, self.port = time.monotonic() - began, int(found[1])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)


def measure(args: argparse.Namespace, model: Path, devices: str, rounds: list[list[bytes]]) -> dict:
    """One setting: the first round warms up."""
    with Server(args, model, devices) as server:
        run_round(args, server.port, rounds[0])
        before, seconds, scores = metrics(server.port), [], []
        for bodies in rounds[1:]:
            took, some = run_round(args, server.port, bodies)
            seconds.append(took)
            scores += some
        after = metrics(server.port)
    names = [k for k in after if k.startswith("dtrnet_device_rows_computed_total")]
    return {
        "ready_s": server.ready_s,
        "rate": args.items / statistics.median(seconds),
        "rates": [args.items / s for s in seconds],
        "rows": after["dtrnet_rows_computed_total"] - before["dtrnet_rows_computed_total"],
        "busy": [after[k.replace("rows_computed", "busy_seconds")] - before[k.replace("rows_computed", "busy_seconds")] for k in names],
        "wall": sum(seconds),
        "scores": scores,
    }


def print_result(devices: str, got: dict, base: dict) -> None:
    """One line a setting."""
    rates = ", ".join(f"{r:.0f}" for r in got["rates"])
    busy = ", ".join(f"{100 * b / got['wall']:.0f}" for b in got["busy"])
    equal = "all scores equal" if got["scores"] == base["scores"] else "SCORES DIFFER"
    print(
        f"devices {devices}: ready in {got['ready_s']:.1f} s ({got['ready_s'] / base['ready_s']:.2f}x), "
        f"{got['rate']:.0f} items/s ({rates}), {got['rate'] / base['rate']:.2f}x; "
        f"{got['rows']:.0f} rows computed, {got['rows'] / base['rows']:.4f}x; busy {busy} %; {equal}",
        flush=True,
    )


def make_model(args: argparse.Namespace, folder: Path) -> Path:
    """A random checkpoint of the config's shape, with a vocabulary that fits the items."""
    config = json.loads(Path(args.config).read_text())
    config["vocab_size"] = args.vocab
    (folder / "config.json").write_text(json.dumps(config))
    out = folder / "model"
    began = time.monotonic()
    command = [args.program, "synth", "--config", folder / "config.json", "--out", out, "--tokens", "2048", "--log-level", "warn"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(f"made a random model of {Path(args.config).stem} in {time.monotonic() - began:.0f} s", flush=True)
    return out


def main() -> int:
    """Exit status 1 when a score differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "build" / "dtrnet"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--devices", action="append", help="once for each setting; the first is the base; default: 0, then 0,1")
    parser.add_argument("--model", type=Path, help="a checkpoint; its vocabulary must have --vocab ids")
    parser.add_argument(
        "--config", default=str(ROOT / "tests/golden/configs/360m-dtrnet-bilayer.json"), help="the random model's config.json"
    )
    parser.add_argument("--items", type=int, default=40000)
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--processes", type=int, default=max(2, min(8, (os.cpu_count() or 2) // 4)))
    parser.add_argument("--connections", type=int, default=8, help="of each process")
    parser.add_argument("--chunk", type=int, default=100, help="items of a request")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flag", action="append", default=[], help="for the server, e.g. --flag=--max-batch-tokens=512")
    args = parser.parse_args()
    settings = args.devices or ["0", "0,1"]
    rounds = [make_bodies(args, 1, max(args.items // 10, args.chunk))]
    rounds += [make_bodies(args, 2 + i, args.items) for i in range(args.rounds)]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make_model(args, Path(folder))
        results = []
        for devices in settings:
            results.append(measure(args, model, devices, rounds))
            print_result(devices, results[-1], results[0])
    return int(any(r["scores"] != results[0]["scores"] for r in results))


if __name__ == "__main__":
    raise SystemExit(main())
