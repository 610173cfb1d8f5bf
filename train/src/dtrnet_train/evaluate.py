"""Negative log likelihood of held-out documents, and comparing two models on them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dtrnet_train.errors import require
from dtrnet_train.layers import Record
from dtrnet_train.loader import Batch, move
from dtrnet_train.model import NO_TARGET, attends, executes
from dtrnet_train.parallel import World
from dtrnet_train.rows import make_rows
from dtrnet_train.tokens import TokenFile


class Pieces:
    """Documents cut into pieces of `length` tokens from their first token on, as a server scores them in windows."""

    def __init__(self, path: Path | str, length: int, bos: int, vocab_size: int, limit: int = 0) -> None:
        self.length = length
        file = TokenFile(path, 1, bos)  # documents are cut, not packed: one shorter than a piece will do
        file.fit(vocab_size)
        documents = file.documents()
        self.documents = documents[:limit] if limit else documents
        self.owner, self.first, self.parts = [], [], []
        for number, ids in enumerate(self.documents):
            for first in range(0, len(ids) - 1, length):
                self.parts.append(np.asarray(ids[first : first + length + 1], np.int64))
                self.owner.append(number)
                self.first.append(first)
        require(self.parts, f"{path}: no document of two tokens")

    def batch(self, numbers: list[int]) -> Batch:
        """Pieces as windows; behind a piece's end stands a segment of its own that has no targets."""
        tokens = np.zeros((len(numbers), self.length), np.int64)
        targets = np.full_like(tokens, NO_TARGET)
        starts = np.zeros_like(tokens, bool)
        starts[:, 0] = True
        for row, number in enumerate(numbers):
            ids = self.parts[number] if number < len(self.parts) else np.zeros(1, np.int64)
            n = len(ids) - 1
            tokens[row, :n], targets[row, :n] = ids[:-1], ids[1:]
            starts[row, min(n, self.length - 1)] |= 0 < n < self.length
        rows = make_rows(starts, 2 * len(numbers))
        return Batch(torch.from_numpy(tokens.reshape(-1)), torch.from_numpy(targets.reshape(-1)), rows)


class Held(NamedTuple):
    """What held-out documents say about a model."""

    sums: np.ndarray  # [documents] sum of losses
    counts: np.ndarray  # [documents] targets
    execute: list[float]  # by layer: share of tokens that execute it
    attend: list[float]  # by layer: share of the executed that attend

    @property
    def loss(self) -> float:
        """Mean over all tokens."""
        return float(self.sums.sum() / self.counts.sum())


def _layer_counts(records: list[Record], layout: str, real: Tensor) -> Tensor:
    """[2, layers]: real rows that execute, and that attend."""
    ran = [(executes(r, real) & real).sum() for r in records]
    went = [(attends(r, letter, real) & executes(r, real) & real).sum() for letter, r in zip(layout, records)]
    return torch.stack([torch.stack(ran), torch.stack(went)]).double()


@torch.no_grad()
def by_document(module: nn.Module, pieces: Pieces, micro: int, world: World) -> Held:
    """The same result in every process. Runs without compiled graphs."""
    layout, was, device = module.shape.layer_layout, module.training, world.device
    totals = torch.zeros(2, len(pieces.documents), dtype=torch.float64, device=device)
    layers = torch.zeros(2, len(layout), dtype=torch.float64, device=device)
    module.eval()
    with torch.compiler.set_stance("force_eager"):
        for first in range(0, len(pieces.parts), micro * world.size):
            numbers = list(range(first + world.rank * micro, first + (world.rank + 1) * micro))
            batch = move(pieces.batch(numbers), device)
            losses, records = module(batch.tokens, batch.rows, batch.targets, by_row=True)
            real = batch.targets != NO_TARGET
            owner = torch.tensor([pieces.owner[n] if n < len(pieces.parts) else 0 for n in numbers], device=device)
            totals.index_add_(1, owner, torch.stack([losses.double(), real.double()]).view(2, micro, -1).sum(2))
            layers += _layer_counts(records, layout, real)
    if world.size > 1:
        dist.all_reduce(totals)
        dist.all_reduce(layers)
    module.train(was)
    (sums, counts), (ran, went) = totals.cpu().numpy(), layers
    return Held(sums, counts, (ran / totals[1].sum()).tolist(), (went / ran.clamp(min=1)).tolist())


def paired(sums_a: np.ndarray, sums_b: np.ndarray, count: np.ndarray, draws: int = 10000, seed: int = 1) -> tuple[float, float, float]:
    """Mean loss of a less that of b, a token each, and its 95 % interval by drawing documents with replacement."""
    difference = sums_a - sums_b
    picked = np.random.default_rng(seed).integers(0, len(count), (draws, len(count)))
    drawn = difference[picked].sum(1) / count[picked].sum(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(difference.sum() / count.sum()), float(low), float(high)
