"""HTTP to one dtrnet server: connections that stay open, patience with restarts. pool.py asks several at once.

Nothing here knows the harness.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import requests
import urllib3

from dtrnet_eval import prefixes
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


class Attempt(NamedTuple):
    """What came of sending a request once.

    Attributes:
        answer: the answer if it is final, else None.
        why: it is not.
        after_s: the server's Retry-After in seconds; 0: none.
        away: nobody answered.
    """

    answer: requests.Response | None
    why: str = ""
    after_s: float = 0.0
    away: bool = True


class Client:
    """A server's endpoints as functions.

    Args:
        access: address, key and certificates.
        timeout_s: for one answer.
        patience_s: how long a request is tried again while the server refuses with 503, before it is an error.
        away_s: the same while the server is away; default: `patience_s`.

    Attributes:
        behind: how many share the address, as the answer to `version` says: servers behind a balancer, times the devices of each.
    """

    def __init__(self, access: Access, *, timeout_s: float = 3600, patience_s: float = 300, away_s: float | None = None) -> None:
        self.root = server_root(access.base_url)
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self.away_s = patience_s if away_s is None else away_s
        self._verify = access.verify()
        if self._verify is False:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # it was asked for
        self._auth = Bearer(access.key())
        self._local = threading.local()
        self.behind = 1

    def _session(self) -> requests.Session:
        """One session a thread, so that every thread keeps a connection of its own."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.auth = self._auth
        return self._local.session

    def _send(self, method: str, path: str, body: Any) -> requests.Response:
        # `verify` goes with each request: a session's own yields to REQUESTS_CA_BUNDLE.
        how = {"json": body, "headers": prefixes.header(body), "timeout": (10, self.timeout_s), "verify": self._verify}
        return self._session().request(method, self.root + path, **how)

    def _once(self, method: str, path: str, body: Any) -> Attempt:
        try:
            answer = self._send(method, path, body)
        except requests.exceptions.SSLError as error:
            reason = getattr(error.args[0] if error.args else error, "reason", error)
            raise UnreachableError(f"{self.root}: TLS failed: {reason}; ca_cert_path names certificates to trust") from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            return Attempt(None, f"no connection ({type(error).__name__})")
        except requests.Timeout:
            return Attempt(None, f"no answer within {self.timeout_s:g} s")
        except (requests.RequestException, OSError) as error:
            raise UnreachableError(f"{self.root}: {error}") from None
        if answer.status_code not in RETRIED:
            return Attempt(answer)
        after = answer.headers.get("Retry-After", "0")
        return Attempt(None, f"status {answer.status_code}", float(after) if after.isdigit() else 0.0, away=False)

    def request(self, method: str, path: str, body: Any = None, patience_s: float | None = None) -> requests.Response:
        """One request, tried again while the server is away.

        Raises:
            UnreachableError: the server stayed away longer than the patience lasts.
        """
        begin = time.monotonic()
        pause = FIRST_PAUSE_S
        while True:
            tried = self._once(method, path, body)
            if tried.answer is not None:
                return tried.answer
            pause = tried.after_s or min(2 * pause, LONGEST_PAUSE_S)
            limit_s = patience_s if patience_s is not None else self.away_s if tried.away else self.patience_s
            if time.monotonic() + pause > begin + limit_s:
                raise UnreachableError(f"{self.root}{path}: {tried.why}; gave up after {limit_s:g} s")
            log.debug("%s%s: %s; again in %.1f s", self.root, path, tried.why, pause)
            time.sleep(pause)

    def json(self, method: str, path: str, body: Any = None, patience_s: float | None = None) -> dict[str, Any]:
        """The JSON object that answers a request.

        Raises:
            UnauthorizedError, RefusedError: an error status, with the server's own message.
            NotOursError: the answer is no JSON object.
        """
        return self._object(path, self.request(method, path, body, patience_s))

    def _object(self, path: str, answer: requests.Response) -> dict[str, Any]:
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

    def version(self, patience_s: float = 30) -> ServerInfo:
        """What the server says about itself and its model.

        Raises:
            UnreachableError: nobody answers.
            UnauthorizedError: it wants a key.
            NotOursError: it is not a dtrnet server, or an older one.
        """
        answer = self.request("GET", "/version", patience_s=patience_s)
        try:
            info = self._object("/version", answer)
        except UnauthorizedError:
            raise
        except (NotOursError, RefusedError) as error:
            raise NotOursError(f"{self.root} is not a dtrnet server: {error}") from None
        try:
            found = ServerInfo.read(info)
        except NotOursError:
            raise NotOursError(
                f"{self.root} is not a dtrnet server, or an older one: /version names no model_hash and max_model_len"
            ) from None
        self.behind = prefixes.servers_behind(answer.headers) * min(found.devices, prefixes.MOST_SERVERS)
        return found

    def metrics(self) -> dict[str, float]:
        """/metrics: series (name with labels) to value."""
        out = {}
        for line in self.request("GET", "/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                out[name] = float(value)
        return out
