"""Negative log likelihood of held-out documents, and comparing two models on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from dtrnet_train.loader import Batch, move
from dtrnet_train.model import NO_TARGET
from dtrnet_train.parallel import World
from dtrnet_train.rows import make_rows
from dtrnet_train.tokens import TokenFile


class Pieces:
    """Documents cut into pieces of `length` tokens from their first token on, as a server scores them in windows."""

    def __init__(self, path: Path | str, length: int, bos: int, limit: int = 0) -> None:
        self.length = length
        documents = TokenFile(path, length, bos).documents()
        self.documents = documents[:limit] if limit else documents
        self.owner, self.parts = [], []
        for number, ids in enumerate(self.documents):
            for first in range(0, len(ids) - 1, length):
                self.parts.append(np.asarray(ids[first : first + length + 1], np.int64))
                self.owner.append(number)

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


@torch.no_grad()
def by_document(module: nn.Module, pieces: Pieces, micro: int, world: World) -> tuple[np.ndarray, np.ndarray]:
    """(sum of losses, targets) of each document, the same in every process. Runs without compiled graphs."""
    was, sums = module.training, torch.zeros(len(pieces.documents), dtype=torch.float64, device=world.device)
    count = torch.zeros_like(sums)
    module.eval()
    with torch.compiler.set_stance("force_eager"):
        for first in range(0, len(pieces.parts), micro * world.size):
            numbers = list(range(first + world.rank * micro, first + (world.rank + 1) * micro))
            batch = move(pieces.batch(numbers), world.device)
            losses, _ = module(batch.tokens, batch.rows, batch.targets, by_row=True)
            owner = torch.tensor([pieces.owner[n] if n < len(pieces.parts) else 0 for n in numbers], device=world.device)
            sums.index_add_(0, owner, losses.view(micro, -1).double().sum(1))
            count.index_add_(0, owner, (batch.targets != NO_TARGET).view(micro, -1).double().sum(1))
    if world.size > 1:
        dist.all_reduce(sums)
        dist.all_reduce(count)
    module.train(was)
    return sums.cpu().numpy(), count.cpu().numpy()


def paired(sums_a: np.ndarray, sums_b: np.ndarray, count: np.ndarray, draws: int = 10000, seed: int = 1) -> tuple[float, float, float]:
    """Mean loss of a less that of b, a token each, and its 95 % interval by drawing documents with replacement."""
    difference = sums_a - sums_b
    picked = np.random.default_rng(seed).integers(0, len(count), (draws, len(count)))
    drawn = difference[picked].sum(1) / count[picked].sum(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(difference.sum() / count.sum()), float(low), float(high)
