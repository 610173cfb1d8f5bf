"""What an item costs over /v1/completions (echo, logprobs 1, as the harness asks) beside /v1/loglikelihood.

Items a second, and processor time of the server outside the engine, of the engine's threads, and of the clients, each an item.

    python3 http_cost.py --program build/dtrnet [--device cpu] [--model DIR] [--items 1000] [--processes 8] [--rounds 3]
    python3 http_cost.py --program old/dtrnet --program new/dtrnet        # two builds side by side, in turns

An item is a context of 60 to 120 tokens and four continuations of 10 to 40. /v1/completions gets it as four prompts, 32 prompts a
request; /v1/loglikelihood as one of --chunk requests. Clients are processes with one connection each, and one request under way:

    read     sends bodies made before and reads the answers' bytes
    harness  makes the JSON, reads the answer and takes from it what lm-evaluation-harness's local-completions takes, as that does

Without --model a random one is made whose forward pass costs next to nothing, so that the rest shows; items a second then say little.
--encoding gzip sends the Accept-Encoding that Python's requests and aiohttp send. Processor time is that of /proc: the engine's
threads are those that were there before the first connection. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import multiprocessing
import random
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "vocab_size": 2048,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-05,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
ASKED = {"max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True, "seed": 1234}
WAIT = "dtrnet_device_wait_seconds_total"
PATHS = {"completions": "/v1/completions", "loglikelihood": "/v1/loglikelihood"}


# ---- requests ----------------------------------------------------------------------------------------------------------


def make_items(n: int, vocab: int, seed: int) -> list[tuple[list[int], list[list[int]]]]:
    """Contexts and continuations, as ids."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [rng.randrange(3, vocab) for _ in range(rng.randint(low, high))]

    return [(ids(60, 120), [ids(10, 40) for _ in range(4)]) for _ in range(n)]


def make_requests(args: argparse.Namespace, endpoint: str, seed: int) -> list[dict]:
    """Bodies as Python has them, and beside each how many of a prompt's tokens are context."""
    items = make_items(args.items, args.vocab, seed)
    if endpoint == "loglikelihood":
        asked = [{"context": context, "continuations": rest} for context, rest in items]
        return [{"body": {"requests": asked[i : i + args.chunk]}} for i in range(0, len(asked), args.chunk)]
    prompts = [(context + one, len(context)) for context, rest in items for one in rest]
    parts = [prompts[i : i + args.prompts] for i in range(0, len(prompts), args.prompts)]
    return [{"body": {"model": "m", "prompt": [p for p, _ in part], **ASKED}, "contexts": [n for _, n in part]} for part in parts]


def take_completions(answer: dict, contexts: list[int]) -> list[tuple[float, bool]]:
    """lm_eval/models/openai_completions.py, LocalCompletionsAPI.parse_logprobs."""
    found = []
    for choice, n in zip(sorted(answer["choices"], key=lambda c: c["index"]), contexts, strict=True):
        logprobs = choice["logprobs"]["token_logprobs"][n:-1]
        top = choice["logprobs"]["top_logprobs"][n:-1]
        greedy = all(own == max(best.values()) for own, best in zip(logprobs, top, strict=True))
        found.append((sum(logprobs), greedy))
    return found


# ---- clients -----------------------------------------------------------------------------------------------------------


def inflated(answer: http.client.HTTPResponse) -> bytes:
    """An answer's bytes, decompressed if they came so."""
    text = answer.read()
    return zlib.decompress(text, 31) if answer.headers.get("Content-Encoding") == "gzip" else text


def ask(connection: http.client.HTTPConnection, args: argparse.Namespace, endpoint: str, request: dict, sums: list) -> int:
    """One request and what the client makes of it; returns the bytes that came."""
    reads = args.client == "read"
    body = request["bytes"] if reads else json.dumps(request["body"]).encode()
    headers = {"Content-Type": "application/json", "Accept-Encoding": args.encoding}
    connection.request("POST", PATHS[endpoint], body, headers)
    answer = connection.getresponse()
    text = answer.read() if reads else inflated(answer)
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {text[:300]!r}")
    if not reads:
        parsed = json.loads(text)
        if endpoint == "completions":
            sums += take_completions(parsed, request["contexts"])
        else:
            sums += [(c["logprob"], c["is_greedy"]) for r in parsed["results"] for c in r["continuations"]]
    return len(text)


