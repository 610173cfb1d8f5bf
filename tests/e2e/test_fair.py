"""No request starves another, counted in steps by /metrics: a client's only small score beside loads of another client. Clients are
told apart by keys, by addresses, and by what a trusted proxy forwards; and the score is the same to the bit.
Needs nothing beyond Python's standard library.
"""

import contextlib
import json
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from http_support import Process, run_tests
from server_process import PATIENCE_S, PROGRAM

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 64, "vocab_size": 512, "max_position_embeddings": 512, "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "dtrnet_layers": [1],
}  # fmt: skip
SCORE = {"requests": [{"context": [7, 8, 9, 10], "continuations": [[11]]}], "tokens": True}
ENDLESS = {"ignore_eos": True, "temperature": 0}
N_SCORES = 6


def prompt(salt: int, n: int) -> list[int]:
    """Tokens that no other salt gives."""
    return [(salt * 31 + i * (salt + 7)) % 500 + 3 for i in range(n)]


LOADS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "one request of many generations": [("/v1/completions", {"prompt": [5, 6, 7], "n": 128, "max_tokens": 500, **ENDLESS})],
    "many sequences of generation": [
        ("/v1/completions", {"prompt": [prompt(i, 4) for i in range(5)], "n": 128, "max_tokens": 200, **ENDLESS})
    ],
    "very many continuations": [
        ("/v1/loglikelihood", {"requests": [
            {"context": prompt(k, 6), "continuations": [prompt(i + k, 20) for i in range(4096)]} for k in range(2)
        ]})
    ],
    "long prompts": [("/v1/completions", {"prompt": [prompt(i, 500) for i in range(150)], "max_tokens": 1})],
}  # fmt: skip
LOADS["all at once"] = [call for load in list(LOADS.values()) for call in load]


@contextlib.contextmanager
def served(*flags: str) -> Iterator[tuple[Process, int]]:
    """A server of a tiny model, steps of 64 rows, and its port."""
    with tempfile.TemporaryDirectory() as folder:
        config, model, keys = Path(folder) / "config.json", Path(folder) / "model", Path(folder) / "keys"
        config.write_text(json.dumps(CONFIG))
        keys.write_text("load key-of-load\nscore key-of-score\n")
        keys.chmod(0o600)
        subprocess.run([PROGRAM, "synth", "--config", str(config), "--out", str(model)], check=True, capture_output=True)
        flags = tuple(str(keys) if f == "KEYS" else f for f in flags)
        with Process("--max-batch-tokens", "64", "--threads", "1", *flags, model=model) as server:
            yield server, int(server.url.rsplit(":", 1)[1])


def ask(port: int, path: str, body: dict[str, Any] | None, headers: dict[str, str], source: str = "127.0.0.1") -> socket.socket:
    """Sends a request from an address of the loopback."""
    data = json.dumps(body).encode() if body else b""
    s = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    head += "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + (f"Content-Length: {len(data)}\r\n" if body else "") + "\r\n"
    s.sendall(head.encode() + data)
    return s


def answer(s: socket.socket) -> str:
    """The body of what comes back."""
    s.settimeout(PATIENCE_S)
    data = b""
    while piece := s.recv(65536):
        data += piece
    s.close()
    head, _, body = data.partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0], data[:500]
    if b"chunked" in head.lower():
        parts = []
        while body:
            size, _, body = body.partition(b"\r\n")
            parts.append(body[: int(size, 16)])
            body = body[int(size, 16) + 2 :]
        body = b"".join(parts)
    return body.decode()


