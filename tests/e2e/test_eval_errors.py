"""What a person can get wrong with `dtrnet-eval`: one line each that names it, no traceback, a status that is not 0."""

import http.server
import json
import sys
import tempfile
import threading
from pathlib import Path

import support  # isort: skip  (first: it finds the Python that has the other packages)
import commands
from support import Server

INCLUDE = ("--include_path", str(support.TASKS))
command = commands.Forked()


# What another server, or an older one of ours, answers to every request -> the commands' answer.
SERVERS = [
    ("<html>", "is not a dtrnet server"),
    ("[1]", "is not a dtrnet server"),
    ('{"version": "0.0.1"}', "or an older one"),
    (
        json.dumps(
            {"model_hash": "x", "max_model_len": 4096, "model": "m", "tokens": [5] * 4096}
            | {"results": [{"buckets": {"by_position": {"logprob": [], "num_tokens": []}}}], "usage": {}}
        ),
        "and not too old",
    ),
]


class Impostor(http.server.BaseHTTPRequestHandler):
    """Answers everything with `answer`."""

    answer = ""

    def do_GET(self) -> None:
        """Whatever is asked for."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer.encode())

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def is_refused(expected: str, *arguments: str) -> None:
    """One line, no traceback, a status that is not 0. Under `run` the harness's own log comes before it."""
    got = command(*arguments)
    lines = got.stderr.splitlines()
    assert got.returncode != 0 and expected in lines[-1] and "Traceback" not in got.stderr, (arguments, got.stderr[-1000:])
    assert len(lines) == 1 or arguments[0] == "run", (arguments, lines)


def check_servers(folder: Path) -> int:
    """Servers that are not ours, or too old."""
    documents = folder / "documents.jsonl"
    documents.write_text('{"text": "It rained."}\n')
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Impostor) as impostor:
        threading.Thread(target=impostor.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{impostor.server_address[1]}"
        for Impostor.answer, expected in SERVERS:
            is_refused(expected, "long", str(documents), "--base_url", url, "--lengths", "4096", "--output", str(folder / "x.json"))
        Impostor.answer = SERVERS[0][0]
        is_refused(SERVERS[0][1], "suite", "smoke", "--base_url", url)
        is_refused(SERVERS[0][1], "run", "--model", "dtrnet", "--model_args", f"base_url={url}", "--tasks", "sample_twoway", *INCLUDE)
        impostor.shutdown()
    return len(SERVERS) + 2


def check_runs(folder: Path) -> int:
    """Mistakes that only show with a server that is ours."""
    run = ["run", "--model", "dtrnet", *INCLUDE, "--tasks"]
    documents = folder / "documents.jsonl"
    with Server() as server:
        where = f"base_url={server.url}"
        is_refused("Tasks not found: nosuch", *run, "nosuch", "--model_args", where)
        is_refused("must be 1 to the server's limit of 2048", *run, "sample_twoway", "--model_args", f"{where},max_length=4096")
        is_refused("max_length must be a whole number", *run, "sample_twoway", "--model_args", f"{where},max_length=all")
        is_refused("there is no file piqa.jsonl", *run, "offline_piqa", "--model_args", where)
        long = ["long", str(documents), "--base_url", server.url, "--output", str(folder / "x.json"), "--lengths"]
        is_refused("the server takes 2048 positions; for 4096 start it with --max-model-len 4096", *long, "4096")
        is_refused("no document has 64 tokens", *long, "64")
        is_refused("must be numbers from 2 on", *long, "none")
        is_refused("Is a directory", "long", str(folder), *long[2:], "64")
        is_refused("--output_path /proc/nowhere: ", *run, "sample_twoway", "--model_args", where, "--output_path", "/proc/nowhere")
    return 9


def check_arguments(folder: Path) -> int:
    """What a person can get wrong before a server is asked."""
    broken = folder / "broken.yaml"
    broken.write_text("runs:\n - {tasks: sample_twoway}\n")
    cases = {
        "there is no suite": ["suite", "nosuch"],
        "must have a list of tasks": ["suite", str(broken)],
        "needs the environment variable LOCAL_EVAL_DATA": ["suite", "offline"],
        "no command": ["nosuch"],
        "gave up": ["suite", "smoke", "--base_url", "http://127.0.0.1:9"],
        "must begin with http": ["suite", "smoke", "--base_url", "ftp://x"],
        "is not a folder": ["report", str(folder / "nothing")],
        "is no checkpoint": ["sweep", "smoke", str(folder), "--output", str(folder / "o")],
        "cannot start": ["sweep", "smoke", str(support.SHIPPED), "--output", str(folder / "o"), "--dtrnet", "/nowhere"],
        "--limit must be a number": ["suite", "smoke", "--limit", "few", "--base_url", "http://127.0.0.1:9"],
        "there is no such folder": ["local", "--include_path", "/nowhere"],
    }
    commands.ENVIRONMENT.pop("LOCAL_EVAL_DATA", None)
    for expected, arguments in cases.items():
        is_refused(expected, *arguments)
    commands.ENVIRONMENT["LOCAL_EVAL_DATA"] = str(folder)
    return len(cases)


def main() -> int:
    """All parts."""
    with tempfile.TemporaryDirectory() as name:
        for check in (check_arguments, check_servers, check_runs):
            print(f"{check.__name__}: {check(Path(name))} mistakes, one line each", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
