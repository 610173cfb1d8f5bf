#!/usr/bin/env python3
"""What must be built for some of the tests: the files of the targets that they depend on, a line each, for `ninja -C DIR`.

usage: scripts/test_targets.py DIR [--suite SUITE]... [--no-suite SUITE]... [TEST]...      as `meson test` takes them; DIR is configured
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path


def introspect(folder: Path, what: str) -> list[dict]:
    """`tests` or `targets` of a configured build."""
    command = ["meson", "introspect", str(folder), f"--{what}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def chosen(tests: list[dict], suites: list[str], no_suites: list[str], names: list[str]) -> list[dict]:
    """The tests that `meson test` would run; without suites and names all of them."""
    out = []
    for test in tests:
        own = {suite.split(":")[-1] for suite in test["suite"]}
        if (not suites or own & set(suites)) and not own & set(no_suites) and (not names or test["name"] in names):
            out.append(test)
    return out


def targets_of(folder: Path, tests: list[dict]) -> list[str]:
    """Files below the folder."""
    ids = {i for test in tests for i in test["depends"]}
    files = [file for target in introspect(folder, "targets") if target["id"] in ids for file in target["filename"]]
    return sorted(str(Path(file).relative_to(folder)) for file in files)


def main() -> int:
    """Reads the flags; the exit status."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", type=Path)
    ap.add_argument("--suite", action="append", default=[])
    ap.add_argument("--no-suite", action="append", default=[])
    ap.add_argument("tests", nargs="*")
    args = ap.parse_args()
    folder = args.folder.resolve()
    print(*targets_of(folder, chosen(introspect(folder, "tests"), args.suite, args.no_suite, args.tests)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
