"""`dtrnet bench` does what it counts, on text and on ids, and says so in JSON; a workload that does not exist is one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("DTRNET_BIN", str(ROOT / "build" / "dtrnet"))
CONTEXTS, CONTEXT, CONTINUATIONS, CONTINUATION = 64, 160, 4, 12
WITHOUT_TOKENIZER, SHIPPED = ROOT / "tests" / "golden" / "dtrnet-bilayer", ROOT / "models" / "dtrnet-26m"


def bench(model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of the program."""
    command = [PROGRAM, "bench", "--model", str(model), "--repeats", "1", "--log-level", "error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def rows(model: Path, *arguments: str) -> list[dict]:
    """The workloads of a report."""
    done = bench(model, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["workloads"]


def check_http(found: list[dict], text: bool) -> None:
    """Both endpoints computed the contexts once and the continuations once."""
    sent = [(row["path"], row["requests"]) for row in found]
    assert sent == [("/v1/loglikelihood", CONTEXTS), ("/v1/completions", CONTEXTS * CONTINUATIONS)]
    for row in found:
        last = row["path"] == "/v1/completions"  # an echoed prompt computes its last token too, for the generated one
        want = CONTEXTS * (CONTEXT + CONTINUATIONS * (CONTINUATION - 1 + last))
        # words may become other tokens than those they were made of, and continuations may begin alike
        assert abs(row["tokens"] - want) < 0.03 * want, (row, want)
        assert row["text"] == text and row["connections"] == 3
        assert abs(row["engine_seconds"] + row["outside_seconds"] - row["seconds"]) < 1e-9 and row["outside_seconds"] > 0


def main() -> int:
    """All checks."""
    fixed = rows(WITHOUT_TOKENIZER, "--workloads", "generate,prefill", "--lengths", "5,9", "--batches", "1,2", "--generate", "3")
    assert [row["workload"] for row in fixed] == ["prefill"] * 4 + ["generate"] * 2
    assert [row["tokens"] for row in fixed] == [5, 10, 9, 18, 2, 4]
    check_http(rows(WITHOUT_TOKENIZER, "--workloads", "http", "--connections", "3"), text=False)
    check_http(rows(SHIPPED, "--workloads", "http", "--connections", "3"), text=True)
    wrong = bench(WITHOUT_TOKENIZER, "--workloads", "score,htp")
    assert wrong.returncode == 2 and wrong.stderr == 'dtrnet: workloads: "htp" is none of prefill, score, generate, http\n', wrong
    plain = bench(WITHOUT_TOKENIZER, "--workloads", "http")
    assert plain.returncode == 0 and plain.stdout.count("requests/s") == 2 and not plain.stderr, plain
    print("reports are right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
