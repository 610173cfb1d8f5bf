#!/usr/bin/env python3
"""Versions of lm-evaluation-harness x clients on one server: every score must be the same.

    harness_versions.py VERSION=PYTHON ...

PYTHON is the interpreter of an environment that has that version. Clients:

    plugin        dtrnet-eval run --model dtrnet
    shards        the same in two shards (dtrnet-shard), merged (dtrnet-answers)
    completions   dtrnet-eval run --model local-completions, with the server's tokenizer (from 0.4.9.2 on; before it, with transformers')
    lm_eval       the harness's own command line with its local-completions, as README has it

Prints a table in Markdown: items equal to those of the last version's plugin, or why a client cannot do it. The exit status is 1 where
a score differs, or a client fails that is not known to.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from server_process import ROOT, SHIPPED, ServerProcess

TASKS = "sample_lastword,sample_twoway,sample_passage"
OFFLINE = "offline_hellaswag,offline_winogrande,offline_wikitext,offline_gsm8k_cot"  # they take functions of the harness's own tasks
POSITIONS = 2000
CLIENTS = ("plugin", "shards", "completions", "lm_eval")
# What the harness cannot do by itself.
KNOWN = {
    ("0.4.9.2", "lm_eval"): "fails for tasks outside its tree (its issue 3435)",
}
Scores = dict[tuple[str, int], list]


def numbers(version: str) -> tuple[int, ...]:
    """Comparable."""
    return tuple(map(int, version.split(".")))


def tokenizer_folder(folder: Path) -> Path:
    """The shipped model's tokenizer as transformers reads it."""
    folder.mkdir()
    shutil.copy(SHIPPED / "tokenizer.model", folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "add_bos_token": false}')
    return folder


def command(version: str, python: str, client: str, url: str, tokenizer: Path) -> list[str]:
    """One client's command line, without tasks."""
    newest = ["run"] if numbers(version) >= (0, 4, 10) else []
    how = [python, "-m", "lm_eval", *newest] if client == "lm_eval" else [python, "-m", "dtrnet_eval", "run"]
    if client == "plugin":
        return [*how, "--model", "dtrnet", "--model_args", f"base_url={url},max_length={POSITIONS}"]
    if client == "shards":
        return [*how, "--model", "dtrnet-answers", "--model_args", f"answers={tokenizer.parent / version}"]
    remote = numbers(version) >= (0, 4, 9, 2)
    more = "tokenizer_backend=remote" if remote else f"tokenizer_backend=huggingface,tokenizer={tokenizer}"
    more += f",max_length={POSITIONS + 2}"  # its windows of rolling likelihood are two shorter
    return [*how, "--model", "local-completions", "--model_args", f"model=any,base_url={url}/v1/completions,{more}"]


def shards(version: str, python: str, client: str, url: str, folder: Path) -> list[list[str]]:
    """What must run before the command line of the client `shards`."""
    given = f"base_url={url},max_length={POSITIONS}"
    how = [python, "-m", "dtrnet_eval", "run", "--model", "dtrnet-shard", "--model_args"]
    lines = [[*how, f"{given},shard={n}/2,answers={folder / version}/answers-{n}-of-2.jsonl"] for n in (1, 2)]
    return lines if client == "shards" else []


def run(lines: list[list[str]], tasks: str, limit: int, rows: Path | None) -> tuple[Scores, str]:
    """The items' answers that the last command line leaves, or the last line of what went wrong."""
    with tempfile.TemporaryDirectory() as out:
        more = ["--tasks", tasks, "--limit", str(limit), "--batch_size", "8", "--gen_kwargs", "max_gen_toks=8"]
        more += ["--include_path", str(ROOT / "eval" / "src" / "dtrnet_eval" / "data" / "tasks")]
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "eval" / "src"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "TQDM_DISABLE": "1",
        }
        env |= {"LOCAL_EVAL_DATA": str(rows)} if rows else {}
        for line in lines:
            results = ["--output_path", out, "--log_samples"] if line is lines[-1] else []
            got = subprocess.run([*line, *more, *results], env=env, capture_output=True, text=True, check=False)
            if got.returncode:
                return {}, (got.stderr.strip().splitlines() or ["no message"])[-1]
        scores: Scores = {}
        for path in Path(out).rglob("samples_*.jsonl"):
            task = path.name.removeprefix("samples_").rsplit("_", 1)[0]
            for row in map(json.loads, path.read_text().splitlines()):
                scores[task, row["doc_id"]] = row["resps"]
        return scores, "" if scores else "no samples"


def value(one: object) -> object:
    """A number where it is one; versions spell True and None alike."""
    try:
        return float(str(one))
    except ValueError:
        return str(one)


def plain(answers: list) -> list:
    """Numbers and texts of an item, however the version nests them."""
    return [part for one in answers for part in (plain(one) if isinstance(one, list) else [value(one)])]


def same(got: list, want: list) -> bool:
    """Sums within 1e-4 (each client adds the same numbers in its own way), all else equal."""
    got, want = plain(got), plain(want)
    return len(got) == len(want) and all(
        abs(a - b) < 1e-4 * max(1, abs(b)) if isinstance(a, float) and isinstance(b, float) else a == b for a, b in zip(got, want)
    )


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", metavar="VERSION=PYTHON")
    parser.add_argument("--rows", type=Path, help="folder of rows for the offline tasks; without it they are left out")
    parser.add_argument("--limit", type=int, default=20, help="items of each task (%(default)s)")
    args = parser.parse_args()
    pythons = dict(one.split("=", 1) for one in args.versions)
    tasks = TASKS + (f",{OFFLINE}" if args.rows else "")
    newest = max(pythons, key=numbers)
    failed = 0
    with tempfile.TemporaryDirectory() as name, ServerProcess("--dtype", "f32") as server:
        tokenizer = tokenizer_folder(Path(name) / "tokenizer")
        want, why = run([command(newest, pythons[newest], "plugin", server.url, tokenizer)], tasks, args.limit, args.rows)
        assert want, why
        print("| version | " + " | ".join(CLIENTS) + " |\n|" + "---|" * (len(CLIENTS) + 1), flush=True)
        for version in sorted(pythons, key=numbers):
            cells = []
            for client in CLIENTS:
                lines = shards(version, pythons[version], client, server.url, tokenizer.parent)
                lines.append(command(version, pythons[version], client, server.url, tokenizer))
                got, why = run(lines, tasks, args.limit, args.rows)
                different = [item for item in want if not got or item not in got or not same(got[item], want[item])]
                known = KNOWN.get((version, client))
                failed += bool(different) and not (known and not got)
                cells.append(f"{len(want)} equal" if not different else known if known and not got else f"**{why or different[:3]}**")
            print(f"| {version} | " + " | ".join(cells) + " |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
