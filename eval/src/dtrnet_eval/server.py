"""A dtrnet server as a child process, for commands that start their own."""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from dtrnet_eval.errors import EvalError, UsageError

PR_SET_PDEATHSIG = 1  # prctl(2)
LOG_LINE = re.compile(r"^\S+ (info|warn|error)\s+(.*)$")


def end_with_parent() -> None:
    """For a child process, before its program starts: SIGTERM when the process that started it is gone, however that ended (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class LocalServer:
    """`dtrnet serve` on a free port, for a `with` block.

    Args:
        program: the dtrnet executable.
        model: checkpoint directory; None: the one that comes with the program.
        flags: more of the server's flags.
        environment: of the process; None: this one's.
        timeout_s: how long loading may take.

    Attributes:
        url: where it listens.

    Raises:
        UsageError: the program cannot be started.
        EvalError: it ended, or was not ready in time.
    """

    def __init__(
        self, program: Path, model: Path | None, flags: list[str], environment: dict[str, str] | None = None, timeout_s: float = 600
    ) -> None:
        self.log = tempfile.NamedTemporaryFile("w+", prefix="dtrnet-", suffix=".log")  # noqa: SIM115  (lives as long as the server)
        self.name = str(model) if model else "the server"
        command = [str(program), "serve", "--port", "0", *(["--model", str(model)] if model else []), *flags]
        try:
            self.process = subprocess.Popen(command, stderr=self.log, preexec_fn=end_with_parent, env=environment)
        except OSError as error:
            raise UsageError(f"cannot start {program}: {error.strerror}") from None
        self.url = self._wait(timeout_s)

    def text(self) -> str:
        """What the server has logged so far."""
        return Path(self.log.name).read_text(errors="replace")

    def said(self) -> list[str]:
        """What a person wants to see of the log: no times, no requests."""
        found = [LOG_LINE.match(line) for line in self.text().splitlines()]
        return [f"{one[1]}: {one[2]}" if one[1] != "info" else one[2] for one in found if one]

    def _wait(self, timeout_s: float) -> str:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            found = re.search(r"listening on (https?:[^\s\"]*)", self.text())
            if found:
                return found[1]
            if self.process.poll() is not None:
                last = self.text().strip().splitlines()
                raise EvalError(f"{self.name}: the server did not start: {last[-1] if last else 'it said nothing'}")
            time.sleep(0.05)
        self.stop()
        raise EvalError(f"{self.name}: the server was not ready within {timeout_s:g} s")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after a minute."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
