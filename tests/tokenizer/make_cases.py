"""Writes cases: tokenizer directories with what transformers 4 and 5 make of some texts.

usage: make_cases.py CASES SEED...           random directories, as CASES/random-SEED
       make_cases.py CASES --expect NAME...  the expected ids of directories that are there, from their input.jsonl

A case is a folder with the tokenizer's files, input.jsonl (a text a line), and expected.json: for each version the ids of every text,
without and with special tokens, or null where transformers cannot load it. check_cases.py reads them.
"""

import json
import pathlib
import sys

import compare_directories
import random_directories

VERSIONS = {4: "transformers 4.57.6", 5: "transformers 5.24.0"}


def expect(case: pathlib.Path, texts: list[str]) -> None:
    """Writes input.jsonl and expected.json."""
    (case / "input.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))
    expected = {}
    for rules, version in VERSIONS.items():
        answer = compare_directories.references(rules, [{"dir": str(case), "texts": texts}])[0]
        expected[version] = None if "error" in answer else {"ids": answer["ids"], "special": answer["special"]}
    lines = (f' "{version}": {json.dumps(ids)}' for version, ids in expected.items())
    (case / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> int:
    """One case for each argument."""
    cases, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    if names[0] == "--expect":
        for name in names[1:]:
            expect(cases / name, [json.loads(line) for line in (cases / name / "input.jsonl").read_text().splitlines()])
    else:
        for seed in names:
            case = cases / f"random-{seed}"
            expect(case, random_directories.write(int(seed), case))
    return 0


if __name__ == "__main__":
    sys.exit(main())
