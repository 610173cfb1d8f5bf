"""A report of `dtrnet-eval report` in headless Chromium: no request to elsewhere, nothing on the console, no serious finding, not too wide.

The results are made up, so this takes seconds; tests/e2e/test_report.py does the same with results of real runs. A folder of reports made
elsewhere can be named instead: test_report.py FILE.html ...
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import browser as tools  # isort: skip  (first: it finds the Python that has the other packages)

sys.path[:0] = [str(tools.ROOT / "tests" / "eval"), str(tools.ROOT / "eval" / "src")]
import fake  # noqa: E402

HOSTILE = '<img src=x onerror="window.hacked=1">'


def make_report(folder: Path) -> Path:
    """Two models with items on which they disagree, one of them limited, names that are markup, and a sweep's checkpoints."""
    metrics = {"acc,none": 0.5, "acc_stderr,none": 0.01}
    for name, right, more in (
        ("first", [1, 1, 0, 0], {}),
        ("second", [1, 0, 1, 0], {"n": 3, "model_hash": "b" * 64, "forced_dense_layers": [0]}),
    ):
        fake.write_results(folder / name, {f"t {HOSTILE}": metrics, "t": metrics}, **more)
        fake.write_samples(folder / name, "t", right, context=HOSTILE)
    for step in (10, 20, 300):
        fake.write_results(folder / f"step-{step}", {"t": {**metrics, "acc,none": step / 1000}}, model_hash=f"{step:064d}")
    names = ["first", "second", "step-10", "step-20", "step-300"]
    line = [
        sys.executable,
        "-m",
        "dtrnet_eval",
        "report",
        *(str(folder / name) for name in names),
        "--output",
        str(folder / "page"),
        "--title",
        HOSTILE,
    ]
    environment = {**os.environ, "PYTHONPATH": str(tools.ROOT / "eval" / "src")}
    got = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stderr[-2000:]
    return folder / "page.html"


def look(browser: Any, page_file: Path, size: str, theme: str) -> list[str]:
    """What is wrong at one width in one theme."""
    wrong: list[str] = []
    with tools.opened(browser, page_file.as_uri(), wrong, size, theme) as page:
        wrong += tools.too_wide(page)
        wrong += ["markup from a file was carried out"] if page.evaluate("window.hacked") else []
    with tools.opened(browser, page_file.as_uri(), wrong, size, theme, bypass_csp=True) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one, i) => { one.open = i < 3; })")
        wrong += tools.findings(page)
    return wrong


def main() -> int:
    """The named reports, or one that is made up."""
    with tools.chromium() as browser, tempfile.TemporaryDirectory() as name:
        pages = [Path(path).resolve() for path in sys.argv[1:]] or [make_report(Path(name))]
        for page in pages:
            for size in tools.SIZES:
                for theme in tools.THEMES:
                    wrong = look(browser, page, size, theme)
                    assert not wrong, (page.name, size, theme, wrong)
    print(f"{len(pages)} reports: no finding at two widths in two themes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
