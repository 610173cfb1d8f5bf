#!/usr/bin/env python3
"""How much of the parsers and of request handling do the tests run?

Builds the tree with gcov in build-coverage, without optimisation, runs the tests that belong to them, and prints lines and branches of
each file and the sums (--list: every line and branch that no test took). No line is marked as an exception. A branch is a way out of a
condition as gcov counts them: of each operand of && and ||, of ?: and of each case, in macros and assert too; in C++ without exceptions.
Exit status 1 if less than 98 % of lines or 90 % of branches were taken.

usage: scripts/coverage.py [--build DIR] [--no-run] [--add] [--list] [SUITE OR TEST...]      default: SUITES
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from test_targets import introspect, targets_of

ROOT = Path(__file__).resolve().parents[1]
LINES, BRANCHES = 98.0, 90.0
# What reads bytes from outside, and what becomes of a request.
FILES = [
    "common/json.c",
    "common/utf8.c",
    "engine/checkpoint/*.c",
    "server/api/*.c",
    "server/http/*.c",
    "server/program/option*.c",
    "server/program/settings.c",
    "tokenizer/*.c",
    "tokenizer/*.cpp",
]
SUITES = ["unit", "fuzz", "fail", "tokenizer", "random", "e2e"]


def run_tests(folder: Path, wanted: list[str], add: bool) -> None:
    """Configures, builds what the wanted tests need, and runs them."""
    if not (folder / "build.ninja").exists():
        flags = [
            "-Db_coverage=true",
            "-Dc_args=-fprofile-update=atomic",
            "-Dcpp_args=-fprofile-update=atomic",
            "-Dbuildtype=debug",
            "-Dcuda=disabled",
        ]
        subprocess.run(["meson", "setup", str(folder), str(ROOT), *flags], check=True, stdout=subprocess.DEVNULL)
    tests = introspect(folder, "tests")
    chosen = [t for t in tests if t["name"] in wanted or any(s.split(":")[-1] in wanted for s in t["suite"])]
    subprocess.run(["ninja", "-C", str(folder), "dtrnet", *targets_of(folder, chosen)], check=True, stdout=subprocess.DEVNULL)
    for file in folder.rglob("*.gcda"):
        if not add or file.stat().st_mtime < file.with_suffix(".gcno").stat().st_mtime:
            file.unlink()
    # A name may stand in several suites, so suites and names are asked for apart.
    suites = {s.split(":")[-1] for t in tests for s in t["suite"]} & set(wanted)
    names = sorted(set(wanted) - suites)
    for which in ([f"--suite={s}" for s in sorted(suites)], names):
        if which:
            subprocess.run(["meson", "test", "-C", str(folder), "--no-rebuild", "-t", "10", *which], check=False)


def collect(folder: Path) -> dict[str, dict[str, dict]]:
    """For each source file: {"lines": {line: count}, "branches": {(line, i): count}}. What never ran has its notes all the same."""
    out: dict[str, dict[str, dict]] = collections.defaultdict(lambda: {"lines": collections.Counter(), "branches": collections.Counter()})
    notes = [str(file) for file in folder.glob("*/lib*.a.p/*.gcno")]
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(0, len(notes), 50):
            command = ["gcov", "--json-format", "--branch-probabilities", "--preserve-paths", *notes[i : i + 50]]
            subprocess.run(command, cwd=scratch, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for report in Path(scratch).glob("*.gcov.json.gz"):
                add_report(json.loads(gzip.decompress(report.read_bytes())), folder, out)
                report.unlink()
    return out


def add_report(report: dict, folder: Path, out: dict[str, dict[str, dict]]) -> None:
    """Adds one object file's counts."""
    for file in report["files"]:
        path = os.path.relpath(os.path.normpath(folder / file["file"]), ROOT)
        if not any(fnmatch.fnmatch(path, pattern) for pattern in FILES):
            continue
        for line in file["lines"]:
            out[path]["lines"][line["line_number"]] += line["count"]
            for i, branch in enumerate(written(line["branches"])):
                out[path]["branches"][line["line_number"], i] += branch["count"]


def written(branches: list[dict]) -> list[dict]:
    """Those of the source: in C++ each call that may throw has two more, its return and its exception."""
    thrown = {i for i, branch in enumerate(branches) if branch["throw"]}
    return [branch for i, branch in enumerate(branches) if i not in thrown and not (i + 1 in thrown and branch["fallthrough"])]


def share(counts: dict) -> tuple[int, int]:
    """How many were taken, of how many."""
    return sum(n > 0 for n in counts.values()), len(counts)


def percent(taken: int, of: int) -> float:
    """100 of nothing."""
    return 100.0 * taken / of if of else 100.0


def main() -> int:
    """Reads the flags; the exit status."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default=str(ROOT / "build-coverage"))
    ap.add_argument("--no-run", action="store_true", help="take the counts that are there")
    ap.add_argument("--add", action="store_true", help="keep the counts that are there")
    ap.add_argument("--list", action="store_true", help="print every line and branch that was not taken")
    ap.add_argument("tests", nargs="*", default=SUITES)
    args = ap.parse_args()
    folder = Path(args.build).resolve()
    if not args.no_run:
        run_tests(folder, args.tests, args.add)
    totals = collections.Counter()
    for path, counts in sorted(collect(folder).items()):
        lines, branches = share(counts["lines"]), share(counts["branches"])
        totals.update({"lines": lines[0], "all lines": lines[1], "branches": branches[0], "all branches": branches[1]})
        print(f"{path:44s} lines {lines[0]:5d} of {lines[1]:5d} {percent(*lines):6.1f} %   "
              f"branches {branches[0]:5d} of {branches[1]:5d} {percent(*branches):6.1f} %")  # fmt: skip
        if args.list:
            source = (ROOT / path).read_text().splitlines()
            for n in sorted(n for n, count in counts["lines"].items() if not count):
                print(f"    {path}:{n}: {source[n - 1].strip()}")
            missed = collections.Counter(n for (n, _), count in counts["branches"].items() if not count and counts["lines"][n])
            for n, k in sorted(missed.items()):
                print(f"    {path}:{n}: {k} branches: {source[n - 1].strip()}")
    lines = percent(totals["lines"], totals["all lines"])
    branches = percent(totals["branches"], totals["all branches"])
    print(f"{lines:.1f} % of {totals['all lines']} lines (bar {LINES})")
    print(f"{branches:.1f} % of {totals['all branches']} branches (bar {BRANCHES})")
    return 0 if lines >= LINES and branches >= BRANCHES else 1


if __name__ == "__main__":
    sys.exit(main())
