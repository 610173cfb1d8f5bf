"""How the harness's requests are gathered into HTTP requests. Pure functions over contexts and continuations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from dtrnet_eval import prefixes

PAIRS_A_REQUEST = 256
LEAST_PAIRS = 8
BYTES_A_REQUEST = 1 << 20
PROMPTS_A_REQUEST = 32
LEAST_PROMPTS = 2


def pairs_a_request(pairs: int, servers: int) -> int:
    """How many go into one request: few enough that each of several servers gets some."""
    return PAIRS_A_REQUEST if servers == 1 else min(PAIRS_A_REQUEST, max(LEAST_PAIRS, -(-pairs // (2 * servers))))


def by_context(pairs: Sequence[tuple[str, str]], servers: int = 1) -> Iterator[list[list[int]]]:
    """Places of pairs (context, continuation): requests of bounded size, each a list of groups with one context.

    Contexts come in order, so that those that begin alike stay together. A single pair may be larger than the bound. For several servers
    requests are cut where one beginning that many pairs share gives way to another, so that a request has one of them.
    """
    most = pairs_a_request(len(pairs), servers)
    groups: dict[str, list[int]] = defaultdict(list)
    for place, (context, _) in enumerate(pairs):
        groups[context].append(place)
    sharing = Counter(prefixes.start_of(context) for context, _ in pairs) if servers > 1 else Counter()
    batch: list[list[int]] = []
    count = size = 0
    before = ""
    for context in sorted(groups):
        begin = prefixes.start_of(context)
        if batch and begin != before and max(sharing[begin], sharing[before]) >= LEAST_PAIRS:
            yield batch
            batch, count, size = [], 0, 0
        before = begin
        for at in range(0, len(groups[context]), most):
            places = groups[context][at : at + most]
            cost = len(context) + sum(len(pairs[place][1]) for place in places)
            if batch and (count + len(places) > most or size + cost > BYTES_A_REQUEST):
                yield batch
                batch, count, size = [], 0, 0
            batch.append(places)
            count += len(places)
            size += cost
    if batch:
        yield batch


def by_settings(prompts: Sequence[tuple[str, dict[str, Any]]], servers: int = 1) -> list[list[int]]:
    """Places of prompts (context, settings) whose generation settings are equal: at most PROMPTS_A_REQUEST together.

    For several servers fewer, so that each gets some, and a request has prompts that begin alike, or only such that stand alone.
    """
    most = PROMPTS_A_REQUEST if servers == 1 else min(PROMPTS_A_REQUEST, max(LEAST_PROMPTS, -(-len(prompts) // (2 * servers))))
    sharing = Counter(prefixes.start_of(context) for context, _ in prompts) if servers > 1 else Counter()
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, (context, settings) in enumerate(prompts):
        begin = prefixes.start_of(context)
        key = begin if sharing[begin] >= LEAST_PROMPTS else ""
        groups[repr(sorted(settings.items(), key=lambda item: item[0])), key].append(place)
    return [places[at : at + most] for places in groups.values() for at in range(0, len(places), most)]
