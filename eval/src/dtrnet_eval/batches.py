"""How the harness's requests are gathered into HTTP requests. Pure functions over contexts and continuations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

PAIRS_A_REQUEST = 256
LEAST_PAIRS = 8
BYTES_A_REQUEST = 1 << 20
PROMPTS_A_REQUEST = 32


def pairs_a_request(pairs: int, servers: int) -> int:
    """How many go into one request: few enough that each of several servers gets some."""
    return PAIRS_A_REQUEST if servers == 1 else min(PAIRS_A_REQUEST, max(LEAST_PAIRS, -(-pairs // (2 * servers))))


def by_context(pairs: Sequence[tuple[str, str]], servers: int = 1) -> Iterator[list[list[int]]]:
    """Places of pairs (context, continuation): requests of bounded size, each a list of groups with one context.

    Contexts come in order, so that those that begin alike stay together. A single pair may be larger than the bound.
    """
    most = pairs_a_request(len(pairs), servers)
    groups: dict[str, list[int]] = defaultdict(list)
    for place, (context, _) in enumerate(pairs):
        groups[context].append(place)
    batch: list[list[int]] = []
    count = size = 0
    for context in sorted(groups):
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


def by_settings(settings: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Places of prompts whose generation settings are equal, at most PROMPTS_A_REQUEST together."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(settings):
        groups[repr(sorted(one.items(), key=lambda item: item[0]))].append(place)
    return [places[at : at + PROMPTS_A_REQUEST] for places in groups.values() for at in range(0, len(places), PROMPTS_A_REQUEST)]
