"""The report's tables, curves, items, page and CSV, made of small folders of results."""

import csv
import io
import json
import re
import tempfile
import unittest
import xml.etree.ElementTree
from html.parser import HTMLParser
from pathlib import Path

import fake
from dtrnet_eval import curves, export, itemrouting, items, page, plots, report, results, tables
from dtrnet_eval.answers import Score

HOSTILE = '<script>alert("x")</script> & | `'


class Tags(HTMLParser):
    """Collects attributes, and sees that elements close."""

    VOID = ("meta", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.scripts += tag == "script"
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)

    def tearDown(self) -> None:
        self.temporary.cleanup()

    def model(self, name: str, right: list[int] | None = None, value: float = 0.5, **more: object) -> results.Results:
        folder = self.folder / name
        fake.write_results(folder, {"t": {"acc,none": value, "acc_stderr,none": 0.01}}, **more)
        if right is not None:
            fake.write_samples(folder, "t", right, context=HOSTILE)
        return results.read(folder)


class Tables(Folder):
    def test_n_limits_and_forced_layers_show(self) -> None:
        models = [self.model("whole"), self.model("part", n=3, of=10), self.model("dense", forced_dense_layers=[0, 2])]
        table = tables.accuracy_table(models, parts_of_groups=False)
        self.assertEqual([cell.as_markdown() for cell in table.head], ["task", "metric", "whole", "part", "dense (**forced dense: 0,2**)"])
        row = ["t", "acc", "0.5000 ± 0.0100 (n 4)", "0.5000 ± 0.0100 (**n 3 of 10, limited**)", "0.5000 ± 0.0100 (n 4)"]
        self.assertEqual([cell.as_markdown() for cell in table.rows[0]], row)
        self.assertIn('<small class="warns">n 3 of 10, limited</small>', table.rows[0][3].as_html())
        origins = [[cell.as_markdown() for cell in line] for line in tables.origin_table(models).rows]
        self.assertEqual(origins[0][1:4], ["tiny (aaaaaaaaaaaa)", "cccccccc (rules 4)", "cpu f32 (cpu avx2)"])
        self.assertIn("3 (**limited**)", origins[1])
        self.assertIn("0,2 (**forced**)", origins[2])

    def test_order(self) -> None:
        self.assertEqual(sorted(["a_16k", "a_2k", "a_4k"], key=tables.natural), ["a_2k", "a_4k", "a_16k"])

    def test_ticks(self) -> None:
        cases = {2048: "2k", 1536: "1.5k", 20480: "20k", 512: "512", 1013: "1,013", 100000: "100,000"}
        self.assertEqual({tokens: plots.short(tokens) for tokens in cases}, cases)
        self.assertEqual(plots.tokens_ticks(32, 512), [32, 64, 128, 256, 512])
        self.assertEqual(plots.tokens_ticks(32, 20480), [64, 256, 1024, 4096, 20480])
        self.assertEqual(plots.tokens_ticks(32, 1013)[-1], 1013)


class Curves(Folder):
    def test_series(self) -> None:
        names = ["step-100", "step-20", "step-3", "base-1", "base-2", "other"]
        models = [self.model(name, value=0.1 * i) for i, name in enumerate(names)]
        series = curves.series_of(models)
        self.assertEqual({name: [x for x, _ in points] for name, points in series.items()}, {"step-*": [3, 20, 100]})
        self.assertEqual(curves.panels(series), [("t", "acc")])
        self.assertIsNone(curves.training(models[3:]))
        self.assertIn("<svg", curves.training(models).svg)
        self.assertEqual([model.name for model in report._compared(models[:3])], ["step-3", "step-100"])


class Items(Folder):
    def test_disagreements(self) -> None:
        first, second = self.model("first", [1, 1, 0, 0]), self.model("second", [1, 0, 1, 0])
        found, count = items.disagreements(first, second)
        self.assertEqual(([(one.number, one.right) for one in found], count), ([(1, 0), (2, 1)], 2))
        answers = found[0].answers
        self.assertEqual(
            (answers[0].text, answers[0].right, answers[0].said, answers[0].picked),
            (" choice 0", True, ["-1.000", "-2.000"], [True, False]),
        )
        self.assertEqual(len(items.disagreements(first, second, most=1)[0]), 1)
        self.assertEqual(items.browser(first, first), "")

    def test_routing(self) -> None:
        first, second = self.model("first", [1, 0]), self.model("second", [0, 0])
        kept = itemrouting.ItemRouting(str(self.folder / "first" / itemrouting.FILE))
        kept.add((f"{HOSTILE} 0", " choice 0"), Score(-1.0, False, 0, 1, ("0110", "1111")))
        found, _ = items.disagreements(first, second)
        self.assertEqual(found[0].answers[0].routing, [[0.5, 1.0], []])
        self.assertIn("--v:0.50", items.browser(first, second))
        (self.folder / "first" / itemrouting.FILE).write_text("nonsense")
        with self.assertRaisesRegex(results.ResultsError, "not as this version"):
            items.browser(first, second)


