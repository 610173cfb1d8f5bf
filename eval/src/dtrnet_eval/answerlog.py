"""Answers of a shard on disk, written down as they come: who is stopped goes on behind them, and `merge` makes results of them.

A file is lines of JSON: a head with the shard and the record of origin, one for each answer of the server (values by request, and what
they cost), and one at the end. A line that was cut off when a machine went down is dropped. One process at a time writes a file.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtrnet_eval import origin
from dtrnet_eval.answers import Usage
from dtrnet_eval.errors import OriginError, ResultsError, UsageError
from dtrnet_eval.origin import Origin
from dtrnet_eval.shards import Name, Shard

SCHEMA = 1


def asked(kind: str, arguments: tuple[Any, ...]) -> str:
    """Digest of a request: an answer counts for the same request only."""
    return hashlib.sha256(json.dumps([kind, arguments], sort_keys=True, default=str).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Answer:
    """One answer of a server.

    Attributes:
        kind: as the harness calls it.
        values: digest of the request and what the harness gets, by name of the request.
        usage: what it cost.
        sequences: that were scored for it.
        truncated: requests that were cut on the left since the answer before.
        seconds: since then.
    """

    kind: str
    values: dict[Name, tuple[str, Any]]
    usage: Usage
    sequences: int
    truncated: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For a line."""
        values = [[*name, digest, value] for name, (digest, value) in self.values.items()]
        return {**{name: getattr(self, name) for name in ("kind", "sequences", "truncated", "seconds")}, "values": values} | {
            "usage": dataclasses.asdict(self.usage)
        }

    @classmethod
    def read(cls, line: dict[str, Any]) -> Answer:
        """From a line."""
        values = {
            Name(str(task), int(item), int(request), int(again)): (str(digest), tuple(value) if isinstance(value, list) else value)
            for task, item, request, again, digest, value in line["values"]
        }
        usage = Usage(**{name.name: line["usage"][name.name] for name in dataclasses.fields(Usage)})
        return cls(str(line["kind"]), values, usage, int(line["sequences"]), int(line["truncated"]), float(line["seconds"]))


@dataclass(frozen=True)
class Read:
    """A file of answers, read.

    Attributes:
        shard: whose it is.
        origin: of its answers.
        answers: in the order in which they came.
        end: what stands in the last line of a shard that is whole; None: it is not.
        size: bytes of the head and of the answers that are whole.
    """

    shard: Shard
    origin: Origin
    answers: list[Answer]
    end: dict[str, Any] | None
    size: int


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Whole lines and the bytes up to the end of each; a last line without its end is left out."""
    at = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            at += len(line)
            yield json.loads(line), at


def read(path: Path) -> Read:
    """A file of answers.

    Raises:
        ResultsError: it is damaged, or of another version.
    """
    try:
        lines = list(_lines(path))
        head = lines[0][0]
        if head["schema"] != SCHEMA:
            raise ValueError(f"its schema is {head['schema']}, this version knows {SCHEMA}")
        record = origin.read({origin.KEY: head["origin"]}, path)
        if record is None:
            raise ValueError("it has no record of origin")
        end = lines[-1][0].get("end")
        kept = lines if end is None else lines[:-1]
        return Read(Shard(*head["shard"]), record, [Answer.read(line) for line, _ in kept[1:]], end, kept[-1][1])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ResultsError(f"{path}: not answers as this version writes them ({type(error).__name__}: {error}); remove it") from None


def ended(path: Path) -> bool:
    """True if the shard of this file is whole."""
    return path.is_file() and path.stat().st_size > 0 and read(path).end is not None


class AnswerFile:
    """A file of answers that is gone on with, or begun.

    Args:
        path: of the file; its folder is made.
        shard: whose answers they are.
        record: of their origin; must be that of the answers that are there.

    Attributes:
        before: answers that were there.

    Raises:
        OriginError: the answers there are of another origin.
        ResultsError: the file is damaged.
        UsageError: it cannot be written, or another process writes it.
    """

    def __init__(self, path: Path, shard: Shard, record: Origin) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        try:
            self._lock()
            self.before = self._go_on(shard, record)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self.path}: another process works on this shard") from None
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be locked: {error.strerror}") from None

    def _go_on(self, shard: Shard, record: Origin) -> list[Answer]:
        if not any(True for _ in _lines(self.path)):
            self._file.truncate(0)
            self._write({"schema": SCHEMA, "shard": [shard.number, shard.of], "origin": record.as_json()})
            return []
        found = read(self.path)
        self._file.truncate(found.size)
        differs = origin.differences(found.origin.compared(), record.compared())
        if differs or found.shard != shard:
            what = "; ".join(differs) or f"of shard {found.shard}"
            raise OriginError(f"{self.path} holds answers of another origin: {what}. Remove it, or give another folder")
        return found.answers

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def add(self, answer: Answer) -> None:
        """One more."""
        self._write(answer.as_json())

    def finish(self, **what: Any) -> None:
        """The shard is whole, and on the disk."""
        self._write({"end": what})
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Removes the file: whose its answers are is in doubt."""
        self.path.unlink(missing_ok=True)
        self._file.close()
