"""One or several dtrnet servers that serve the same, asked as one.

Requests come in an order in which neighbours begin alike, so each server gets a run of neighbours: what it has computed of a prefix
serves the next. Who is done takes the end half of the longest run that is left. A server that is away loses nothing: its requests go to
the others; it is asked for its health meanwhile, and gets work again when it is back and still serves the same.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

from dtrnet_eval import origin
from dtrnet_eval.access import Access
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.client import FIRST_PAUSE_S, LONGEST_PAUSE_S, Client
from dtrnet_eval.errors import EvalError, OriginError, ServerError, UnreachableError, UsageError

T = TypeVar("T")
log = logging.getLogger(__name__)

ROUNDS = 3  # how often a single request may find all servers away
SEPARATOR = "+"  # between addresses; no shell and no argument of the harness means something by it


@dataclass
class Member:
    """One server.

    Attributes:
        client: its endpoints.
        up: it answered when it was asked last.
        gone: it will not be asked again.
        running: requests under way.
        answers: how many it has given.
    """

    client: Client
    up: bool = True
    gone: bool = False
    running: int = 0
    answers: int = 0


class Runs:
    """Places 0 to count - 1, divided into runs of neighbours: one for a server, as many as it is told for a balancer.

    A balancer gets its requests from all of its runs in turn: of what is under way at a time, as many parts as possible begin
    differently, so that hashing of what they begin with gives every server behind it some.
    """

    def __init__(self, count: int, runs: Sequence[int]) -> None:
        self._of = list(itertools.pairwise(itertools.accumulate(runs, initial=0)))
        ends = [count * n // sum(runs) for n in range(sum(runs) + 1)]
        self._left = [deque(range(low, high)) for low, high in itertools.pairwise(ends)]
        self._turn = [begin for begin, _ in self._of]

    def __len__(self) -> int:
        return sum(map(len, self._left))

    def take(self, server: int) -> int | None:
        """The next place of a server; of the longest run's end where its own is empty; None where all are."""
        begin, end = self._of[server]
        now = self._turn[server]
        self._turn[server] = now + 1 if now + 1 < end else begin
        mine = self._left[now]
        if not mine:
            longest = max(self._left, key=len)
            mine.extendleft(longest.pop() for _ in range((len(longest) + 1) // 2))
        return mine.popleft() if mine else None

    def put_back(self, server: int, place: int) -> None:
        """A place that has no answer."""
        self._left[self._turn[server]].appendleft(place)


class Event(NamedTuple):
    """What a thread has to say: an answer or why there is none, or, without a place, how a server fares that was away."""

    server: int
    place: int | None
    value: Any = None
    error: BaseException | None = None


class Pool:
    """Servers as one.

    Args:
        access: addresses (`http://a:8000+http://b:8000`), key and certificates, which all have in common.
        in_flight: requests under way at each server at most; for each device that it has, and for each server behind a balancer.
        timeout_s: for one answer.
        patience_s: how long all may be away, or one refuse with 503.

    Raises:
        UsageError: an address is none, or is named twice.
    """

    def __init__(self, access: Access, *, in_flight: int = 8, timeout_s: float = 3600, patience_s: float = 300) -> None:
        addresses = [one.strip() for one in access.base_url.split(SEPARATOR)]
        away_s = patience_s if len(addresses) == 1 else 0.0
        how = {"timeout_s": timeout_s, "patience_s": patience_s, "away_s": away_s}
        self.members = [Member(Client(replace(access, base_url=one), **how)) for one in addresses]
        if len({member.client.root for member in self.members}) < len(self.members):
            raise UsageError(f"base_url names a server twice: {access.base_url}")
        self.in_flight = max(1, in_flight)
        self.patience_s = patience_s
        self.info: ServerInfo | None = None  # of the first that answered; the others must say the same

    @property
    def several(self) -> bool:
        """True if there is more than one."""
        return len(self.members) > 1

    @property
    def servers(self) -> int:
        """How many there are, each device and those behind balancers counted; known once `version` was asked."""
        return sum(member.client.behind for member in self.members)

    def room(self, member: Member) -> int:
        """How many requests may be under way there."""
        return self.in_flight * member.client.behind

    # ---- who is there ----

    def version(self, patience_s: float = 30) -> ServerInfo:
        """What the servers say about themselves; those that are away are left out until they answer.

        Raises:
            UnreachableError: nobody answers.
            UnauthorizedError, NotOursError: as `Client.version`.
            OriginError: two serve different models or settings.
        """
        begin, pause = time.monotonic(), FIRST_PAUSE_S
        if not self.several:
            return self.members[0].client.version(patience_s)
        while True:
            found = [self._look(member) for member in self.members if not member.gone]
            infos = [info for info in found if isinstance(info, ServerInfo)]
            if infos:
                return infos[0]
            pause = min(2 * pause, LONGEST_PAUSE_S)
            if time.monotonic() + pause > begin + patience_s:
                raise next((one for one in found if isinstance(one, UnreachableError)), UnreachableError("no server is left"))
            time.sleep(pause)

    def _look(self, member: Member) -> ServerInfo | UnreachableError:
        """One server; it must say what the first said."""
        was_up = member.up
        try:
            info = member.client.version(0)
        except UnreachableError as error:
            member.up = False
            if was_up:
                log.warning("%s; left out until it answers", error)
            return error
        self.info = self.info or info
        differs = origin.differences(origin.Origin(self.info.raw).settings(), origin.Origin(info.raw).settings())
        if differs:
            raise OriginError(f"{member.client.root} serves another than the first server: {'; '.join(differs)}")
        member.up = True
        return info

    # ---- one request ----

    def ask(self, path: str, body: Any, read: Callable[[Any], T]) -> T:
        """A POST to the first server that answers.

        Raises:
            ServerError: as `Client.ask`.
        """
        if not self.several:
            return self.members[0].client.ask(path, body, read)
        last: UnreachableError | None = None
        for _ in range(ROUNDS):
            for member in self.members:
                if member.up and not member.gone:
                    try:
                        return member.client.ask(path, body, read)
                    except UnreachableError as error:
                        last = error
                        self.lose(member, error)
            self.version(self.patience_s)
        raise last or UnreachableError(f"{path}: no server answers")

    def lose(self, member: Member, error: BaseException) -> None:
        """A server does not answer any more."""
        if member.up:
            log.warning("%s; its work goes to the others", error)
        member.up = False

    def metrics(self) -> dict[str, float]:
        """/metrics, summed over the servers that answer."""
        if not self.several:
            return self.members[0].client.metrics()
        out: Counter[str] = Counter()
        for member in self.members:
            if member.up and not member.gone:
                try:
                    out.update(member.client.metrics())
                except ServerError as error:
                    self.lose(member, error)
        return dict(out)

    # ---- many requests ----

    def ask_all(
        self, path: str, count: int, make: Callable[[int], Any], read: Callable[[Any], T], on_answer: Callable[[int, T], None]
    ) -> None:
        """POSTs `make(place)` for each place below `count`, and calls `on_answer(place, answer)`; both in this thread, as answers come.

        The first error ends it: what is under way is waited for, nothing new is sent.

        Raises:
            ServerError: a server refuses, or all are away for longer than the patience lasts.
        """
        with ThreadPoolExecutor(self.in_flight * self.servers) as threads:
            runs = [self.room(member) if member.client.behind > 1 else 1 for member in self.members]
            job = Job(self, threads, path, make, read, Runs(count, runs))
            try:
                job.run(on_answer)
            finally:
                job.over.set()


@dataclass
class Job(Generic[T]):
    """One call of `ask_all`."""

    pool: Pool
    threads: ThreadPoolExecutor
    path: str
    make: Callable[[int], Any]
    read: Callable[[Any], T]
    runs: Runs
    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    over: threading.Event = field(default_factory=threading.Event)
    watched: set[int] = field(default_factory=set)  # servers that are away and asked for their health
    failures: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def run(self, on_answer: Callable[[int, T], None]) -> None:
        """Until all places have their answer."""
        while True:
            self._send()
            self._watch()
            if not len(self.runs) and not any(member.running for member in self.pool.members):
                return
            event = self.events.get()
            if event.place is None:
                self._fares(event)
                continue
            member = self._member(event.server)
            member.running -= 1
            if event.error is None:
                member.answers += 1
                on_answer(event.place, event.value)
            else:
                self._failed(event, event.place)

    def _member(self, server: int) -> Member:
        return self.pool.members[server]

    def _send(self) -> None:
        """As much as the servers may have under way, in turn, so that a short list reaches all of them."""
        more = True
        while more:
            more = False
            for server, member in enumerate(self.pool.members):
                if member.up and not member.gone and member.running < self.pool.room(member):
                    place = self.runs.take(server)
                    if place is not None:
                        member.running += 1
                        self.threads.submit(self._ask, server, place, self.make(place))
                        more = True

    def _ask(self, server: int, place: int, body: Any) -> None:
        """In a thread of its own."""
        try:
            event = Event(server, place, value=self._member(server).client.ask(self.path, body, self.read))
        except BaseException as error:
            event = Event(server, place, error=error)
        self.events.put(event)

    def _failed(self, event: Event, place: int) -> None:
        """The place is put back where others may take it; a request that nobody survives is not tried for ever."""
        error = event.error
        assert error is not None
        self.failures[place] += 1
        if not isinstance(error, UnreachableError) or not self.pool.several or self.failures[place] > 2 * len(self.pool.members):
            raise error
        self.runs.put_back(event.server, place)
        self.pool.lose(self._member(event.server), error)

    # ---- servers that are away ----

    def _watch(self) -> None:
        """Begins to look after servers that are away; not while they have requests under way, which tell as well."""
        for server, member in enumerate(self.pool.members):
            if not member.up and not member.gone and not member.running and server not in self.watched:
                self.watched.add(server)
                threading.Thread(target=self._look_after, args=(server,), daemon=True).start()

    def _look_after(self, server: int) -> None:
        """In a thread of its own, until the server is back, is another, or the patience is at its end."""
        begin, pause = time.monotonic(), FIRST_PAUSE_S
        while not self.over.wait(pause):
            try:
                found = self.pool._look(self._member(server))
            except EvalError as error:
                self.events.put(Event(server, None, error=error))
                return
            if isinstance(found, ServerInfo):
                self.events.put(Event(server, None, value=found))
                return
            if time.monotonic() > begin + self.pool.patience_s:
                self.events.put(Event(server, None, error=found))
                return
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _fares(self, event: Event) -> None:
        """A server is back, or is given up."""
        member = self._member(event.server)
        self.watched.discard(event.server)
        if event.error is None:
            log.warning("%s is back", member.client.root)
            return
        member.gone = True
        log.warning("%s; given up", event.error)
        if all(one.gone for one in self.pool.members):
            raise event.error
