"""The model type's arguments: what is unknown or of a wrong type is refused, not ignored."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from dtrnet_eval.access import HOW_TO_GIVE
from dtrnet_eval.errors import UsageError

# What the harness passes to every model, or its tasks take from the model's arguments. Rows of a batch are the server's business.
HARNESS_ARGUMENTS = {"batch_size", "max_batch_size", "device", "model", "tokenizer", "trust_remote_code", "max_seq_lengths"}


def whole(name: str, value: Any, least: int = 0) -> int:
    """A whole number.

    Raises:
        UsageError: it is not, or it is below `least`.
    """
    if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
        raise UsageError(f"{name} must be a whole number, but is {value!r}")
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be a whole number, but is {value!r}") from None
    if number < least:
        raise UsageError(f"{name} must be at least {least}, but is {number}")
    return number


def seconds(name: str, value: Any) -> float:
    """A time.

    Raises:
        UsageError: it is not a finite number from 0 on.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf") or isinstance(value, bool):
        raise UsageError(f"{name} must be a number of seconds, but is {value!r}")
    return number


def flag(name: str, value: Any) -> bool:
    """True or False; the harness has made these of their words.

    Raises:
        UsageError: it is neither.
    """
    if value not in (True, False):
        raise UsageError(f"{name} must be True or False, but is {value!r}")
    return bool(value)


def refuse_unknown(given: dict[str, Any], function: Callable[..., Any]) -> None:
    """Arguments that are neither `function`'s nor the harness's.

    Raises:
        UsageError: there is one; with a name that is near, or all names.
    """
    known = [
        name for name, one in inspect.signature(function).parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD and name != "self"
    ]
    for name in given:
        if name == "api_key":
            raise UsageError(f"api_key as a model argument would stand in results, logs and process lists; {HOW_TO_GIVE}=FILE")
        if name not in HARNESS_ARGUMENTS:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise UsageError(f"the model type dtrnet has no argument {name}{hint}")
