"""`pip install ./eval` in a fresh virtual environment, used from another folder: suites, tasks and the report's files are there.

Needs the package registry for the build's own requirements; without it the test is skipped. What the package depends on is taken from
the environment that runs this test.
"""

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ("py.typed", "data/suites/smoke.yaml", "data/tasks/samples.yaml", "data/tasks/_offline_mmlu_yaml", "data/tasks/sample_data.py")
FILES += ("data/samples/ending.jsonl", "data/report/page.css", "data/report/items.js", "lm.py")


def run(*line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """One command."""
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


def build(folder: Path) -> Path:
    """The wheel, of a copy of the sources: a build leaves files behind."""
    shutil.copytree(ROOT / "eval", folder / "eval", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "results"))
    made = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(folder / "eval"), cwd=folder)
    if made.returncode:
        print(f"skipped: the wheel cannot be built here: {made.stderr.strip().splitlines()[-1]}")
        sys.exit(77)
    return next(folder.glob("*.whl"))


def check_wheel(path: Path) -> None:
    """What is in it."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(name for name in names if name.endswith("METADATA"))).decode()
    missing = [name for name in FILES if f"dtrnet_eval/{name}" not in names]
    assert not missing, missing
    assert not [name for name in names if "__pycache__" in name or "results" in Path(name).parts], names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for text in ("License-Expression: Apache-2.0", "Project-URL: ", "Description-Content-Type: text/markdown", "# Evaluating"):
        assert text in metadata, f"no {text!r} in the wheel's metadata"


def check_use(path: Path, folder: Path) -> None:
    """From another folder, in an environment that has this package alone and sees the others."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    installed = run(str(python), "-m", "pip", "install", "-q", "--no-deps", str(path), cwd=folder)
    assert installed.returncode == 0, installed.stderr
    packages = next((folder / "venv").glob("lib/python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    program = str(folder / "venv" / "bin" / "dtrnet-eval")
    listed = run(program, "suite", "list", cwd=elsewhere)
    assert listed.returncode == 0 and {line.split()[0] for line in listed.stdout.splitlines()} == {"long", "offline", "papers", "smoke"}, (
        listed
    )
    nosuch = run(program, "suite", "nosuch", cwd=elsewhere)
    assert nosuch.returncode == 1 and "known suites: long, offline, papers, smoke" in nosuch.stderr, nosuch.stderr
    tasks = run(program, "tasks", "--tasks", "samples,sample_passage", cwd=elsewhere)
    assert tasks.returncode == 0, tasks.stderr
    where = run(str(python), "-c", "import dtrnet_eval.tasks as t; print(t.FOLDER)", cwd=elsewhere)
    assert str(folder / "venv") in where.stdout, where


def main() -> int:
    """Wheel, then use."""
    if importlib.util.find_spec("lm_eval") is None:
        print("skipped: no lm_eval here")
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        check_wheel(wheel)
        check_use(wheel, folder)
    print("the wheel has its data, and works from another folder")
    return 0


if __name__ == "__main__":
    sys.exit(main())
