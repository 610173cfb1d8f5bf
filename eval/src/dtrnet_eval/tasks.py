"""Names of tasks: those of a folder, read from its files without the harness, and those of the harness itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from dtrnet_eval.errors import UsageError

DATA = Path(__file__).resolve().parent / "data"
FOLDER = DATA / "tasks"
NAMED = re.compile(r"^(?:task|group|tag):[ \t]*([^\s#\[\]{}]+)[ \t]*$", re.MULTILINE)
LISTED = re.compile(r"^(?:tag|group):[ \t]*\n((?:[ \t]*-[ \t]*\S+[ \t]*\n?)+)", re.MULTILINE)


@cache
def named_in(folder: Path) -> frozenset[str]:
    """Names of tasks, groups and tags that stand in the files of a folder. Those that code makes are missing."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.suffix in (".yaml", ".yml") or path.name.endswith("_yaml"):
            text = path.read_text(encoding="utf-8", errors="replace")
            found.update(name.strip("'\"") for name in NAMED.findall(text))
            for block in LISTED.findall(text):
                found.update(line.strip(" \t-") for line in block.splitlines())
    return frozenset(found)


def in_folder(names: Iterable[str], folder: Path, every: bool = False) -> bool:
    """True if one of the names, or each of them, is of the folder."""
    if not folder.is_dir():
        return False
    have = [name.strip() in named_in(folder) for name in names]
    return bool(have) and (all(have) if every else any(have))


def _harness_names(include: Path | None) -> frozenset[str]:
    """All names that the harness knows, by its own reading, which takes a while."""
    from lm_eval.tasks import TaskManager

    return frozenset(TaskManager(include_path=str(include) if include else None).all_tasks)


def _harness_folder() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("lm_eval")
    return Path(spec.origin).parent / "tasks" if spec and spec.origin else Path()


def check(names: list[str], include: Path | None) -> None:
    """That every name is a task, a group, a tag, or a file.

    Raises:
        UsageError: one is not; with names that are near.
    """
    if include and not include.is_dir():
        raise UsageError(f"--include_path {include}: there is no such folder")
    plain = [name.strip() for name in names if name.strip()]
    if not plain:
        raise UsageError("--tasks names no task")
    unknown = [name for name in plain if not (include and name in named_in(include)) and not _is_path_or_pattern(name)]
    if unknown:
        unknown = [name for name in unknown if name not in named_in(_harness_folder())]
    if not unknown:
        return
    known = _harness_names(include)
    missing = [name for name in unknown if name not in known]
    if missing:
        import difflib

        near = difflib.get_close_matches(missing[0], known, 3)
        raise UsageError(f"Tasks not found: {', '.join(missing)}" + (f"; did you mean {', '.join(near)}?" if near else ""))


def _is_path_or_pattern(name: str) -> bool:
    return "*" in name or name.endswith((".yaml", ".yml"))
