"""Shards of a suite on the loopback: one is killed in the middle and goes on, and merged they are one undivided run; so are two servers."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import support  # isort: skip  (first: it finds the Python that has the other packages)
import commands
from server_process import PATIENCE_S
from support import Server

LIMIT = ("--limit", "8")
command = commands.Forked()


def good(*arguments: str, how: Callable[..., commands.Result] = command) -> str:
    """What a command prints; it must end well."""
    done = how(*arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def digest(folder: Path) -> str:
    """Of every score, value and item, and of their origin."""
    return good("seal", str(folder)).split()[0]


def kill_in_the_middle(server: Server, line: list[str], answers: Path) -> int:
    """Starts a shard and kills it once it has an answer, the server held meanwhile; how many lines it has left, 0: it was over before."""
    whole = [sys.executable, "-m", "dtrnet_eval", *line]
    process = subprocess.Popen(whole, env=commands.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + PATIENCE_S
    while not (answers.exists() and answers.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None and time.monotonic() < until, "the shard has no answer"
        time.sleep(0.001)
    server.process.send_signal(signal.SIGSTOP)
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)  # the harness, which `suite` runs
    process.wait()
    server.process.send_signal(signal.SIGCONT)
    lines = answers.read_bytes().splitlines()
    return 0 if lines[-1].startswith(b'{"end"') else len(lines)


def check_shards(server: Server, folder: Path) -> None:
    """Two shards; the second is killed."""
    line = ["suite", "smoke", "--base_url", server.url, *LIMIT, "--output", str(folder)]
    answers = folder / "shards" / "samples"
    until = time.monotonic() + PATIENCE_S
    while not (left := kill_in_the_middle(server, [*line, "--shard", "2/2"], answers / "answers-2-of-2.jsonl")):
        assert time.monotonic() < until, "the shard was always over before it was killed"
        shutil.rmtree(folder)
    early = command("merge", "smoke", str(folder))
    assert early.returncode == 1 and "of 2 shards these are not finished: 1, 2" in early.stderr, early.stderr
    good(*line, "--shard", "1/2")
    said = good(*line, "--shard", "2/2")
    assert "shard 2/2: goes on behind" in said, said
    assert "finished before" in good(*line, "--shard", "2/2")
    good("merge", "smoke", str(folder), how=commands.alone)
    assert "merged before" in good("merge", "smoke", str(folder))
    print(f"shards: killed behind {left - 1} answers")


def check_servers(folder: Path) -> None:
    """`sweep --servers` over two, of which both work."""
    with Server() as one, Server() as two:
        good("sweep", "smoke", "--servers", one.url, two.url, *LIMIT, "--output", str(folder), how=commands.alone)
        done = [server.metrics()["dtrnet_sequences_done_total"] for server in (one, two)]
    assert all(done), done
    print(f"two servers: {done} sequences")


def main() -> int:
    """All ways lead to one digest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Server() as server:
            good("suite", "smoke", "--base_url", server.url, *LIMIT, "--output", str(folder / "whole"))
            check_shards(server, folder / "parts")
        check_servers(folder / "servers")
        found = {digest(folder / part) for part in ("whole", "parts", f"servers/{support.SHIPPED.name}")}
    assert len(found) == 1, found
    print(f"undivided, merged and shared: {found.pop()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
