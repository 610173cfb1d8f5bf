"""`dtrnet-train routing`: which tokens a checkpoint routes where, on held-out text, and what its layers do to the residual stream.

Counted by layer, and in each layer by position, class of the piece and frequency of the word (groups.py). Cosines are means over tokens
of the streams before, between and behind the layers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dtrnet_train import groups, pictures, tables
from dtrnet_train.errors import require
from dtrnet_train.evaluate import Pieces
from dtrnet_train.model import NO_TARGET, Model, attends, executes, load
from dtrnet_train.rows import to_device
from dtrnet_train.shape import Shape

Counts = dict[str, np.ndarray]  # name of the grouping -> [groups, layers]


class Tally:
    """Sums over the text."""

    def __init__(self, layers: int, names: dict[str, list[str]]) -> None:
        self.names = names
        self.tokens = {name: np.zeros(len(g)) for name, g in names.items()}
        self.executed, self.attended = ({name: np.zeros((len(g), layers)) for name, g in names.items()} for _ in range(2))
        self.cosine = np.zeros((layers + 1, layers + 1))
        self.by_way = np.zeros((3, 2, layers))  # ways -, 0, 1: (sum of cosines of x before and behind the layer, tokens)
        self.seen = 0

    def add_groups(self, name: str, group: np.ndarray, ran: np.ndarray, went: np.ndarray) -> None:
        """group [n] numbers (-1: in none); ran, went [n, layers] bool."""
        inside = group >= 0
        size = len(self.names[name])
        self.tokens[name] += np.bincount(group[inside], minlength=size)
        for total, what in ((self.executed, ran), (self.attended, went)):
            np.add.at(total[name], group[inside], what[inside])

    def add_stream(self, stream: list[torch.Tensor], ran: np.ndarray, went: np.ndarray) -> None:
        """stream: [n, H] before each layer and behind the last."""
        unit = F.normalize(torch.stack(stream).float(), dim=-1)  # [layers + 1, n, H]
        self.cosine += torch.einsum("inh,jnh->ij", unit, unit).double().numpy()
        step = (unit[1:] * unit[:-1]).sum(-1).T.double().numpy()  # [n, layers]
        for way, mask in enumerate((~ran, ran & ~went, went)):
            self.by_way[way] += np.stack([(step * mask).sum(0), mask.sum(0)])
        self.seen += unit.shape[1]


class Text(NamedTuple):
    """Held-out documents in pieces, with the groups of their tokens."""

    pieces: Pieces
    vocabulary: groups.Vocabulary | None
    counts: list[np.ndarray]

    def names(self) -> dict[str, list[str]]:
        """Groups of each grouping."""
        out = {"all": ["all"], "position": groups.buckets(groups.POSITIONS)}
        if self.vocabulary:
            out |= {"class": list(groups.CLASSES), "word frequency": groups.buckets(groups.FREQUENCIES)}
        return out

    def groups_of(self, number: int) -> dict[str, np.ndarray]:
        """Group of each input token of a piece."""
        ids, owner, first = self.pieces.parts[number][:-1], self.pieces.owner[number], self.pieces.first[number]
        out = {"all": np.zeros(len(ids), int), "position": groups.bucket_of(np.arange(len(ids)), groups.POSITIONS)}
        if self.vocabulary:
            counts = self.counts[owner][first : first + len(ids)]
            out |= {"class": self.vocabulary.classes[ids], "word frequency": groups.bucket_of(counts, groups.FREQUENCIES)}
        return out


def read_text(path: Path, length: int, shape: Shape, documents: int, tokenizer: Path | None) -> Text:
    """Pieces of a token file."""
    pieces = Pieces(path, length, shape.bos_token_id, shape.vocab_size, documents)
    vocabulary = groups.Vocabulary(tokenizer) if tokenizer else None
    if vocabulary:
        high = max(int(d.max()) for d in pieces.documents)
        require(high < len(vocabulary.classes), f"{path}: the id {high} is outside of the tokenizer's {len(vocabulary.classes)} pieces")
    return Text(pieces, vocabulary, groups.word_counts(pieces.documents, vocabulary) if vocabulary else [])


@torch.no_grad()
def measure(model: Model, text: Text) -> Tally:
    """A forward pass over every piece."""
    layout, device = model.shape.layer_layout, next(model.parameters()).device
    tally = Tally(len(layout), text.names())
    for number in range(len(text.pieces.parts)):
        batch = text.pieces.batch([number])
        real = batch.targets != NO_TARGET
        n = int(real.sum())
        ids = batch.tokens.to(device)
        stream, records = model.run(ids, to_device(batch.rows, device))
        ran = torch.stack([executes(r, ids) for r in records], 1)[:n].cpu().numpy()
        went = torch.stack([attends(r, letter, ids) for r, letter in zip(records, layout)], 1)[:n].cpu().numpy()
        for name, group in text.groups_of(number).items():
            tally.add_groups(name, group[:n], ran, ran & went)
        tally.add_stream([x[:n].cpu() for x in stream], ran, ran & went)
    return tally


def summary(tally: Tally, layout: str) -> dict[str, Any]:
    """Shares and cosines for people and programs. `attend` is among the executed, `attend_of_all` among all tokens."""

    def shares(name: str, g: int, layer: int) -> dict[str, float | None]:
        n, ran, went = tally.tokens[name][g], tally.executed[name][g, layer], tally.attended[name][g, layer]
        return {"execute": ran / n if n else None, "attend": went / ran if ran else None, "attend_of_all": went / n if n else None}

    ways = {way: [s / n if n else None for s, n in zip(*tally.by_way[i])] for i, way in enumerate(("skipped", "linear", "attends"))}
    layers = [
        {
            "layer": i,
            "letter": letter,
            **{k: v or 0.0 for k, v in shares("all", 0, i).items()},
            "cosine": {w: c[i] for w, c in ways.items()},
        }
        for i, letter in enumerate(layout)
    ]
    by = {
        name: [
            {"group": label, "tokens": int(tally.tokens[name][g]), "layers": [shares(name, g, i) for i in range(len(layout))]}
            for g, label in enumerate(labels)
        ]
        for name, labels in tally.names.items()
        if name != "all"
    }
    return {"tokens": int(tally.seen), "layers": layers, "by": by, "cosine": (tally.cosine / max(tally.seen, 1)).tolist()}


# ---- the command ----


def report(result: dict[str, Any]) -> str:
    """Markdown."""
    s, layers = tables.share, result["layers"]
    head = ["layer", "kind", "execute", "attend", "attend of all", "cosine: skipped", "linear", "attends"]
    rows = [
        [str(x["layer"]), x["letter"], s(x["execute"]), s(x["attend"]), s(x["attend_of_all"]), *(s(x["cosine"][w]) for w in x["cosine"])]
        for x in layers
    ]
    out = [
        f"{result['tokens']:,} tokens. Cosines are of the residual stream before and behind the layer, by what the token did.",
        tables.markdown(head, rows),
    ]
    routed = [i for i, x in enumerate(layers) if x["letter"] != "T"]
    nested = [i for i in routed if layers[i]["letter"] in "SML"]
    for name, parts in result["by"].items():
        parts = [part for part in parts if part["tokens"]]
        for what, columns in (("attend_of_all", routed), ("execute", nested)):
            if not columns:
                continue
            title = f"Share of tokens that {'attend' if what == 'attend_of_all' else 'execute the layer'}, by {name}"
            body = [[p["group"], f"{p['tokens']:,}", *(s(p["layers"][i][what]) for i in columns)] for p in parts]
            out += [f"## {title}", tables.markdown([name, "tokens", *(f"layer {i}" for i in columns)], body)]
    out.append("## Cosine of the residual stream, before each layer and behind the last")
    n = len(result["cosine"])
    out.append(tables.markdown(["", *map(str, range(n))], [[str(i), *(s(v) for v in row)] for i, row in enumerate(result["cosine"])]))
    return "\n\n".join(out) + "\n"


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("dtrnet-train routing", description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokens", type=Path, help="a token file")
    parser.add_argument(
        "--out", type=Path, help="a folder for routing.md, routing.json and, with matplotlib, pictures; default: prints the tables"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="default: the checkpoint's tokenizer.model; without one, classes and words are left out"
    )
    parser.add_argument("--length", type=int, default=2048, help="tokens of a window at most (%(default)s)")
    parser.add_argument("--documents", type=int, default=0, help="only the first documents")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measures, then writes or prints."""
    args = _arguments(arguments)
    model = load(args.checkpoint)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    own = args.checkpoint / "tokenizer.model"
    tokenizer = args.tokenizer or (own if own.is_file() else None)
    text = read_text(args.tokens, args.length, model.shape, args.documents, tokenizer)
    result = summary(measure(model, text), model.shape.layer_layout)
    if args.out is None:
        print(report(result), end="")
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "routing.json").write_text(json.dumps(result) + "\n")
    (args.out / "routing.md").write_text(f"# Routing of {args.checkpoint.name}\n\n{report(result)}")
    print(f"{args.out}: routing.md, routing.json" + (", " + ", ".join(names) if (names := pictures.routing(result, args.out)) else ""))
    return 0
