"""Sums the results of several `meson test` runs.

usage: count_tests.py BROKEN_BUILDS TESTLOG.json...

Prints every failed and skipped test (a skipped one with its reason, the last line that it printed) and at the end a plain line
`N passed, N failed, N skipped`. A build that failed, and a run that left no log, count as failed. Exit status 1 if any failed.
"""

import json
import sys
from pathlib import Path

GOOD, SKIPPED = {"OK", "EXPECTEDFAIL"}, {"SKIP"}


def main() -> int:
    """Reads the logs named on the command line."""
    failed, passed, skipped = int(sys.argv[1]), 0, 0
    for log in map(Path, sys.argv[2:]):
        if not log.exists():
            print(f"no test ran in {log.parent.parent.name}")
            failed += 1
            continue
        for line in log.read_text(errors="replace").splitlines():
            test = json.loads(line)
            where = f"{log.parent.parent.name}: {test['name']}"
            if test["result"] in GOOD:
                passed += 1
            elif test["result"] in SKIPPED:
                skipped += 1
                reason = ((test.get("stdout") or "") + (test.get("stderr") or "")).strip().splitlines()
                print(f"skipped {where}: {reason[-1] if reason else 'no reason given'}")
            else:
                failed += 1
                print(f"failed {where}: {test['result']}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
