"""Errors that a person should read: one class for one meaning, one line each. Every command prints them without a traceback."""

from __future__ import annotations


class EvalError(Exception):
    """The base of all others."""


class UsageError(EvalError):
    """Arguments, a suite file or the environment are not as a command needs them."""


class ServerError(EvalError):
    """Something is wrong with a server; the classes below say what."""


class UnreachableError(ServerError):
    """Nobody answers, or TLS fails."""


class RefusedError(ServerError):
    """The server answered with an error status.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnauthorizedError(RefusedError):
    """401: the server wants a key, or another one."""


class NotOursError(ServerError):
    """Another server answers, an older one of ours, or an answer is not as docs/http-api.md says."""


class ResultsError(EvalError):
    """Files of results are damaged or of another version."""


class OriginError(EvalError):
    """Results of one model or setting would be mixed with those of another."""
