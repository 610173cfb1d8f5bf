"""Where results come from: one record in every file of results, and what must be equal before results may lie together.

A record holds all that the server says of itself in /version, and the client's side: the harness's version, the tasks' versions, limit,
seeds and date. Results of the same folder have equal records but for the fields below, for tasks and for the date.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtrnet_eval import __version__
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.errors import NotOursError, OriginError, ResultsError

SCHEMA = 1
KEY = "dtrnet_origin"  # in the `config` of the harness's results, and in the files of `dtrnet-eval long`
OLD_KEYS = ("dtrnet_server", "server")  # where 0.1 kept the answer of /version
# Fields of /version that change neither a score nor which tokens are scored.
WITHOUT_EFFECT = {
    "model",
    "model_path",
    "tokenizer_path",
    "threads",
    "level",
    "devices",
    "tensor_parallel",
    "prefix_cache",
    "max_batch_tokens",
    "kv_rows_total",
    "kv_row_bytes",
    "weight_bytes",
}


def harness_version() -> str:
    """Of the installed harness; empty where there is none."""
    try:
        return importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Origin:
    """The record.

    Attributes:
        server: the answer of /version.
        client: the model type that asked: `dtrnet`, `local-completions`, or `long`.
        harness: version of lm-evaluation-harness; empty for `long`.
        package: version of this package.
        limit: items of each task at most, or a share of them; None: all.
        seeds: of the harness, by what they are for.
        tasks: versions of the tasks by name.
        date: UTC, to the second.
    """

    server: dict[str, Any]
    client: str = ""
    harness: str = ""
    package: str = __version__
    limit: float | None = None
    seeds: dict[str, int | None] = field(default_factory=dict)
    tasks: dict[str, Any] = field(default_factory=dict)
    date: str = ""

    @classmethod
    def now(cls, server: ServerInfo, client: str, **more: Any) -> Origin:
        """A record of this moment."""
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(server=server.raw, client=client, date=date, **more)

    def as_json(self) -> dict[str, Any]:
        """For a file of results."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @property
    def info(self) -> ServerInfo:
        """The server's part, typed."""
        return ServerInfo.read(self.server)

    def settings(self) -> dict[str, Any]:
        """What the server's part has that changes scores."""
        return {name: value for name, value in self.server.items() if name not in WITHOUT_EFFECT}

    def compared(self) -> dict[str, Any]:
        """All that results of one folder have in common."""
        return self.settings() | {"harness": self.harness, "limit": self.limit, "seeds": self.seeds}


def read(holder: dict[str, Any], path: Path) -> Origin | None:
    """The record that a results file's `config`, or a file of `long`, holds; None where there is none.

    Raises:
        ResultsError: it is damaged, or of a later version.
    """
    found = holder.get(KEY)
    old = next((holder[key] for key in OLD_KEYS if key in holder), None)
    if found is None and old is None:
        return None
    try:
        if found is None:
            origin = Origin(server=dict(old), package="0.1.0", limit=holder.get("limit"))
        elif found["schema"] != SCHEMA:
            raise ValueError(f"its schema is {found['schema']}, this version knows {SCHEMA}")
        else:
            origin = Origin(**{name: value for name, value in found.items() if name != "schema"})
        origin.info  # noqa: B018  (raises where the server's part is not one)
    except (KeyError, TypeError, ValueError, NotOursError) as error:
        raise ResultsError(f"{path}: its record of origin is not as this version writes it ({error})") from None
    return origin


def _results_below(place: Path) -> list[Path]:
    """Result files of the harness that are or would be at --output_path `place`."""
    if place.suffix == ".json":
        return sorted(place.parent.glob(f"{place.stem}_*.json"))
    return sorted(place.rglob("results_*.json")) if place.is_dir() else []


def found_at(place: Path) -> Iterator[tuple[Path, Origin | None]]:
    """Each file of results at a place with its record."""
    for path in _results_below(place):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            config = data["config"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{path}: not a results file of lm-evaluation-harness ({type(error).__name__}: {error})") from None
        yield path, read(config if isinstance(config, dict) else {}, path)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value)
    return text[:12] if len(text) == 64 and text.isalnum() else text


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs, in words; names that only one side has do not count (another version of the server wrote it, which shows)."""
    return [f"{name} {_short(old[name])} there, {_short(new[name])} here" for name in old if name in new and old[name] != new[name]]


def check(place: Path, origin: Origin | None, without: tuple[str, ...] = ()) -> None:
    """That results at `place` may lie beside new ones of this origin.

    Args:
        place: as the harness's --output_path.
        origin: of the new ones; None: of a server that says nothing of itself.
        without: fields that are not known yet.

    Raises:
        OriginError: there are results of another origin, or of none that is known.
    """
    for path, found in found_at(place):
        if found is None and origin is None:
            continue
        if found is None or origin is None:
            which = "these results would have none" if found else f"{path.name} has none"
            raise OriginError(f"{place}: results with and without a record of origin would lie together ({which}); give another folder")
        old = {name: value for name, value in found.compared().items() if name not in without}
        differs = differences(old, origin.compared())
        if differs:
            raise OriginError(f"{place} holds results of another origin: {'; '.join(differs)}. Give another folder, or remove this one")
