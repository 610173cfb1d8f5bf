"""The report of results as this version writes them, opened in headless Chromium at desktop and phone width, light and dark.

Nothing on its console, no request, no serious finding of axe, nothing off the edge; the filter of items works with mouse and keyboard.
The results are of small runs made here: the smoke suite's harness run on two models, and `dtrnet-eval long` on a document.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import support  # isort: skip  (first: it finds the Python that has the other packages)
import commands
import twin
from support import Server

sys.path.insert(0, str(support.ROOT / "tests" / "browser"))
import browser as tools

command = commands.Forked()
SECTIONS = ("Origin", "Tasks", "Averages", "Item by item", "Disagreements", "Long context", "Routing by position", "Routing by run")
SECTIONS += ("FLOPs and KV rows against dense", "Cost of the runs")


def evaluate(*arguments: str) -> None:
    """`dtrnet-eval` with these arguments; it must succeed."""
    got = (command if arguments[0] == "suite" else commands.alone)(*arguments)
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


def look(browser: Any, page_file: Path, size: str, theme: str) -> list[str]:
    """What is wrong with the page at one width and setting."""
    wrong: list[str] = []
    with tools.opened(browser, page_file.as_uri(), wrong, size, theme, inline=("data:",)) as page:
        wrong += tools.too_wide(page)
        if not wrong:
            check_filter(page)
    with tools.opened(browser, page_file.as_uri(), wrong, size, theme, inline=("data:",), bypass_csp=True) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one, i) => { one.open = i < 3; })")
        wrong += tools.findings(page)
    return wrong


def check_in_browser(browser: Any, page: Path) -> None:
    """Two widths, light and dark; a page that asks for something elsewhere is seen."""
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace("<h1>", '<img alt="" src="http://127.0.0.1:9/x.png"><h1>'))
    for size in tools.SIZES:
        for theme in tools.THEMES:
            wrong = look(browser, page, size, theme)
            assert not wrong, (size, theme, wrong)
    assert look(browser, broken, "desktop", "light"), "a request to elsewhere went unseen"
    print("Chromium: nothing on the console, no request, no serious finding at two widths, light and dark")


def main() -> int:
    """Two models, one page."""
    tools.require()
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
        with tools.chromium() as browser:
            check_in_browser(browser, folder / "page.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
