"""HTTP to one dtrnet server: connections that stay open, a bounded number of requests in flight, patience with restarts.

Nothing here knows the harness. Errors that a person should read are `ServerError`, one line each.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import requests

log = logging.getLogger(__name__)

RETRIED = {429, 502, 503, 504}
LONGEST_PAUSE_S = 10.0


class ServerError(Exception):
    """What went wrong with a server, in one line."""


def server_root(base_url: str) -> str:
    """The server's address without a path: `http://host:8000/v1/completions` becomes `http://host:8000`."""
    root = base_url.rstrip("/").removesuffix("/completions").removesuffix("/v1")
    if not root.startswith(("http://", "https://")):
        raise ServerError(f"base_url must begin with http:// or https://, but is {base_url!r}")
    return root.rstrip("/")


class Client:
    """A server's endpoints as functions.

    Args:
        base_url: where the server listens; a path like /v1/completions is ignored.
        api_key: sent as bearer token; default: $OPENAI_API_KEY.
        in_flight: requests under way at most.
        timeout_s: for one answer.
        patience_s: how long a request is tried again while the server is away or refuses with 503, before it is an error.
        verify: TLS: True, False, or a file with certificates.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        in_flight: int = 8,
        timeout_s: float = 3600,
        patience_s: float = 300,
        verify: bool | str = True,
    ) -> None:
        self.root = server_root(base_url)
        self.in_flight = max(1, int(in_flight))
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self.verify = verify
        key = api_key or os.environ.get("OPENAI_API_KEY")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._local = threading.local()

    def _session(self) -> requests.Session:
        """One session a thread, so that every thread keeps a connection of its own."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.headers.update(self.headers)
            self._local.session.verify = self.verify
        return self._local.session

    def _once(self, method: str, path: str, body: Any) -> tuple[requests.Response | None, str, float]:
        """One attempt: the answer if it is final, else None, why not, and the server's Retry-After in seconds (0: none)."""
        try:
            answer = self._session().request(method, self.root + path, json=body, timeout=(10, self.timeout_s))
        except requests.exceptions.SSLError as error:
            raise ServerError(f"{self.root}: TLS failed: {error}") from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            return None, f"no connection ({type(error).__name__})", 0.0
        except requests.Timeout:
            return None, f"no answer within {self.timeout_s:g} s", 0.0
        if answer.status_code not in RETRIED:
            return answer, "", 0.0
        after = answer.headers.get("Retry-After", "0")
        return None, f"status {answer.status_code}", float(after) if after.isdigit() else 0.0

    def request(self, method: str, path: str, body: Any = None, patience_s: float | None = None) -> requests.Response:
        """One request, tried again while the server is away.

        Raises:
            ServerError: the server stayed away longer than the patience lasts.
        """
        patience_s = self.patience_s if patience_s is None else patience_s
        until = time.monotonic() + patience_s
        pause = 0.1
        while True:
            answer, why, after = self._once(method, path, body)
            if answer is not None:
                return answer
            pause = after or min(2 * pause, LONGEST_PAUSE_S)
            if time.monotonic() + pause > until:
                raise ServerError(f"{self.root}{path}: {why}; gave up after {patience_s:g} s")
            log.debug("%s%s: %s; again in %.1f s", self.root, path, why, pause)
            time.sleep(pause)

    def json(self, method: str, path: str, body: Any = None, patience_s: float | None = None) -> dict[str, Any]:
        """The JSON object that answers a request.

        Raises:
            ServerError: an error status (with the server's own message), or an answer that is no JSON object.
        """
        answer = self.request(method, path, body, patience_s)
        try:
            value = answer.json()
        except ValueError:
            value = None
        if answer.status_code != 200:
            message = value.get("error", {}).get("message") if isinstance(value, dict) and isinstance(value.get("error"), dict) else None
            raise ServerError(f"{self.root}{path}: {answer.status_code}: {message or answer.text[:200]!r}")
        if not isinstance(value, dict):
            raise ServerError(f"{self.root}{path}: the answer is not a JSON object")
        return value

    def post(self, path: str, body: Any) -> dict[str, Any]:
        """`json` of a POST."""
        return self.json("POST", path, body)

    def post_all(self, path: str, bodies: Iterable[Any], on_answer: Callable[[int, dict[str, Any]], None]) -> None:
        """Posts every body, at most `in_flight` at a time, and calls `on_answer(index, answer)` in this thread as answers come.

        The first error ends it: what is under way is waited for, nothing new is sent.
        """
        waiting = enumerate(bodies)
        running: dict[Future[dict[str, Any]], int] = {}
        with ThreadPoolExecutor(self.in_flight) as pool:
            more = True
            while more or running:
                while more and len(running) < self.in_flight:
                    item = next(waiting, None)
                    more = item is not None
                    if item is not None:
                        running[pool.submit(self.post, path, item[1])] = item[0]
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    on_answer(running.pop(future), future.result())

    def version(self, patience_s: float = 30) -> dict[str, Any]:
        """What the server says about itself and its model.

        Raises:
            ServerError: nobody answers, or it is not a dtrnet server.
        """
        try:
            info = self.json("GET", "/version", patience_s=patience_s)
        except ServerError as error:
            if "gave up" in str(error):
                raise
            raise ServerError(f"{self.root} is not a dtrnet server: {error}") from None
        if not isinstance(info.get("max_model_len"), int) or "model_hash" not in info:
            raise ServerError(f"{self.root} is not a dtrnet server, or an older one: /version names no model_hash and max_model_len")
        return info

    def metrics(self) -> dict[str, float]:
        """/metrics: series (name with labels) to value."""
        out = {}
        for line in self.request("GET", "/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                out[name] = float(value)
        return out