class Pages(Folder):
    def setUp(self) -> None:
        super().setUp()
        self.models = [self.model("first", [1, 1, 0]), self.model("second", [1, 0, 1], model_hash="b" * 64)]
        self.shown = report.parts(self.models)
        self.html = page.as_html(HOSTILE, self.shown)

    def test_html(self) -> None:
        tags = Tags(self.html)
        self.assertEqual((tags.open, tags.scripts), ([], 1))
        self.assertEqual(len(tags.ids), len(set(tags.ids)))
        self.assertFalse(re.findall(r'(?:src|href)="(?![#])', self.html))
        self.assertNotIn("<script>alert", self.html)
        self.assertIn("prefers-color-scheme: dark", self.html)
        titles = [part.title for part in self.shown]
        self.assertEqual(titles, ["Origin", "Tasks", "Item by item", "Disagreements"])

    def test_markdown(self) -> None:
        text = page.as_markdown("T", self.shown, "stem")
        self.assertIn("| t | acc | 0.5000 ± 0.0100 (n 4) | 0.5000 ± 0.0100 (n 4) |", text)
        self.assertNotIn("<", text)

    def test_csv(self) -> None:
        rows = list(csv.DictReader(io.StringIO(export.metrics(self.models))))
        self.assertEqual(
            [(row["results"], row["task"], row["metric"], row["value"], row["n"]) for row in rows],
            [("first", "t", "acc", "0.5", "4"), ("second", "t", "acc", "0.5", "4")],
        )
        self.assertEqual(
            (rows[1]["model_hash"], rows[0]["dtype"], rows[0]["harness"], rows[0]["limited"]), ("b" * 64, "f32", "0.4.13", "0")
        )
        rows = list(csv.DictReader(io.StringIO(export.items(self.models))))
        self.assertEqual(
            [(row["doc_id"], row["first"], row["second"]) for row in rows], [("0", "1.0", "1.0"), ("1", "1.0", "0.0"), ("2", "0.0", "1.0")]
        )

    def test_files(self) -> None:
        written = report._write(self.models, self.folder / "out" / "my.report", "T")
        self.assertEqual([path.name for path in written], ["my.report.html", "my.report.md", "my.report.csv", "my.report-items.csv"])
        self.assertTrue(all(path.stat().st_size for path in written))


class Pictures(Folder):
    LAYERS = (0.5, 1.0)

    def long(self, name: str, lengths: list[int]) -> results.Results:
        cost = {f"{dense}{what}": 2 if dense else 1 for dense in ("", "dense_") for what in ("flops_full", "flops_causal", "kv_rows")}
        by_length = [{"length": n, "nll": 3.0, "nll_stderr": 0.1, "tokens": n, "cost": cost} for n in lengths]
        by_position = [{"from": n, "nll": 3.0, "nll_stderr": 0.1, "tokens": 9, "routed_share": self.LAYERS} for n in (0, 64, 128)]
        data = {"kind": "dtrnet-long", "label": "plain", "documents": 2, "by_length": by_length, "by_position": by_position}
        (self.folder / name).mkdir()
        (self.folder / name / "long.json").write_text(json.dumps({**data, "dtrnet_origin": fake.origin_json()}))
        return results.read(self.folder / name)

    def test_are_themed_and_well_formed(self) -> None:
        models = [self.long("a", [64, 100, 256]), self.long("b", [64, 256])]
        for make in (plots.context, plots.routing_by_position, plots.cost_by_length):
            made = make(models)
            self.assertTrue(made.png.startswith(b"\x89PNG"))
            xml.etree.ElementTree.fromstring(made.svg)
            self.assertIn("currentColor", made.svg)
            self.assertNotIn("#101010", made.svg)
            self.assertNotRegex(made.svg, r'<svg[^>]* width="')
        self.assertIn("var(--s1)", plots.context(models).svg)
        self.assertIn("3.0000 ± 0.1000", [cell.text for cell in tables.length_table(models).rows[0]])

    def test_nothing_to_draw(self) -> None:
        models = [self.model("a")]
        for make in (
            plots.context,
            plots.retrieval,
            plots.routing_by_position,
            plots.routing_by_run,
            plots.cost_by_length,
            plots.time_by_phase,
        ):
            self.assertIsNone(make(models))


class Intervals(unittest.TestCase):
    def test_wilson(self) -> None:
        """Against the values of R's prop.test(x, n, correct = FALSE)."""
        for right, n, low, high in ((0, 1, 0.0, 0.7935), (1, 1, 0.2065, 1.0), (5, 20, 0.1119, 0.4687), (500, 1000, 0.4691, 0.5309)):
            found = plots.wilson(right / n, n)
            self.assertAlmostEqual(found[0], low, places=4)
            self.assertAlmostEqual(found[1], high, places=4)

    def test_points_by_length(self) -> None:
        value = results.Value(0.25, 0.1, 4, 20)
        model = results.Results("m", tasks={"long_passkey_16k": {"exact_match": value}, "long_passkey_2k": {"exact_match": value}})
        model.tasks["niah_single_1"] = {"match at 4096": results.Value(0.5, None, 9, 500), "match at 8192": results.Value(0.25)}
        found = plots.retrieval_series(model)
        self.assertEqual(found["long_passkey"], [(2048, 0.25, 4), (16384, 0.25, 4)])
        self.assertEqual(found["niah_single_1"], [(4096, 0.5, 9), (8192, 0.25, None)])


if __name__ == "__main__":
    unittest.main()
