"""Negative log likelihood of long documents, by position and by the length of context a token has.

By position: one window over the first `longest` tokens of each document, so a token at position p sees p tokens. By context length: for
each length L, windows of L tokens that move by L / 2, so that a token sees L / 2 to L tokens (fewer at the start). The server decides how
far it can see: start it with --max-model-len, and with --rope-scaling for YaRN.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

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


def measure(client: Client, documents: list[list[int]], length: int, stride: int, edges: list[int]) -> dict[str, Any]:
    """Sums over all documents: NLL and tokens in total, by context and by position."""
    sums = {kind: [0.0] * len(edges) for kind in ("by_context", "by_position")}
    counts = {kind: [0] * len(edges) for kind in sums}
    total, tokens = 0.0, 0
    bar = tqdm(total=len(documents), desc=f"{length} tokens of context")

    def keep(_: int, answer: dict[str, Any]) -> None:
        nonlocal total, tokens
        for result in answer["results"]:
            total -= result["logprob"]
            tokens += result["num_tokens"]
            for kind in sums:
                sums[kind] = [a - b for a, b in zip(sums[kind], result["buckets"][kind]["logprob"])]
                counts[kind] = [a + b for a, b in zip(counts[kind], result["buckets"][kind]["num_tokens"])]
        bar.update(1)

    bodies = ({"texts": [ids], "max_length": length, "stride": stride, "bucket_edges": edges} for ids in documents)
    client.post_all("/v1/loglikelihood_rolling", bodies, keep)
    bar.close()
    out: dict[str, Any] = {"length": length, "stride": stride, "nll": total / tokens, "tokens": tokens}
    for kind in sums:
        out[kind] = [{"from": e, "nll": s / n, "tokens": n} for e, s, n in zip(edges, sums[kind], counts[kind]) if n]
    return out


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
    rope = info.get("rope", {}).get("type", "default")
    result = {"kind": "dtrnet-long", "label": args.label or f"{info['model']}, rope {rope}", "documents": len(documents)}
    result |= {"server": info, "by_length": [*others, longest], "by_position": longest["by_position"]}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    for one in result["by_length"]:
        print(f"{one['length']:6d} tokens of context: {one['nll']:.4f} nats a token over {one['tokens']} tokens")
    return 0
