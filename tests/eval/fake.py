"""What these tests share: a server in this process that answers as it is told, and results as the harness writes them."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERSION = {
    "version": "0.1.0",
    "commit": "abc",
    "model": "tiny",
    "model_path": "/models/tiny",
    "model_hash": "a" * 64,
    "device": "cpu",
    "dtype": "f32",
    "numerics_class": "cpu avx2",
    "threads": 2,
    "dense_layers": [1],
    "forced_dense_layers": [],
    "rope": {"type": "default", "theta": 10000, "factor": 1, "original_length": None},
    "max_model_len": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tokenizer": True,
    "tokenizer_hash": "c" * 64,
    "tokenizer_path": "/models/tiny",
    "tokenizer_rules": 4,
}
Reply = tuple[int, dict[str, str], Any]


class FakeServer:
    """Answers each request with `reply(path, body, headers)`, for a `with` block; keeps what it was asked."""

    def __init__(self, reply: Callable[[str, Any, Any], Reply], certificate: Path | None = None) -> None:
        self.asked: list[tuple[str, Any, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(raw) if raw else None
                outer.asked.append((self.path, body, dict(self.headers)))
                status, headers, value = reply(self.path, body, self.headers)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                for name, one in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, one)
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def version_only(path: str, _body: Any, _headers: Any) -> Reply:
    """A server that only says what it is."""
    return (200, {}, VERSION) if path == "/version" else (404, {}, {"error": {"message": "no such path"}})


def origin_json(limit: float | None = None, **server: Any) -> dict[str, Any]:
    """A record of origin."""
    seeds = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
    made = {"schema": 1, "server": {**VERSION, **server}, "client": "dtrnet", "harness": "0.4.13", "package": "0.2.0"}
    return {**made, "limit": limit, "seeds": seeds, "tasks": {"t": 1.0}, "date": "2026-01-02T03:04:05Z"}


def write_results(folder: Path, tasks: dict[str, Any] | None = None, n: int = 4, of: int = 4, **server: Any) -> Path:
    """A results file with the record of origin of a server that differs from VERSION in `server`."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = tasks or {"t": {"acc,none": 0.5, "acc_stderr,none": 0.25, "alias": "t"}}
    limit = float(n) if n < of else None
    data = {"results": tasks, "config": {"dtrnet_origin": origin_json(limit, **server)}, "versions": {"t": 1.0}}
    data |= {"n-samples": {task: {"original": of, "effective": n} for task in tasks}, "group_subtasks": {}}
    path = folder / f"results_{len(list(folder.glob('results_*')))}.json"
    path.write_text(json.dumps(data))
    return path


def write_samples(folder: Path, task: str, right: list[int], context: str = "Context") -> None:
    """Items of two choices; item i is right where `right[i]` is 1."""
    rows = []
    for i, good in enumerate(right):
        scores = [[["-1.0", "False"]], [["-2.0", "False"]]] if good else [[["-2.0", "False"]], [["-1.0", "False"]]]
        asked = {f"gen_args_{n}": {"arg_0": f"{context} {i}", "arg_1": f" choice {n}"} for n in range(2)}
        row = {"doc_id": i, "doc": {}, "target": "0", "arguments": asked, "resps": scores, "filtered_resps": scores, "filter": "none"}
        rows.append(json.dumps({**row, "doc_hash": f"hash{i}", "acc": float(good)}))
    (folder / f"samples_{task}_0.jsonl").write_text("\n".join(rows) + "\n")
