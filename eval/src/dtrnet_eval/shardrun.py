"""Shards of a suite in a folder: `shards/<run>/` holds what they were told to do (run.json) and a file of answers for each."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from dtrnet_eval import answerlog, suites
from dtrnet_eval.access import Access
from dtrnet_eval.errors import UsageError
from dtrnet_eval.shards import Shard
from dtrnet_eval.suites import Suite

SHARDS = "shards"  # beside the results of the runs
RUN = "run.json"


def shards_of(out: Path, run: dict[str, Any]) -> Path:
    """Folder of a run's answers by shard."""
    return out / SHARDS / run["name"]


def told(suite: Suite, run: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """What the shards of a run were told to do; None where there are none.

    Raises:
        UsageError: it is not what the suite says now.
    """
    path = shards_of(out, run) / RUN
    try:
        found = json.loads(path.read_text())
        extra = [str(word) for word in found["extra"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not as this version writes it ({type(error).__name__}); remove {path.parent}") from None
    if found != suites.record(suite, run, extra):
        raise UsageError(f"{path.parent} holds shards of other tasks, arguments or task files; remove it, or give another folder")
    return found


def _tell(suite: Suite, run: dict[str, Any], out: Path, extra: list[str]) -> None:
    """Says what the shards of a run do; shards that begin at once say the same."""
    now = suites.record(suite, run, extra)
    if told(suite, run, out) not in (None, now):
        raise UsageError(f"{shards_of(out, run)} holds shards with other arguments; remove it, or give another folder")
    folder = shards_of(out, run)
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{RUN}.{socket.gethostname()}.{os.getpid()}"
    new.write_text(json.dumps(now) + "\n")
    new.replace(folder / RUN)


def shard_finished(suite: Suite, shard: Shard, out: Path, run: dict[str, Any]) -> bool:
    """True if a shard of a run has all its answers."""
    return told(suite, run, out) is not None and answerlog.ended(shards_of(out, run) / shard.file)


def run_shard(suite: Suite, server: Access, out: Path, extra: list[str], shard: Shard) -> None:
    """One shard of every run of a suite; `dtrnet-eval merge` makes results of all of them.

    Args:
        suite: the runs.
        server: whom to ask.
        out: folder of the results.
        extra: more arguments for the harness.
        shard: which.

    Raises:
        EvalError: a run failed; the same command goes on behind the last answer.
    """
    for run in suite.runs:
        _tell(suite, run, out, extra)
    for run in suites.each(suite, lambda run: shard_finished(suite, shard, out, run), f" shard {shard}"):
        given = f"{server.model_args()},shard={shard},answers={shards_of(out, run) / shard.file}"
        suites.call(suite, run, suites.command(suite, run, "dtrnet-shard", given, extra), server.environment())
