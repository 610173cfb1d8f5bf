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

from dtrnet_eval.client import ServerError

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> None:
    """For a child process, before its program starts: SIGTERM when the process that started it is gone, however that ended (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class LocalServer:
    """`dtrnet serve` on a free port, for a `with` block.

    Args:
        program: the dtrnet executable.
        model: checkpoint directory.
        flags: more of the server's flags.
        timeout_s: how long loading may take.
    """

    def __init__(self, program: Path, model: Path, flags: list[str], timeout_s: float = 600) -> None:
        self.log = tempfile.NamedTemporaryFile("w+", prefix="dtrnet-", suffix=".log")  # noqa: SIM115  (lives as long as the server)
        command = [str(program), "serve", "--port", "0", "--model", str(model), *flags]
        try:
            self.process = subprocess.Popen(command, stderr=self.log, preexec_fn=end_with_parent)
        except OSError as error:
            raise ServerError(f"cannot start {program}: {error.strerror}") from None
        self.url = self._wait(model, timeout_s)

    def _wait(self, model: Path, timeout_s: float) -> str:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            text = Path(self.log.name).read_text(errors="replace")
            found = re.search(r"listening on (https?:[^\s\"]*)", text)
            if found:
                return found[1]
            if self.process.poll() is not None:
                last = text.strip().splitlines()
                raise ServerError(f"{model}: the server did not start: {last[-1] if last else 'it said nothing'}")
            time.sleep(0.05)
        self.stop()
        raise ServerError(f"{model}: the server was not ready within {timeout_s:g} s")

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
