"""Two models on the same items: McNemar's exact test and a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

BOOTSTRAPS = 2000  # drawn by hundreds: a draw of all items of MMLU is 100 MB
Items = Mapping[Hashable, Mapping[str, float]]  # item -> metric -> value


@dataclass
class Paired:
    """Two models on the items of one task that both have.

    Attributes:
        n: items.
        first, second: shares that each has right.
        only_first, only_second: items that one has right and the other wrong.
        p: McNemar's exact two-sided probability.
        low, high: 95 % bootstrap interval of the difference (second - first).
    """

    n: int
    first: float
    second: float
    only_first: int
    only_second: int
    p: float
    low: float
    high: float


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p of McNemar's test with b and c discordant pairs."""
    n, k = b + c, min(b, c)
    if n == 0:
        return 1.0
    log_half = n * math.log(2)
    tail = sum(math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - log_half) for i in range(k + 1))
    return min(1.0, 2 * tail)


def compare(first: Items, second: Items, metric: str = "acc") -> Paired | None:
    """Item by item; None where no item has the metric in both."""
    shared = sorted(i for i in first.keys() & second.keys() if metric in first[i] and metric in second[i])
    if not shared:
        return None
    a, b = (np.array([side[i][metric] for i in shared]) for side in (first, second))
    random = np.random.default_rng(0)
    means = [(b - a)[random.integers(0, len(shared), (100, len(shared)))].mean(1) for _ in range(BOOTSTRAPS // 100)]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    only_a, only_b = int(((a > 0.5) & (b <= 0.5)).sum()), int(((b > 0.5) & (a <= 0.5)).sum())
    return Paired(len(shared), float(a.mean()), float(b.mean()), only_a, only_b, mcnemar(only_a, only_b), float(low), float(high))
