"""`dtrnet-train check`: a checkpoint's log probabilities and decisions in PyTorch against a server that has loaded it.

A decision is one character: 1 the expensive way, 0 the linear path, - the layer skipped. Both sides read the same ids. The first place
where they part is named by layer, then token: what comes behind follows from it. Routers' probabilities part before decisions do.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dtrnet_train.errors import fail, require
from dtrnet_train.layers import Record
from dtrnet_train.model import Model, load
from dtrnet_train.rows import make_rows
from dtrnet_train.server import Seen, Server, checkpoint_hash
from dtrnet_train.tokens import TokenFile

# By the server's dtype: how far log probabilities may differ, and how near to the border a decision may fall either way.
LIMITS = {"f32": (2e-4, 1e-3), "bf16": (0.5, 0.5), "f16": (0.1, 0.1)}
WAYS = {"1": "attends", "0": "takes the linear path", "-": "skips the layer"}


class Witness(NamedTuple):
    """One sequence in PyTorch."""

    seen: Seen
    margins: np.ndarray  # [layers, T] distance to the border of the decision that is nearest to it; infinite without a router


def _ways(record: Record, letter: str, tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(characters, margins, probabilities) of one layer."""
    probs = np.full((2, tokens), np.nan)
    if letter == "T":
        return np.full(tokens, "1"), np.full(tokens, np.inf), probs
    made = [d for d in (record.execute, record.attend) if d is not None]
    margin = torch.stack([torch.where(d.among, d.margin.abs(), torch.inf) for d in made]).min(0).values.numpy()
    probs[0] = torch.where(made[-1].among, made[-1].prob, torch.nan).numpy()
    ways = np.where(made[-1].chosen.numpy(), "1", "0" if letter in "DS" else "-")
    if letter == "S":
        ways, probs[1] = np.where(record.execute.chosen.numpy(), ways, "-"), record.execute.prob.numpy()
    return ways, margin, probs


@torch.no_grad()
def by_torch(model: Model, ids: np.ndarray) -> Witness:
    """The forward pass over ids[:-1]."""
    starts = np.zeros((1, len(ids) - 1), bool)
    starts[:, 0] = True
    tokens = torch.from_numpy(ids.astype(np.int64))
    stream, records = model.run(tokens[:-1], make_rows(starts))
    logprobs = torch.log_softmax(model.logits(stream[-1]).float(), -1).gather(1, tokens[1:, None])[:, 0]
    ways, margins, probs = zip(*(_ways(r, letter, len(ids) - 1) for letter, r in zip(model.shape.layer_layout, records)))
    return Witness(Seen(logprobs.numpy(), np.stack(ways), np.stack(probs, 1)), np.stack(margins))


class Difference(NamedTuple):
    """What two passes over one sequence have apart."""

    worst: float  # of the log probabilities
    worst_token: int
    beyond: int  # first token whose log probability differs by more than the limit; -1: none
    parted: tuple[int, int] | None  # (layer, token) of the first decision that differs; layers first
    flips: int
    drifted: tuple[int, int] | None  # (layer, token) of the first probability that differs by more than a tenth of the limit


def compare(torch_side: Witness, server_side: Seen, limit: float) -> Difference:
    """Every log probability and decision."""
    mine = torch_side.seen
    require(server_side.ways.shape == mine.ways.shape, f"the server has {len(server_side.ways)} layers, the checkpoint {len(mine.ways)}")
    apart = np.abs(mine.logprobs - server_side.logprobs)
    beyond = np.flatnonzero(~(apart <= limit))
    flips = np.argwhere(mine.ways != server_side.ways)  # in order of layers, then tokens
    parted = (int(flips[0][0]), int(flips[0][1])) if len(flips) else None
    drift = np.argwhere(np.nanmax(np.abs(mine.probs - server_side.probs), 0, initial=0) > limit / 10)
    drifted = (int(drift[0][0]), int(drift[0][1])) if len(drift) else None
    return Difference(float(apart.max()), int(apart.argmax()), int(beyond[0]) if len(beyond) else -1, parted, len(flips), drifted)


# ---- what is fed ----


def sequences(args: argparse.Namespace, model: Model, longest: int) -> list[np.ndarray]:
    """Ids of each sequence: of documents, of a text, or random ones."""
    length, shape = min(args.length, longest), model.shape
    if args.tokens:
        documents = [d for d in TokenFile(args.tokens, 1, shape.bos_token_id).documents() if len(d) > 2]
        require(documents, f"{args.tokens}: no document of two tokens")
        out = [np.asarray(d[: length + 1], np.int64) for d in documents[: args.sequences]]
    elif args.text:
        out = [_encode(args.checkpoint, path, shape.bos_token_id)[: length + 1] for path in args.text]
    else:
        random = np.random.default_rng(args.seed)
        out = [random.integers(0, shape.vocab_size, length + 1) for _ in range(args.sequences)]
        for ids in out:
            ids[0] = min(shape.bos_token_id, shape.vocab_size - 1)
    high = max(int(ids.max()) for ids in out)
    require(high < shape.vocab_size, f"the id {high} is outside of the vocabulary of {shape.vocab_size}")
    return out


