"""Ids, decoded text and token bytes against the `tokenizers` library, over lines of all kinds and every configuration.

usage: differential.py TOKENIZE_LINES [--lines N] [--seed S] [--only NAME]

N lines for each configuration. Exit status 77 where the Python packages are missing.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import configurations
    import text_lines
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)


def run_tool(tool: str, directory: pathlib.Path, mode: list[str], items: list) -> list:
    """One JSON value out for each in."""
    text = "".join(json.dumps(item) + "\n" for item in items)
    done = subprocess.run([tool, str(directory), *mode], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{directory.name}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]


class Comparison:
    """Counts what differs, and prints the first few."""

    def __init__(self, name: str) -> None:
        self.name, self.bad = name, 0

    def check(self, what: str, given, want, got) -> None:
        if want == got:
            return
        self.bad += 1
        if self.bad <= 3:
            print(f"{self.name}: {what} of {given!r:.300}\n  want {want!r:.400}\n  got  {got!r:.400}")


def compare(tool: str, directory: pathlib.Path, c: "configurations.Configuration", n: int, seed: int) -> int:
    """Number of differences of one configuration."""
    result, t = Comparison(c.name), c.reference
    texts = text_lines.lines(n, seed, c.specials)
    plain = [e.ids for e in t.encode_batch(texts, add_special_tokens=False)]
    special = [e.ids for e in t.encode_batch(texts, add_special_tokens=True)]
    for mode, want in (([], plain), (["special"], special)):
        for text, ids, got in zip(texts, want, run_tool(tool, directory, mode, texts), strict=True):
            result.check("ids", text, ids, got)

    r = random.Random(seed)
    size = t.get_vocab_size()
    lists = special + [[r.randrange(size) for _ in range(r.randrange(1, 30))] for _ in range(n // 4)]
    wanted = zip(lists, t.decode_batch(lists, skip_special_tokens=False), t.decode_batch(lists, skip_special_tokens=True),
                 run_tool(tool, directory, ["decode"], lists), strict=True)
    for ids, text, without_special, got in wanted:
        result.check("text", ids, [text, without_special], got[:2])
        spelled = bytes.fromhex(got[2]).decode(errors="replace")
        if "\ufffd" not in text and "\ufffd" not in spelled and t.decoder is not None:
            result.check("joined token bytes", ids, text, spelled)
    print(f"{c.name}: {len(texts)} lines, {len(lists)} lists of ids, {result.bad} differences")
    return result.bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool")
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as parent:
        for c in configurations.configurations():
            if args.only in c.name:
                bad += compare(args.tool, c.write(pathlib.Path(parent)), c, args.lines, args.seed)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
