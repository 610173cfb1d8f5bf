"""A plain HTTP client for a server, with the standard library only.

Every JSON answer is checked against server/api/openapi.json as it passes through `Client.call`.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server_process import PATIENCE_S, ROOT, SERVED, ServerProcess

OPENAPI = json.loads((ROOT / "server" / "api" / "openapi.json").read_text())
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
WORDLESS = {"description", "default", "examples"}


def is_type(value: object, name: str) -> bool:
    """JSON Schema's idea of a type: true is no integer."""
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def faults(value: Any, schema: dict[str, Any], at: str = "$") -> list[str]:
    """What is wrong with `value` by the part of JSON Schema that server/api/openapi.json uses."""
    if "$ref" in schema:
        return faults(value, OPENAPI["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], at)
    out: list[str] = []
    for word, rule in schema.items():
        if word == "type":
            names = rule if isinstance(rule, list) else [rule]
            if not any(is_type(value, n) for n in names):
                return [f"{at}: {value!r:.60} is not {rule}"]
        elif word == "properties" and isinstance(value, dict):
            for key, sub in rule.items():
                out += faults(value[key], sub, f"{at}.{key}") if key in value else []
        elif word == "additionalProperties" and isinstance(value, dict):
            for key in value.keys() - schema.get("properties", {}).keys():
                out += faults(value[key], rule, f"{at}.{key}")
        elif word == "required" and isinstance(value, dict):
            out += [f"{at}: no {key}" for key in rule if key not in value]
        elif word == "items" and isinstance(value, list):
            for i, item in enumerate(value):
                out += faults(item, rule, f"{at}[{i}]")
        elif word == "oneOf":
            fits = [not faults(value, sub, at) for sub in rule]
            out += [] if any(fits) else [f"{at}: {value!r:.60} fits none of the forms"]
        elif word in ("enum", "const"):
            out += [] if value in (rule if word == "enum" else [rule]) else [f"{at}: {value!r:.60} is not {rule}"]
        elif word in ("minimum", "maximum") and is_type(value, "number"):
            out += [] if (value >= rule if word == "minimum" else value <= rule) else [f"{at}: {value} breaks {word} {rule}"]
        elif word in ("minItems", "maxItems") and isinstance(value, list):
            out += [] if (len(value) >= rule if word == "minItems" else len(value) <= rule) else [f"{at}: {word} {rule}"]
        elif word == "pattern" and isinstance(value, str):
            out += [] if re.search(rule, value) else [f"{at}: does not match {rule}"]
        elif word not in WORDLESS and word not in {"properties", "additionalProperties", "required", "items", "minimum", "maximum"} | {
            "minItems",
            "maxItems",
            "pattern",
        }:
            out.append(f"{at}: the schema uses {word}, which this checker does not know")
    return out


def operation(method: str, path: str) -> dict[str, Any] | None:
    """The document's operation for a request, or None."""
    for name, item in OPENAPI["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", name), path.split("?")[0]):
            return item.get("get" if method == "HEAD" else method.lower())
    return None


def check_answer(method: str, path: str, status: int, value: Any) -> None:
    """Asserts that an answer is what the document promises."""
    op = operation(method, path)
    if op is None:
        schema = {"$ref": "#/components/schemas/Error"}
    else:
        answer = op["responses"].get(str(status)) or op["responses"]["default"]
        schema = answer["content"]["application/json"]["schema"]
    wrong = faults(value, schema)
    assert not wrong, f"{method} {path} {status}: {wrong[:3]}"


class Answer:
    """Status, headers and body of one answer."""

    def __init__(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.status, self.headers, self.data = status, headers, data

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Client:
    """One keep-alive connection; opened again when the server closed it."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.tls, self.host, self.port, self.key = url.startswith("https"), *url.split("//")[1].rsplit(":", 1), key
        self.open()

    def open(self) -> None:
        host, port = self.host.strip("[]"), int(self.port)
        if self.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=PATIENCE_S, context=context)
        else:
            self.connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, check: bool = True) -> Answer:
        """`body`: bytes as they are, anything else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        head = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {}), **(headers or {})}
        try:
            self.connection.request(method, path, data, head)
            raw = self.connection.getresponse()
            answer = Answer(raw.status, {k.lower(): v for k, v in raw.getheaders()}, raw.read())
        except (http.client.HTTPException, OSError):
            self.connection.close()
            self.open()
            raise
        kind = answer.headers.get("content-type", "")
        if check and method != "HEAD" and kind == "application/json":
            check_answer(method, path, answer.status, answer.json)
        return answer

    def post(self, path: str, body: Any) -> Any:
        """The JSON of a 200."""
        answer = self.call("POST", path, body)
        assert answer.status == 200, f"POST {path}: {answer.status} {answer.data[:400]!r}"
        return answer.json

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status == 200, f"GET {path}: {answer.status} {answer.data[:400]!r}"
        return answer.json

    def stream(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The events of a streamed answer; the last must be [DONE] and is left out."""
        answer = self.call("POST", path, {**body, "stream": True})
        assert answer.status == 200 and answer.headers["content-type"] == "text/event-stream", answer.data[:300]
        parts = answer.data.decode().split("\n\n")
        assert parts[-2:] == ["data: [DONE]", ""] and all(p.startswith("data: ") for p in parts[:-1]), parts[-3:]
        return [json.loads(p[6:]) for p in parts[:-2]]


def begun(s: socket.socket) -> bool:
    """Waits for an answer to begin; nothing of it is taken."""
    return s.recv(1, socket.MSG_PEEK) == b"H"


def rest(s: socket.socket) -> bytes:
    """The body of an answer, read to its end."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    answer = http.client.HTTPResponse(s)
    answer.begin()
    return answer.read()


class Process(ServerProcess):
    """A server with one connection to it."""

    def __init__(self, *flags: str, model: Path | None = SERVED, env: dict[str, str] | None = None) -> None:
        super().__init__(*flags, model=model, env=env)
        self.client = Client(self.url)

    def ask(self, body: Any, path: str = "/v1/completions") -> socket.socket:
        """A connection of its own that has sent a request and read nothing: an answer of more than a few MB stays under way by that."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        s = socket.socket()
        s.settimeout(PATIENCE_S)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect((self.client.host, int(self.client.port)))
        s.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(data)) + data)
        return s

    def metric(self, name: str) -> float:
        """The sum of a series over its labels; over a new connection, since the kept one may have been idle for too long."""
        self.client.connection.close()
        text = self.client.call("GET", "/metrics").data.decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(re.escape(name) + r"[ {]", line))

    def wait_metric(self, name: str, found: Callable[[float], bool]) -> None:
        """Until a metric is as it should be in the end."""
        until = time.monotonic() + PATIENCE_S
        while not found(value := self.metric(name)):
            assert time.monotonic() < until, f"{name} stays at {value}"
            time.sleep(0.01)


def run_tests(tests: dict[str, Any]) -> int:
    """Runs every function named test_... of a module's globals(), or those that are arguments; prints each name; the exit status."""
    unknown = [name for name in sys.argv[1:] if name not in tests]
    assert not unknown, f"there is no {', '.join(unknown)}"
    failed = 0
    for name, test in list(tests.items()):
        if not name.startswith("test_") or (len(sys.argv) > 1 and name not in sys.argv[1:]):
            continue
        begin = time.monotonic()
        try:
            test()
            print(f"ok      {name} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Exception as error:
            failed += 1
            import traceback

            traceback.print_exc()
            print(f"FAILED  {name}: {error}", flush=True)
    return 1 if failed else 0
