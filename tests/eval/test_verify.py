"""Seals and their verification, without a server: what changes a digest, which items are picked, and how differences are judged."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

import fake
from dtrnet_eval import results, sealing, verify
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.errors import ResultsError
from dtrnet_eval.sealing import Scored
from dtrnet_eval.verify import Again, VerifyError

ROWS = "samples_t_0.jsonl"


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        fake.write_results(self.folder)
        fake.write_samples(self.folder, "t", [1, 0, 1, 0])

    def tearDown(self) -> None:
        self.temporary.cleanup()

    def digest(self) -> str:
        model = results.read(self.folder)
        return sealing.digest_of(sealing.lines_of(model, sealing.scores_of(model)))

    def change(self, name: str, edit: Any) -> None:
        """Edits the first line of a file as JSON."""
        path = self.folder / name
        first, *rest = path.read_text().splitlines()
        value = json.loads(first)
        edit(value)
        path.write_text("\n".join([json.dumps(value), *rest]) + "\n")


class Seals(Folder):
    def test_what_changes_a_digest(self) -> None:
        before = self.digest()
        self.assertEqual(before, self.digest())
        cases = {
            "a score": (ROWS, lambda row: row["resps"][0].__setitem__(0, ["-1.0000000000000002", "False"])),
            "greedy": (ROWS, lambda row: row["resps"][0].__setitem__(0, ["-1.0", "True"])),
            "a prompt": (ROWS, lambda row: row["arguments"]["gen_args_0"].update(arg_0="Other")),
            "a document": (ROWS, lambda row: row.update(doc_hash="other")),
            "a metric": (ROWS, lambda row: row.update(acc=0.0)),
            "a value": ("results_0.json", lambda data: data["results"]["t"].update({"acc,none": 0.75})),
            "the model": ("results_0.json", lambda data: data["config"]["dtrnet_origin"]["server"].update(model_hash="b" * 64)),
            "the dtype": ("results_0.json", lambda data: data["config"]["dtrnet_origin"]["server"].update(dtype="bf16")),
        }
        for what, (name, edit) in cases.items():
            kept = (self.folder / name).read_text()
            self.change(name, edit)
            self.assertNotEqual(before, self.digest(), what)
            (self.folder / name).write_text(kept)
        self.change("results_0.json", lambda data: data["config"]["dtrnet_origin"]["server"].update(threads=64))
        self.assertEqual(before, self.digest())

    def test_a_forged_seal(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            sealing.main([str(self.folder)])
        digest = said.getvalue().split()[0]
        model = results.read(self.folder)
        lines = sealing.lines_of(model, sealing.scores_of(model))
        self.assertEqual(verify.check_seal(model, lines, digest), digest)
        with self.assertRaisesRegex(VerifyError, "not the results of that digest"):
            verify.check_seal(model, lines, "0" * 64)
        with self.assertRaisesRegex(VerifyError, "not what was sealed.*the first that differs"):
            verify.check_seal(model, [*lines[:-1], lines[-1].replace("t", "u", 1)], None)
        (self.folder / "seal.json").write_text(json.dumps({"digest": "0" * 64}))
        with self.assertRaisesRegex(VerifyError, "not what was sealed"):
            verify.check_seal(model, lines, None)

    def test_values_are_means_of_items(self) -> None:
        verify.check_means(results.read(self.folder))
        self.change("results_0.json", lambda data: data["results"]["t"].update({"acc,none": 0.75}))
        with self.assertRaisesRegex(VerifyError, "acc is reported as 0.75, but its 4 items give 0.5"):
            verify.check_means(results.read(self.folder))

    def test_damaged(self) -> None:
        self.change(ROWS, lambda row: row.update(resps=[[["low", "False"]], [["-1", "False"]]]))
        with self.assertRaisesRegex(ResultsError, "item 0 of t has no answers"):
            self.digest()
        (self.folder / ROWS).unlink()
        with self.assertRaisesRegex(ResultsError, "there are no items; run with --log_samples"):
            self.digest()

    def test_kinds(self) -> None:
        rows = {"a": [["-1.5"]], "b": [[" text"]], "c": [[["-2.5", "True"]]]}
        asked = {"a": {"arg_0": "T"}, "b": {"arg_0": "C", "arg_1": {"until": ["."]}}, "c": {"arg_0": "C", "arg_1": " e"}}
        for task, said in rows.items():
            row = {"doc_id": 0, "doc_hash": "h", "arguments": {"gen_args_0": asked[task]}, "resps": said}
            (self.folder / f"samples_{task}_0.jsonl").write_text(json.dumps(row) + "\n")
        found = {score.task: score for score in sealing.scores_of(results.read(self.folder)) if score.task != "t"}
        self.assertEqual(
            {task: (one.kind, one.value, one.greedy) for task, one in found.items()},
            {
                "a": ("loglikelihood_rolling", -1.5, None),
                "b": ("generate_until", " text", None),
                "c": ("loglikelihood", -2.5, True),
            },
        )


class Servers(Folder):
    def test_same_model_and_setting(self) -> None:
        model = results.read(self.folder)
        for more, exact in [
            ({}, True),
            ({"threads": 9, "model_path": "/x", "max_model_len": 4096}, True),
            ({"numerics_class": "cpu amx"}, False),
            ({"dtype": "bf16"}, False),
            ({"device": "cuda"}, False),
            ({"commit": "def"}, False),
        ]:
            self.assertEqual(verify.check_server(model, ServerInfo.read({**fake.VERSION, **more})), exact, more)
        for more, said in [
            ({"model_hash": "b" * 64}, "not this model"),
            ({"rope": {"type": "yarn", "factor": 2}}, "not this setting: rope"),
            ({"forced_dense_layers": [0]}, "not this setting: forced_dense_layers"),
            ({"max_model_len": 64}, "not this setting: max_model_len"),
        ]:
            with self.assertRaisesRegex(VerifyError, said):
                verify.check_server(model, ServerInfo.read({**fake.VERSION, **more}))

    def test_portable_numerics_need_no_other_likeness(self) -> None:
        self.change("results_0.json", lambda data: data["config"]["dtrnet_origin"]["server"].update(numerics_class="portable-1"))
        model = results.read(self.folder)
        for more, exact in [
            ({"numerics_class": "portable-1", "device": "cuda", "commit": "x"}, True),
            ({"numerics_class": "portable-2"}, False),
            ({"numerics_class": "cuda sm_90 f32 high wgmma", "device": "cuda"}, False),
        ]:
            self.assertEqual(verify.check_server(model, ServerInfo.read({**fake.VERSION, **more})), exact)


class Items(Folder):
    def test_picked_by_the_digest(self) -> None:
        scores = sealing.scores_of(results.read(self.folder))
        first = verify.pick(scores, "a" * 64, 2)
        self.assertEqual(first, verify.pick(scores, "a" * 64, 2))
        self.assertEqual(len(first), 4)  # whole items: two requests each
        self.assertNotEqual({tuple(verify.pick(scores, digit * 64, 2)) for digit in "0123456789"}, {tuple(first)})
        self.assertEqual(verify.pick(scores, "a" * 64, 99), scores)

    def test_judgement(self) -> None:
        old = Scored("t", (0, "h"), 0, "loglikelihood", ("c", "e"), -4.0, False)
        text = Scored("t", (1, "h"), 0, "generate_until", ("c", {}), "yes")
        self.assertEqual(verify.judge([Again(old, -4.0, False, 2), Again(text, "yes", None, 1)], True, {"f32"}), "the same to the bit")
        many = [Again(old, -4.0, False, 2)] * 99
        near, far = Again(old, -4.0001, False, 2), Again(old, -4.1, False, 2)
        with self.assertRaisesRegex(VerifyError, "1 of 100 scores differ, where bits must be equal: item 0 of t, request 0: -4.0 there"):
            verify.judge([*many, near], True, {"f32"})
        with self.assertRaisesRegex(VerifyError, "bits must be equal"):
            verify.judge([*many, Again(old, -4.0, True, 2)], True, {"f32"})
        self.assertIn("within the bound", verify.judge([*many, near], False, {"f32"}))
        with self.assertRaisesRegex(VerifyError, "more than another class"):
            verify.judge([*many, far], False, {"f32"})
        self.assertIn("within the bound", verify.judge([*many, far], False, {"f32", "bf16"}))
        with self.assertRaisesRegex(VerifyError, "in the mean"):
            verify.judge([far] * 100, False, {"bf16"})
        self.assertIn("1 generated texts are others", verify.judge([*many, Again(text, "no", None, 1)], False, {"f32"}))


if __name__ == "__main__":
    unittest.main()
