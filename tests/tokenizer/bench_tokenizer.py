"""Encoding speed on one core beside the `tokenizers` library, on the same text, in the same run.

usage: bench_tokenizer.py TOKENIZE_LINES [--text FILE] [--model DIR] [--passes N]

FILE holds plain text (default: invented prose). DIR is a checkpoint whose tokenizer.model or tokenizer.json is measured beside the
ones trained here; ratios above 1 mean that the program is faster.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
try:
    import configurations
    import text_lines
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)


def library_seconds(tokenizer: "configurations.Tokenizer", texts: list[str], passes: int) -> float:
    """Fastest of the passes, one text at a time as a server encodes them."""
    best = float("inf")
    for _ in range(passes):
        start = time.perf_counter()
        for text in texts:
            tokenizer.encode(text, add_special_tokens=False)
        best = min(best, time.perf_counter() - start)
    return best


def own_seconds(tool: str, directory: pathlib.Path, texts: list[str], passes: int) -> float:
    """The same, inside tokenize_lines."""
    lines = "".join(json.dumps(t) + "\n" for t in texts)
    done = subprocess.run([tool, str(directory), "bench", str(passes)], input=lines, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["seconds"]


def load_texts(path: str | None) -> list[str]:
    """About a megabyte in texts of some 2,000 characters."""
    if path:
        text = pathlib.Path(path).read_text(encoding="utf-8")[:1_500_000]
        return [text[i : i + 2000] for i in range(0, len(text), 2000)]
    r = random.Random(3)
    return [text_lines.prose(r, 300) for _ in range(400)]


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool")
    parser.add_argument("--text")
    parser.add_argument("--model")
    parser.add_argument("--only", default="")
    parser.add_argument("--passes", type=int, default=3)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = load_texts(args.text)
    megabytes = sum(len(t.encode()) for t in texts) / 1e6
    found = [c for c in configurations.configurations() if args.only in c.name]
    if args.model:
        model = pathlib.Path(args.model)
        if (model / "tokenizer.json").exists():
            found.append(configurations.from_file(model.name, model / "tokenizer.json"))
        else:
            found.append(configurations.from_sentencepiece(model.name, (model / "tokenizer.model").read_bytes()))
    print(f"{'tokenizer':20} {'library MB/s':>12} {'own MB/s':>9} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as parent:
        for c in found:
            theirs = library_seconds(c.reference, texts, args.passes)
            ours = own_seconds(args.tool, c.write(pathlib.Path(parent)), texts, args.passes)
            print(f"{c.name:20} {megabytes / theirs:12.2f} {megabytes / ours:9.2f} {theirs / ours:6.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
