"""Suite files, what finished means, positions, task names, and that a folder of another origin is refused before a run starts."""

import contextlib
import io
import json
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import fake
from dtrnet_eval import suites, sweep, tasks
from dtrnet_eval.access import Access
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.errors import OriginError, UsageError
from dtrnet_eval.serverflags import ServerFlags

INFO = ServerInfo.read(fake.VERSION)


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)

    def tearDown(self) -> None:
        self.temporary.cleanup()

    def suite(self, text: str) -> suites.Suite:
        path = self.folder / "mine.yaml"
        path.write_text(text)
        return suites.load(str(path))


class Files(Folder):
    def test_those_of_the_package(self) -> None:
        self.assertEqual(suites.known(), ["long", "offline", "papers", "smoke"])
        with mock.patch.dict(os.environ, {"LOCAL_EVAL_DATA": "/rows"}):
            for name in suites.known():
                suite = suites.load(name)
                self.assertTrue(suite.about and suite.runs, name)
                if suite.include:
                    for run in suite.runs:
                        self.assertTrue(tasks.in_folder(run["tasks"], suite.include, every=True), run)

    def test_mistakes(self) -> None:
        cases = {
            "runs:\n - {tasks: sample_twoway}\n": "must have a list of tasks",
            "runs:\n - {tasks: [a], args: 5}\n": "may have name, tasks and args",
            "runs:\n - {tasks: [a], other: 5}\n": "may have name, tasks and args",
            "runs: []\n": "must have runs",
            "[1": "not YAML",
            "runs: [{tasks: [a]}]\nsurplus: 1\n": "must have runs",
            "runs: [{tasks: [a]}]\nneeds: [NOT_SET_ANYWHERE]\n": "needs the environment variable NOT_SET_ANYWHERE",
            "runs: [{tasks: [a]}]\ninclude: nowhere\n": "there is no folder",
            "runs: [{tasks: [a]}]\npositions: many\n": "positions must be a whole number",
            "runs: [{tasks: [a], name: x}, {tasks: [b], name: x}]\n": "two runs have one name",
        }
        for text, expected in cases.items():
            with self.assertRaisesRegex(UsageError, expected, msg=text):
                self.suite(text)
        with self.assertRaisesRegex(UsageError, "no suite 'nosuch'; known suites: long, offline, papers, smoke"):
            suites.load("nosuch")


class Commands(Folder):
    def test_line(self) -> None:
        suite = self.suite("runs: [{tasks: [a, b], name: x, args: {num_fewshot: 5}}]\n")
        server = Access("https://h:1", "/key", False)
        extra = ["--limit", "4", "--model_args", "num_concurrent=8"]
        line = suites.command(suite, suite.runs[0], "dtrnet", server.model_args(), extra, Path("out"))
        self.assertEqual(line[line.index("--model_args") + 1], "base_url=https://h:1,verify_certificate=False,num_concurrent=8")
        self.assertEqual(line.count("--model_args"), 1)
        self.assertEqual(line[-4:], ["--num_fewshot", "5", "--limit", "4"])
        self.assertNotIn("/key", " ".join(line))

    def test_finished(self) -> None:
        suite = self.suite("include: .\nruns: [{tasks: [a], name: x}]\n")
        run = suite.runs[0]
        self.assertFalse(suites.finished(suite, run, self.folder, []))
        (self.folder / "x").mkdir()
        mark = self.folder / "x" / "finished.json"
        mark.write_text(json.dumps(suites.record(suite, run, [])))
        suite.include = None
        self.assertFalse(suites.finished(suite, run, self.folder, []))
        mark.write_text(json.dumps(suites.record(suite, run, [])))
        self.assertTrue(suites.finished(suite, run, self.folder, []))
        self.assertFalse(suites.finished(suite, run, self.folder, ["--limit", "4"]))
        self.assertFalse(suites.finished(suite, {**run, "tasks": ["b"]}, self.folder, []))

    def test_changed_task_files_are_run_again(self) -> None:
        (self.folder / "tasks").mkdir()
        (self.folder / "tasks" / "a.yaml").write_text("task: a\n")
        suite = self.suite("include: tasks\nruns: [{tasks: [a]}]\n")
        before = suites.record(suite, suite.runs[0], [])
        (self.folder / "tasks" / "a.yaml").write_text("task: a\n# changed\n")
        self.assertNotEqual(before, suites.record(suite, suite.runs[0], []))


