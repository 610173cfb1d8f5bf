"""Several servers as one: who gets what, what happens when one is away, back, another, or all are gone."""

import threading
import time
import unittest
from typing import Any
from unittest import mock

import fake
from dtrnet_eval import pool as module
from dtrnet_eval import prefixes
from dtrnet_eval.access import Access
from dtrnet_eval.errors import OriginError, RefusedError, UnreachableError, UsageError
from dtrnet_eval.pool import Pool, Runs

COUNT = 40


def doubles(path: str, body: Any, _headers: Any) -> fake.Reply:
    """What a good server does."""
    return (200, {}, fake.VERSION) if path == "/version" else (200, {}, {"n": 2 * body["n"]})


def places(server: fake.FakeServer) -> list[int]:
    """What a server was asked for, in order."""
    return [body["n"] for path, body, _ in server.asked if path == "/x"]


def pool_of(*servers: fake.FakeServer, patience_s: float = 30, in_flight: int = 1) -> Pool:
    return Pool(Access("+".join(server.url for server in servers)), in_flight=in_flight, patience_s=patience_s)


def ask(pool: Pool, count: int = COUNT) -> dict[int, int]:
    """All answers by place; each must come once."""
    got: dict[int, int] = {}

    def keep(place: int, value: int) -> None:
        assert place not in got, place
        got[place] = value

    pool.ask_all("/x", count, lambda n: {"n": n}, lambda value: value["n"], keep)
    return got


WANT = {n: 2 * n for n in range(COUNT)}


class Shares(unittest.TestCase):
    def test_a_run_of_neighbours_for_each(self) -> None:
        runs = Runs(10, [1, 1, 1])
        self.assertEqual([runs.take(0), runs.take(1), runs.take(2), runs.take(0)], [0, 3, 6, 1])

    def test_who_is_done_takes_the_end_half_of_the_longest(self) -> None:
        runs = Runs(12, [1, 1])
        self.assertEqual([runs.take(0) for _ in range(6)], [0, 1, 2, 3, 4, 5])
        self.assertEqual([runs.take(0) for _ in range(3)], [9, 10, 11])
        self.assertEqual([runs.take(1) for _ in range(3)], [6, 7, 8])
        self.assertEqual([runs.take(0), runs.take(1), len(runs)], [None, None, 0])

    def test_each_place_once_whoever_asks(self) -> None:
        for count in range(20):
            for servers in range(1, 5):
                for order in ([0], list(range(servers)), [servers - 1, 0]):
                    runs, taken = Runs(count, [1] * servers), []
                    while (place := runs.take(order[len(taken) % len(order)])) is not None:
                        taken.append(place)
                    self.assertEqual(sorted(taken), list(range(count)))

    def test_a_balancer_gets_several_runs_in_turn(self) -> None:
        runs = Runs(12, [1, 3])
        self.assertEqual([runs.take(1) for _ in range(6)], [3, 6, 9, 4, 7, 10])
        self.assertEqual([runs.take(0), runs.take(0), runs.take(1)], [0, 1, 5])
        runs.put_back(1, 5)
        self.assertEqual(sorted(place for _ in range(6) if (place := runs.take(1)) is not None), [2, 5, 8, 11])

    def test_what_is_put_back_comes_next(self) -> None:
        runs = Runs(4, [1, 1])
        place = runs.take(0)
        runs.put_back(0, place)
        self.assertEqual((runs.take(0), len(runs)), (0, 3))


