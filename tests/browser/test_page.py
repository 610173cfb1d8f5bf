"""The page at / in headless Chromium: what it shows is what the server answers, for mouse, keyboard, phone, dark and light.

test_page.py                    the checks
test_page.py --timed            and that 2,000 tokens in 92 layers are drawn within a second
test_page.py --screenshots DIR  and pictures of the page
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import browser as tools  # isort: skip  (first: it finds the Python that has the other packages)
from support import ROOT, Server

TEXT = "The old man sat on the bench and watched the river. Every morning the old man came back to the same bench."
HOSTILE = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script> & 'quoted'"
DRAW_MS = 1000


def ask(page: Any, text: str, kind: str = "text") -> None:
    """Fills the form, sends it, waits for the answer to be shown."""
    before = page.evaluate("performance.getEntriesByName('draw').length")
    page.select_option("#kind", kind)
    page.fill("#text", text)
    page.click("#run")
    tools.wait_until(page, "performance.getEntriesByName('draw').length", before + 1)


def look(browser: Any, url: str, size: str, theme: str, pictures: Path | None) -> list[str]:
    """What is wrong at one width in one theme."""
    wrong: list[str] = []
    with tools.opened(browser, url, wrong, size, theme) as page:
        ask(page, TEXT)
        tools.wait_until(page, "document.querySelectorAll('#live-layers tbody tr').length > 0")
        wrong += tools.too_wide(page)
        if pictures:
            page.locator("#token-6").click()
            page.screenshot(path=str(pictures / f"page-{size}-{theme}.png"), full_page=True)
    with tools.opened(browser, url, wrong, size, theme, bypass_csp=True) as page:
        wrong += tools.findings(page)
        ask(page, TEXT)
        page.evaluate("document.querySelector('details').open = true")
        wrong += tools.findings(page)
    return wrong


def check_numbers(page: Any, answer: dict) -> None:
    """Tokens, layers and savings are those of the answer."""
    layers, n = answer["layers"], len(answer["tokens"])
    assert page.evaluate("[...document.querySelectorAll('#tokens span')].map((t) => t.textContent)") == answer["token_strings"]
    attended = [sum(layer["routing"][i] == "1" for layer in layers) for i in range(n)]
    labels = page.evaluate("[...document.querySelectorAll('#tokens span')].map((t) => t.getAttribute('aria-label'))")
    assert all(label.endswith(f"attends in {a} of {len(layers)} layers") for label, a in zip(labels, attended)), labels
    rows = page.evaluate("[...document.querySelectorAll('#layers tbody tr')].map((r) => [...r.children].map((c) => c.textContent))")
    assert [(int(r[2]), int(r[7])) for r in rows] == [(layer["attended"], layer["kv"].count("1")) for layer in layers]
    cost, figures = answer["usage"]["cost"], page.inner_text("#figures")
    assert (
        f"{100 * (1 - cost['kv_rows'] / cost['dense_kv_rows']):.0f} %" in figures
        and f"{100 * (1 - cost['flops_causal'] / cost['dense_flops_causal']):.1f} %" in figures
    )


def cell_text(answer: dict, layer: int, i: int) -> str:
    """What the page says of p and its rank."""
    p = answer["layers"][layer]["p"]
    rank = 1 + sum(other > p[i] for other in p)
    return f"rank {rank} of {len(p)}"


def check_keyboard(page: Any, answer: dict) -> None:
    """The list of tokens and the map by arrow keys; the mouse shows the same."""
    page.focus("#tokens")
    page.keyboard.press("Home")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tokens", "aria-activedescendant") == "token-6" and page.get_attribute("#token-6", "aria-selected") == "true"
    assert "position 6," in page.inner_text("#detail")
    rows = page.evaluate("[...document.querySelectorAll('#detail-layers tbody tr')].map((r) => [...r.children].map((c) => c.textContent))")
    words = {"0": "linear path", "1": "attends", "-": "skips"}
    for row, layer in zip(rows, answer["layers"]):
        assert row[1].startswith(words[layer["routing"][6]]), row
    best = page.evaluate("[...document.querySelectorAll('.next code')].map((c) => c.textContent)")
    assert best == [re.sub("^ ", "␣", one["token"]) for one in answer["next"][6]], best
    page.focus("#map")
    page.keyboard.press("ArrowDown")
    said = page.inner_text("#cell")
    assert said.startswith("Layer 1 ") and "token 6" in said and cell_text(answer, 1, 6) in said, said
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + 64 + 2, box["y"] + 2)
    tools.wait_until(page, "document.getElementById('cell').textContent.startsWith('Layer 0 (dtrnet), token 0 ')")


def check_views(page: Any) -> None:
    """Every view and width is drawn, and none like another."""
    pictures = set()
    for view in ("decision", "p"):
        page.select_option("#view", view)
        for zoom in ("0", "4", "16"):
            page.select_option("#zoom", zoom)
            pictures.add(page.evaluate("() => { drawMap(); return document.getElementById('map').toDataURL(); }"))
    assert len(pictures) == 6 and min(map(len, pictures)) > 1000
    page.select_option("#view", "decision")


def check_link(browser: Any, url: str, page: Any, wrong: list[str]) -> None:
    """The fragment brings the text back, and nothing of it goes to the server."""
    link = page.url
    assert "#text=" in link, link
    with tools.opened(browser, url + link[len(url) :], wrong) as other:
        tools.wait_until(other, "!document.getElementById('result').hidden")
        assert other.input_value("#text") == page.input_value("#text")
        assert other.inner_text("#tokens") == page.inner_text("#tokens")


def check_hostile(page: Any, folder: Path) -> None:
    """Markup in texts, tokens, names and files stays text."""
    ask(page, HOSTILE)
    assert page.evaluate("[...document.querySelectorAll('#tokens span')].map((t) => t.textContent).join('')").strip() == HOSTILE
    answer = {"object": "routing", "model": HOSTILE, "kv_row_bytes": 8, "tokens": [1, 2], "token_strings": [HOSTILE, HOSTILE]}
    layer = {"kind": HOSTILE, "router": HOSTILE, "skip_router": "none", "decide": HOSTILE, "routing": "10", "kv": "10", "p": [0.7, 0.1]}
    answer |= {"token_logprobs": [None, -1.0], "layers": [layer], "next": [[{"id": 2, "token": HOSTILE, "logprob": -1.0}]] * 2}
    server = {
        "model": HOSTILE,
        "model_hash": HOSTILE,
        "dtype": HOSTILE,
        "device": HOSTILE,
        "rope": {"type": HOSTILE, "factor": HOSTILE},
        "version": HOSTILE,
    }
    saved = folder / "hostile.json"
    saved.write_text(json.dumps({"format": "dtrnet-routing 1", "server": server, "answer": answer}))
    page.reload()
    tools.wait_until(page, "!document.getElementById('result').hidden")
    page.set_input_files("#other", str(saved))
    tools.wait_until(page, "document.getElementById('compare').hidden", False)
    assert HOSTILE in page.inner_text("#compare")
    page.evaluate("(answer) => show(read(answer))", answer)  # as if a server had answered so
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    assert HOSTILE in page.inner_text("#cell") and page.evaluate("document.images.length + document.scripts.length") == 1
    assert page.evaluate("window.hacked") is None


def check_bad_files(page: Any, folder: Path) -> None:
    """Files that are no answers are refused in a sentence."""
    cases = {
        "a.json": "{",
        "b.json": "[]",
        "c.json": '{"object": "routing", "tokens": [1], "token_strings": ["x"], "layers": [{"routing": "11"}]}',
    }
    for name, text in cases.items():
        (folder / name).write_text(text)
        page.set_input_files("#other", str(folder / name))
        tools.wait_until(page, f"document.getElementById('status').textContent.startsWith('{name}: ')")


def check_compare(page: Any, saved: Path, answer: dict) -> None:
    """A model whose layers are made dense against the saved answer of the same text; the key is needed and kept nowhere."""
    page.fill("#text", TEXT)
    page.click("#run")
    tools.wait_until(page, "document.getElementById('status').textContent.includes('Authorization')")
    assert page.evaluate("document.activeElement.id") == "key"
    page.fill("#key", "secret-key")
    ask(page, TEXT)
    page.set_input_files("#other", str(saved))
    tools.wait_until(page, "document.getElementById('compare').hidden", False)
    routed = sum(code != "1" for layer in answer["layers"] for code in layer["routing"])
    said = page.inner_text("#compare")
    assert f"{routed} of {len(answer['tokens']) * len(answer['layers'])} decisions differ" in said, said
    page.select_option("#view", "difference")
    page.evaluate("drawMap()")
    kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
    assert kept[:3] == [0, 0, ""] and "secret" not in kept[3], kept
    page.click("#forget")
    assert page.evaluate("document.getElementById('compare').hidden")


def check_whole(browser: Any, folder: Path, pictures: Path | None) -> None:
    """The shipped model without a key, then with one and dense layers."""
    wrong: list[str] = []
    with Server() as server:
        url = server.url + "/"
        for size in tools.SIZES:
            for theme in tools.THEMES:
                found = look(browser, url, size, theme, pictures)
                assert not found, (size, theme, found)
        answer = server.post("/v1/routing", {"text": TEXT, "top_logprobs": 10})
        with tools.opened(browser, url, wrong) as page:
            ask(page, TEXT)
            check_numbers(page, answer)
            check_keyboard(page, answer)
            check_views(page)
            check_link(browser, url, page, wrong)
            with page.expect_download() as download:
                page.click("#save")
            saved = folder / "saved.json"
            download.value.save_as(saved)
            got = json.loads(saved.read_text())
            assert got["answer"]["layers"] == answer["layers"] and got["text"] == TEXT and got["server"]["model"] == "dtrnet-26m"
            check_hostile(page, folder)
            check_bad_files(page, folder)
    (folder / "keys").write_text("tester secret-key\n")
    with (
        Server(None, "--api-key-file", str(folder / "keys"), "--dense-layers", "all") as server,
        tools.opened(browser, server.url + "/", []) as page,
    ):
        check_compare(page, saved, answer)
    assert not wrong, wrong


def check_guard(browser: Any) -> None:
    """A page that asks for something elsewhere is seen."""
    wrong: list[str] = []
    with Server() as server, tools.opened(browser, server.url + "/", wrong, bypass_csp=True) as page:
        page.evaluate("fetch('http://127.0.0.1:9/x').catch(() => {})")
        tools.wait_until(page, "fetch('metrics').then((r) => r.ok)")
    assert any("127.0.0.1:9" in one for one in wrong), wrong


def check_nested(browser: Any) -> None:
    """A model with nested layers and without a tokenizer: ids, skipped tokens, s0 in the table and on the map."""
    wrong: list[str] = []
    ids = [5, 90, 17, 33, 64, 8, 121, 40]
    with Server(ROOT / "tests" / "ultradeep" / "nested-mlp") as server, tools.opened(browser, server.url + "/", wrong) as page:
        answer = server.post("/v1/routing", {"text": ids})
        ask(page, ", ".join(map(str, ids)), "ids")
        rows = page.evaluate(
            "[...document.querySelectorAll('#detail-layers tbody tr')].map((r) => [...r.children].map((c) => c.textContent))"
        )
        words = {"0": "linear path", "1": "attends", "-": "skips"}
        assert [row[1] for row in rows] == [words[layer["routing"][0]] for layer in answer["layers"]]
        assert [row[4] for row in rows] == [f"{layer['s0'][0]:.3f}" if "s0" in layer else "—" for layer in answer["layers"]], rows
        skipped = sum(layer["routing"].count("-") for layer in answer["layers"])
        assert skipped and f"{skipped} of" in page.inner_text("#figures") and "skips" in page.inner_text("#legend")
        decisions = page.evaluate("() => { drawMap(); return document.getElementById('map').toDataURL(); }")
        page.select_option("#view", "s0")
        assert page.evaluate("() => { drawMap(); return document.getElementById('map').toDataURL(); }") != decisions
        page.fill("#text", "5 x")
        page.click("#run")
        tools.wait_until(page, "document.getElementById('status').textContent.startsWith('token ids are whole numbers')")
    assert not wrong, wrong


def thread_ms(session: Any) -> float:
    """Processor time of the page's main thread so far."""
    return 1000 * next(m["value"] for m in session.send("Performance.getMetrics")["metrics"] if m["name"] == "ThreadTime")


