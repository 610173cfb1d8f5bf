"""The report of results as this version writes them, opened in headless Chromium: nothing on its console, no request, pictures drawn.

The results are of small runs made here: the smoke suite's harness run on two models, and `dtrnet-eval long` on a document.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import support  # isort: skip  (first: it finds the Python that has the other packages)
import twin
from support import Server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECTIONS = ("Tasks", "Averages", "Item by item", "Long context", "Routing by position", "Routing by run")
SECTIONS += ("FLOPs and KV rows against dense", "Cost of the runs")


def evaluate(*arguments: str) -> None:
    """`dtrnet-eval` with these arguments; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(support.ROOT / "eval" / "src")}
    line = [sys.executable, "-m", "dtrnet_eval", *arguments]
    got = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert got.returncode == 0, got.stderr[-2000:]


def make_results(model: Path, documents: Path, out: Path) -> None:
    """A suite's run with --limit, and both long-context measures."""
    with Server(model) as server:
        evaluate("suite", "smoke", "--base_url", server.url, "--output", str(out), "--limit", "8")
        lengths = ["--lengths", "256,512", "--label", "plain", "--output", str(out / "long.json")]
        evaluate("long", str(documents), "--base_url", server.url, *lengths)
    check_long(json.loads((out / "long.json").read_text()))


def check_long(found: dict) -> None:
    """By position and by length is the same document: every token counted, shares of dense layers 1, cost from the rows."""
    last = found["by_length"][-1]
    assert sum(row["tokens"] for row in found["by_position"]) == last["tokens"] == 512
    nll = sum(row["nll"] * row["tokens"] for row in found["by_position"]) / last["tokens"]
    assert abs(nll - last["nll"]) < 1e-9
    kv_rows = sum(share * row["tokens"] for row in found["by_position"] for share in row["routed_share"])
    assert abs(kv_rows - last["cost"]["kv_rows"]) < 0.01 * kv_rows and last["cost"]["dense_kv_rows"] == 12 * 512
    assert all(row["routed_share"][layer] == 1 for row in found["by_position"] for layer in found["server"]["dense_layers"])


def add_averaged_tasks(folder: Path) -> None:
    """Results of the papers' tasks, made up: the page must show the papers' averages beside ours."""
    tasks = ("arc_challenge", "arc_easy", "boolq", "hellaswag", "lambada_openai", "piqa", "tinyMMLU", "winogrande")
    results = {task: {"acc,none": 0.5, "acc_stderr,none": 0.01, "alias": task} for task in tasks}
    (folder / "results_made_up.json").write_text(json.dumps({"results": results, "config": {}}))


def check_page(page: str) -> None:
    """Sections, the papers' numbers marked as theirs, nothing from outside."""
    missing = [title for title in SECTIONS if f"<h2>{title}</h2>" not in page]
    assert not missing, missing
    assert "50.00" in page and page.count("theirs, not measured here") == 4 and "44.36" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "<script" not in page


def check_in_browser(page: Path) -> None:
    """Chromium logs console messages (a blocked request is one) to stderr; the screenshot must not be blank."""
    shot = page.with_suffix(".png")
    how = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1000,6000", f"--screenshot={shot}"]
    line = [CHROMIUM, *how, f"--user-data-dir={page.parent / 'profile'}", page.as_uri()]
    got = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    said = [line for line in got.stderr.splitlines() if "CONSOLE" in line]
    assert got.returncode == 0 and shot.is_file(), got.stderr[-2000:]
    assert not said, said
    assert len(shot.read_bytes()) > 100_000, "the page is almost empty"
    print("Chromium: nothing on the console, no request")


def main() -> int:
    """Two models, one page."""
    if CHROMIUM is None:
        support.skip("no Chromium")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = folder / "documents.jsonl"
        documents.write_text((support.TASKS.parent / "samples" / "passage.jsonl").read_text())
        (folder / "random").mkdir()
        twin.write_twin(support.SHIPPED, folder / "random")
        for label, model in (("trained", support.SHIPPED), ("untrained", folder / "random")):
            make_results(model, documents, folder / label)
            add_averaged_tasks(folder / label)
        evaluate("report", str(folder / "trained"), str(folder / "untrained"), "--output", str(folder / "page"))
        check_page((folder / "page.html").read_text())
        pictures = re.findall(r"\]\((.*?)\)", (folder / "page.md").read_text())
        assert len(pictures) == 5 and all((folder / name).is_file() for name in pictures), pictures
        broken = folder / "broken.html"
        broken.write_text((folder / "page.html").read_text().replace("<h1>", '<img src="http://127.0.0.1:9/x.png"><h1>'))
        check_in_browser(folder / "page.html")
        try:
            check_in_browser(broken)
        except AssertionError:
            return 0
        raise AssertionError("a request to elsewhere went unseen")


if __name__ == "__main__":
    sys.exit(main())
