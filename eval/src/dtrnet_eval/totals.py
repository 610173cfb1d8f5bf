"""What a run has cost, added up from the usage of every answer."""

from __future__ import annotations

from collections import defaultdict
from itertools import zip_longest
from typing import Any

from dtrnet_eval.answers import Usage


class RunTotals:
    """Sums over all answers of a run."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.rows_routed: list[int] = []
        self.rows_executed: list[int] = []
        self.cost: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)

    def count(self, kind: str, usage: Usage, sequences: int) -> None:
        """Adds one answer's usage, as its kind counts."""
        if kind == "generate_until":
            self.add_generation(usage)
        else:
            self.add(usage, sequences)

    def add(self, usage: Usage, sequences: int) -> None:
        """Adds one answer's usage; a sequence rests on one position less than it has tokens."""
        self.counts["positions"] += usage.counts.get("prompt_tokens", 0) - sequences
        for name, value in usage.counts.items():
            self.counts[name] += value
        self.rows_routed = [a + b for a, b in zip_longest(self.rows_routed, usage.rows_routed, fillvalue=0)]
        self.rows_executed = [a + b for a, b in zip_longest(self.rows_executed, usage.rows_executed, fillvalue=0)]
        for name, value in usage.cost.items():
            self.cost[name] += value

    def add_generation(self, usage: Usage) -> None:
        """Adds the counts of /v1/completions under names of their own."""
        for name, value in usage.counts.items():
            self.counts[f"generation_{name}"] += value

    def summary(self) -> dict[str, Any]:
        """For the results file; shares are by layer, of all positions that the scored sequences rest on.

        `rows_executed` and `executed_share` are there for models with nested layers.
        """
        rows = self.counts["positions"]
        share = [round(routed / rows, 6) for routed in self.rows_routed] if rows else []
        nested = (
            {"rows_executed": self.rows_executed, "executed_share": [round(n / rows, 6) for n in self.rows_executed]}
            if self.rows_executed and rows
            else {}
        )
        seconds = {phase: round(value, 3) for phase, value in self.seconds.items()}
        return {
            **self.counts,
            "rows_routed": self.rows_routed,
            "routed_share": share,
            **nested,
            "cost": dict(self.cost),
            "seconds": seconds,
        }
