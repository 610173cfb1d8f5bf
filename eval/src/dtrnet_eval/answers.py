"""What the server sends, typed. Each class reads one JSON object of docs/http-api.md and says what is missing in it.

Only the fields that this package uses are here; `ServerInfo` keeps the whole answer of /version as well, for the record of origin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dtrnet_eval.errors import NotOursError

T = TypeVar("T")


def _want(value: object, name: str, kind: type[T] | tuple[type, ...]) -> T:
    """A member of a JSON object that must be there and of a type; true is no number.

    Raises:
        NotOursError: it is not.
    """
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise NotOursError(f"the answer has no {name!r} as this version expects it; is the server a dtrnet, and not too old?")
    return found  # type: ignore[return-value]


def _each(value: object, name: str, read: Callable[[Any], T]) -> list[T]:
    return [read(one) for one in _want(value, name, list)]


@dataclass(frozen=True)
class Rope:
    """Effective position encoding."""

    type: str
    factor: float


@dataclass(frozen=True)
class ServerInfo:
    """The answer of GET /version.

    Attributes:
        model: name of the model.
        model_hash: SHA-256 over its config and weights.
        max_model_len: positions of a sequence.
        bos, eos: ids, or -1.
        version, commit, device, dtype, numerics_class: of the server; empty where an older one does not say.
        rope: position encoding.
        forced_dense: layers that a flag made dense.
        devices: how many it computes on, each with requests of its own.
        raw: the whole answer.
    """

    model: str
    model_hash: str
    max_model_len: int
    bos: int
    eos: int
    version: str
    commit: str
    device: str
    dtype: str
    numerics_class: str
    rope: Rope
    forced_dense: tuple[int, ...]
    devices: int
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, value: object) -> ServerInfo:
        """From JSON.

        Raises:
            NotOursError: no model's name and hash, or no max_model_len.
        """
        model, digest, length = (_want(value, name, kind) for name, kind in (("model", str), ("model_hash", str), ("max_model_len", int)))
        raw: dict[str, Any] = value  # type: ignore[assignment]
        rope = raw.get("rope") if isinstance(raw.get("rope"), dict) else {}
        texts = {name: str(raw.get(name, "")) for name in ("version", "commit", "device", "dtype", "numerics_class")}
        forced = raw.get("forced_dense_layers") or []
        return cls(
            model=model,
            model_hash=digest,
            max_model_len=length,
            bos=int(raw.get("bos_token_id", -1)),
            eos=int(raw.get("eos_token_id", -1)),
            rope=Rope(str(rope.get("type", "default")), float(rope.get("factor", 1))),
            forced_dense=tuple(int(layer) for layer in forced),
            devices=max(1, len(raw["devices"])) if isinstance(raw.get("devices"), list) else 1,
            raw=raw,
            **texts,
        )


@dataclass(frozen=True)
class Usage:
    """`usage` of the scoring routes.

    Attributes:
        counts: its whole numbers by name: prompt_tokens, scored_tokens, computed_tokens, cached_tokens.
        rows_routed: for each layer, how many input positions attended.
        rows_executed: how many did not skip it; empty where no layer is nested.
        cost: FLOPs and KV rows, and the same with every layer dense.
    """

    counts: dict[str, int]
    rows_routed: list[int]
    rows_executed: list[int]
    cost: dict[str, int]

    @classmethod
    def read(cls, value: object) -> Usage:
        """From JSON."""
        usage = value if isinstance(value, dict) else {}
        counts = {name: number for name, number in usage.items() if isinstance(number, int) and not isinstance(number, bool)}
        routed, executed = (list(usage.get(name) or []) for name in ("rows_routed", "rows_executed"))
        return cls(counts, routed, executed, dict(usage.get("cost") or {}))


@dataclass(frozen=True)
class Score:
    """One continuation of /v1/loglikelihood; `routing` has a string of 0 and 1 a layer where it was asked for."""

    logprob: float
    is_greedy: bool
    truncated: int
    num_tokens: int = 1
    routing: tuple[str, ...] = ()

    @classmethod
    def read(cls, value: object) -> Score:
        """From JSON."""
        routing = value.get("routing") or () if isinstance(value, dict) else ()
        number = {name: _want(value, name, int) for name in ("truncated", "num_tokens")}
        return cls(float(_want(value, "logprob", (int, float))), _want(value, "is_greedy", bool), **number, routing=tuple(routing))


@dataclass(frozen=True)
class ScoreAnswer:
    """The answer of POST /v1/loglikelihood: the continuations of each context."""

    results: list[list[Score]]
    usage: Usage

    @classmethod
    def read(cls, value: object) -> ScoreAnswer:
        """From JSON.

        Raises:
            NotOursError: something is missing.
        """
        return cls(_each(value, "results", lambda one: _each(one, "continuations", Score.read)), Usage.read(_want(value, "usage", dict)))


@dataclass(frozen=True)
class Bucket:
    """Sums by position: of log probabilities, of tokens, and for each layer of rows that attended and that executed it.

    `rows_executed` is empty where no layer is nested.
    """

    logprob: list[float]
    num_tokens: list[int]
    rows_routed: list[list[int]]
    rows_executed: list[list[int]]

    @classmethod
    def read(cls, value: object) -> Bucket:
        """From JSON; answers without routing are from an older server."""
        logprob, tokens, routed = (_want(value, name, list) for name in ("logprob", "num_tokens", "rows_routed"))
        return cls(logprob, tokens, routed, value.get("rows_executed") or [] if isinstance(value, dict) else [])


@dataclass(frozen=True)
class Rolled:
    """One text of /v1/loglikelihood_rolling."""

    logprob: float
    num_windows: int
    buckets: dict[str, Bucket]

    @classmethod
    def read(cls, value: object) -> Rolled:
        """From JSON."""
        found = value.get("buckets") if isinstance(value, dict) else None
        buckets = {kind: Bucket.read(one) for kind, one in found.items()} if isinstance(found, dict) else {}
        return cls(float(_want(value, "logprob", (int, float))), _want(value, "num_windows", int), buckets)


@dataclass(frozen=True)
class RollingAnswer:
    """The answer of POST /v1/loglikelihood_rolling."""

    results: list[Rolled]
    usage: Usage

    @classmethod
    def read(cls, value: object) -> RollingAnswer:
        """From JSON.

        Raises:
            NotOursError: something is missing.
        """
        return cls(_each(value, "results", Rolled.read), Usage.read(_want(value, "usage", dict)))


@dataclass(frozen=True)
class Choice:
    """One generated text."""

    index: int
    text: str

    @classmethod
    def read(cls, value: object) -> Choice:
        """From JSON."""
        return cls(_want(value, "index", int), _want(value, "text", str))


@dataclass(frozen=True)
class CompletionAnswer:
    """The answer of POST /v1/completions."""

    choices: list[Choice]
    usage: Usage

    @classmethod
    def read(cls, value: object) -> CompletionAnswer:
        """From JSON.

        Raises:
            NotOursError: something is missing.
        """
        return cls(_each(value, "choices", Choice.read), Usage.read(_want(value, "usage", dict)))


@dataclass(frozen=True)
class TokensAnswer:
    """The answer of POST /tokenize."""

    tokens: list[int]

    @classmethod
    def read(cls, value: object) -> TokensAnswer:
        """From JSON.

        Raises:
            NotOursError: there are no tokens.
        """
        return cls(_want(value, "tokens", list))
