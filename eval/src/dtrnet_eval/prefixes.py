"""What a balancer needs to send requests to where their prefix lives: a header that is equal for requests that begin alike.

A balancer that hashes it consistently (configs/haproxy) sends the items of one few-shot prompt to one server, which computes that prompt
once. An answer may say in turn how many servers are behind one address; requests are then cut smaller, so that each of them gets some.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

HEADER = "X-Dtrnet-Prefix"
SERVERS_HEADER = "X-Dtrnet-Servers"
CHARACTERS = 256  # contexts that have so many in common count as alike; a few-shot prompt is longer, a shared "Question: " is shorter
MOST_SERVERS = 1024


def start_of(context: str) -> str:
    """What contexts that begin alike have in common."""
    return context[:CHARACTERS]


def _first(body: Mapping[str, Any]) -> str:
    """The text that a request begins with; ids as text. Empty where there is none."""
    requests, texts, prompt = body.get("requests"), body.get("texts"), body.get("prompt")
    if requests:
        return str(requests[0].get("context", ""))
    if texts:
        return str(texts[0])
    first = prompt[0] if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else prompt
    return first if isinstance(first, str) else " ".join(map(str, (first or [])[:CHARACTERS]))


def header(body: Any) -> dict[str, str]:
    """The header of one request: 16 digits of a SHA-256, so that nothing of a text stands in a balancer's log; none without a body."""
    if not isinstance(body, dict):
        return {}
    begin = start_of(_first(body))
    return {HEADER: hashlib.sha256(begin.encode(errors="surrogatepass")).hexdigest()[:16]} if begin else {}


def servers_behind(headers: Mapping[str, str]) -> int:
    """How many servers an answer says are behind its address; 1 where it says nothing that is a sensible number."""
    said = headers.get(SERVERS_HEADER, "")
    return min(MOST_SERVERS, max(1, int(said))) if said.isascii() and said.isdigit() and len(said) < 6 else 1
