"""What clients negotiate beside the answer itself: HEAD, OPTIONS, pages of other origins, gzip."""

import gzip
import sys
from typing import Any

from http_support import Client, Process, run_tests

server: Process
client: Client
ORIGIN = "http://localhost:3000"
TEXT = "The old man walked down to the river and sat on the bank. " * 20


def test_head() -> None:
    for path in ("/health", "/v1/models", "/version", "/openapi.json", "/tokenizer_info", "/nowhere"):
        get, head = client.call("GET", path, check=False), client.call("HEAD", path)
        assert head.data == b"" and head.status == get.status, path
        if get.status == 200:
            assert head.headers["content-length"] == str(len(get.data)) and head.headers["content-type"] == get.headers["content-type"], (
                path
            )


def test_options() -> None:
    for path, allow in [
        ("/v1/completions", "POST, OPTIONS"),
        ("/tokenize", "POST, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/v1/models/any", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, POST, OPTIONS"),
    ]:
        answer = client.call("OPTIONS", path)
        assert answer.status == 204 and answer.headers["allow"] == allow and answer.data == b"", path
        assert "access-control-allow-origin" not in answer.headers
    assert client.call("OPTIONS", "/nowhere").status == 404


def test_pages_of_other_origins() -> None:
    ask = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    before = client.call("OPTIONS", "/v1/completions", headers=ask)
    assert before.status == 204 and before.headers["access-control-allow-origin"] == ORIGIN and "Origin" in before.headers["vary"]
    assert "POST" in before.headers["access-control-allow-methods"] and int(before.headers["access-control-max-age"]) > 0
    assert {"authorization", "content-type"} <= {h.strip().lower() for h in before.headers["access-control-allow-headers"].split(",")}
    for body, status in (({"prompt": "x", "max_tokens": 1}, 200), ({"prompt": 5}, 400)):
        answer = client.call("POST", "/v1/completions", body, headers={"Origin": ORIGIN})
        assert answer.status == status and answer.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
    for origin in ("http://localhost:3001", "https://localhost:3000", "http://evil.example", "null"):
        answer = client.call("OPTIONS", "/v1/completions", headers={**ask, "Origin": origin})
        assert not any(name.startswith("access-control") for name in answer.headers), origin


def plain_and_packed(method: str, path: str, body: Any = None) -> tuple[bytes, bytes, dict[str, str]]:
    plain = client.call(method, path, body, check=False)
    packed = client.call(method, path, body, headers={"Accept-Encoding": "deflate, gzip;q=0.5"}, check=False)
    assert "content-encoding" not in plain.headers and plain.status == packed.status == 200
    return plain.data, packed.data, packed.headers


def test_gzip() -> None:
    """Long answers, sent whole and in pieces; the same bytes come out."""
    ids = list(range(100, 200))
    pairs = {"tokens": True, "requests": [{"context": [50], "continuations": [ids] * 4}]}
    for method, path, body, chunked in [
        ("GET", "/openapi.json", None, False),
        ("POST", "/v1/loglikelihood", pairs, False),
        ("POST", "/tokenize", {"prompt": TEXT * 50}, False),
        ("POST", "/tokenize", {"prompt": TEXT * 400}, True),
    ]:
        plain, packed, headers = plain_and_packed(method, path, body)
        assert headers["content-encoding"] == "gzip" and "Accept-Encoding" in headers["vary"] and len(packed) < len(plain) / 2, path
        assert ("transfer-encoding" in headers) == chunked and (chunked or int(headers["content-length"]) == len(packed)), (path, headers)
        got = gzip.decompress(packed)
        assert got == plain or b'"usage"' in plain, f"{path}: what was sent is what was made"
        assert got.split(b'"usage"')[0] == plain.split(b'"usage"')[0], path


def test_what_is_sent_as_it_is() -> None:
    asks = {"Accept-Encoding": "gzip"}
    assert "content-encoding" not in client.call("GET", "/health", headers=asks).headers, "short"
    assert "content-encoding" not in client.call("GET", "/openapi.json", headers={"Accept-Encoding": "gzip;q=0, br"}).headers
    answer = client.call(
        "POST", "/v1/completions", {"prompt": "x", "max_tokens": 16, "stream": True, "ignore_eos": True}, headers=asks, check=False
    )
    assert "content-encoding" not in answer.headers and answer.data.endswith(b"data: [DONE]\n\n"), "events"
    head = client.call("HEAD", "/openapi.json", headers=asks)
    assert head.headers["content-encoding"] == "gzip" and head.data == b""


def test_own_machine() -> None:
    """By default who asks over the loopback gets plain bytes, and who asks through a proxy that tells of it does not."""
    with Process("--kv-cache-memory", "64M") as plain:
        asks = {"Accept-Encoding": "gzip"}
        assert "content-encoding" not in plain.client.call("GET", "/openapi.json", headers=asks).headers
        for name, value in (("X-Forwarded-For", "192.0.2.1"), ("Via", "1.1 proxy"), ("Forwarded", "for=192.0.2.1")):
            answer = plain.client.call("GET", "/openapi.json", headers={**asks, name: value}, check=False)
            assert answer.headers["content-encoding"] == "gzip", name
    with Process("--kv-cache-memory", "64M", "--gzip", "off") as never:
        assert (
            "content-encoding" not in never.client.call("GET", "/openapi.json", headers={**asks, "Via": "1.1 proxy"}, check=False).headers
        )


if __name__ == "__main__":
    with Process("--gzip", "on", "--cors-origin", f"https://a.example,{ORIGIN}", "--kv-cache-memory", "64M") as server:
        client = server.client
        status = run_tests(globals())
    sys.exit(status)
