"""`dtrnet-eval` as the tests call it: `alone` in a process of its own, `Forked` in forks of one that has the harness imported, since the
import costs more than most commands do.

What differs in a fork: modules are imported beforehand, and a run that `suite` or `sweep` starts is a fork as well. So what looks at
processes, at their command lines or at what happens when one is killed, starts its own, and every command is called alone somewhere.

As a program this file is the one process: a line of JSON in for each command, a line with its exit status out.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from types import SimpleNamespace
from typing import Any

from server_process import PATIENCE_S, ROOT

KEYS = ("DTRNET_API_KEY", "OPENAI_API_KEY")
ENVIRONMENT = {**{name: value for name, value in os.environ.items() if name not in KEYS}, "PYTHONPATH": str(ROOT / "eval" / "src")}
# What the commands import sooner or later.
PACKAGES = ("lm_eval.__main__", "lm_eval.evaluator", "lm_eval.loggers", "lm_eval.models", "lm_eval.models.api_models", "pytablewriter")
PACKAGES += tuple(
    f"dtrnet_eval.{name}" for name in ("harness", "lm", "local", "longcontext", "merge", "report", "sealing", "sweep", "verify")
)
Result = subprocess.CompletedProcess[str]


def alone(*arguments: str, **environment: str) -> Result:
    """The command in a process of its own."""
    line = [sys.executable, "-m", "dtrnet_eval", *arguments]
    given = {**ENVIRONMENT, **environment}
    return subprocess.run(line, env=given, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


class Forked:
    """Called as `alone` is. The process that forks ends when the test does."""

    def __init__(self) -> None:
        line = [sys.executable, __file__]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True)
        atexit.register(self.process.communicate)

    def __call__(self, *arguments: str, **environment: str) -> Result:
        assert self.process.stdin and self.process.stdout
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as error:
            asked = {"arguments": arguments, "environment": {**ENVIRONMENT, **environment}, "stdout": out.name, "stderr": error.name}
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            status = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(["dtrnet-eval", *arguments], status, out.read(), error.read())


# ---- the process that forks ----


def _take_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _call(arguments: list[str]) -> int:
    """The command, in a fork; its status."""
    from dtrnet_eval import __main__ as program
    from dtrnet_eval import suites

    suites.subprocess = SimpleNamespace(run=_run)  # type: ignore[assignment]
    sys.argv = ["dtrnet-eval", *arguments]
    try:
        return program.main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()


def _status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(line: list[str], check: bool, preexec_fn: Any, env: dict[str, str] | None) -> SimpleNamespace:
    """What `suites` calls in place of subprocess.run."""
    assert line[:3] == [sys.executable, "-m", "dtrnet_eval"] and not check, line
    child = os.fork()
    if child == 0:
        preexec_fn()
        _take_environment(dict(os.environ if env is None else env))
        os._exit(_call(line[3:]))  # nothing of the command that started it may be ended from here
    return SimpleNamespace(returncode=_status_of(child))


def serve() -> None:
    """Until there are no more lines."""
    for name in PACKAGES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy what all forks share
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in ((1, asked["stdout"]), (2, asked["stderr"])):
                os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
            _take_environment(asked["environment"])
            os._exit(_call(asked["arguments"]))
        print(_status_of(child), flush=True)


if __name__ == "__main__":
    sys.path.pop(0)  # of this folder, which a command does not see
    serve()
