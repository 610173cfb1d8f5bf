"""`sweep --watch DIR`: scores checkpoints as a training writes them, and draws the curve again after each.

A checkpoint is a directory below DIR with config.json and weights. `dtrnet-train` renames it into place when it is whole; weights that
another trainer still writes are waited for until they stay as they are. The watch ends when DIR has a finished.json (which `dtrnet-train`
writes) and all is scored, or when it is told to (SIGINT, SIGTERM); the same command goes on. DIR is looked at again and again, since
checkpoints often lie on file systems of other machines, which announce nothing.
"""

from __future__ import annotations

import csv
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dtrnet_eval import curves, report, results
from dtrnet_eval.errors import EvalError, UsageError
from dtrnet_eval.results import Results

FINISHED, CHECKPOINT = "finished.json", "checkpoint.json"
LOOK_S = 2.0  # between two looks at DIR
RETRIES = 3  # for a checkpoint that could not be scored


def step_of(model: Path) -> int:
    """The last number in a directory's name; -1 without one."""
    found = re.findall(r"\d+", model.name)
    return int(found[-1]) if found else -1


def _state(model: Path) -> tuple[Any, ...]:
    files = [p for p in sorted(model.iterdir()) if p.is_file()]
    return tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files)


class Folder:
    """Checkpoints of one training."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"--watch {folder}: there is no such directory")
        self.folder = folder
        self.before: dict[Path, tuple[Any, ...]] = {}

    def whole(self) -> list[Path]:
        """Checkpoints by their number; those that have changed since the last look are not among them, unless renamed into place."""
        found = [p for p in self.folder.iterdir() if (p / "config.json").is_file() and any(p.glob("*.safetensors")) and p.suffix != ".new"]
        now = {}
        for model in found:
            try:
                now[model] = _state(model)
            except OSError:  # it went away while we looked
                continue
        ready = [m for m, state in now.items() if (m / "train.json").is_file() or self.before.get(m) == state]
        self.before = now
        return sorted(ready, key=step_of)

    def finished(self) -> bool:
        """The training says that no more will come."""
        return (self.folder / FINISHED).is_file()


def draw(folders: list[Path], output: Path) -> list[Results]:
    """curve.csv, and curve.png from three checkpoints on."""
    models = sorted(results.read_all(folders), key=lambda model: step_of(model.folder))
    with (output / "curve.csv").open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["step", "task", "metric", "value", "stderr"])
        for model in models:
            for task, metrics in sorted(model.tasks.items()):
                rows.writerows([step_of(model.folder), task, metric, v.value, v.error] for metric, v in sorted(metrics.items()))
    picture = curves.training(models)
    if picture:
        (output / "curve.png").write_bytes(picture.png)
    return models


def _line(model: Results) -> str:
    """The scores of one checkpoint, short."""
    fields = [(task, metric) for task, metrics in sorted(model.tasks.items()) for metric in curves.MAIN if metric in metrics]
    seen: dict[str, str] = {}
    for task, metric in fields:
        seen.setdefault(task, f"{task} {metric} {model.tasks[task][metric].value:.4g}")
    return ", ".join(seen.values()) or "no scores"


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def watch(folder: Path, output: Path, score: Callable[[Path, Path], None]) -> int:
    """Scores what is there and what comes; `score(model, out)` is the sweep's. The number of checkpoints that could not be scored."""
    place, failed = Folder(folder), dict[Path, int]()
    done: list[Path] = []
    output.mkdir(parents=True, exist_ok=True)
    while True:
        last = place.finished()  # asked before looking, so that what came before it is seen
        new = [m for m in place.whole() if m not in done and failed.get(m, 0) < RETRIES]
        for model in new:
            begin, out = time.monotonic(), output / model.name
            try:
                score(model, out)
            except EvalError as error:
                failed[model] = failed.get(model, 0) + 1
                print(f"{model.name}: {error}", flush=True)
                continue
            done.append(model)
            failed.pop(model, None)
            shown = draw([output / m.name for m in done], output)
            one = next(m for m in shown if m.folder == out)
            print(f"{model.name}: {_line(one)} ({time.monotonic() - begin:.0f} s); {len(done)} scored", flush=True)
        if last and not new:
            return len(failed)
        if not new:
            time.sleep(LOOK_S)


def main(folder: Path, output: Path, score: Callable[[Path, Path], None]) -> int:
    """Until the training is finished; 0 unless a checkpoint could not be scored."""
    signal.signal(signal.SIGTERM, _stop)
    print(f"watching {folder}; the curve is drawn into {output}", flush=True)
    failed = watch(folder, output, score)
    if failed:
        raise EvalError(f"{failed} checkpoints could not be scored; start the same command to try again")
    scored = sorted((path.parent for path in output.glob(f"*/{CHECKPOINT}")), key=step_of)
    return report.main([*map(str, scored), "--output", str(output / "report"), "--title", "Training"]) if scored else 0
