"""The evaluation package as a person uses it: a run that outlives its server, a sweep that goes on, a report."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import support  # isort: skip  (first: it finds the Python that has the other packages)
import commands
from server_process import PATIENCE_S
from support import Server

sys.path.insert(0, str(support.ROOT / "eval" / "src"))
PROGRAM = os.environ.get("DTRNET_BIN", str(support.ROOT / "build" / "dtrnet"))


def questions() -> dict[str, list[tuple]]:
    """Arguments of the harness's requests, by their kind."""
    samples = support.TASKS.parent / "samples"
    endings = [json.loads(line) for line in (samples / "ending.jsonl").read_text().splitlines()]
    passage = json.loads((samples / "passage.jsonl").read_text().splitlines()[0])["text"]
    until = {"until": ["\n"], "max_gen_toks": 48, "do_sample": False}
    return {
        "loglikelihood": [(item["context"], " " + ending) for item in endings for ending in item["endings"]],
        "loglikelihood_rolling": [(passage[at:],) for at in range(0, 1200, 100)],
        "generate_until": [(item["context"], until) for item in endings[:24]],
    }


@contextlib.contextmanager
def stopped_at_work(server: Server) -> Iterator[threading.Event]:
    """The second request of the plugin to this server finds it stopped, which the event tells; requests to others wait until then."""
    from dtrnet_eval.client import Client

    requests, stopped, send = itertools.count(1), threading.Event(), Client._send

    def held(client: Client, method: str, path: str, body: Any) -> Any:
        if method == "POST" and client.root != server.url:
            stopped.wait(PATIENCE_S)
        elif method == "POST" and next(requests) == 2:
            server.process.send_signal(signal.SIGSTOP)
            os.waitpid(server.process.pid, os.WUNTRACED)
            stopped.set()
        return send(client, method, path, body)

    with mock.patch.object(Client, "_send", held):
        yield stopped


def kill_at_work(model: Any, kind: str, asked: list, server: Server) -> tuple[threading.Thread, list]:
    """Asks the model and kills one of its servers when it has a second request. The thread that goes on, and where its answers will be."""
    got: list = []
    worker = threading.Thread(target=lambda: got.extend(getattr(model, kind)(asked, disable_tqdm=True)))
    with stopped_at_work(server) as stopped:
        worker.start()
        asked_again = stopped.wait(PATIENCE_S)
        server.process.kill()
        server.process.wait()
        assert asked_again, f"{kind}: no second request"
    return worker, got


def answer_over_restart(model: Any, kind: str, asked: list, port: str) -> list:
    """The model's answers while the server on its port is killed and started again."""
    worker, got = kill_at_work(model, kind, asked, Server(support.SHIPPED, "--port", port))
    time.sleep(0.3)
    with Server(support.SHIPPED, "--port", port):
        worker.join(PATIENCE_S)
    return got


def check_restart() -> None:
    """The server is killed and started again while the plugin works: every kind of answer is that of an undisturbed run."""
    from lm_eval.api.instance import Instance

    import dtrnet_eval.lm as plugin

    plugin.batches.PAIRS_A_REQUEST, plugin.batches.PROMPTS_A_REQUEST = 4, 2
    for kind, arguments in questions().items():
        asked = [Instance(request_type=kind, doc={}, arguments=one, idx=i) for i, one in enumerate(arguments)]
        with Server() as server:
            model = plugin.DtrnetLM(base_url=server.url, num_concurrent=1)
            want = getattr(model, kind)(asked, disable_tqdm=True)
        got = answer_over_restart(model, kind, asked, server.url.rsplit(":", 1)[1])
        assert got == want, f"{kind}: answers changed over a restart"
        print(f"restart: {len(got)} answers of {kind} equal")


def running(words: list[str]) -> list[int]:
    """Processes whose command line has all these words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(int(process.name))
    return found


def wait_for(what: str, done: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Until done() says so."""
    until = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < until, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)


def check_killed_sweep(folder: Path) -> None:
    """A sweep killed behind its first run takes its server and its harness with it; started again it repeats only what is unfinished."""
    model = folder / "killed-model"
    model.symlink_to(support.SHIPPED)
    runs = "".join(f"  - {{name: {name}, tasks: [{task}]}}\n" for name, task in [("first", "sample_twoway"), ("second", "sample_ending")])
    suite = folder / "two.yaml"
    suite.write_text(f"about: two runs\ninclude: {support.TASKS}\nruns:\n{runs}")
    out = folder / "killed"
    line = [sys.executable, "-m", "dtrnet_eval", "sweep", str(suite), str(model), "--output", str(out), "--dtrnet", PROGRAM]
    until = time.monotonic() + PATIENCE_S
    while True:
        with subprocess.Popen(line, env=commands.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweep:
            wait_for("the first run", (out / "dtrnet-26m" / "first" / "finished.json").exists)
            sweep.send_signal(signal.SIGKILL)
        wait_for("the end of the server", lambda: not running(["serve", str(model)]))
        wait_for("the end of the harness", lambda: not running([str(out / "dtrnet-26m" / "second")]))
        if not (out / "dtrnet-26m" / "second" / "finished.json").exists():
            break
        assert time.monotonic() < until, "the sweep was always over before it was killed"
        shutil.rmtree(out)
    kept = {path: path.stat().st_mtime_ns for path in (out / "dtrnet-26m" / "first").rglob("*")}
    again = commands.alone(*line[3:])
    assert again.returncode == 0 and "first: finished before" in again.stdout, again.stderr[-2000:]
    assert kept == {path: path.stat().st_mtime_ns for path in (out / "dtrnet-26m" / "first").rglob("*")}
    assert (out / "dtrnet-26m" / "second" / "finished.json").exists()
    print("sweep: killed, and gone on with")


def check_sweep(folder: Path) -> None:
    """A sweep over one good and one broken checkpoint; started again, it repeats nothing that is finished."""
    broken = folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    command = commands.Forked()
    out = folder / "out"
    arguments = ["sweep", "smoke", str(support.SHIPPED), str(broken), "--output", str(out), "--limit", "4"]
    arguments += ["--dtrnet", PROGRAM]
    first = command(*arguments)
    assert first.returncode == 1 and "1 of 2 checkpoints are not finished: broken" in first.stderr, first.stderr[-2000:]
    files = sorted(str(path) for path in (out / "dtrnet-26m").rglob("*"))
    again = command(*arguments)
    assert again.returncode == 1 and files == sorted(str(path) for path in (out / "dtrnet-26m").rglob("*"))
    config = json.loads(next(out.rglob("results_*.json")).read_text())["config"]
    assert config["dtrnet_origin"]["server"]["model_hash"] and config["dtrnet_run"]["scored_tokens"] > 0
    made = command("report", str(out / "dtrnet-26m"), "--output", str(folder / "report"))
    assert made.returncode == 0, made.stderr
    page = (folder / "report.html").read_text()
    assert "sample_ending" in page and "<svg" in page
    print("sweep: finished work kept; report made")


def main() -> int:
    """All parts."""
    check_restart()
    with tempfile.TemporaryDirectory() as name:
        check_sweep(Path(name))
        check_killed_sweep(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
