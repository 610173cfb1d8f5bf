"""Resident memory of a process, by what it is for, from /proc/PID/smaps."""

from __future__ import annotations

import collections
import re
from typing import NamedTuple

ARENA = 64 << 20  # glibc's arenas begin at multiples of it
STACK = 1 << 20  # a connection's thread (server/http/http.c), its guard page included


class Mapping(NamedTuple):
    """One line of the map."""

    begin: int
    end: int
    rights: str
    name: str
    mb: float


def mappings(text: str) -> list[Mapping]:
    """What smaps says."""
    out: list[Mapping] = []
    for line in text.splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)", line):
            out.append(Mapping(int(found[1], 16), int(found[2], 16), found[3], found[4], 0.0))
        elif line.startswith("Rss:"):
            out[-1] = out[-1]._replace(mb=int(line.split()[1]) / 1024)
    return out


def kind(one: Mapping, following: Mapping | None) -> str:
    """What a mapping is for; an arena's part that is in use is followed by the part that is not."""
    if one.name == "[heap]":
        return "heap"
    if one.name.startswith("[stack") or (not one.name and STACK - 65536 <= one.end - one.begin <= STACK):
        return "stacks"
    if one.name:
        return "files"
    whole = one.end - one.begin == ARENA or (following and following.begin == one.end and following.rights.startswith("---"))
    return "heap" if whole and one.begin % ARENA == 0 and one.end - one.begin <= ARENA else "other"


def resident(pid: int) -> dict[str, float]:
    """MiB of stacks, of the heap (glibc's arenas), of files, and of other memory (large blocks, buffers of connections)."""
    with open(f"/proc/{pid}/smaps") as file:
        found = mappings(file.read())
    out: collections.Counter[str] = collections.Counter()
    for i, one in enumerate(found):
        out[kind(one, found[i + 1] if i + 1 < len(found) else None)] += one.mb
    return dict(out)
