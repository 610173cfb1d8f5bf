"""The balancer of the Kubernetes overlay `replicas` with a real HAProxy: servers come and go by the addresses of a name.

In place of pods there are servers at addresses of the loopback, in place of the cluster's name server one of this test. Needs Debian's
package haproxy; exit status 77: skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from balancer import Balancer, check_affinity
from cluster_support import ROOT, ServerProcess, free_port, skip, wait_until
from name_server import NameServer

CONFIGURATION = ROOT / "configs" / "kubernetes" / "overlays" / "replicas" / "haproxy.cfg"
NAME = "dtrnet-pods.test.svc.cluster.local"
ADDRESSES = [f"127.0.0.{n}" for n in (11, 12, 13, 14)]


def configuration(folder: Path, names: NameServer) -> Path:
    """The overlay's, with this test's name server."""
    text = CONFIGURATION.read_text()
    assert text.count("    parse-resolv-conf\n") == 1
    path = folder / "haproxy.cfg"
    path.write_text(text.replace("    parse-resolv-conf\n", f"    nameserver test 127.0.0.1:{names.port}\n    hold obsolete 1s\n"))
    return path


def run(folder: Path) -> None:
    """Three servers, then four, then one of them goes."""
    port = str(free_port())
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(ServerProcess("--host", one, "--port", port, "--kv-cache-memory", "64M")) for one in ADDRESSES]
        names = stack.enter_context(NameServer(NAME, ADDRESSES[:3]))
        variables = {"DTRNET_PODS": f"{NAME}:{port}"}
        balancer = stack.enter_context(Balancer(configuration(folder, names), variables))
        balancer.wait_for({"pod1", "pod2", "pod3"})
        check_affinity(balancer, servers[:3])
        names.addresses = ADDRESSES
        balancer.wait_for({"pod1", "pod2", "pod3", "pod4"})
        check_affinity(balancer, servers)
        names.addresses = ADDRESSES[1:]
        wait_until("three servers", lambda: len(balancer.up()) == 3, 0.1)
        check_affinity(balancer, servers[1:])
    print("servers came and went by their addresses")


def main() -> int:
    """Runs it, or skips."""
    if shutil.which("haproxy") is None:
        skip("no haproxy; Debian has a package of that name")
    os.environ["no_proxy"] = "*"
    with tempfile.TemporaryDirectory(prefix="dtrnet-pods-") as name:
        run(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
