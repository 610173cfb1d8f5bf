"""How far bf16 is from float32: this server's bf16 and PyTorch's own, both against PyTorch in float32.

usage: bf16_numerics.py [--model DIR] [--documents FILE.jsonl] [--limit N] [--dtypes bf16,f32]

Every document (field `text`) is scored from BOS on. Printed, as a table for docs/numerics.md: mean, 99th percentile and maximum of the
absolute difference of a token's log probability, and the share of routing decisions that are not the float32 ones. Needs torch,
sentencepiece, requests and a built server (build/dtrnet, or $DTRNET_BIN).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor

from torch_dtrnet import TorchModel

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from support import Server  # noqa: E402  (found through the line above)

Scores = list[tuple[torch.Tensor, torch.Tensor]]


def server_scores(model: Path, dtype: str, documents: list[list[int]], routed: list[int]) -> Scores:
    """Log probabilities and routing of the routed layers, from a server in this dtype."""
    out = []
    with Server(model, "--dtype", dtype) as server:
        for ids in documents:
            body = {"requests": [{"context": ids[:1], "continuations": [ids[1:]]}], "tokens": True, "routing": True}
            one = server.post("/v1/loglikelihood", body)["results"][0]["continuations"][0]
            routing = [[bit == "1" for bit in one["routing"][layer]] for layer in routed]
            out.append((torch.tensor(one["token_logprobs"]), torch.tensor(routing)))
    return out


def row(name: str, got: Scores, want: Scores) -> str:
    """One line of the table."""
    gap = torch.cat([(a[0] - b[0]).abs() for a, b in zip(got, want)]).double()
    flips = torch.cat([(a[1] != b[1]).flatten() for a, b in zip(got, want)]).double()
    share = f"{flips.mean():.3%} of {len(flips)}" if len(flips) else "none to make"
    return f"| {name} | {gap.mean():.5f} | {torch.quantile(gap, 0.99):.5f} | {gap.max():.4f} | {share} |"


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "dtrnet-26m")
    parser.add_argument("--documents", type=Path, default=ROOT.parent / "shared" / "models" / "heldout" / "short.jsonl")
    parser.add_argument("--limit", type=int, help="only so many documents")
    parser.add_argument("--dtypes", default="bf16,f32", help="of the server (default: %(default)s)")
    args = parser.parse_args()
    tokenizer = SentencePieceProcessor(model_file=str(args.model / "tokenizer.model"))
    lines = args.documents.read_text(encoding="utf-8").splitlines()[: args.limit]
    documents = [[tokenizer.bos_id(), *tokenizer.encode(json.loads(line)["text"])] for line in lines]
    reference = TorchModel(args.model, torch.float32)
    routed = [i for i in range(reference.cfg["num_hidden_layers"]) if f"model.layers.{i}.router.weight_predictor.0.weight" in reference.w]
    want = [reference.score(ids) for ids in documents]
    half = TorchModel(args.model, torch.bfloat16)
    tokens = sum(map(len, documents))
    print(f"{len(documents)} documents, {tokens} tokens, torch {torch.__version__}\n")
    print("| against PyTorch float32 | mean | 99th percentile | maximum | routing decisions flipped |\n|---|---|---|---|---|")
    print(row("PyTorch bf16", [half.score(ids) for ids in documents], want), flush=True)
    for dtype in args.dtypes.split(","):
        print(row(f"dtrnet {dtype}", server_scores(args.model, dtype, documents, routed), want), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
