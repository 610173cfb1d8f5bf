"""Negative log likelihood of long documents, by position and by the length of context a token has.

By position: one window over the first `longest` tokens of each document, so a token at position p sees p tokens. By context length: for
each length L, windows of L tokens that move by L / 2, so that a token sees L / 2 to L tokens (fewer at the start). The server decides how
far it can see: start it with --max-model-len, and with --rope-scaling for YaRN.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dtrnet_eval import access, origin
from dtrnet_eval.answers import Bucket, RollingAnswer, TokensAnswer
from dtrnet_eval.errors import NotOursError, OriginError, UsageError
from dtrnet_eval.pool import Pool

LENGTHS = [2048, 4096, 8192, 16384, 20480]
EDGES = [0, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 10240, 12288, 14336, 16384, 18432, 20480]


def _text_of(where: str, line: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{where}: expected one JSON object with `text` a line ({type(error).__name__}: {error})") from None
    if not isinstance(text, str):
        raise UsageError(f"{where}: `text` must be a string")
    return text


def read_documents(path: Path, limit: int | None) -> list[str]:
    """Field `text` of each line.

    Raises:
        UsageError: the file is missing, or a line is not an object with `text`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 ({error})") from None
    texts = [_text_of(f"{path} line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not texts:
        raise UsageError(f"{path}: no documents")
    return texts[:limit]


def tokenize(client: Pool, texts: list[str], longest: int) -> list[list[int]]:
    """The first `longest` ids of each text; texts that are shorter are left out, which is said.

    Raises:
        UsageError: all are shorter; with the lengths to ask for.
    """
    bodies = ({"prompt": text, "add_special_tokens": False} for text in texts)
    ids = [client.ask("/tokenize", body, TokensAnswer.read).tokens for body in bodies]
    kept = [one[:longest] for one in ids if len(one) >= longest]
    if len(kept) < len(ids):
        print(f"{len(ids) - len(kept)} of {len(ids)} documents have fewer than {longest} tokens and are left out")
    if not kept:
        most = max(map(len, ids))
        fitting = [2**power for power in range(5, most.bit_length()) if 2**power <= most][-3:]
        hint = f"; for these documents: --lengths {','.join(map(str, fitting))}" if fitting else ""
        raise UsageError(f"no document has {longest} tokens, the longest has {most}{hint}")
    return kept


class Sums:
    """Answers of /v1/loglikelihood_rolling with buckets, one for each document."""

    def __init__(self, edges: list[int], documents: int) -> None:
        self.edges = edges
        self.buckets: list[dict[str, Bucket]] = [{}] * documents
        self.cost: Counter[str] = Counter()

    def add(self, document: int, answer: RollingAnswer) -> None:
        """One document's answer.

        Raises:
            NotOursError: the server does not count by bucket, or no cost.
        """
        self.cost.update(answer.usage.cost)
        self.buckets[document] = answer.results[0].buckets
        if not self.cost or not self.buckets[document]:
            raise NotOursError("the server is too old: its /v1/loglikelihood_rolling has no `buckets` and no `usage.cost`")

    def _arrays(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Sums of log probabilities and numbers of tokens: documents x buckets."""
        each = [one[kind] for one in self.buckets]
        return np.array([one.logprob for one in each], float), np.array([one.num_tokens for one in each], float)

    def nll(self) -> tuple[float, float | None, int]:
        """Mean over all tokens, its standard error over documents, and the number of tokens."""
        logprob, tokens = (array.sum(1, keepdims=True) for array in self._arrays("by_position"))
        (mean,), (error,) = ratio(-logprob, tokens)
        return mean, error, int(tokens.sum())

    def table(self, kind: str) -> list[dict[str, Any]]:
        """One row for each bucket that has tokens: nats a token, and by layer the share of rows that attended.

        With nested layers also the share that executed the layer.
        """
        logprob, tokens = self._arrays(kind)
        means, errors = ratio(-logprob, tokens)
        by_layer = {"routed_share": np.sum([one[kind].rows_routed for one in self.buckets], axis=0)}
        if self.buckets[0][kind].rows_executed:
            by_layer["executed_share"] = np.sum([one[kind].rows_executed for one in self.buckets], axis=0)
        rows = []
        for i, (edge, n) in enumerate(zip(self.edges, tokens.sum(0).astype(int).tolist())):
            if n:
                shares = {name: [round(float(layer) / n, 4) for layer in counts[:, i]] for name, counts in by_layer.items()}
                rows.append({"from": edge, "nll": means[i], "nll_stderr": errors[i], "tokens": n, **shares})
        return rows


def ratio(sums: np.ndarray, counts: np.ndarray) -> tuple[list[float], list[float | None]]:
    """For each column sum over sum, and its standard error by the spread of the rows; None where there are fewer than two rows."""
    means, errors = [], []
    for total, n in zip(sums.T, counts.T):
        mean = float(total.sum() / n.sum()) if n.sum() else float("nan")
        rows = int((n > 0).sum())
        spread = float(np.sqrt(((total - mean * n) ** 2).sum() * rows / (rows - 1)) / n.sum()) if rows > 1 else None
        means.append(mean)
        errors.append(spread)
    return means, errors


def measure(client: Pool, documents: list[list[int]], length: int, stride: int, edges: list[int]) -> dict[str, Any]:
    """All documents in windows of `length` tokens."""
    sums = Sums(edges, len(documents))
    bar = tqdm(total=len(documents), desc=f"{length} tokens of context")

    def keep(document: int, answer: RollingAnswer) -> None:
        sums.add(document, answer)
        bar.update(1)

    def body(document: int) -> dict[str, Any]:
        return {"texts": [documents[document]], "max_length": length, "stride": stride, "bucket_edges": edges, "routing": True}

    client.ask_all("/v1/loglikelihood_rolling", len(documents), body, RollingAnswer.read, keep)
    bar.close()
    nll, error, tokens = sums.nll()
    by = {kind: sums.table(kind) for kind in ("by_context", "by_position")}
    return {"length": length, "stride": stride, "nll": nll, "nll_stderr": error, "tokens": tokens, "cost": dict(sums.cost), **by}


def as_lines(result: dict[str, Any]) -> str:
    """JSON with a line for each bucket."""
    text = json.dumps(result, indent=1)
    return re.sub(r"\{\s+\"from\".*?\}", lambda found: " ".join(found[0].split()), text, flags=re.DOTALL) + "\n"


def _lengths(text: str, limit: int) -> list[int]:
    """In order.

    Raises:
        UsageError: not numbers from 2 to the server's limit.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) >= 2 for part in parts):
        raise UsageError(f"--lengths must be numbers from 2 on, separated by commas, but is {text!r}")
    lengths = sorted({int(part) for part in parts})
    if lengths[-1] > limit:
        short = [str(length) for length in lengths if length <= limit]
        other = f", or ask for --lengths {','.join(short)}" if short else ""
        raise UsageError(f"the server takes {limit} positions; for {lengths[-1]} start it with --max-model-len {lengths[-1]}{other}")
    return lengths


def check_output(path: Path, record: origin.Origin) -> None:
    """That a file written before is of the same server.

    Raises:
        OriginError: it is of another.
    """
    try:
        old = origin.read(json.loads(path.read_text(encoding="utf-8")), path)
    except (OSError, ValueError, AttributeError):
        return
    differs = origin.differences(old.settings(), record.settings()) if old else []
    if differs:
        raise OriginError(f"{path} is of another origin: {'; '.join(differs)}. Give another file, or remove this one")


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("dtrnet-eval long", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, help="JSON lines with a field `text`")
    access.add_arguments(parser)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="context lengths (%(default)s)")
    parser.add_argument("--limit", type=int, help="only so many documents")
    parser.add_argument("--label", help="what to call this in reports; default: the model's name and its rope")
    parser.add_argument("--output", type=Path, required=True, help="a .json file")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """`dtrnet-eval long`."""
    args = _arguments(arguments)
    client = Pool(access.of_arguments(args), in_flight=2)
    info = client.version()
    record = origin.Origin.now(info, "long", limit=args.limit)
    check_output(args.output, record)
    lengths = _lengths(args.lengths, info.max_model_len)
    documents = tokenize(client, read_documents(args.documents, args.limit), lengths[-1])
    edges = [edge for edge in EDGES if edge < lengths[-1]]
    longest = measure(client, documents, lengths[-1], lengths[-1], edges)
    others = [measure(client, documents, length, max(1, length // 2), edges) for length in lengths[:-1]]
    by_position = longest["by_position"]
    for one in (*others, longest):
        del one["by_position"]
    result = {"kind": "dtrnet-long", "label": args.label or f"{info.model}, rope {info.rope.type}", "documents": len(documents)}
    result |= {origin.KEY: record.as_json(), "by_length": [*others, longest], "by_position": by_position}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(as_lines(result))
    for one in result["by_length"]:
        print(f"{one['length']:6d} tokens of context: {one['nll']:.4f} nats a token over {one['tokens']} tokens")
    return 0