def client(
    args: argparse.Namespace, port: int, endpoint: str, requests: list[dict], start: object, results: object, finish: object
) -> None:
    """One process: connects, waits for the start, sends one request after another, and stays until the server's threads were counted."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.connect()
    for request in requests:
        request["bytes"] = json.dumps(request["body"]).encode()
    start.wait()
    before, size, sums = resource.getrusage(resource.RUSAGE_SELF), 0, []
    for request in requests:
        size += ask(connection, args, endpoint, request, sums)
    end, after = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    results.put((end, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, size, sums))
    finish.wait()
    connection.close()


# ---- the server --------------------------------------------------------------------------------------------------------


class Server:
    """`dtrnet serve` from its start until /ready says yes."""

    def __init__(self, args: argparse.Namespace, program: str, model: Path) -> None:
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115  (lives as long as the server)
        flags = ["--device", args.device, "--port", "0", "--shutdown-delay", "0", "--max-queue", "1000000", *args.flag]
        self.process = subprocess.Popen([program, "serve", "--model", str(model), *flags], stderr=self.log)
        while not (found := re.search(r"listening on http://[^:]*:(\d+)", Path(self.log.name).read_text())):
            if self.process.poll() is not None:
                raise RuntimeError(Path(self.log.name).read_text())
            time.sleep(0.05)
        self.port = int(found[1])
        self.engine_threads = set(self.threads())

    def threads(self) -> list[str]:
        """Ids of the threads that live."""
        return [p.name for p in Path(f"/proc/{self.process.pid}/task").iterdir()]

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time by thread, of threads that live."""
        times = {}
        for thread in self.threads():
            with contextlib.suppress(OSError):  # it may end meanwhile
                times[thread] = int(Path(f"/proc/{self.process.pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9
        return times

    def counters(self) -> dict[str, float]:
        """What /metrics counts of steps, and the clock."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as page:
            lines = page.read().decode().splitlines()
        found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
        names = {"steps": "steps_total", "overlapped": "steps_overlapped_total", "busy": "busy_seconds_total"}
        return {"wall": time.monotonic(), **{k: found.get(f"dtrnet_{v}", 0.0) for k, v in names.items()}, "wait": found.get(WAIT, 0.0)}

    def stop(self) -> None:
        """Ends the server."""
        self.process.terminate()
        self.process.wait(60)


class Clients:
    """--processes clients that share all items of a seed. They are there, connected, before they are told to begin."""

    def __init__(self, args: argparse.Namespace, port: int, endpoint: str, seed: int) -> None:
        requests = make_requests(args, endpoint, seed)
        self.start, self.finish = multiprocessing.Barrier(args.processes + 1), multiprocessing.Event()
        self.results: multiprocessing.Queue = multiprocessing.Queue()
        self.processes = [
            multiprocessing.Process(
                target=client,
                args=(args, port, endpoint, requests[i :: args.processes], self.start, self.results, self.finish),
                daemon=True,
            )
            for i in range(args.processes)
        ]
        for c in self.processes:
            c.start()

    def run(self) -> tuple[float, list[tuple]]:
        """Seconds until the last was done, and what each tells of itself: when it was done, processor seconds, bytes, sums."""
        self.start.wait()
        began = time.monotonic()
        got = [self.results.get(timeout=3600) for _ in self.processes]
        return max(end for end, *_ in got) - began, got

    def end(self) -> None:
        """They stay until then, so that the server's threads can be looked at."""
        self.finish.set()
        for c in self.processes:
            c.join()


def measure(args: argparse.Namespace, server: Server, endpoint: str, seed: int) -> dict:
    """One round: all items by all clients."""
    clients = Clients(args, server.port, endpoint, seed)
    counted, before = server.counters(), server.cpu_seconds()
    seconds, got = clients.run()
    after, counted_after = server.cpu_seconds(), server.counters()
    counts = {k: counted_after[k] - counted[k] for k in counted}
    clients.end()
    spent = {thread: t - before.get(thread, 0.0) for thread, t in after.items()}
    engine = sum(t for thread, t in spent.items() if thread in server.engine_threads)
    return {
        "rate": args.items / seconds,
        "outside": (sum(spent.values()) - engine) / args.items,
        "engine": engine / args.items,
        "busiest": max(spent.values()) / args.items,
        "steps": counts["steps"],
        "overlapped": counts["overlapped"] / max(counts["steps"], 1),
        "busy": counts["busy"] / counts["wall"],
        "wait": counts["wait"] / counts["wall"],
        "client": sum(cpu for _, cpu, *_ in got) / args.items,
        "bytes": sum(size for *_, size, _ in got) / args.items,
        "scores": sorted(s for *_, sums in got for s in sums),
    }


# ---- the table ---------------------------------------------------------------------------------------------------------


def make_model(program: str, folder: Path) -> Path:
    """A random checkpoint whose forward pass is next to nothing, with the tokenizer of the one in the tree."""
    (folder / "config.json").write_text(json.dumps(TINY))
    command = [program, "synth", "--config", folder / "config.json", "--out", folder / "model", "--tokens", "512", "--log-level", "warn"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.copy(ROOT / "models/dtrnet-26m/tokenizer.model", folder / "model")  # spells more ids than the model has
    return folder / "model"


def print_row(program: str, endpoint: str, rounds: list[dict]) -> None:
    """Medians over the rounds."""
    mid = {k: statistics.median(r[k] for r in rounds) for k in rounds[0] if k != "scores"}
    scores = hashlib.sha256(repr([r["scores"] for r in rounds]).encode()).hexdigest()[:8] if rounds[0]["scores"] else "-"
    print(
        f"{program} {endpoint:13} {mid['rate']:8.0f} items/s  CPU us an item: server outside the engine {1e6 * mid['outside']:6.0f}, "
        f"engine {1e6 * mid['engine']:6.0f}, busiest thread {1e6 * mid['busiest']:6.0f}, clients {1e6 * mid['client']:6.0f}; "
        f"{mid['bytes']:7.0f} bytes an item; {mid['steps']:.0f} steps, {100 * mid['overlapped']:.0f} % overlapped, engine busy "
        f"{100 * mid['busy']:.0f} % of the time, waiting for the device {100 * mid['wait']:.0f} %; scores {scores}",
        flush=True,
    )


def main() -> None:
    """A row for each program and endpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", action="append", help="may be named several times; default: build/dtrnet")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", type=Path, help="a checkpoint; its vocabulary must have --vocab ids")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--vocab", type=int, help="ids of the model; default: the random one's")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=32, help="of a completions request")
    parser.add_argument("--chunk", type=int, default=8, help="items of a loglikelihood request")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", choices=["read", "harness"], default="read")
    parser.add_argument("--encoding", default="identity", help="Accept-Encoding of the clients")
    parser.add_argument("--endpoint", choices=list(PATHS), action="append")
    parser.add_argument("--flag", action="append", default=[], help="for the server, e.g. --flag=--max-batch-tokens=512")
    args = parser.parse_args()
    args.vocab = args.vocab or TINY["vocab_size"]
    programs = args.program or [str(ROOT / "build" / "dtrnet")]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make_model(programs[0], Path(folder))
        servers = [Server(args, program, model) for program in programs]
        for number, endpoint in enumerate(args.endpoint or list(PATHS)):
            rounds: list[list[dict]] = [[] for _ in programs]
            for i in range(args.rounds + 1):  # the first warms up; no item comes twice, since the server keeps what it computed
                for server, found in zip(servers, rounds, strict=True):
                    found.append(measure(args, server, endpoint, 1000 * number + i))
            for program, found in zip(programs, rounds, strict=True):
                print_row(program, endpoint, found[1:])
        for server in servers:
            server.stop()


if __name__ == "__main__":
    main()
