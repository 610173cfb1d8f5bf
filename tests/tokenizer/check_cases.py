"""Tokenizer directories of real users, and random ones that once were read wrongly, against the ids that transformers 4 and 5 give.

usage: check_cases.py TOKENIZE_LINES [NAME...]

The values are in the cases' expected.json (make_cases.py wrote them); nothing but the program is needed.
"""

import json
import pathlib
import subprocess
import sys

CASES = pathlib.Path(__file__).with_name("cases")
RULES = {"transformers 4.57.6": 4, "transformers 5.24.0": 5}


def encode(tool: str, case: pathlib.Path, rules: int, mode: list[str], texts: list[str]) -> list | str:
    """Ids of each text, or the error."""
    done = subprocess.run(
        [tool, f"--rules={rules}", str(case), *mode], input="".join(t + "\n" for t in texts), capture_output=True, text=True, check=False
    )
    return [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else done.stderr.strip()


def main() -> int:
    """Exit status 1 if an id differs."""
    tool, names = sys.argv[1], sys.argv[2:]
    bad = n = 0
    for case in sorted(CASES.iterdir()):
        if names and case.name not in names:
            continue
        expected = json.loads((case / "expected.json").read_text())
        lines = (case / "input.jsonl").read_text().splitlines()
        for version, rules in RULES.items():
            for mode, key in (([], "ids"), (["special"], "special")):
                if expected[version] is None:
                    continue
                known = [(t, ids) for t, ids in zip(lines, expected[version][key], strict=True) if isinstance(ids, list)]
                got = encode(tool, case, rules, mode, [t for t, _ in known])
                n += 1
                if got != [ids for _, ids in known]:
                    bad += 1
                    print(f"{case.name}, {version}, {key}:\n  want {[ids for _, ids in known]!r:.500}\n  got  {got!r:.500}")
    print(f"{n} comparisons, {bad} differ")
    return 1 if bad or n == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
