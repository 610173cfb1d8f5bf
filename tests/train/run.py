"""Runs one test file with pytest in the Python that has torch: `python3 run.py NAME`. Exits 77 where there is none.

That Python is .venv-train/bin/python of the source tree if it is there, else the running one.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ("torch", "numpy", "yaml", "safetensors", "sentencepiece", "pytest")
INSTALL = (
    "`DTRNET_TRAIN=1 ./run-tests` installs them into .venv-train, or: "
    "python3 -m venv .venv-train && .venv-train/bin/pip install -r tests/train/requirements.txt"
)


def go_on_with_own_python() -> None:
    """Starts this program again in .venv-train, once."""
    own = ROOT / ".venv-train" / "bin" / "python"
    if own.exists() and not os.environ.get("DTRNET_TEST_REEXEC"):
        os.environ["DTRNET_TEST_REEXEC"] = "1"
        os.execv(own, [str(own), *sys.argv])


def main() -> int:
    """Pytest's exit status, or 77."""
    go_on_with_own_python()
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"skipped: no Python package {', '.join(missing)} in {sys.executable}; {INSTALL}")
        return 77
    path = f"{ROOT / 'train' / 'src'}{os.pathsep}{HERE}"
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "--show-capture=no",
        "-p",
        "no:cacheprovider",
        "--durations=5",
        str(HERE / f"test_{sys.argv[1]}.py"),
    ]
    return subprocess.run([*command, *sys.argv[2:]], env=env, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
