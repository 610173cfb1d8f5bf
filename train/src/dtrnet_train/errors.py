"""What a person got wrong, in one line."""

from __future__ import annotations

from typing import NoReturn


class UserError(Exception):
    """Shown without a traceback."""


def require(condition: object, message: str) -> None:
    """Raises `UserError(message)` unless the condition holds."""
    if not condition:
        fail(message)


def fail(message: str) -> NoReturn:
    """Raises `UserError(message)`."""
    raise UserError(message)
