"""The evaluation package as a person uses it: a run that outlives its server, a sweep that goes on, a report."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import support
from support import Server

sys.path.insert(0, str(support.ROOT / "eval" / "src"))
ENV = {**os.environ, "PYTHONPATH": str(support.ROOT / "eval" / "src")}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`dtrnet-eval` with these arguments."""
    line = [sys.executable, "-m", "dtrnet_eval", *arguments]
    return subprocess.run(line, env=ENV, capture_output=True, text=True, timeout=600, check=False)


def check_restart() -> None:
    """The server is killed and started again on its port while the plugin scores: the scores are those of an undisturbed run."""
    from lm_eval.api.instance import Instance

    import dtrnet_eval.lm as plugin

    plugin.PAIRS_A_REQUEST = 4
    lines = (support.ROOT / "eval" / "samples" / "ending.jsonl").read_text().splitlines()
    pairs = [(item["context"], " " + ending) for item in map(json.loads, lines) for ending in item["endings"]]
    asked = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)]
    with Server() as server:
        port = server.url.rsplit(":", 1)[1]
        model = plugin.DtrnetLM(base_url=server.url, num_concurrent=1)
        want = model.loglikelihood(asked, disable_tqdm=True)
    got: list = []
    first = Server(support.SHIPPED, "--port", port)
    worker = threading.Thread(target=lambda: got.extend(model.loglikelihood(asked, disable_tqdm=True)))
    done_before = first.metrics()["dtrnet_sequences_done_total"]
    worker.start()
    while first.metrics()["dtrnet_sequences_done_total"] < done_before + 16:
        time.sleep(0.001)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    time.sleep(0.3)
    with Server(support.SHIPPED, "--port", port):
        worker.join(120)
    assert got == want, "scores changed over a restart"
    print(f"restart: {len(got)} scores equal")


def check_sweep(folder: Path) -> None:
    """A sweep over one good and one broken checkpoint; started again, it repeats nothing that is finished."""
    broken = folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    out = folder / "out"
    arguments = ["sweep", "smoke", str(support.SHIPPED), str(broken), "--output", str(out), "--limit", "4"]
    arguments += ["--dtrnet", os.environ.get("DTRNET_BIN", str(support.ROOT / "build" / "dtrnet"))]
    first = command(*arguments)
    assert first.returncode == 1 and "1 of 2 checkpoints are not finished: broken" in first.stderr, first.stderr[-2000:]
    files = sorted(str(path) for path in (out / "dtrnet-26m").rglob("*"))
    again = command(*arguments)
    assert again.returncode == 1 and files == sorted(str(path) for path in (out / "dtrnet-26m").rglob("*"))
    config = json.loads(next(out.rglob("results_*.json")).read_text())["config"]
    assert config["dtrnet_server"]["model_hash"] and config["dtrnet_run"]["scored_tokens"] > 0
    made = command("report", str(out / "dtrnet-26m"), "--output", str(folder / "report"))
    assert made.returncode == 0, made.stderr
    page = (folder / "report.html").read_text()
    assert "sample_ending" in page and "<img" in page and "http" not in page.split("</head>")[1]
    print("sweep: finished work kept; report made")


def main() -> int:
    """All parts."""
    check_restart()
    with tempfile.TemporaryDirectory() as name:
        check_sweep(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
