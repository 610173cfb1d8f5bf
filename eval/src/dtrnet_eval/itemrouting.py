"""How much of each scored pair attended, by layer: written while a run scores, read by the report's items."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dtrnet_eval.answers import Score
from dtrnet_eval.errors import ResultsError, UsageError

FILE = "item_routing.jsonl"


def pair_key(context: str, continuation: str) -> str:
    """Names a pair: 16 digits of a SHA-256 over both."""
    return hashlib.sha256(f"{len(context)}:{context}{continuation}".encode(errors="surrogatepass")).hexdigest()[:16]


def shares(score: Score) -> list[float]:
    """For each layer the share of input positions that attend."""
    return [round(layer.count("1") / len(layer), 4) if layer else 0.0 for layer in score.routing]


class ItemRouting:
    """A file with a line for each pair.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("")
        except OSError as error:
            raise UsageError(f"routing_file {path}: {error.strerror}") from None

    def add(self, pair: tuple[str, str], score: Score) -> None:
        """One scored pair."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"pair": pair_key(*pair), "share": shares(score)}) + "\n")


def read(path: Path) -> dict[str, list[float]]:
    """Pair -> share by layer.

    Raises:
        ResultsError: the file is damaged.
    """
    try:
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {str(row["pair"]): [float(share) for share in row["share"]] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: not as this version writes it ({type(error).__name__}: {error})") from None
