"""The shards of one run as a whole: all are there, each is finished, and all are of one origin."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from dtrnet_eval import answerlog, origin
from dtrnet_eval.errors import OriginError, ResultsError
from dtrnet_eval.origin import Origin
from dtrnet_eval.shards import Name, Shard
from dtrnet_eval.totals import RunTotals


class Whole:
    """All shards of one run.

    Args:
        folder: of their files.

    Attributes:
        origin: of all of them.

    Raises:
        ResultsError: a shard is missing or not finished.
        OriginError: they are of more than one origin.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = _all_shards(folder)
        self.origin = self._files[0].origin
        self._values = {(a.kind, name): value for file in self._files for a in file.answers for name, value in a.values.items()}

    def __len__(self) -> int:
        return len(self._files)

    def value(self, kind: str, name: Name, arguments: tuple[Any, ...]) -> Any:
        """What a request was answered.

        Raises:
            ResultsError: it was not asked, or asked otherwise.
        """
        found = self._values.get((kind, name))
        what = f"{self.folder}: request {name.request} of item {name.item} of {name.task}"
        if found is None:
            raise ResultsError(f"{what} is in no shard; were they made by other tasks, or another version of the harness?")
        if found[0] != answerlog.asked(kind, arguments):
            raise ResultsError(f"{what} was asked otherwise; were they made by other task files, or other seeds?")
        return found[1]

    def record(self, now: Origin) -> Origin:
        """The record of the merged results: what the harness says now, of the server that the shards asked.

        Raises:
            OriginError: the harness runs otherwise than it did for the shards.
        """
        differs = origin.differences(self.origin.compared(), now.compared())
        if differs:
            raise OriginError(f"{self.folder}: the shards were asked otherwise: {'; '.join(differs)}")
        return dataclasses.replace(now, date=max(file.origin.date for file in self._files))

    def summary(self) -> dict[str, Any]:
        """What the shards cost, added up."""
        totals, truncated = RunTotals(), 0
        for file in self._files:
            for answer in file.answers:
                totals.count(answer.kind, answer.usage, answer.sequences)
                totals.seconds[answer.kind] += answer.seconds
                truncated += answer.truncated
        settings = (self._files[0].end or {}).get("settings", {})
        return {**totals.summary(), "truncated_requests": truncated, "settings": settings, "shards": len(self._files)}


def _all_shards(folder: Path) -> list[answerlog.Read]:
    """Every shard's file, whole and of one origin, in order."""
    found = {path.name: answerlog.read(path) for path in sorted(folder.glob("answers-*-of-*.jsonl"))}
    if not found:
        raise ResultsError(f"{folder}: there are no answers of shards")
    counts = sorted({one.shard.of for one in found.values()})
    if len(counts) > 1:
        raise ResultsError(f"{folder}: the run was divided into {' and into '.join(map(str, counts))} shards; remove those of one")
    every = [found.get(Shard(n, counts[0]).file) for n in range(1, counts[0] + 1)]
    missing = [str(n) for n, one in enumerate(every, 1) if one is None or one.end is None]
    if missing:
        raise ResultsError(f"{folder}: of {counts[0]} shards these are not finished: {', '.join(missing)}")
    whole = [one for one in every if one is not None]
    _one_origin(folder, whole)
    return whole


def _one_origin(folder: Path, files: list[answerlog.Read]) -> None:
    first = files[0]
    for one in files[1:]:
        differs = origin.differences(
            {**first.origin.compared(), "settings": (first.end or {}).get("settings")},
            {**one.origin.compared(), "settings": (one.end or {}).get("settings")},
        )
        if differs:
            raise OriginError(f"{folder}: shard {one.shard} is of another origin than {first.shard}: {'; '.join(differs)}")
