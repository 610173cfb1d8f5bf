"""Four servers behind a real HAProxy with the project's configuration: one is stopped and one killed in the middle of a suite.

No request fails, scores are those of one server to the bit, and what prefixes save is at least 90 % of what they save on one server.
Needs Debian's package haproxy; exit status 77: skipped.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import families
from balancer import Balancer, check_affinity
from cluster_support import ROOT, ServerProcess, command, cost, digest, finish, skip, start, wait_until

CONFIGURATION = ROOT / "configs" / "haproxy" / "haproxy.cfg"
NAMES = ("one", "two", "three", "four")
BAR = 0.9


def answered(balancer: Balancer, suite: subprocess.Popen[str], at_least: int) -> bool:
    """True once so many requests have their answers."""
    assert suite.poll() is None, f"the suite was over too soon: {balancer.of('BACKEND')['hrsp_2xx']} requests"
    return int(balancer.of("BACKEND")["hrsp_2xx"]) >= at_least


def held_at_work(balancer: Balancer, name: str, server: ServerProcess) -> bool:
    """True if the server has a request and cannot answer it any more."""
    if int(balancer.of(name)["scur"]) == 0:
        return False
    server.process.send_signal(signal.SIGSTOP)
    if int(balancer.of(name)["scur"]) > 0:
        return True
    server.process.send_signal(signal.SIGCONT)
    return False


def disturb(balancer: Balancer, servers: dict[str, ServerProcess], suite: subprocess.Popen[str], requests: int) -> None:
    """Stops one of the servers after a quarter of the requests, and kills one that is at work after the half."""
    begin = int(balancer.of("BACKEND")["hrsp_2xx"])
    wait_until("a quarter of the answers", lambda: answered(balancer, suite, begin + requests // 4))
    servers["two"].process.send_signal(signal.SIGTERM)
    wait_until("half of the answers", lambda: answered(balancer, suite, begin + requests // 2))
    name = wait_until(
        "a server at work", lambda: next((n for n in ("one", "three", "four") if held_at_work(balancer, n, servers[n])), None), 0.0
    )
    servers[name].process.kill()
    assert suite.poll() is None, "the suite was over before a server was killed"
    assert servers["two"].process.wait() == 0, "the server that was told to stop did not end well"
    servers[name].process.wait()
    print(f"two was stopped, {name} was killed", flush=True)


def check_answers(balancer: Balancer) -> None:
    """Not one of them was an error for the client."""
    front = balancer.of("FRONTEND", "dtrnet")
    good, bad = int(front["hrsp_2xx"]), {kind: int(front[f"hrsp_{kind}"]) for kind in ("1xx", "3xx", "4xx", "5xx", "other")}
    by_server = {name: int(balancer.of(name)["hrsp_2xx"]) for name in NAMES}
    back = balancer.of("BACKEND")
    print(f"{good} requests, by server {by_server}; sent again: {back['wretr']}, and {back['wredis']} to another server")
    assert not any(bad.values()), f"failed requests: {bad}"
    assert all(by_server.values()), f"a server had nothing to do: {by_server}"
    assert int(back["wretr"]) + int(back["wredis"]) > 0, "what the killed server had not answered was not sent again"


def compare(folder: Path) -> None:
    """Of one server against of four."""
    one, four = cost(folder / "one"), cost(folder / "four")
    saved = {
        name: part["cached_tokens"] / (part["cached_tokens"] + part["computed_tokens"]) for name, part in (("one", one), ("four", four))
    }
    ratio = saved["four"] / saved["one"]
    print(f"reuse: {saved['one']:.4f} of the rows on one server, {saved['four']:.4f} on four, {ratio:.3f} of it")
    assert ratio >= BAR, f"reuse is {ratio:.3f} of one server's, must be {BAR}"
    want, got = digest(folder / "one"), digest(folder / "four")
    assert want == got, f"scores differ: {want} of one server, {got} of four"
    print(f"scores are equal: {got}")


def run(folder: Path) -> None:
    """One server alone, then four."""
    suite = str(families.write(folder / "tasks", tasks=30, texts=8, items=6))
    arguments = ("suite", suite, "--model_args", "num_concurrent=2")
    flags = ("--kv-cache-memory", "96M", "--threads", "1")
    with ServerProcess(*flags) as alone:
        command(*arguments, "--base_url", alone.url, "--output", str(folder / "one"))
    servers = {name: ServerProcess(*flags, env={"DTRNET_SHUTDOWN_DELAY": "2"}) for name in NAMES}
    try:
        addresses = {f"DTRNET_{n}": server.url.removeprefix("http://") for n, server in enumerate(servers.values(), 1)}
        with Balancer(CONFIGURATION, addresses) as balancer:
            balancer.wait_for(set(NAMES))
            check_affinity(balancer, list(servers.values()))
            process = start(*arguments, "--base_url", balancer.url, "--output", str(folder / "four"))
            disturb(balancer, servers, process, requests=40)
            finish(process)
            check_answers(balancer)
    finally:
        for server in servers.values():
            server.stop()
    compare(folder)


def main() -> int:
    """Runs it, or skips."""
    if shutil.which("haproxy") is None:
        skip("no haproxy; Debian has a package of that name")
    with tempfile.TemporaryDirectory(prefix="dtrnet-haproxy-") as name:
        run(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
