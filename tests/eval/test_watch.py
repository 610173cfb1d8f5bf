"""`sweep --watch`: which directories count as checkpoints, their order, retries, the curve, and when the watch ends."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from dtrnet_eval import sweep, watch
from dtrnet_eval.errors import EvalError, UsageError


def checkpoint(folder: Path, name: str, whole: bool = True) -> Path:
    """A directory that looks like one; `whole` as dtrnet-train leaves it."""
    model = folder / name
    model.mkdir()
    for file in ("config.json", "model.safetensors", *(["train.json"] if whole else [])):
        (model / file).write_text("{}")
    return model


def results_file(out: Path, value: float) -> None:
    """What the harness leaves of one task."""
    out.mkdir(parents=True, exist_ok=True)
    task = {"alias": "quiz", "acc,none": value, "acc_stderr,none": 0.1}
    found = {"results": {"quiz": task}, "config": {"model_args": {}}, "n-samples": {"quiz": {"original": 9, "effective": 9}}}
    (out / "results_2026-01-01T00-00-00.000000.json").write_text(json.dumps(found))
    (out / watch.CHECKPOINT).write_text("{}")


class WatchTest(unittest.TestCase):
    def setUp(self) -> None:
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.run_folder, self.output = Path(held.name) / "run", Path(held.name) / "out"
        self.run_folder.mkdir()
        self.scored: list[str] = []

    def score(self, model: Path, out: Path) -> None:
        self.scored.append(model.name)
        results_file(out, watch.step_of(model) / 1000)

    def go(self, score: object = None) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            return watch.watch(self.run_folder, self.output, score or self.score), said.getvalue()

    def test_order_is_by_number(self) -> None:
        for name in ("step-1000", "step-200", "step-30"):
            checkpoint(self.run_folder, name)
        for name in ("state-5", "step-40.new"):
            (self.run_folder / name).mkdir()
        (self.run_folder / watch.FINISHED).write_text("{}")
        self.assertEqual(self.go()[0], 0)
        self.assertEqual(self.scored, ["step-30", "step-200", "step-1000"])
        with (self.output / "curve.csv").open() as rows:
            self.assertEqual(
                [row[:4] for row in csv.reader(rows)][1:],
                [[s, "quiz", "acc", v] for s, v in (("30", "0.03"), ("200", "0.2"), ("1000", "1.0"))],
            )
        self.assertEqual((self.output / "curve.png").read_bytes()[1:4], b"PNG")

    def test_comes_while_others_are_scored(self) -> None:
        checkpoint(self.run_folder, "step-1")

        def score(model: Path, out: Path) -> None:
            self.score(model, out)
            if model.name == "step-1":
                checkpoint(self.run_folder, "step-2")
                (self.run_folder / watch.FINISHED).write_text("{}")

        self.assertEqual(self.go(score)[0], 0)
        self.assertEqual(self.scored, ["step-1", "step-2"])

    def test_waits_for_what_is_still_written(self) -> None:
        place = watch.Folder(self.run_folder)
        model = checkpoint(self.run_folder, "step-1", whole=False)
        self.assertEqual(place.whole(), [])
        (model / "model.safetensors").write_text("more")
        self.assertEqual(place.whole(), [])
        self.assertEqual(place.whole(), [model])

    def test_waits_for_the_next(self) -> None:
        """Nothing new: it sleeps and looks again, until the training is finished."""
        naps = []

        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 2:
                checkpoint(self.run_folder, "step-7")
            if len(naps) == 3:
                (self.run_folder / watch.FINISHED).write_text("{}")

        with mock.patch("time.sleep", nap):
            self.assertEqual(self.go()[0], 0)
        self.assertEqual((self.scored, naps), (["step-7"], [watch.LOOK_S] * 3))

    def test_what_fails_is_tried_again(self) -> None:
        checkpoint(self.run_folder, "step-1")
        (self.run_folder / watch.FINISHED).write_text("{}")
        tries = []

        def score(model: Path, out: Path) -> None:
            tries.append(model.name)
            raise EvalError("the disk is full")

        failed, said = self.go(score)
        self.assertEqual((failed, len(tries)), (1, watch.RETRIES))
        self.assertIn("step-1: the disk is full", said)

    def test_arguments(self) -> None:
        with self.assertRaisesRegex(UsageError, "no such directory"):
            watch.Folder(self.run_folder / "x")
        for words in ([], ["model", "--watch", "x"]):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as said:
                sweep.main(["smoke", *words, "--output", "o"])
            self.assertIn("give checkpoint directories, --watch DIR or --servers URL", said.getvalue())


if __name__ == "__main__":
    unittest.main()
