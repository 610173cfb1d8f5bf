"""Random tokenizer directories, read by the program and by transformers 4 and 5: ids, and the text that they decode to, must be equal,
or the program refuses the directory by name.

usage: compare_directories.py TOKENIZE_LINES [--count N] [--seed S] [--rules 4|5] [--keep DIR]

The interpreters are .venv-transformers-4/bin/python and .venv-transformers-5/bin/python of the source tree; exit status 77 without them.
Directory k of seed S is made of the number S + k. A directory that transformers itself cannot load is counted apart. Exit status 1 if
anything differs, or if fewer than 90 % of the directories that transformers loads are accepted.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

import random_directories

ROOT = pathlib.Path(__file__).resolve().parents[2]
ACCEPTED = 0.9


def interpreter(rules: int) -> pathlib.Path:
    """Of the environment that holds this version."""
    return ROOT / f".venv-transformers-{rules}/bin/python"


def own(tool: str, rules: int, directory: pathlib.Path, mode: list[str], items: list) -> list | str:
    """One value for each item, or the error."""
    text = "".join(json.dumps(item) + "\n" for item in items)
    done = subprocess.run([tool, f"--rules={rules}", str(directory), *mode], input=text, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    if done.returncode != 0 and not done.stdout:
        return done.stderr.strip()
    return [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]


class Comparison:
    """Counts, and prints what differs."""

    def __init__(self, rules: int) -> None:
        self.rules, self.equal, self.different, self.unloadable = rules, 0, 0, 0
        self.refused: collections.Counter[str] = collections.Counter()

    def refuse(self, why: str) -> None:
        """By what it names, without what is different each time."""
        self.refused[why.split(": ", 1)[-1][:90]] += 1

    def differ(self, seed: int, what: str, given: object, want: object, got: object) -> None:
        """One difference."""
        self.different += 1
        print(f"rules {self.rules}, seed {seed}: {what} of {given!r:.200}\n  want {want!r:.300}\n  got  {got!r:.300}", flush=True)

    def add(self, tool: str, seed: int, directory: pathlib.Path, texts: list[str], want: dict) -> None:
        """One directory."""
        if "error" in want:
            self.unloadable += 1
            return
        for mode, key in (([], "ids"), (["special"], "special")):
            known = [(t, w) for t, w in zip(texts, want[key]) if isinstance(w, list)]
            got = own(tool, self.rules, directory, [*mode], [t for t, _ in known])
            if isinstance(got, str) and "signal" not in got:
                self.refuse(got)
                return
            if isinstance(got, str) or len(got) != len(known):
                self.differ(seed, key, texts, want[key], got)
                return
            for (text, ids), mine in zip(known, got):
                if ids != mine:
                    self.differ(seed, key, text, ids, mine)
                    return
        lists = [w for w in want["special"] if isinstance(w, list)]
        texts_of = [(a, b) for a, b, w in zip(want["text"], want["plain"], want["special"]) if isinstance(w, list)]
        for ids, wanted, got in zip(lists, texts_of, own(tool, self.rules, directory, ["decode"], lists)):
            if list(wanted) != got[:2]:
                self.differ(seed, "text", ids, wanted, got[:2])
                return
        self.equal += 1

    def summary(self, seeds: range) -> bool:
        """Prints it; true if all is well."""
        loaded = len(seeds) - self.unloadable
        accepted = (self.equal + self.different) / loaded if loaded else 1
        print(
            f"rules {self.rules}, seeds {seeds[0]} to {seeds[-1]}: {self.unloadable} directories that transformers cannot load; "
            f"of the other {loaded}: "
            f"{self.equal} equal, {self.different} different, {sum(self.refused.values())} refused; {100 * accepted:.1f} % accepted"
        )
        for why, count in self.refused.most_common(25):
            print(f"  refused {count:4}: {why}")
        return self.different == 0 and accepted >= ACCEPTED


def references(rules: int, requests: list[dict]) -> list[dict]:
    """Answers of reference_ids.py."""
    text = "".join(json.dumps(r) + "\n" for r in requests)
    script = pathlib.Path(__file__).with_name("reference_ids.py")
    done = subprocess.run(
        [interpreter(rules), script], input=text, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> int:
    """Compares with one version or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rules", type=int, choices=(4, 5))
    parser.add_argument("--keep", type=pathlib.Path)
    args = parser.parse_args()
    rules = [args.rules] if args.rules else [4, 5]
    missing = [r for r in rules if not interpreter(r).exists()]
    if missing:
        print(f"skipped: no {interpreter(missing[0])}")
        return 77
    with tempfile.TemporaryDirectory() as parent:
        place = args.keep or pathlib.Path(parent)
        seeds = range(args.seed, args.seed + args.count)
        requests = [{"dir": str(place / str(s)), "texts": random_directories.write(s, place / str(s))} for s in seeds]
        well = True
        for r in rules:
            result = Comparison(r)
            for seed, request, want in zip(seeds, requests, references(r, requests), strict=True):
                result.add(args.tool, seed, pathlib.Path(request["dir"]), request["texts"], want)
            well &= result.summary(seeds)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