@mock.patch.object(module, "FIRST_PAUSE_S", 0.001)
@mock.patch.object(module, "LONGEST_PAUSE_S", 0.01)
class Several(unittest.TestCase):
    def test_all_work_and_each_on_neighbours(self) -> None:
        with fake.FakeServer(doubles) as one, fake.FakeServer(doubles) as two:
            self.assertEqual(ask(pool_of(one, two)), WANT)
            self.assertEqual(sorted(places(one) + places(two)), list(range(COUNT)))
            self.assertEqual((places(one)[0], places(two)[0]), (0, COUNT // 2))

    def test_one_dies_in_the_middle(self) -> None:
        """Its requests go to the other, none fails."""
        died, until = threading.Event(), time.monotonic() + 60

        def dies(path: str, body: Any, headers: Any) -> fake.Reply:
            if path != "/version" and len(places(one)) > 3:
                threading.Thread(target=one.server.shutdown).start()
                one.server.socket.close()
                died.set()
                raise ConnectionResetError
            return doubles(path, body, headers)

        def waits(path: str, body: Any, headers: Any) -> fake.Reply:
            if path == "/x":
                died.wait(until - time.monotonic())  # else it might do all of the work before
            return doubles(path, body, headers)

        with fake.FakeServer(dies) as one, fake.FakeServer(waits) as two, mock.patch.object(one.server, "handle_error"):
            pool = pool_of(one, two)
            with self.assertLogs(module.log, "WARNING") as said:
                self.assertEqual(ask(pool), WANT)
            self.assertTrue(died.is_set())
            self.assertIn("its work goes to the others", said.output[0])
            self.assertEqual([member.up for member in pool.members], [False, True])
            self.assertEqual(pool.members[0].answers, 3)
            self.assertEqual(ask(pool), WANT)  # and from the begin, with one
            self.assertEqual(pool.ask("/x", {"n": 5}, lambda value: value["n"]), 10)

    def returning(self, back_as: dict[str, Any]) -> tuple[Pool, dict[int, int], int]:
        """One is away at the begin of ask_all and comes back while the other waits for it; the pool, answers, what the first was asked."""
        away = threading.Event()
        away.set()
        seen_again, served = threading.Event(), threading.Event()

        def first(path: str, body: Any, headers: Any) -> fake.Reply:
            if away.is_set():
                raise ConnectionResetError
            if path == "/version":
                seen_again.set()
                return (200, {}, {**fake.VERSION, **back_as})
            served.set()
            return doubles(path, body, headers)

        def second(path: str, body: Any, headers: Any) -> fake.Reply:
            if path == "/x":
                away.clear()
                (seen_again if back_as else served).wait(60)
            return doubles(path, body, headers)

        with fake.FakeServer(first) as one, fake.FakeServer(second) as two, mock.patch.object(one.server, "handle_error"):
            pool = pool_of(one, two)
            with self.assertLogs(module.log, "WARNING"):
                pool.version()
                return pool, ask(pool), len(places(one))

    def test_one_comes_back(self) -> None:
        pool, got, asked = self.returning({})
        self.assertEqual((got, pool.members[0].up), (WANT, True))
        self.assertGreater(asked, 0)

    def test_one_comes_back_as_another(self) -> None:
        _, got, asked = self.returning({"dtype": "bf16"})
        self.assertEqual((got, asked), (WANT, 0))

    def test_different_servers_are_refused(self) -> None:
        def other(path: str, *_: Any) -> fake.Reply:
            return (200, {}, {**fake.VERSION, "model_hash": "b" * 64, "threads": 9})

        with fake.FakeServer(doubles) as one, fake.FakeServer(other) as two:
            with self.assertRaisesRegex(
                OriginError, "serves another than the first server: model_hash aaaaaaaaaaaa there, bbbbbbbbbbbb here"
            ):
                pool_of(one, two).version()
            with self.assertRaisesRegex(UsageError, "names a server twice"):
                pool_of(one, one)

    def test_nobody_there(self) -> None:
        with fake.FakeServer(doubles) as one, fake.FakeServer(doubles) as two:
            pool = pool_of(one, two, patience_s=0.05)
        with self.assertLogs(module.log, "WARNING"), self.assertRaisesRegex(UnreachableError, "no connection"):
            pool.version(0.05)
        with self.assertLogs(module.log, "WARNING"), self.assertRaisesRegex(UnreachableError, "no connection"):
            ask(pool)

    def test_a_refusal_ends_it(self) -> None:
        def refuses(path: str, body: Any, headers: Any) -> fake.Reply:
            return (400, {}, {"error": {"message": "wrong"}}) if path == "/x" and body["n"] == 7 else doubles(path, body, headers)

        with fake.FakeServer(refuses) as one, fake.FakeServer(refuses) as two, self.assertRaisesRegex(RefusedError, "400: wrong"):
            ask(pool_of(one, two))

    def test_a_request_that_nobody_survives(self) -> None:
        """It is not tried for ever."""

        def drops(path: str, body: Any, headers: Any) -> fake.Reply:
            if path == "/x" and body["n"] == 3:
                raise ConnectionResetError
            return doubles(path, body, headers)

        with fake.FakeServer(drops) as one, fake.FakeServer(drops) as two:
            quiet = [mock.patch.object(server.server, "handle_error") for server in (one, two)]
            with quiet[0], quiet[1], self.assertLogs(module.log, "WARNING"), self.assertRaisesRegex(UnreachableError, "no connection"):
                ask(pool_of(one, two))
            self.assertLessEqual(sum(place == 3 for server in (one, two) for place in places(server)), 5)

    def test_behind_a_balancer(self) -> None:
        """It has as much under way as the servers that it says are there, and nobody waits for a neighbour."""
        arrived = threading.Barrier(6, timeout=60)

        def balancer(path: str, body: Any, headers: Any) -> fake.Reply:
            if path == "/x" and body["n"] % 2 == 0:
                arrived.wait()  # passes only if six are there at once
            status, _, value = doubles(path, body, headers)
            return status, {prefixes.SERVERS_HEADER: "3"} if path == "/version" else {}, value

        with fake.FakeServer(balancer) as one:
            pool = pool_of(one, in_flight=2)
            self.assertEqual(pool.servers, 1)
            pool.version()
            self.assertEqual((pool.servers, pool.room(pool.members[0])), (3, 6))
            self.assertEqual(ask(pool, 12), {n: 2 * n for n in range(12)})

    def test_devices_count_as_servers(self) -> None:
        def two_devices(path: str, *_: Any) -> fake.Reply:
            devices = [{"device": n, "status": "ok"} for n in range(2)]
            return 200, {prefixes.SERVERS_HEADER: "3"}, {**fake.VERSION, "devices": devices}

        with fake.FakeServer(two_devices) as one, fake.FakeServer(doubles) as two:
            pool = pool_of(one, two, in_flight=2)
            pool.version()
            self.assertEqual((pool.servers, [pool.room(member) for member in pool.members]), (7, [12, 2]))

    def test_metrics_are_summed(self) -> None:
        with fake.FakeServer(lambda *_: (200, {}, b"# HELP x\nx 1\ny 2\n")) as one, fake.FakeServer(lambda *_: (200, {}, b"x 5\n")) as two:
            self.assertEqual(pool_of(one, two).metrics(), {"x": 6, "y": 2})


if __name__ == "__main__":
    unittest.main()
