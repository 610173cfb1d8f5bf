"""What the tests of several servers share: the command line, digests of results, free ports, waiting for progress."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from server_process import PATIENCE_S, PROGRAM, SHIPPED, ServerProcess  # noqa: E402, F401  (re-exported)

VENV = ROOT / ".venv" / "bin" / "python"
PYTHON = str(VENV if VENV.exists() else sys.executable)
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "eval" / "src"), "TQDM_DISABLE": "1", "LMEVAL_LOG_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
T = TypeVar("T")


def skip(reason: str) -> NoReturn:
    """Ends the program as skipped."""
    print(f"skipped: {reason}")
    sys.exit(77)


def start(*arguments: str) -> subprocess.Popen[str]:
    """`dtrnet-eval` with these arguments, under way."""
    line = [PYTHON, "-m", "dtrnet_eval", *arguments]
    return subprocess.Popen(line, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed; it must have ended well."""
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, f"status {process.returncode}:\n{said[-4000:]}"
    return said


def command(*arguments: str) -> str:
    """`start` and `finish`."""
    return finish(start(*arguments))


def digest(folder: Path) -> str:
    """Of every score, value and item of a folder of results, and of its origin."""
    return command("seal", str(folder)).split()[0]


def check_equal(a: Path, b: Path) -> str:
    """The digest that two folders of results have; what differs first, if they have two."""
    digests = [digest(folder) for folder in (a, b)]
    lines = [(folder / "sealed.jsonl").read_text().splitlines() for folder in (a, b)]
    first = next(
        (f"{one[:1500]}\n{other[:1500]}" for one, other in zip(*lines) if one != other), f"{len(lines[0])} and {len(lines[1])} lines"
    )
    assert digests[0] == digests[1], f"{a.name} and {b.name} differ:\n{first}"
    return digests[0]


def cost(folder: Path) -> dict[str, Any]:
    """What all runs below a folder cost, added up by name."""
    out: dict[str, Any] = {}
    for path in folder.rglob("results_*.json"):
        for name, value in json.loads(path.read_text())["config"]["dtrnet_run"].items():
            if isinstance(value, int):
                out[name] = out.get(name, 0) + value
    return out


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until(what: str, look: Callable[[], T | None], pause_s: float = 0.02) -> T:
    """What `look` finds, as soon as that is true."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(pause_s)
    raise AssertionError(f"waited in vain for {what}")