def _encode(checkpoint: Path, path: Path, bos: int) -> np.ndarray:
    import sentencepiece

    tokenizer = checkpoint / "tokenizer.model"
    require(tokenizer.is_file(), f"--text needs {tokenizer}, which is missing; give ids with --tokens")
    require(path.is_file(), f"{path}: no such file")
    ids = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer)).encode(path.read_text(encoding="utf-8"))
    require(ids, f"{path}: has no text")
    return np.array([bos, *ids], np.int64)


# ---- the command ----


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("dtrnet-train check", description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", type=Path, help="the directory that the server has loaded")
    parser.add_argument("--server", required=True, metavar="URL", help="such as http://127.0.0.1:8000; $DTRNET_API_KEY is sent if set")
    parser.add_argument("--text", type=Path, action="append", help="a text to feed; may be given several times")
    parser.add_argument("--tokens", type=Path, help="a token file whose first documents are fed")
    parser.add_argument("--sequences", type=int, default=4, help="how many documents or random sequences (%(default)s)")
    parser.add_argument("--length", type=int, default=256, help="tokens of each at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random ids that are fed without --text and --tokens (%(default)s)")
    parser.add_argument("--tolerance", type=float, help="log probabilities; default 2e-4 for a server in f32, 0.5 bf16, 0.1 f16")
    parser.add_argument("--near", type=float, help="margin below which a decision may fall either way; default 1e-3 f32, 0.5 bf16, 0.1 f16")
    args = parser.parse_args(arguments)
    for name in ("sequences", "length"):
        require(getattr(args, name) >= 1, f"--{name} must be at least 1, not {getattr(args, name)}")
    return args


def _adopt(model: Model, info: dict[str, Any]) -> list[str]:
    """Puts the model into the server's mode of expert choice; lines about what else would make the two differ."""
    mode = info.get("expert_choice")
    for _, layer in model.routed_layers():
        layer.mode = mode or layer.mode
    notes = []
    if info.get("forced_dense_layers"):
        notes.append(f"note: the server runs layers {info['forced_dense_layers']} dense (--dense-layers); PyTorch does not")
    if info.get("vocab_size") != model.shape.vocab_size:
        fail(f"the server's model has {info.get('vocab_size')} pieces, the checkpoint {model.shape.vocab_size}")
    return notes


def _where(number: int, witness: Witness, other: Seen, difference: Difference, ids: np.ndarray) -> str:
    layer, token = difference.parted
    mine, theirs = witness.seen.ways[layer, token], other.ways[layer, token]
    margin = witness.margins[layer, token]
    return (
        f"sequence {number}: decisions part first in layer {layer} at token {token} (id {ids[token]}): PyTorch {WAYS[mine]}, "
        f"the server {WAYS[theirs]}; {margin:.2g} from the border in PyTorch; {difference.flips} decisions differ in all"
    )


def _far(number: int, witness: Witness, other: Seen, difference: Difference) -> str:
    at = difference.beyond
    by = abs(witness.seen.logprobs[at] - other.logprobs[at])
    return (
        f"sequence {number}: log probabilities part first at token {at}, by {by:.5f}; "
        f"worst {difference.worst:.5f} at token {difference.worst_token}"
    )


def _drift(number: int, witness: Witness, other: Seen, where: tuple[int, int]) -> str:
    layer, token = where
    pairs = zip(("p", "s0"), witness.seen.probs[:, layer, token], other.probs[:, layer, token])
    told = ", ".join(f"{name} {a:.6f} in PyTorch and {b:.6f} in the server" for name, a, b in pairs if not np.isnan(a - b))
    return f"sequence {number}: routers part first in layer {layer} at token {token}: {told}; look at it and at the layers before"


def main(arguments: list[str]) -> int:
    """0: equal within the limits; 1: they part."""
    args = _arguments(arguments)
    server = Server(args.server)
    info = server.version()
    model = load(args.checkpoint)
    usual = LIMITS.get(info.get("dtype"), LIMITS["bf16"])
    limit, near = args.tolerance or usual[0], args.near or usual[1]
    print(f"server: {info['model']}, {info['family']}, {info['dtype']} on {info['device']}, dtrnet {info['version']}")
    if info["model_hash"] != checkpoint_hash(args.checkpoint):
        print(f"note: the server's checkpoint ({info['model_path']}) has other bytes than {args.checkpoint}")
    for note in _adopt(model, info):
        print(note)
    worst, flips, decisions, bad = 0.0, 0, 0, []
    for number, ids in enumerate(sequences(args, model, min(info["max_model_len"], model.shape.max_position_embeddings))):
        witness, other = by_torch(model, ids), server.score(ids)
        difference = compare(witness, other, limit)
        worst, flips = max(worst, difference.worst), flips + difference.flips
        decisions += int(np.isfinite(witness.margins).sum())
        if difference.parted:
            tie = witness.margins[difference.parted] <= near
            print(_where(number, witness, other, difference, ids) + (", a near tie" if tie else ""))
            bad += [] if tie else [number]
        if difference.beyond >= 0:
            print(_far(number, witness, other, difference))
            bad.append(number)
        if number in bad and difference.drifted:
            print(_drift(number, witness, other, difference.drifted))
    verdict = "they part" if bad else "equal"
    print(f"log probabilities within {worst:.6f} (limit {limit:g}); {flips} of {decisions} decisions differ: {verdict}")
    return 1 if bad else 0