class BeforeARun(Folder):
    def test_positions(self) -> None:
        suite = self.suite("positions: 21000\nruns: [{tasks: [a]}]\n")
        with self.assertRaisesRegex(UsageError, "needs 21000 positions, but the server takes 128; start it with --max-model-len 21000"):
            suites.check_server(suite, INFO)

    def test_another_server(self) -> None:
        """The same folder and another model, dtype, rope or limit: refused, and no run is started."""
        suite = self.suite("runs: [{tasks: [a], name: x}]\n")
        out = self.folder / "out"
        fake.write_results(out / "x")
        (out / "x" / "finished.json").write_text(json.dumps(suites.record(suite, suite.runs[0], [])))
        with mock.patch.object(suites.origin, "harness_version", return_value="0.4.13"):
            suites.check_origin(suite, out, INFO, [])
            for extra in (["--limit", "4"], ["--limit=4"], ["-L", "0.5"]):
                with self.assertRaisesRegex(OriginError, "limit"):
                    suites.check_origin(suite, out, INFO, extra)
            for more in (
                {"model_hash": "b" * 64},
                {"dtype": "bf16"},
                {"rope": {"type": "yarn", "factor": 2}},
                {"forced_dense_layers": [1]},
            ):
                with fake.FakeServer(lambda *_: (200, {}, {**fake.VERSION, **more})) as server, mock.patch.object(suites, "subprocess"):  # noqa: B023
                    line = [str(self.folder / "mine.yaml"), "--base_url", server.url, "--output", str(out)]
                    with self.assertRaisesRegex(OriginError, next(iter(more))):
                        suites.main(line)

    def test_a_run_with_a_limit_of_its_own(self) -> None:
        suite = self.suite("runs: [{tasks: [a], name: x}, {tasks: [b], name: y, args: {limit: 3}}]\n")
        fake.write_results(self.folder / "x")
        fake.write_results(self.folder / "y", n=3, of=9)
        with mock.patch.object(suites.origin, "harness_version", return_value="0.4.13"):
            suites.check_origin(suite, self.folder, INFO, [])
            with self.assertRaisesRegex(OriginError, "limit none there, 3.0 here"):
                suites.check_origin(suite, self.folder, INFO, ["--limit", "3"])

    def test_sweep_looks_again_when_files_change(self) -> None:
        model, program = self.folder / "model", self.folder / "program"
        model.mkdir()
        (model / "config.json").write_text("{}")
        program.write_text("")
        flags = ServerFlags(["--dtype", "f32"], None, False)
        stamp = sweep._stamp(model, program, flags)
        (self.folder / sweep.CHECKPOINT).write_text(json.dumps(stamp))
        self.assertTrue(sweep._unchanged(self.folder / sweep.CHECKPOINT, sweep._stamp(model, program, flags)))
        other = sweep._stamp(model, program, ServerFlags(["--dtype", "bf16"], None, False))
        self.assertFalse(sweep._unchanged(self.folder / sweep.CHECKPOINT, other))
        (model / "config.json").write_text("{ }")
        self.assertFalse(sweep._unchanged(self.folder / sweep.CHECKPOINT, sweep._stamp(model, program, flags)))


class TaskNames(unittest.TestCase):
    def test_of_our_folder(self) -> None:
        found = tasks.named_in(tasks.FOLDER)
        self.assertTrue(found >= {"samples", "sample_twoway", "long_passkey", "long_needles", "offline_mmlu", "offline_mmlu_marketing"})
        self.assertFalse(found & {"", "-", "task"})
        tasks.check(["samples", "sample_passage", "sample_*"], tasks.FOLDER)
        with self.assertRaisesRegex(UsageError, "no such folder"):
            tasks.check(["samples"], Path("/nowhere"))
        with self.assertRaisesRegex(UsageError, "names no task"):
            tasks.check([""], tasks.FOLDER)

    def test_unknown(self) -> None:
        with mock.patch.object(tasks, "_harness_names", return_value=frozenset({"arc_easy", "made_by_code"})):
            tasks.check(["made_by_code"], None)
            with self.assertRaisesRegex(UsageError, "Tasks not found: arc_eesy; did you mean arc_easy"):
                tasks.check(["arc_eesy"], None)

    def test_list(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            suites.main(["list"])
        self.assertIn("smoke", said.getvalue())


if __name__ == "__main__":
    unittest.main()