class Asker:
    """A client that asks for the score, and reads counts."""

    def __init__(self, port: int, headers: dict[str, str], source: str = "127.0.0.1") -> None:
        self.port, self.headers, self.source = port, headers, source

    def score(self) -> Any:
        """Logprobs of SCORE."""
        return json.loads(answer(ask(self.port, "/v1/loglikelihood", SCORE, self.headers, self.source)))["results"][0]["continuations"][0]

    def metrics(self) -> dict[str, float]:
        """/metrics, the series that are used here."""
        lines = answer(ask(self.port, "/metrics", None, self.headers, self.source)).splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line.startswith("dtrnet_"))}

    def wait(self, what: str, found: Any) -> dict[str, float]:
        """Metrics, once they are as wanted."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            m = self.metrics()
            if found(m):
                return m
            time.sleep(0.02)
        raise AssertionError(what)


def started(m: dict[str, float], lane: str, le: str) -> float:
    """Calls of a lane that began within so many steps."""
    return m[f'dtrnet_start_steps_bucket{{lane="{lane}",le="{le}"}}']


@contextlib.contextmanager
def loaded(asker: Asker, name: str, load: dict[str, str], source: str = "127.0.0.1") -> Iterator[dict[str, float]]:
    """While a load of another client runs, for a few steps by then; gives the metrics. It is cancelled in the end."""
    sockets: list[socket.socket] = []
    steps = asker.metrics()["dtrnet_steps_total"]

    def runs(m: dict[str, float]) -> bool:
        if len(select.select(sockets, [], [], 0)[0]) == len(sockets):  # none is sent yet, or all are answered already
            sockets.extend(ask(asker.port, path, body, load, source) for path, body in LOADS[name])
        return m["dtrnet_steps_total"] > steps + 3 and m["dtrnet_running_sequences"] > 0

    yield asker.wait(f"{name}: no step", runs)
    for s in sockets:
        s.close()
    asker.wait(f"{name} does not end", lambda m: m["dtrnet_running_sequences"] == 0 and m["dtrnet_queue_sequences"] == 0)


def check_beside(asker: Asker, quiet: Any, name: str, load: dict[str, str], source: str = "127.0.0.1") -> int:
    """Scores while a load of another client runs; again where that was over before they were. How many."""
    scores, under_way, until = 0, False, time.monotonic() + PATIENCE_S
    while not under_way:
        assert time.monotonic() < until, f"{name} is always over before the scores"
        with loaded(asker, name, load, source) as before:
            for _ in range(N_SCORES):
                got = asker.score()
                assert got["logprob"] == quiet["logprob"] and got["tokens"] == quiet["tokens"], (name, got, quiet)
            after = asker.metrics()
        under_way = after["dtrnet_running_sequences"] > 0
        within, all_of_them = (started(after, "alone", le) - started(before, "alone", le) for le in ("3", "+Inf"))
        assert within == all_of_them == N_SCORES, (name, within, all_of_them)
        scores += N_SCORES
    return scores


def test_keys() -> None:
    """Each load, from a client with another key; the prefix cache is off, so that each score needs its rows."""
    with served("--api-key-file", "KEYS", "--prefix-cache", "off") as (_, port):
        asker = Asker(port, {"Authorization": "Bearer key-of-score"})
        quiet = asker.score()
        scores = sum(check_beside(asker, quiet, name, {"Authorization": "Bearer key-of-load"}) for name in LOADS)
        m = asker.metrics()
        assert started(m, "alone", "+Inf") == 1 + scores, m
        assert started(m, "bulk", "+Inf") > len(LOADS), m


def test_small_pool() -> None:
    """A pool that holds two sequences of full length: generations make way for each other, and for a second client's."""
    flags = (
        "--api-key-file",
        "KEYS",
        "--prefix-cache",
        "off",
        "--max-model-len",
        "256",
        "--kv-cache-memory",
        str(3 * 600 * (2 * 16 * 4 + 4)),
    )
    with served(*flags) as (_, port):
        asker = Asker(port, {"Authorization": "Bearer key-of-score"})
        quiet = asker.score()
        body = {"prompt": [5, 6, 7], "max_tokens": 60, "logprobs": 1, **ENDLESS}
        alone = json.loads(answer(ask(port, "/v1/completions", body, asker.headers)))["choices"][0]
        sockets = [ask(port, "/v1/completions", {**body, "prompt": [prompt(i, 3) for i in range(8)], "n": 4, "max_tokens": 240},
                       {"Authorization": "Bearer key-of-load"})]  # fmt: skip
        asker.wait("nobody makes way", lambda m: m["dtrnet_preemptions_total"] > 0)
        assert json.loads(answer(ask(port, "/v1/completions", body, asker.headers)))["choices"][0] == alone
        for _ in range(N_SCORES):
            assert asker.score()["logprob"] == quiet["logprob"]
        many = json.loads(answer(sockets[0]))["choices"]
        for i in range(8):
            single = json.loads(answer(ask(port, "/v1/completions", {**body, "prompt": prompt(i, 3), "max_tokens": 240}, asker.headers)))
            for k in range(4):
                assert many[4 * i + k]["logprobs"] == single["choices"][0]["logprobs"], (i, k)


def test_addresses() -> None:
    """Without keys clients are addresses; behind a trusted proxy, those that it forwards."""
    name = "one request of many generations"
    with served("--prefix-cache", "off", "--trusted-proxy", "127.0.0.9,10.0.0.0/8") as (_, port):
        asker = Asker(port, {}, source="127.0.0.2")
        quiet = asker.score()
        check_beside(asker, quiet, name, {})
        asker = Asker(port, {"X-Forwarded-For": "192.0.2.1, 192.0.2.2, 10.1.1.1"}, source="127.0.0.9")
        check_beside(asker, quiet, name, {"X-Forwarded-For": "192.0.2.2, 192.0.2.1"}, source="127.0.0.9")
        liar = Asker(port, {"X-Forwarded-For": "192.0.2.77"}, source="127.0.0.3")
        under_way, until = False, time.monotonic() + PATIENCE_S
        while not under_way:
            assert time.monotonic() < until, f"{name} is always over before the scores"
            with loaded(asker, name, {"X-Forwarded-For": "192.0.2.2"}, "127.0.0.9") as before:
                asker.score()  # of the same client: its calls take turns, and this one is not alone
                liar.score()
                after = asker.metrics()
            under_way = after["dtrnet_running_sequences"] > 0
        assert started(after, "shared", "+Inf") - started(before, "shared", "+Inf") == 1, after
        assert started(after, "shared", "8") - started(before, "shared", "8") == 1, after
        assert started(after, "alone", "3") - started(before, "alone", "3") == 1, after


def test_flag() -> None:
    """A list that cannot be read is refused by name."""
    run = subprocess.run([PROGRAM, "serve", "--trusted-proxy", "10.0.0.0/33"], capture_output=True, text=True)
    assert run.returncode != 0 and re.search(r"--trusted-proxy: \"10.0.0.0/33\" is not ADDR", run.stderr), run.stderr


if __name__ == "__main__":
    sys.exit(run_tests(globals()))
