"""Markdown tables."""

from __future__ import annotations


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * w for w in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths)) + " |" for line in lines)


def share(value: float | None) -> str:
    """Two digits; a dash for nothing."""
    return "-" if value is None else f"{value:.2f}"
