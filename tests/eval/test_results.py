"""Reading result folders: values with n, items, what is never merged, and files that are damaged."""

import json
import tempfile
import unittest
from pathlib import Path

import fake
from dtrnet_eval import results
from dtrnet_eval.errors import OriginError, ResultsError

LONG = {
    "kind": "dtrnet-long",
    "label": "plain",
    "documents": 2,
    "by_length": [{"length": 64, "nll": 3.5, "nll_stderr": 0.1, "tokens": 128, "cost": {"flops_full": 1, "dense_flops_full": 2}}],
    "by_position": [{"from": 0, "nll": 3.5, "nll_stderr": 0.1, "tokens": 128, "routed_share": [0.5, 1.0]}],
}


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)

    def tearDown(self) -> None:
        self.temporary.cleanup()


class Values(Folder):
    def test_n_and_limits(self) -> None:
        fake.write_results(self.folder / "run", n=3, of=10)
        value = results.read(self.folder).tasks["t"]["acc"]
        self.assertEqual((value.value, value.error, value.n, value.of, value.limited), (0.5, 0.25, 3, 10, True))
        fake.write_results(self.folder / "whole", {"u": {"acc,none": 1.0}})
        self.assertFalse(results.read(self.folder).tasks["u"]["acc"].limited)

    def test_a_ruler_length_has_a_count_of_its_own(self) -> None:
        """A run of one length counts its items; the items of a run of several are those of all together."""
        for run, lengths in (("one", {"2048": 0.5, "4096": -1}), ("two", {"4096": 0.5, "8192": 0.0})):
            fake.write_results(self.folder / run, {f"niah_{run}": {f"{length},none": value for length, value in lengths.items()}}, 3, 10)
        found = results.read(self.folder).tasks
        self.assertEqual({name: (value.n, value.of) for name, value in found["niah_one"].items()}, {"match at 2048": (3, 10)})
        self.assertEqual({name: value.n for name, value in found["niah_two"].items()}, {"match at 4096": None, "match at 8192": None})

    def test_groups_count_their_parts(self) -> None:
        path = fake.write_results(
            self.folder, {"a": {"acc,none": 1.0}, "b": {"acc,none": 0.0}, "g": {"acc,none": 0.5}, "top": {"acc,none": 0.5}}
        )
        data = json.loads(path.read_text())
        data["group_subtasks"] = {"top": ["g"], "g": ["a", "b"]}
        data["n-samples"] = {"a": {"original": 5, "effective": 5}, "b": {"original": 9, "effective": 2}}
        path.write_text(json.dumps(data))
        found = results.read(self.folder)
        self.assertEqual((found.tasks["top"]["acc"].n, found.tasks["top"]["acc"].of), (7, 14))
        self.assertEqual(found.parts, {"g", "a", "b"})

    def test_items_are_paired_by_document(self) -> None:
        fake.write_results(self.folder)
        fake.write_samples(self.folder, "t", [1, 0])
        self.assertEqual(results.read(self.folder).metrics_of("t"), {(0, "hash0"): {"acc": 1.0}, (1, "hash1"): {"acc": 0.0}})


class NeverMerged(Folder):
    def test_two_origins_in_one_folder(self) -> None:
        changes = [("model_hash", "b" * 64), ("dtype", "bf16"), ("rope", {"type": "yarn", "factor": 4}), ("forced_dense_layers", [2])]
        changes += [("tokenizer_hash", "d" * 64), ("tokenizer_rules", 5)]
        for number, (field, value) in enumerate(changes):
            folder = self.folder / str(number)
            fake.write_results(folder / "one")
            results.read(folder)
            fake.write_results(folder / "two", **{field: value}).rename(folder / "two" / "results_9.json")
            with self.assertRaisesRegex(OriginError, f"more than one origin.*{field}.*name a folder for each"):
                results.read(folder)

    def test_known_and_unknown(self) -> None:
        fake.write_results(self.folder / "one")
        data = {"results": {"u": {"acc,none": 1}}, "config": {}}
        (self.folder / "results_x.json").write_text(json.dumps(data))
        with self.assertRaisesRegex(OriginError, "with and without a record"):
            results.read(self.folder)

    def test_curves_of_another_model(self) -> None:
        fake.write_results(self.folder)
        (self.folder / "long.json").write_text(json.dumps({**LONG, "dtrnet_origin": fake.origin_json(dtype="bf16")}))
        self.assertEqual(len(results.read(self.folder).long), 1)
        (self.folder / "other.json").write_text(json.dumps({**LONG, "dtrnet_origin": fake.origin_json(model_hash="b" * 64)}))
        with self.assertRaisesRegex(OriginError, "more than one model"):
            results.read(self.folder)

    def test_names_of_columns(self) -> None:
        for parent in ("a", "b"):
            fake.write_results(self.folder / parent / "results")
        found = results.read_all([self.folder / "a" / "results", self.folder / "b" / "results"])
        self.assertEqual([one.name for one in found], ["a/results", "b/results"])
        with self.assertRaisesRegex(ResultsError, "named twice"):
            results.read_all([self.folder / "a", self.folder / "b" / ".." / "a"])


class Damaged(Folder):
    CASES = (
        ("results_a.json", '{"results": ', "not readable as JSON"),
        ("results_a.json", "[]", "not a JSON object"),
        ("results_a.json", '{"results": []}', "not a results file"),
        ("results_a.json", '{"results": {"t": 1}, "config": {}}', "not a results file"),
        ("results_a.json", '{"results": {"t": {"acc": 0.5}}, "config": {}}', "was it another version"),
        ("results_a.json", '{"results": {"t": {"acc,none": 1}}, "config": {"dtrnet_run": 5}}', "not as this version writes it"),
        ("results_a.json", '{"results": {"t": {"acc,none": 1}}, "config": {"dtrnet_origin": 5}}', "record of origin"),
        ("samples_t_1.jsonl", '{"acc": 1}', "not a samples file"),
        ("samples_t_1.jsonl", "[1]", "not a samples file"),
        ("samples_t_1.jsonl", "nonsense", "not a samples file"),
        ("long.json", '{"kind": "dtrnet-long", "by_length": [{"length": 2048, "nll": 3.5}]}', "not as this version of `dtrnet-eval long`"),
        ("long.json", '{"kind": "dtrnet-long"}', "not as this version of `dtrnet-eval long`"),
        ("long.json", "\udcff", "not readable as JSON"),
        ("other.json", "{}", "no results of the harness and none of"),
    )

    def test_each(self) -> None:
        for number, (name, content, expected) in enumerate(self.CASES):
            folder = self.folder / str(number)
            folder.mkdir()
            (folder / name).write_text(content, errors="surrogateescape")
            with self.assertRaisesRegex(ResultsError, expected, msg=(name, content)):
                results.read(folder)
        with self.assertRaisesRegex(ResultsError, "is not a folder"):
            results.read(self.folder / "nothing")


if __name__ == "__main__":
    unittest.main()
