"""Flags for a server that a command starts itself: the key leaves the command line, and the client learns how to get in."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtrnet_eval.access import KEY_VARIABLES
from dtrnet_eval.errors import UsageError


@dataclass(frozen=True)
class ServerFlags:
    """What a server is started with.

    Attributes:
        flags: its arguments, without the key.
        key: the key that it asks for, or None.
        tls: True if it speaks https.
    """

    flags: list[str]
    key: str | None
    tls: bool

    def environment(self) -> dict[str, str]:
        """Of the server, and of clients that take the key from the environment, the harness's own among them."""
        more = {name: self.key for name in KEY_VARIABLES if self.key}
        return {**os.environ, **more}


def _take(flags: list[str], name: str) -> tuple[list[str], str | None]:
    """The flags without `name`, and the value that it had last."""
    rest: list[str] = []
    value, at = None, 0
    while at < len(flags):
        flag, equals, behind = flags[at].partition("=")
        if flag != name:
            rest.append(flags[at])
            at += 1
        elif equals:
            value, at = behind, at + 1
        elif at + 1 < len(flags):
            value, at = flags[at + 1], at + 2
        else:
            raise UsageError(f"{name} needs a value")
    return rest, value


def _config(path: str | None) -> dict[str, Any]:
    """The server's --config file, as far as it can be read here; the server says what is wrong with it."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _first_key(path: str | None) -> str | None:
    """Of a file with a line NAME KEY for each client; the server says what is wrong with it."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines() if path else []
    except (OSError, UnicodeDecodeError):
        return None
    words = [line.split() for line in lines if not line.lstrip().startswith("#")]
    return next((two[1] for two in words if len(two) == 2), None)


def read(flags: list[str]) -> ServerFlags:
    """From a command line; the environment and the --config file count as the server lets them count.

    Raises:
        UsageError: --api-key without a value.
    """
    rest, key = _take(flags, "--api-key")
    _, named = _take(rest, "--config")
    _, certificate = _take(rest, "--tls-cert")
    config = _config(named or os.environ.get("DTRNET_CONFIG"))
    _, keys = _take(rest, "--api-key-file")
    keys = keys or os.environ.get("DTRNET_API_KEY_FILE") or config.get("api_key_file")
    key = key or os.environ.get("DTRNET_API_KEY") or config.get("api_key") or _first_key(keys)
    certificate = certificate or os.environ.get("DTRNET_TLS_CERT") or config.get("tls_cert")
    return ServerFlags(rest, str(key) if key else None, bool(certificate))
