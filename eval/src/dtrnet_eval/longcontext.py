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

from dtrnet_eval.client import Client, ServerError

LENGTHS = [2048, 4096, 8192, 16384, 20480]
EDGES = [0, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 10240, 12288, 14336, 16384, 18432, 20480]


def read_documents(path: Path, limit: int | None) -> list[str]:
    """Field `text` of each line.

    Raises:
        ServerError: the file is missing, or a line is not an object with `text`.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        texts = [row["text"] for row in rows[:limit]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{path}: expected one JSON object with `text` a line ({type(error).__name__}: {error})") from None
    if not texts:
        raise ServerError(f"{path}: no documents")
    return texts


def tokenize(client: Client, texts: list[str], longest: int) -> list[list[int]]:
    """The first `longest` ids of each text; texts that are shorter are left out, which is said."""
    ids = [client.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"] for text in texts]
    kept = [one[:longest] for one in ids if len(one) >= longest]
    if len(kept) < len(ids):
        print(f"{len(ids) - len(kept)} of {len(ids)} documents have fewer than {longest} tokens and are left out")
    if not kept:
        raise ServerError(f"no document has {longest} tokens")
    return kept


class Sums:
    """Answers of /v1/loglikelihood_rolling with buckets, added up."""

    def __init__(self, edges: list[int]) -> None:
        self.edges = edges
        self.buckets: dict[str, dict[str, np.ndarray]] = {}
        self.cost: Counter[str] = Counter()

    def add(self, answer: dict[str, Any]) -> None:
        """One answer, of any number of documents.

        Raises:
            ServerError: the server does not count routing by bucket, or no cost.
        """
        self.cost.update(answer["usage"].get("cost", {}))
        for result in answer["results"]:
            for kind, bucket in result["buckets"].items():
                if "rows_routed" not in bucket or not self.cost:
                    raise ServerError("the server is too old: its /v1/loglikelihood_rolling has no `routing` and no `usage.cost`")
                sums = self.buckets.setdefault(kind, {})
                for name, values in bucket.items():
                    sums[name] = sums.get(name, 0) + np.array(values)

    def nll(self) -> tuple[float, int]:
        """Mean over all tokens, and their number."""
        whole = self.buckets["by_position"]
        return -float(whole["logprob"].sum() / whole["num_tokens"].sum()), int(whole["num_tokens"].sum())

    def table(self, kind: str) -> list[dict[str, Any]]:
        """One row for each bucket that has tokens: nats a token, and the share of rows that attended in each layer."""
        sums, rows = self.buckets[kind], []
        for i, (edge, n) in enumerate(zip(self.edges, sums["num_tokens"].tolist())):
            if n:
                share = [round(float(routed) / n, 4) for routed in sums["rows_routed"][:, i]]
                rows.append({"from": edge, "nll": -float(sums["logprob"][i]) / n, "tokens": n, "routed_share": share})
        return rows


def measure(client: Client, documents: list[list[int]], length: int, stride: int, edges: list[int]) -> dict[str, Any]:
    """All documents in windows of `length` tokens."""
    sums = Sums(edges)
    bar = tqdm(total=len(documents), desc=f"{length} tokens of context")

    def keep(_: int, answer: dict[str, Any]) -> None:
        sums.add(answer)
        bar.update(1)

    bodies = ({"texts": [ids], "max_length": length, "stride": stride, "bucket_edges": edges, "routing": True} for ids in documents)
    client.post_all("/v1/loglikelihood_rolling", bodies, keep)
    bar.close()
    nll, tokens = sums.nll()
    by = {kind: sums.table(kind) for kind in ("by_context", "by_position")}
    return {"length": length, "stride": stride, "nll": nll, "tokens": tokens, "cost": dict(sums.cost), **by}


def as_lines(result: dict[str, Any]) -> str:
    """JSON with a line for each bucket."""
    text = json.dumps(result, indent=1)
    return re.sub(r"\{\s+\"from\".*?\}", lambda found: " ".join(found[0].split()), text, flags=re.DOTALL) + "\n"


def main(arguments: list[str]) -> int:
    """`dtrnet-eval long`."""
    parser = argparse.ArgumentParser("dtrnet-eval long", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, help="JSON lines with a field `text`")
    parser.add_argument("--base_url", default="http://127.0.0.1:8000", help="the server (%(default)s)")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="context lengths (%(default)s)")
    parser.add_argument("--limit", type=int, help="only so many documents")
    parser.add_argument("--label", help="what to call this in reports; default: the model's name and its rope")
    parser.add_argument("--output", type=Path, required=True, help="a .json file")
    args = parser.parse_args(arguments)
    client = Client(args.base_url, in_flight=2)
    info = client.version()
    lengths = sorted(int(length) for length in args.lengths.split(",") if length.strip().isdigit())
    if not lengths or lengths[0] < 2:
        raise ServerError(f"--lengths must be numbers from 2 on, separated by commas, but is {args.lengths!r}")
    if lengths[-1] > info["max_model_len"]:
        limit = info["max_model_len"]
        raise ServerError(f"the server takes {limit} positions; for {lengths[-1]} start it with --max-model-len {lengths[-1]}")
    documents = tokenize(client, read_documents(args.documents, args.limit), lengths[-1])
    edges = [edge for edge in EDGES if edge < lengths[-1]]
    longest = measure(client, documents, lengths[-1], lengths[-1], edges)
    others = [measure(client, documents, length, max(1, length // 2), edges) for length in lengths[:-1]]
    by_position = longest["by_position"]
    for one in (*others, longest):
        del one["by_position"]
    rope = info.get("rope", {}).get("type", "default")
    result = {"kind": "dtrnet-long", "label": args.label or f"{info['model']}, rope {rope}", "documents": len(documents)}
    result |= {"server": info, "by_length": [*others, longest], "by_position": by_position}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(as_lines(result))
    for one in result["by_length"]:
        print(f"{one['length']:6d} tokens of context: {one['nll']:.4f} nats a token over {one['tokens']} tokens")
    return 0
