"""The report of results as this version writes them, opened in headless Chromium at desktop and phone width, light and dark.

Nothing on its console, no request, no serious finding of axe, nothing off the edge; the filter of items works with mouse and keyboard.
The results are of small runs made here: the smoke suite's harness run on two models, and `dtrnet-eval long` on a document.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import support  # isort: skip  (first: it finds the Python that has the other packages)
import twin
from server_process import PATIENCE_S
from support import Server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECTIONS = ("Origin", "Tasks", "Averages", "Item by item", "Disagreements", "Long context", "Routing by position", "Routing by run")
SECTIONS += ("FLOPs and KV rows against dense", "Cost of the runs")
SERIOUS = ("serious", "critical")


def evaluate(*arguments: str) -> None:
    """`dtrnet-eval` with these arguments; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(support.ROOT / "eval" / "src")}
    line = [sys.executable, "-m", "dtrnet_eval", *arguments]
    got = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert got.returncode == 0, got.stderr[-2000:]


def make_results(model: Path, documents: Path, out: Path) -> None:
    """A suite's run with --limit, and both long-context measures."""
    with Server(model) as server:
        evaluate("suite", "smoke", "--base_url", server.url, "--output", str(out), "--limit", "8", "--item_routing")
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
    dense = found["dtrnet_origin"]["server"]["dense_layers"]
    assert all(row["routed_share"][layer] == 1 for row in found["by_position"] for layer in dense)


def add_averaged_tasks(folder: Path) -> None:
    """Results of the papers' tasks, made up, with the origin of the others: the page must show the papers' averages beside ours."""
    tasks = ("arc_challenge", "arc_easy", "boolq", "hellaswag", "lambada_openai", "piqa", "tinyMMLU", "winogrande")
    results = {task: {"acc,none": 0.5, "acc_stderr,none": 0.01, "alias": task} for task in tasks}
    (path,) = folder.rglob("results_*.json")
    config = {"dtrnet_origin": json.loads(path.read_text())["config"]["dtrnet_origin"]}
    (folder / "results_made_up.json").write_text(json.dumps({"results": results, "config": config}))


def check_page(page: str) -> None:
    """Sections, the papers' numbers marked as theirs, n and limits, nothing from outside, one script that its policy names."""
    missing = [title for title in SECTIONS if f">{title}</h2>" not in page]
    assert not missing, missing
    assert "50.00" in page and page.count("theirs, not measured here") == 4 and "44.36" in page
    assert "n 32 of 268, limited" in page and "e92ab8412ff3" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page) and page.count("<script") == 1 and "script-src 'sha256-" in page


def check_filter(page: Any) -> None:
    """Items by task, and by a word."""
    items = page.locator("details.item")
    whole = items.count()
    assert whole > 0
    page.locator("#item-task").focus()
    page.keyboard.type(page.locator("#item-task option").nth(1).inner_text())
    shown = page.locator("details.item:not([hidden])").count()
    assert 0 < shown <= whole and str(shown) in page.locator("#item-count").inner_text()
    page.locator("#item-text").fill("no item has this text")
    assert page.locator("details.item:not([hidden])").count() == 0
    page.locator("#item-text").fill("")
    page.locator("#item-task").select_option("")
    assert page.locator("details.item:not([hidden])").count() == whole


def look(browser: Any, page_file: Path, width: int, theme: str) -> list[str]:
    """What is wrong with the page at one width and setting."""
    from axe_playwright_python.sync_playwright import Axe

    wrong: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = context.new_page()
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else wrong.append(f"request: {request.url}"))
    page.goto(page_file.as_uri())
    wide = page.evaluate("document.documentElement.scrollWidth")
    wrong += [f"the page is {wide} pixels wide"] if wide > width else []
    if not wrong:
        check_filter(page)
    page.screenshot(path=str(page_file.with_suffix(f".{width}.{theme}.png")), full_page=True)
    context.close()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True)  # axe is a script
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one, i) => { one.open = i < 3; })")
    for found in Axe().run(page).response["violations"]:
        wrong += [f"axe: {found['id']}: {found['nodes'][0]['html'][:200]}"] if found["impact"] in SERIOUS else []
    context.close()
    return wrong


def check_in_browser(page: Path) -> None:
    """Two widths, light and dark; a page that asks for something elsewhere is seen."""
    from playwright.sync_api import sync_playwright

    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace("<h1>", '<img alt="" src="http://127.0.0.1:9/x.png"><h1>'))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1280, 390):
            for theme in ("light", "dark"):
                wrong = look(browser, page, width, theme)
                assert not wrong, (width, theme, wrong)
        assert look(browser, broken, 1280, "light"), "a request to elsewhere went unseen"
        browser.close()
    print("Chromium: nothing on the console, no request, no serious finding at two widths, light and dark")


def main() -> int:
    """Two models, one page."""
    if CHROMIUM is None:
        support.skip("no Chromium")
    if importlib.util.find_spec("axe_playwright_python") is None:
        support.skip("no Python package axe_playwright_python; ./run-tests installs it into .venv")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = folder / "documents.jsonl"
        documents.write_text((support.TASKS.parent / "samples" / "passage.jsonl").read_text())
        twin.write_twin(support.SHIPPED, folder / "random")
        for label, model in (("trained", support.SHIPPED), ("untrained", folder / "random")):
            make_results(model, documents, folder / label)
            add_averaged_tasks(folder / label)
        evaluate("report", str(folder / "trained"), str(folder / "untrained"), "--output", str(folder / "page"))
        check_page((folder / "page.html").read_text())
        pictures = re.findall(r"\]\((.*?)\)", (folder / "page.md").read_text())
        assert len(pictures) == 5 and all((folder / name).is_file() for name in pictures), pictures
        assert "sample_ending" in (folder / "page.csv").read_text() and "doc_id" in (folder / "page-items.csv").read_text()
        check_in_browser(folder / "page.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
