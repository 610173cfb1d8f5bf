"""HTTP to one dtrnet server: connections that stay open, a bounded number of requests in flight, patience with restarts.

Nothing here knows the harness.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import requests
import urllib3

from dtrnet_eval.access import HOW_TO_GIVE, Access
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.errors import NotOursError, RefusedError, UnauthorizedError, UnreachableError, UsageError

T = TypeVar("T")
log = logging.getLogger(__name__)

RETRIED = {429, 502, 503, 504}
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0


def server_root(base_url: str) -> str:
    """The server's address without a path: `http://host:8000/v1/completions` becomes `http://host:8000`.

    Raises:
        UsageError: it is no http or https address.
    """
    root = base_url.rstrip("/").removesuffix("/completions").removesuffix("/v1")
    if not root.startswith(("http://", "https://")):
        raise UsageError(f"base_url must begin with http:// or https://, but is {base_url!r}")
    return root.rstrip("/")


class Bearer(requests.auth.AuthBase):
    """Sends a key with every request; a ~/.netrc does not replace it."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Adds the header."""
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class Client:
    """A server's endpoints as functions.

    Args:
        access: address, key and certificates.
        in_flight: requests under way at most.
        timeout_s: for one answer.
        patience_s: how long a request is tried again while the server is away or refuses with 503, before it is an error.
    """

    def __init__(self, access: Access, *, in_flight: int = 8, timeout_s: float = 3600, patience_s: float = 300) -> None:
        self.root = server_root(access.base_url)
        self.in_flight = max(1, in_flight)
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self._verify = access.verify()
        if self._verify is False:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # it was asked for
        self._auth = Bearer(access.key())
        self._local = threading.local()

    def _session(self) -> requests.Session:
        """One session a thread, so that every thread keeps a connection of its own."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.auth = self._auth
        return self._local.session

    def _send(self, method: str, path: str, body: Any) -> requests.Response:
        # `verify` goes with each request: a session's own yields to REQUESTS_CA_BUNDLE.
        return self._session().request(method, self.root + path, json=body, timeout=(10, self.timeout_s), verify=self._verify)

    def _once(self, method: str, path: str, body: Any) -> tuple[requests.Response | None, str, float]:
        """One attempt: the answer if it is final, else None, why not, and the server's Retry-After in seconds (0: none)."""
        try:
            answer = self._send(method, path, body)
        except requests.exceptions.SSLError as error:
            reason = getattr(error.args[0] if error.args else error, "reason", error)
            raise UnreachableError(f"{self.root}: TLS failed: {reason}; ca_cert_path names certificates to trust") from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            return None, f"no connection ({type(error).__name__})", 0.0
        except requests.Timeout:
            return None, f"no answer within {self.timeout_s:g} s", 0.0
        except (requests.RequestException, OSError) as error:
            raise UnreachableError(f"{self.root}: {error}") from None
        if answer.status_code not in RETRIED:
            return answer, "", 0.0
        after = answer.headers.get("Retry-After", "0")
        return None, f"status {answer.status_code}", float(after) if after.isdigit() else 0.0

    def request(self, method: str, path: str, body: Any = None, patience_s: float | None = None) -> requests.Response:
        """One request, tried again while the server is away.

        Raises:
            UnreachableError: the server stayed away longer than the patience lasts.
        """
        patience_s = self.patience_s if patience_s is None else patience_s
        until = time.monotonic() + patience_s
        pause = FIRST_PAUSE_S
        while True:
            answer, why, after = self._once(method, path, body)
            if answer is not None:
                return answer
            pause = after or min(2 * pause, LONGEST_PAUSE_S)
            if time.monotonic() + pause > until:
                raise UnreachableError(f"{self.root}{path}: {why}; gave up after {patience_s:g} s")
            log.debug("%s%s: %s; again in %.1f s", self.root, path, why, pause)
            time.sleep(pause)

    def json(self, method: str, path: str, body: Any = None, patience_s: float | None = None) -> dict[str, Any]:
        """The JSON object that answers a request.

        Raises:
            UnauthorizedError, RefusedError: an error status, with the server's own message.
            NotOursError: the answer is no JSON object.
        """
        answer = self.request(method, path, body, patience_s)
        try:
            value = answer.json()
        except ValueError:
            value = None
        if answer.status_code != 200:
            raise self._refusal(path, answer, value)
        if not isinstance(value, dict):
            raise NotOursError(f"{self.root}{path}: the answer is not a JSON object")
        return value

    def _refusal(self, path: str, answer: requests.Response, value: Any) -> RefusedError:
        error = value.get("error") if isinstance(value, dict) else None
        said = error.get("message") if isinstance(error, dict) else None
        if answer.status_code == 401:
            return UnauthorizedError(f"{self.root}: 401: {said or 'the server wants an API key'}; {HOW_TO_GIVE}", 401)
        return RefusedError(f"{self.root}{path}: {answer.status_code}: {said or repr(answer.text[:200])}", answer.status_code)

    def post(self, path: str, body: Any) -> dict[str, Any]:
        """`json` of a POST."""
        return self.json("POST", path, body)

    def ask(self, path: str, body: Any, read: Callable[[Any], T]) -> T:
        """A POST whose answer `read` makes typed.

        Raises:
            NotOursError: the answer lacks something.
        """
        try:
            return read(self.post(path, body))
        except NotOursError as error:
            raise NotOursError(f"{self.root}{path}: {error}") from None

    def ask_all(self, path: str, bodies: Iterable[Any], read: Callable[[Any], T], on_answer: Callable[[int, T], None]) -> None:
        """Posts every body, at most `in_flight` at a time, and calls `on_answer(index, answer)` in this thread as answers come.

        The first error ends it: what is under way is waited for, nothing new is sent.
        """
        waiting = enumerate(bodies)
        running: dict[Future[T], int] = {}
        with ThreadPoolExecutor(self.in_flight) as pool:
            more = True
            while more or running:
                while more and len(running) < self.in_flight:
                    item = next(waiting, None)
                    more = item is not None
                    if item is not None:
                        running[pool.submit(self.ask, path, item[1], read)] = item[0]
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    on_answer(running.pop(future), future.result())

    def version(self, patience_s: float = 30) -> ServerInfo:
        """What the server says about itself and its model.

        Raises:
            UnreachableError: nobody answers.
            UnauthorizedError: it wants a key.
            NotOursError: it is not a dtrnet server, or an older one.
        """
        try:
            info = self.json("GET", "/version", patience_s=patience_s)
        except UnauthorizedError:
            raise
        except (NotOursError, RefusedError) as error:
            raise NotOursError(f"{self.root} is not a dtrnet server: {error}") from None
        try:
            return ServerInfo.read(info)
        except NotOursError:
            raise NotOursError(
                f"{self.root} is not a dtrnet server, or an older one: /version names no model_hash and max_model_len"
            ) from None

    def metrics(self) -> dict[str, float]:
        """/metrics: series (name with labels) to value."""
        out = {}
        for line in self.request("GET", "/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                out[name] = float(value)
        return out
