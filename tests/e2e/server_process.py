"""`dtrnet serve` as a child process, with the standard library only."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
SHIPPED = ROOT / "models" / "dtrnet-26m"
# What is served where a test does not say: under a sanitizer a small model (small/make_model.py).
SERVED = Path(os.environ.get("DTRNET_TEST_MODEL", SHIPPED))
PROGRAM = os.environ.get("DTRNET_BIN", str(ROOT / "build" / "dtrnet"))
Self = TypeVar("Self", bound="ServerProcess")

# How long a test waits for what must come. A hang ends by it; nothing is measured by it, so a slow or loaded machine has time.
PATIENCE_S = 600


class ServerProcess:
    """A server on a free port of the loopback, for a `with` block. Flags go to its command line."""

    def __init__(self, *flags: str, model: Path | None = SERVED, env: dict[str, str] | None = None) -> None:
        self.log = tempfile.NamedTemporaryFile("w+", prefix="dtrnet-server-", suffix=".log")  # noqa: SIM115  (lives as long as the server)
        command = [PROGRAM, "serve", "--port", "0", *(["--model", str(model)] if model else []), *flags]
        self.process = subprocess.Popen(command, stderr=self.log, env={**os.environ, "DTRNET_SHUTDOWN_DELAY": "0", **(env or {})})
        self.url = self.wait_for(r"listening on (https?://[^\s\"]*)")

    def text(self) -> str:
        """What the server has logged so far."""
        return Path(self.log.name).read_text(errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = PATIENCE_S) -> str:
        """The first group of `pattern` in the log, once it is there."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            found = re.search(pattern, self.text())
            if found:
                return found[1] if found.groups() else found[0]
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.text()}")
            time.sleep(0.02)
        self.process.kill()
        raise RuntimeError(f"no {pattern!r} in the log after {timeout_s} s:\n{self.text()}")

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Sends the signal; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        status = self.stop()
        if kind is not None:
            print(f"--- server log\n{self.text()[-4000:]}")
        elif status != 0:
            raise RuntimeError(f"the server ended with status {status}:\n{self.text()[-4000:]}")