def check_drawing_time(browser: Any, pictures: Path | None) -> None:
    """From an answer's bytes to the picture, by the processor's time, which other programs do not change: the best of five."""
    wrong: list[str] = []
    ids = " ".join(str((37 * i + 11 * i * i) % 128) for i in range(2000))
    deep = Server(ROOT / "tests" / "ultradeep" / "deep92-lns-bf16", "--max-model-len", "2048")
    with deep as server, tools.opened(browser, server.url + "/", wrong, theme="dark") as page:
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        busy = []
        for _ in range(5):
            before = thread_ms(session)
            ask(page, ids, "ids")
            busy.append(thread_ms(session) - before)
        took = page.evaluate("performance.getEntriesByName('draw').map((e) => e.duration)")
        assert "2,000 tokens, 92 layers" in page.inner_text("#status")
        if pictures:
            page.screenshot(path=str(pictures / "page-92-layers.png"), full_page=True)
    print(f"2,000 tokens in 92 layers drawn in {min(took):.0f} ms, {min(busy):.0f} ms of the processor with the form and the request")
    assert not wrong, wrong
    assert 0 < min(busy) < DRAW_MS, busy


def main() -> int:
    """All checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timed", action="store_true", help="check how long drawing takes")
    parser.add_argument("--screenshots", type=Path, help="folder for pictures")
    args = parser.parse_args()
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    with tools.chromium() as browser, tempfile.TemporaryDirectory() as name:
        check_whole(browser, Path(name), args.screenshots)
        check_nested(browser)
        check_guard(browser)
        if args.timed:
            check_drawing_time(browser, args.screenshots)
    print("the page: numbers, keyboard, views, links, files, keys, no markup from models, no finding at two widths in two themes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
