"""A real HAProxy with a configuration of the project, its statistics, and where it sends requests that begin alike."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from cluster_support import ROOT, ServerProcess, free_port, wait_until

BEGINNINGS = 16


class Balancer:
    """HAProxy, for a `with` block.

    Args:
        configuration: its file.
        variables: what the file takes from the environment, beside where it listens.

    Attributes:
        url: where clients ask.
    """

    def __init__(self, configuration: Path, variables: dict[str, str]) -> None:
        listen, stats = free_port(), free_port()
        self.url, self._stats = f"http://127.0.0.1:{listen}", f"http://127.0.0.1:{stats}/;csv"
        environment = {**os.environ, "DTRNET_LISTEN": f"127.0.0.1:{listen}", "DTRNET_STATS": f"127.0.0.1:{stats}", **variables}
        line = ["haproxy", "-W", "-db", "-q", "-f", str(configuration)]
        self.process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_for(self, names: set[str]) -> None:
        """Until these servers are up, and no others."""
        wait_until(f"{', '.join(sorted(names))} up", lambda: self.up() == names, 0.1)

    def up(self) -> set[str]:
        """Servers that are up; none while HAProxy starts."""
        assert self.process.poll() is None, "HAProxy ended"
        try:
            rows = self.rows()
        except OSError:
            return set()
        return {row["svname"] for row in rows if row["pxname"] == "servers" and row["svname"] != "BACKEND" and row["status"] == "UP"}

    def rows(self) -> list[dict[str, str]]:
        """Its own statistics."""
        with urllib.request.urlopen(self._stats, timeout=60) as answer:
            return list(csv.DictReader(io.StringIO(answer.read().decode().lstrip("# "))))

    def of(self, name: str, proxy: str = "servers") -> dict[str, str]:
        """The statistics of one server."""
        return next(row for row in self.rows() if (row["pxname"], row["svname"]) == (proxy, name))

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def tokenized(server: ServerProcess) -> int:
    """How many calls of /tokenize a server has answered."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith('dtrnet_http_requests_total{route="/tokenize"'))


def five_more(servers: list[ServerProcess], before: list[int]) -> list[int] | None:
    """How many more calls each server has answered, once they are five or more in all."""
    more = [now - then for now, then in zip(map(tokenized, servers), before)]
    return more if sum(more) >= 5 else None


def check_affinity(balancer: Balancer, servers: list[ServerProcess]) -> list[int]:
    """Requests of the package that begin alike go to one server; those that do not are spread. Beginnings by server."""
    sys.path.insert(0, str(ROOT / "eval" / "src"))
    from dtrnet_eval.access import Access
    from dtrnet_eval.client import Client

    client, homes = Client(Access(balancer.url)), []
    client.version()
    assert client.behind == len(servers), f"the balancer says {client.behind} servers"
    for beginning in range(BEGINNINGS):
        before = list(map(tokenized, servers))
        for n in range(5):
            client.post("/tokenize", {"prompt": f"{beginning} and the same beginning. " * 20 + str(n)})
        # a request is counted when its connection has done with it, which its client need not have waited for
        more = wait_until("five requests counted", lambda before=before: five_more(servers, before))
        assert sorted(more) == [0] * (len(servers) - 1) + [5], f"requests that begin alike went to {more}"
        homes.append(more.index(5))
    assert len(set(homes)) > 1, "everything goes to one server"
    print(f"{BEGINNINGS} beginnings, each at one server: {[homes.count(n) for n in range(len(servers))]}", flush=True)
    return homes
