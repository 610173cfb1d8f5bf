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

    def check(self, what: str, given: object, want: object, got: object) -> None:
        """Counts and shows a difference."""
        if want == got:
            return
        self.bad += 1
        if self.bad <= 3:
            print(f"{self.name}: {what} of {given!r:.300}\n  want {want!r:.400}\n  got  {got!r:.400}")


def split_pair(r: random.Random, text: str) -> tuple[str, str]:
    """A text cut anywhere."""
    at = r.randrange(len(text) + 1)
    return text[:at], text[at:]


def harness_split(t: "configurations.Tokenizer", context: str, continuation: str) -> list:
    """How many of the ids are context, and the ids: lm-evaluation-harness, TemplateLM._encode_pair."""
    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole = t.encode(context + continuation, add_special_tokens=False).ids
    return [min(len(whole), len(t.encode(context, add_special_tokens=False).ids)), whole]


def compare(tool: str, directory: pathlib.Path, c: "configurations.Configuration", n: int, seed: int) -> int:
    """Number of differences of one configuration."""
    result, t = Comparison(c.name), c.reference
    texts = text_lines.lines(n, seed, c.specials)
    plain = [e.ids for e in t.encode_batch(texts, add_special_tokens=False)]
    special = [e.ids for e in t.encode_batch(texts, add_special_tokens=True)]
    for mode, want in (([], plain), (["special"], special)):
        for text, ids, got in zip(texts, want, run_tool(tool, directory, mode, texts), strict=True):
            result.check("ids", text, ids, got)
            if not mode and c.spm is not None and "<" not in text and "\0" not in text:
                result.check("ids of sentencepiece", text, c.spm.encode(text), got)

    r = random.Random(seed)
    pairs = [split_pair(r, text) for text in texts[: n // 2]]
    for (context, continuation), got in zip(pairs, run_tool(tool, directory, ["pair"], pairs), strict=True):
        result.check("context and continuation", (context, continuation), harness_split(t, context, continuation), got)

    size = t.get_vocab_size()
    lists = special + [[r.randrange(size) for _ in range(r.randrange(1, 30))] for _ in range(n // 4)]
    wanted = zip(
        lists,
        t.decode_batch(lists, skip_special_tokens=False),
        t.decode_batch(lists, skip_special_tokens=True),
        run_tool(tool, directory, ["decode"], lists),
        strict=True,
    )
    for ids, text, without_special, got in wanted:
        result.check("text", ids, [text, without_special], got[:2])
        spelled = bytes.fromhex(got[2]).decode(errors="replace")
        if "\ufffd" not in text and "\ufffd" not in spelled and t.decoder is not None:
            result.check("joined token bytes", ids, text, spelled)
    print(f"{c.name}: {len(texts)} lines, {len(lists)} lists of ids, {result.bad} differences")
    return result.bad


def main() -> int:
    """Compares every configuration; 1 if anything differs."""
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
