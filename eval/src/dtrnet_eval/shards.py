"""Shards of a run: which requests are whose. Pure functions over what the harness asks.

A shard is a run of neighbours: the requests of each kind, in the harness's order (task by task, item by item), are cut into parts of about
equal work. So most shards hold whole tasks, a large task is cut between its rows, an item's requests stay together, and what neighbours
have in common is computed by one server. Each shard makes all requests of the run, because a few-shot prompt may be drawn in the order of
the items, and asks its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dtrnet_eval.errors import UsageError

MOST = 10_000
WEIGHT_OF_A_REQUEST = 64  # bytes of text that cost as much as a request does beside its text


class Name(NamedTuple):
    """What is asked, by its place in the run.

    Attributes:
        task: its name.
        item: number of the document.
        request: which of the item's requests.
        again: which of its repetitions.
    """

    task: str
    item: int
    request: int
    again: int


@dataclass(frozen=True)
class Shard:
    """One of several: `number` is 1 to `of`."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """From `2/4`.

        Raises:
            UsageError: it is no such pair.
        """
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text, re.ASCII)
        number, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= of <= MOST:
            raise UsageError(f"a shard is K/N with 1 <= K <= N <= {MOST}, such as 2/4, but is {text!r}")
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def file(self) -> str:
        """Name of the file with its answers."""
        return f"answers-{self.number}-of-{self.of}.jsonl"


def names(requests: Sequence[Any]) -> list[Name]:
    """A name for each of the harness's instances; no two are equal."""
    seen: Counter[tuple[str, int, int]] = Counter()
    out = []
    for request in requests:
        key = (str(request.task_name), int(request.doc_id or 0), int(request.idx))
        out.append(Name(*key, seen[key]))
        seen[key] += 1
    return out


def common(a: str, b: str) -> int:
    """Characters that two texts begin with alike."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def weights(arguments: Sequence[tuple[Any, ...]]) -> list[int]:
    """Work of each request: its text but for what it begins with in common with the one before it."""
    out, before = [], ""
    for one in arguments:
        text = "".join(part for part in one if isinstance(part, str))
        out.append(WEIGHT_OF_A_REQUEST + len(text) - common(before, text))
        before = text
    return out


def mine(named: Sequence[Name], work: Sequence[int], shard: Shard) -> list[int]:
    """Places of a shard's requests, in order. Over all shards each place comes once, and the requests of an item are in one."""
    total = max(1, sum(work))
    out: list[int] = []
    at = begin = 0
    while at < len(named):
        end, size = at, 0
        while end < len(named) and named[end][:2] == named[at][:2]:
            size += work[end]
            end += 1
        if (2 * begin + size) * shard.of // (2 * total) == shard.number - 1:
            out += range(at, end)
        begin, at = begin + size, end
    return out
