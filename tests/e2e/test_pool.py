"""The plugin with two servers on the loopback: one is killed in the middle of a run, no request fails, scores are those of one server."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import support  # isort: skip  (first: it finds the Python that has the other packages)
import commands
from server_process import PATIENCE_S
from support import Server
from test_eval import kill_at_work, questions

sys.path.insert(0, str(support.ROOT / "eval" / "src"))


def answer_with_two(model: Any, kind: str, asked: list, first: Server) -> list:
    """The model's answers; the first of its two servers is killed at work."""
    worker, got = kill_at_work(model, kind, asked, first)
    worker.join(PATIENCE_S)
    return got


def check_killed() -> None:
    """Every kind of request."""
    from lm_eval.api.instance import Instance

    import dtrnet_eval.lm as plugin

    plugin.batches.PAIRS_A_REQUEST, plugin.batches.PROMPTS_A_REQUEST = 4, 2
    for kind, arguments in questions().items():
        asked = [Instance(request_type=kind, doc={}, arguments=one, idx=i) for i, one in enumerate(arguments)]
        with Server() as server:
            want = getattr(plugin.DtrnetLM(base_url=server.url), kind)(asked, disable_tqdm=True)
        with Server() as server:  # neither knows the texts
            first = Server()
            model = plugin.DtrnetLM(base_url=f"{first.url}+{server.url}", num_concurrent=1)
            got = answer_with_two(model, kind, asked, first)
        assert got == want, f"{kind}: answers changed"
        assert not model.client.members[0].up, f"{kind}: the run was over before the server was killed"
        killed, other = (member.answers for member in model.client.members)
        print(f"{len(got)} answers of {kind} equal; {killed} requests by the server that was killed, {other} by the other", flush=True)


def check_command(folder: Path) -> None:
    """A suite over two servers of one model; over servers of two settings it is refused."""
    line = ("suite", "smoke", "--limit", "8", "--output", str(folder / "out"), "--base_url")
    with Server() as one, Server() as two, Server(support.SHIPPED, "--dense-layers", "all") as dense:
        refused = commands.alone(*line, f"{one.url}+{dense.url}")
        assert refused.returncode == 1 and "serves another than the first server" in refused.stderr, refused.stderr
        made = commands.alone(*line, f"{one.url}+{two.url}")
        assert made.returncode == 0, made.stderr[-2000:]
        done = [server.metrics()["dtrnet_sequences_done_total"] for server in (one, two)]
        assert all(done), done
    print(f"a suite over two servers: {done} sequences")


def main() -> int:
    """Both parts."""
    os.environ.pop("DTRNET_API_KEY", None)
    check_killed()
    with tempfile.TemporaryDirectory() as name:
        check_command(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
