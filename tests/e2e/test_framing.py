"""Raw requests by table: what other readers of HTTP could take for something else. Each framed request gets one answer, the connection ends
where a doubt is left, and every error has the server's own shape, also those that libmicrohttpd answers by itself.
"""

import json
import re
import socket
import sys
from typing import NamedTuple

from http_support import Process, check_answer, run_tests

server: Process
BODY = b'{"prompt":"ab"}'
SECOND = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
GOOD = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
JSON = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CODED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"f\r\n" + BODY + b"\r\n0\r\n\r\n"


class Case(NamedTuple):
    """`data` is sent at once. `statuses` are of the answers, in order; 0 stands for a connection that ends without one. `word` is in
    the last one's message. `closes`: the server ends the connection by itself. `newer`: the statuses from libmicrohttpd 1.0 on, where they
    are others; the connection ends with them, unless the last is 200.
    """

    name: str
    data: bytes
    statuses: tuple[int, ...]
    word: str = ""
    closes: bool = True
    newer: tuple[int, ...] | None = None


def post(*fields: bytes, body: bytes = BODY, host: bytes = b"Host: x\r\n", line: bytes = b"POST /tokenize HTTP/1.1\r\n") -> bytes:
    return line + host + b"".join(fields) + b"\r\n" + body


def get(*fields: bytes, target: bytes = b"/health", host: bytes = b"Host: x\r\n", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + host + b"".join(fields) + b"\r\n"


FRAMING = [
    Case("one length", post(LENGTH), (200,), closes=False),
    Case("two requests", post(LENGTH) + GOOD, (200, 200), closes=False),
    Case("length 0 to GET", get(b"Content-Length: 0\r\n") + GOOD, (200, 200), closes=False),
    Case("body to GET", get(b"Content-Length: 5\r\n") + b"hello" + GOOD, (200, 200), closes=False),
    Case("two lengths, alike", post(LENGTH, LENGTH) + SECOND, (400,), "Content-Length came twice"),
    Case("two lengths, the first longer", post(LENGTH, b"Content-Length: 3\r\n") + SECOND, (400,), "Content-Length came twice"),
    Case("two lengths, the first shorter", post(b"Content-Length: 3\r\n", LENGTH) + SECOND, (400,), "Content-Length came twice"),
    Case("two lengths, spelled otherwise", post(LENGTH, b"CONTENT-LENGTH: 0\r\n") + SECOND, (400,), "Content-Length came twice"),
    Case("a list of lengths", post(b"Content-Length: 15, 15\r\n") + SECOND, (400,), "Content-Length"),
    Case("length with a sign", post(b"Content-Length: +15\r\n") + SECOND, (400,), "Content-Length"),
    Case("length below 0", post(b"Content-Length: -15\r\n") + SECOND, (400,), "Content-Length"),
    Case("length in hexadecimal", post(b"Content-Length: 0xf\r\n") + SECOND, (400,), "Content-Length"),
    Case("length with a point", post(b"Content-Length: 15.0\r\n") + SECOND, (400,), "Content-Length"),
    Case("length with a blank inside", post(b"Content-Length: 1 5\r\n") + SECOND, (400,), "Content-Length"),
    Case("empty length", post(b"Content-Length:\r\n") + SECOND, (400,), "Content-Length"),
    Case("length beyond 64 bits", post(b"Content-Length: 99999999999999999999999\r\n") + SECOND, (413,), "Content-Length"),
    Case("length with a NUL", post(b"Content-Length: 15\x000\r\n") + SECOND, (400,), "NUL"),
    Case("length and chunked", post(LENGTH, CODED, body=CHUNKS) + SECOND, (400,), "not both"),
    Case("chunked and length", post(CODED, b"Content-Length: 3\r\n", body=CHUNKS) + SECOND, (400,), "not both"),
    Case("length 0, chunked", post(b"Content-Length: 0\r\n", CODED, body=CHUNKS) + SECOND, (400,), "not both"),
    Case("chunked", post(CODED, body=CHUNKS) + SECOND, (200,)),
    Case("chunked, capitals", post(b"transfer-encoding: Chunked\r\n", body=CHUNKS) + SECOND, (200,)),
    Case("chunked, two chunks", post(CODED, body=b"5\r\n" + BODY[:5] + b"\r\nA\r\n" + BODY[5:] + b"\r\n0\r\n\r\n"), (200,)),
    Case("chunked with a trailer", post(CODED, body=CHUNKS[:-2] + b"Content-Length: 3\r\n\r\n") + SECOND, (200,)),
    Case("chunked twice", post(CODED * 2, body=CHUNKS) + SECOND, (400,), "Transfer-Encoding came twice"),
    Case("chunked, chunked", post(b"Transfer-Encoding: chunked, chunked\r\n", body=CHUNKS) + SECOND, (400,), "must be chunked"),
    Case("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKS) + SECOND, (400,), "must be chunked"),
    Case("chunked, identity", post(b"Transfer-Encoding: chunked, identity\r\n", body=CHUNKS) + SECOND, (400,), "must be chunked"),
    Case("identity", post(b"Transfer-Encoding: identity\r\n", LENGTH) + SECOND, (400,), "must be chunked"),
    Case("unknown coding", post(b"Transfer-Encoding: xchunked\r\n", body=CHUNKS) + SECOND, (400,), "must be chunked"),
    Case("quoted coding", post(b'Transfer-Encoding: "chunked"\r\n', body=CHUNKS) + SECOND, (400,), "must be chunked"),
    Case("empty coding", post(b"Transfer-Encoding:\r\n", body=CHUNKS) + SECOND, (400,), "must be chunked"),
    Case("coding with a vertical tab", post(b"Transfer-Encoding:\x0bchunked\r\n", body=CHUNKS) + SECOND, (400,), "control character"),
    Case("coding with a NUL", post(b"Transfer-Encoding: chunked\x00x\r\n", body=CHUNKS) + SECOND, (400,), "NUL"),
    Case("chunked in HTTP/1.0", post(CODED, body=CHUNKS, line=b"POST /tokenize HTTP/1.0\r\n") + SECOND, (400,), "HTTP/1.0"),
    Case("chunk size below 0", post(CODED, body=b"-1\r\nx\r\n0\r\n\r\n") + SECOND, (400,), "chunked"),
    Case("chunk size with 0x", post(CODED, body=b"0xf\r\n" + BODY + b"\r\n0\r\n\r\n") + SECOND, (400,), "chunked"),
    Case("chunk size of nothing", post(CODED, body=b"\r\n" + BODY + b"\r\n0\r\n\r\n") + SECOND, (400,), "chunked"),
    Case("chunk size of words", post(CODED, body=b"zz\r\n\r\n") + SECOND, (400,), "chunked"),
    Case("chunk size beyond 64 bits", post(CODED, body=b"fffffffffffffffff\r\n") + SECOND, (413,), "chunk"),
    Case("chunk longer than its size", post(CODED, body=b"3\r\n" + BODY + b"\r\n0\r\n\r\n") + SECOND, (400,), "chunked"),
    Case("chunked, the body is bad", post(CODED, body=b"1\r\n{\r\n0\r\n\r\n") + SECOND, (400,), "JSON"),
    Case("chunked to GET", get(CODED) + CHUNKS + SECOND, (200,)),
    Case("chunked to no path", post(CODED, body=CHUNKS, line=b"POST /nothing HTTP/1.1\r\n") + SECOND, (404,)),
    Case("no length", post(body=b""), (400,), "JSON", closes=False),
]  # fmt: skip

FIELDS = [
    Case("space before the colon", post(b"Content-Length : 15\r\n") + SECOND, (400,), "before the colon"),
    Case("tab before the colon", post(b"Content-Length\t: 15\r\n") + SECOND, (400,), "before the colon"),
    Case("space before Transfer-Encoding's", post(b"Transfer-Encoding : chunked\r\n", body=CHUNKS) + SECOND, (400,), "before the colon"),
    Case("space before Host's", get(host=b"Host : x\r\n") + SECOND, (400,), "before the colon"),
    Case("space in a name", get(b"X A: b\r\n") + SECOND, (400,), "name of a header"),
    Case("no name", get(b": b\r\n") + SECOND, (400,)),
    Case("no colon", get(b"nonsense\r\n") + SECOND, (400,)),
    Case("brackets in a name", get(b"X(A): b\r\n") + SECOND, (400,), "name of a header"),
    Case("a byte beyond ASCII in a name", get(b"X-\xe9: b\r\n") + SECOND, (400,), "name of a header"),
    Case("NUL in a name", get(b"X\x00A: b\r\n") + SECOND, (400,)),
    Case("NUL in a value", get(b"X-A: a\x00b\r\n") + SECOND, (400,), "NUL"),
    Case("NUL in the last value", get(b"X-A: a\x00b\r\n") + SECOND, (400,), "NUL"),
    Case("bare CR in a value", get(b"X-A: a\rb\r\n") + SECOND, (400,), "control character"),
    Case("bare CR and a field", get(b"X-A: a\rContent-Length: 5\r\n") + SECOND, (400,), "control character"),
    Case("escape in a value", get(b"X-A: \x1b[1m\r\n") + SECOND, (400,), "control character"),
    Case("DEL in a value", get(b"X-A: \x7f\r\n") + SECOND, (400,), "control character"),
    Case("bytes beyond ASCII in a value", get(b"X-A: \xc3\xa9\r\n"), (200,), closes=False),
    Case("tab in a value", get(b"X-A: a\tb\r\n"), (200,), closes=False),
    Case("blanks around a value", post(b"Content-Length:\t 15\r\n"), (200,), closes=False),
    Case("empty value", get(b"X-A:\r\n"), (200,), closes=False),
    Case("bare LF behind the request line", b"GET /health HTTP/1.1\nHost: x\r\n\r\n" + SECOND, (400,)),
    Case("bare LF behind a field", get(b"X-A: b\nX-B: c\r\n") + SECOND, (400,)),
    Case("bare LF and a length", get(b"X-A: b\nContent-Length: 36\r\n") + SECOND, (400,)),
    Case("bare LF behind the last field", b"POST /tokenize HTTP/1.1\r\nHost: x\r\n" + LENGTH[:-2] + b"\n\r\n" + BODY + SECOND, (400,)),
    Case("bare LF as the empty line", b"POST /tokenize HTTP/1.1\r\nHost: x\r\n" + LENGTH + b"\n" + BODY + SECOND, (400,)),
    Case("LF alone everywhere", b"POST /tokenize HTTP/1.1\nHost: x\nContent-Length: 15\n\n" + BODY + SECOND, (400,)),
    Case("continued line", get(b"X-A: b\r\n c\r\n") + SECOND, (400,)),
    Case("continued line, a tab", get(b"X-A: b\r\n\tc\r\n") + SECOND, (400,)),
    Case("continued length", post(b"Content-Length: 1\r\n 5\r\n") + SECOND, (400,)),
    Case("continued coding", post(b"Transfer-Encoding:\r\n chunked\r\n", body=CHUNKS) + SECOND, (400,)),
    Case("a first line that continues", b"GET /health HTTP/1.1\r\n Host: x\r\n\r\n" + SECOND, (400,)),
    Case("Content-Type twice", post(LENGTH, JSON, JSON) + SECOND, (400,), "Content-Type came twice"),
    Case("Authorization twice", get(b"Authorization: a\r\n", b"Authorization: b\r\n") + SECOND, (400,), "Authorization came twice"),
    Case("128 fields", get(b"X-A: b\r\n" * 127), (200,), closes=False),
    Case("129 fields", get(b"X-A: b\r\n" * 128) + SECOND, (400,), "128 header fields"),
    Case("a long field", get(b"X-A: " + b"b" * 20000 + b"\r\n"), (200,), closes=False),
    Case("too long a field", get(b"X-A: " + b"b" * 70000 + b"\r\n"), (431,), "too big"),
    Case("too long a target", get(target=b"/" + b"a" * 70000), (414,), "too big"),
]  # fmt: skip

HOSTS = [
    Case("no Host", get(host=b"") + SECOND, (400,), "Host is missing"),
    Case("no Host in HTTP/1.0", get(host=b"", version=b"HTTP/1.0"), (200,)),
    Case("two Hosts", get(host=b"Host: x\r\nHost: y\r\n") + SECOND, (400,), "Host came twice"),
    Case("two Hosts, alike", get(host=b"Host: x\r\nhost: x\r\n") + SECOND, (400,), "Host came twice"),
    Case("empty Host", get(host=b"Host:\r\n") + SECOND, (400,), "Host must be"),
    Case("Host with a path", get(host=b"Host: x/y\r\n") + SECOND, (400,), "Host must be"),
    Case("Host with a user", get(host=b"Host: a@x\r\n") + SECOND, (400,), "Host must be"),
    Case("list of Hosts", get(host=b"Host: x, y\r\n") + SECOND, (400,), "Host must be"),
    Case("Host with a strange port", get(host=b"Host: x:http\r\n") + SECOND, (400,), "Host must be"),
    Case("Host with a port", get(host=b"Host: localhost:8000\r\n"), (200,), closes=False),
    Case("Host of version 4", get(host=b"Host: 192.0.2.1:80\r\n"), (200,), closes=False),
    Case("Host of version 6", get(host=b"Host: [::1]:8000\r\n"), (200,), closes=False),
    Case("bad brackets", get(host=b"Host: [::1\r\n") + SECOND, (400,), "Host must be"),
    Case("below localhost", get(host=b"Host: a.localhost\r\n"), (200,), closes=False),
    Case("foreign Host", get(host=b"Host: evil.example\r\n"), (403,), "--allow-host evil.example", closes=False),
    Case("foreign Host with a port", get(host=b"Host: evil.example:8000\r\n"), (403,), "--allow-host", closes=False),
    Case("foreign Host, body", post(LENGTH, host=b"Host: evil.example\r\n") + GOOD, (403, 200), closes=False),
    Case("looks like an address", get(host=b"Host: 127.0.0.1.evil.example\r\n"), (403,), "--allow-host", closes=False),
    Case("looks like localhost", get(host=b"Host: localhost.evil.example\r\n"), (403,), "--allow-host", closes=False),
    Case("named by --allow-host", get(host=b"Host: Good.Example.\r\n"), (200,), closes=False),
]  # fmt: skip

LINES = [
    Case("absolute form", get(target=b"http://127.0.0.1:1/health"), (200,), closes=False),
    Case("absolute form without a path", get(target=b"http://127.0.0.1?a"), (200,), closes=False),
    Case("absolute form, a query without a path", get(target=b"http://127.0.0.1?a"), (200,), closes=False),
    Case("absolute form, a query", get(target=b"HTTP://localhost/health?a=b"), (200,), closes=False),
    Case("absolute form wins over Host", get(target=b"http://evil.example/health"), (403,), "--allow-host", closes=False),
    Case("absolute form of a foreign scheme", get(target=b"ftp://x/health") + SECOND, (400,), "target"),
    Case("absolute form with a user", get(target=b"http://a@x/health") + SECOND, (400,), "target"),
    Case("absolute form, no Host", get(target=b"http://x/health", host=b"") + SECOND, (400,), "Host is missing"),
    Case("a query", get(target=b"/health?a=%20b&c"), (200,), closes=False),
    Case("no slash", get(target=b"health") + SECOND, (400,), "target"),
    Case("star", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", (204,), closes=False),
    Case("authority form", b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + SECOND, (400,), "target"),
    Case("NUL, encoded", get(target=b"/health%00") + SECOND, (400,), "NUL"),
    Case("NUL, encoded, in the query", get(target=b"/health?a=%00") + SECOND, (400,), "NUL"),
    Case("NUL", get(target=b"/health\x00x") + SECOND, (400,), newer=(0,)),
    Case("half an escape", get(target=b"/health%4") + SECOND, (400,), "hexadecimal"),
    Case("an escape that is none", get(target=b"/%zz") + SECOND, (400,), "hexadecimal"),
    Case("an encoded path", get(target=b"/%68ealth"), (200,), closes=False),
    Case("an encoded line end", get(target=b"/a%0d%0aX:%20b"), (404,), closes=False),
    Case("a byte beyond ASCII", get(target=b"/\xc3\xa9") + SECOND, (400,), "percent-encoded"),
    Case("a fragment", get(target=b"/health#a") + SECOND, (400,), "percent-encoded"),
    Case("a space in the target", get(target=b"/hea lth") + SECOND, (400,)),
    Case("two spaces", b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND, (400,)),
    Case("a tab for a space", b"GET\t/health HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND, (400,), newer=(0,)),
    Case("a space behind the version", b"GET /health HTTP/1.1 \r\nHost: x\r\n\r\n" + SECOND, (400,)),
    Case("a bare CR in the line", b"GET /health\rHTTP/1.1\r\nHost: x\r\n\r\n" + SECOND, (400,)),
    Case("a method of brackets", b"G(T /health HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND, (400,), "method"),
    Case("a method in small letters", b"get /health HTTP/1.1\r\nHost: x\r\n\r\n", (405,), closes=False),
    Case("an unknown method", b"BREW /health HTTP/1.1\r\nHost: x\r\n\r\n", (405,), closes=False),
    Case("HTTP/0.9", b"GET /health\r\n" + SECOND, (400,)),
    Case("HTTP/1.2", get(version=b"HTTP/1.2") + SECOND, (400,)),
    Case("HTTP/2.0", get(version=b"HTTP/2.0") + SECOND, (505,)),
    Case("http/1.1", get(version=b"http/1.1") + SECOND, (400,)),
    Case("HTTP/01.1", get(version=b"HTTP/01.1") + SECOND, (400,)),
    Case("HTTP/1.0", get(version=b"HTTP/1.0"), (200,)),
    Case("HTTP/1.0, kept", get(b"Connection: keep-alive\r\n", version=b"HTTP/1.0") + GOOD, (200, 200), closes=False),
    Case("asked to close", get(b"Connection: close\r\n") + SECOND, (200,)),
    Case("HEAD", b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n" + GOOD, (200, 200), closes=False),
    Case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (0,)),
    Case("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505,)),
]  # fmt: skip

TYPES = [
    Case("no type", post(LENGTH), (200,), closes=False),
    Case("JSON", post(LENGTH, JSON), (200,), closes=False),
    Case("JSON with a charset", post(LENGTH, b"Content-Type: application/json; charset=utf-8\r\n"), (200,), closes=False),
    Case("a form", post(LENGTH, b"Content-Type: application/x-www-form-urlencoded\r\n") + GOOD, (415, 200), closes=False),
    Case("a form in parts", post(LENGTH, b"Content-Type: multipart/form-data; boundary=a\r\n"), (415,), "--json", closes=False),
    Case("plain text", post(LENGTH, b"Content-Type: Text/Plain;charset=UTF-8\r\n"), (415,), "application/json", closes=False),
    Case("no type, from a page", post(LENGTH, b"Origin: http://x\r\n"), (415,), "application/json", closes=False),
    Case("expects to go on", post(LENGTH, b"Expect: 100-continue\r\n"), (100, 200), closes=False, newer=(200,)),
    Case("a form that expects to go on", post(LENGTH, b"Expect: 100-continue\r\n", b"Content-Type: text/plain\r\n", body=b""), (415,)),
]  # fmt: skip

# What libmicrohttpd 0.9 shows nobody (docs/reliability.md): nothing stands behind these, so there is nothing to smuggle. 1.0 refuses them.
HIDDEN = [
    Case("NUL at the end of the last field", get(b"X-A: a\x00\r\n"), (200,), closes=False, newer=(400,)),
    Case("bare LF as the last line of all", b"GET /health HTTP/1.1\r\nHost: x\r\n\n", (200,), closes=False, newer=(400,)),
    Case("an empty line first", b"\r\n" + GOOD, (200,), closes=False, newer=(0,)),
    Case("two empty lines first", b"\r\n\r\n" + GOOD, (200,), closes=False, newer=(0,)),
    Case("bare LFs in chunks", post(CODED, body=CHUNKS.replace(b"\r", b"")) + SECOND, (200,), newer=(400,)),
    Case("bare LF in a trailer", post(CODED, body=CHUNKS[:-2] + b"X-A: b\nX-B: c\r\n\r\n") + SECOND, (200,), newer=(400,)),
    Case("chunked with an extension", post(CODED, body=b"f;a=b\r\n" + BODY + b"\r\n0\r\n\r\n") + SECOND, (200,), newer=(400,)),
]  # fmt: skip

# What libmicrohttpd 1.0 says where it refuses by itself what the server would refuse with `word`: a pattern for each.
LIBRARY_WORDS = {
    "NUL": "invalid character",
    "not both": "both Transfer-Encoding and Content-Length",
    "must be chunked": "Transfer-Encoding used in request is not supported",
    "control character": "bare CR|Transfer-Encoding used in request is not supported",
    "before the colon": "whitespace before the first colon",
    "name of a header": "whitespace before the first colon",
    "Host is missing": "without Host",
    "too big": "exceeds the memory constraints",
}


def read_answers(s: socket.socket, head_only: list[bool], n: int) -> tuple[list[tuple[int, bytes, bytes]], bool]:
    """Up to n answers as (status, head, body), and whether the server closed; where n is 0 it reads to the end."""
    data, out, ended = b"", [], False
    s.settimeout(60)
    while True:
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end]
            found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
            status = int(head[9:12])
            length = 0 if head_only[: len(out) + 1] and head_only[len(out) : len(out) + 1] == [True] else int(found[1]) if found else 0
            assert found or status in (100, 204), head
            if len(data) < end + 4 + length:
                break
            out.append((status, head, data[end + 4 : end + 4 + length]))
            data = data[end + 4 + length :]
        if ended or (n and len(out) == n):
            assert not data, f"more than answers: {data[:200]!r}"
            return out, ended
        try:
            piece = s.recv(65536)
        except ConnectionResetError:
            piece = b""
        ended = not piece
        data += piece


def probe_end(s: socket.socket) -> list[tuple[int, bytes, bytes]]:
    """What comes still when the client ends its sending: nothing, unless an answer was one too many."""
    s.shutdown(socket.SHUT_WR)
    return read_answers(s, [], 0)[0]


def is_newer() -> bool:
    """Is the server's libmicrohttpd 1.0 or later?"""
    return int(server.wait_for(r"libmicrohttpd (\d+)\.")) >= 1


def says(message: str, word: str) -> bool:
    """Has the message the word, or the library's for it?"""
    return word in message or (is_newer() and word in LIBRARY_WORDS and re.search(LIBRARY_WORDS[word], message) is not None)


def check_errors(case: Case, got: list[tuple[int, bytes, bytes]]) -> None:
    """No field twice, and every error in the server's shape."""
    for status, head, body in got:
        names = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
        assert len(names) == len(set(names)), (case.name, head)
        assert status != 400 or not case.closes or b"connection: close" in head.lower(), (case.name, head)
        if status >= 400:
            assert b"application/json" in head.lower(), (case.name, head)
            check_answer("GET", "/nowhere", status, json.loads(body))


def run(case: Case) -> None:
    if case.newer is not None and is_newer():
        case = case._replace(statuses=case.newer, closes=case.newer[-1] != 200)
    with socket.create_connection((server.client.host, int(server.client.port))) as s:
        s.sendall(case.data)
        want = [status for status in case.statuses if status]
        got, closed = read_answers(s, [case.data.startswith(b"HEAD ")], 0 if case.closes else len(want))
        assert [a[0] for a in got] == want, (case.name, got)
        if not closed:
            assert not probe_end(s), case.name
        check_errors(case, got)
        if case.word:
            assert says(json.loads(got[-1][2])["error"]["message"], case.word), (case.name, got[-1])


def run_all(cases: list[Case]) -> None:
    failed = []
    for case in cases:
        try:
            run(case)
        except (AssertionError, OSError, ValueError) as error:
            failed.append(case.name)
            print(f"        {case.name}: {error}")
    assert not failed, failed
    print(f"        {len(cases)} requests")
    assert server.client.get("/health")["status"] == "ok"


def test_framing() -> None:
    run_all(FRAMING)


def test_fields() -> None:
    run_all(FIELDS)


def test_hosts() -> None:
    run_all(HOSTS)


def test_lines() -> None:
    run_all(LINES)


def test_types() -> None:
    run_all(TYPES)


def test_hidden() -> None:
    run_all(HIDDEN)


if __name__ == "__main__":
    with Process("--dtype", "f32", "--allow-host", "other.example,good.example") as server:
        status = run_tests(globals())
    sys.exit(status)
