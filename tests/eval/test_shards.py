"""Who asks what, and answers on disk: nothing twice, nothing lost, a torn line dropped, shards of another origin or unfinished refused."""

import dataclasses
import random
import tempfile
import unittest
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import fake
from dtrnet_eval import answerlog, fleet, merge, merged, shardrun, shards, suites
from dtrnet_eval.answerlog import Answer, AnswerFile
from dtrnet_eval.answers import ServerInfo, Usage
from dtrnet_eval.errors import EvalError, OriginError, ResultsError, UsageError
from dtrnet_eval.origin import Origin
from dtrnet_eval.shards import Name, Shard

RECORD = Origin(**{name: value for name, value in fake.origin_json().items() if name != "schema"})
USAGE = Usage({"prompt_tokens": 10, "computed_tokens": 4}, [1, 2], [], {"kv_rows": 3})


class Asked(NamedTuple):
    """As much of the harness's Instance as is looked at."""

    task_name: str
    doc_id: int
    idx: int


def items(counts: dict[str, int], each: int = 2, repeats: int = 1) -> list[Asked]:
    return [Asked(task, doc, idx) for task, n in counts.items() for doc in range(n) for idx in range(each) for _ in range(repeats)]


class WhoAsksWhat(unittest.TestCase):
    def test_each_place_once_and_items_whole(self) -> None:
        chosen = random.Random(1)
        for counts, each, of in (({"a": 7, "b": 1}, 2, 3), ({"a": 1}, 4, 5), ({"a": 100, "b": 30, "c": 3}, 3, 7), ({}, 1, 2)):
            named = shards.names(items(counts, each))
            work = [chosen.randrange(1, 50) for _ in named]
            found = [shards.mine(named, work, Shard(n, of)) for n in range(1, of + 1)]
            self.assertEqual([place for share in found for place in share], list(range(len(named))))
            owners = {named[place][:2]: n for n, share in enumerate(found) for place in share}
            self.assertTrue(all(owners[named[place][:2]] == n for n, share in enumerate(found) for place in share))

    def test_equal_work(self) -> None:
        named = shards.names(items({"a": 300, "b": 100}, 1))
        work = [1] * 300 + [3] * 100
        self.assertEqual([len(shards.mine(named, work, Shard(n, 4))) for n in (1, 2, 3, 4)], [150, 150, 50, 50])

    def test_names_differ(self) -> None:
        named = shards.names(items({"a": 3}, 2, repeats=3))
        self.assertEqual(len(set(named)), 18)
        self.assertEqual(named[:3], [Name("a", 0, 0, 0), Name("a", 0, 0, 1), Name("a", 0, 0, 2)])

    def test_weights(self) -> None:
        base = shards.WEIGHT_OF_A_REQUEST
        self.assertEqual(shards.weights([("abc", "d"), ("abc", "e"), ("x",)]), [base + 4, base + 1, base + 1])
        for a, b, n in (("", "", 0), ("a", "", 0), ("abc", "abd", 2), ("abc", "abc", 3), ("ab", "abc", 2), ("xbc", "abc", 0)):
            self.assertEqual(shards.common(a, b), n)

    def test_read(self) -> None:
        self.assertEqual(Shard.read("2/4"), Shard(2, 4))
        for text in ("", "0/4", "5/4", "2", "2/", "a/b", "2/4/5", "-1/4", "1/10001", "²/4"):
            with self.assertRaisesRegex(UsageError, "a shard is K/N"):
                Shard.read(text)


class OnDisk(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def answer(self, item: int, value: Any = (-1.5, True), kind: str = "loglikelihood") -> Answer:
        name = Name("t", item, 0, 0)
        return Answer(kind, {name: (answerlog.asked(kind, (f"c{item}", "x")), value)}, USAGE, 1, 0, 0.5)

    def write(self, shard: Shard, *answers: Answer, record: Origin = RECORD, end: bool = True, settings: Any = "s") -> Path:
        path = self.folder / shard.file
        file = AnswerFile(path, shard, record)
        for one in answers:
            file.add(one)
        if end:
            file.finish(settings=settings)
        else:
            file._file.close()
        return path

    def test_written_and_read(self) -> None:
        values = [(-0.1, False), (float("-inf"), True), (5e-324, False)]
        asked = [self.answer(n, value) for n, value in enumerate(values)]
        asked += [self.answer(7, -3.25, "loglikelihood_rolling"), self.answer(8, 'a "text"\n', "generate_until")]
        found = answerlog.read(self.write(Shard(1, 2), *asked))
        self.assertEqual((found.answers, found.shard, found.origin.compared()), (asked, Shard(1, 2), RECORD.compared()))
        self.assertTrue(answerlog.ended(self.folder / Shard(1, 2).file))

    def test_every_torn_line_is_dropped(self) -> None:
        """Cut within, at and behind each line: what is whole stays, what is not is asked again."""
        path = self.write(Shard(1, 2), self.answer(0), self.answer(1), end=False)
        whole = path.read_bytes()
        ends = [at + 1 for at, byte in enumerate(whole) if byte == 10]
        for size in sorted({0, 1, len(whole) // 3, *(end + by for end in ends for by in (-2, -1, 0, 1) if end + by <= len(whole))}):
            path.write_bytes(whole[:size])
            file = AnswerFile(path, Shard(1, 2), RECORD)
            self.assertEqual(len(file.before), max(0, sum(size >= end for end in ends) - 1), size)
            file.add(self.answer(5))
            file.finish()
            self.assertEqual([next(iter(one.values)).item for one in answerlog.read(path).answers][-1], 5)

    def test_ended_and_begun_again(self) -> None:
        path = self.write(Shard(1, 2), self.answer(0))
        self.write(Shard(1, 2), self.answer(1))
        self.assertEqual(len(answerlog.read(path).answers), 2)

    def test_of_another_origin(self) -> None:
        self.write(Shard(1, 2), self.answer(0))
        others = {
            "limit": dataclasses.replace(RECORD, limit=4.0),
            "model_hash": Origin(**{**vars(RECORD), "server": {**RECORD.server, "model_hash": "b"}}),
        }
        others["fewshot"] = dataclasses.replace(RECORD, seeds={"fewshot": 1})
        for what, record in others.items():
            with self.assertRaisesRegex(OriginError, what):
                AnswerFile(self.folder / Shard(1, 2).file, Shard(1, 2), record)
        self.assertEqual(len(answerlog.read(self.folder / Shard(1, 2).file).answers), 1)

    def test_one_writer(self) -> None:
        file = AnswerFile(self.folder / "x.jsonl", Shard(1, 1), RECORD)
        with self.assertRaisesRegex(UsageError, "another process works on this shard"):
            AnswerFile(self.folder / "x.jsonl", Shard(1, 1), RECORD)
        file.discard()
        self.assertFalse((self.folder / "x.jsonl").exists())

    def test_damaged(self) -> None:
        path = self.write(Shard(1, 1), self.answer(0))
        head, line, end = path.read_text().splitlines()
        for text in (
            "[]",
            "{}",
            head.replace('"schema":1', '"schema":9'),
            f"{head}\n{{}}",
            f"{head}\nnull\n{end}",
            f"{line}\n{head}",
            f"{head}\nx",
        ):
            path.write_text(text + "\n")
            with self.assertRaisesRegex(ResultsError, "not answers as this version writes them"):
                answerlog.read(path)

    def test_whole(self) -> None:
        for n in (1, 2):
            self.write(Shard(n, 2), self.answer(n))
        whole = merged.Whole(self.folder)
        self.assertEqual(whole.value("loglikelihood", Name("t", 2, 0, 0), ("c2", "x")), (-1.5, True))
        summary = whole.summary()
        self.assertEqual(
            (summary["prompt_tokens"], summary["rows_routed"], summary["shards"], summary["seconds"]["loglikelihood"]), (20, [2, 4], 2, 1.0)
        )
        with self.assertRaisesRegex(ResultsError, "item 3 of t is in no shard"):
            whole.value("loglikelihood", Name("t", 3, 0, 0), ("c3", "x"))
        with self.assertRaisesRegex(ResultsError, "item 1 of t was asked otherwise"):
            whole.value("loglikelihood", Name("t", 1, 0, 0), ("another few-shot prompt", "x"))
        self.assertEqual(whole.record(RECORD).server, RECORD.server)
        with self.assertRaisesRegex(OriginError, "the shards were asked otherwise: limit none there, 3.0 here"):
            whole.record(dataclasses.replace(RECORD, limit=3.0))

    def test_not_whole(self) -> None:
        with self.assertRaisesRegex(ResultsError, "no answers of shards"):
            merged.Whole(self.folder)
        self.write(Shard(1, 3), self.answer(1))
        self.write(Shard(2, 3), self.answer(2), end=False)
        with self.assertRaisesRegex(ResultsError, "of 3 shards these are not finished: 2, 3"):
            merged.Whole(self.folder)
        self.write(Shard(1, 2), self.answer(1))
        with self.assertRaisesRegex(ResultsError, "divided into 2 and into 3 shards"):
            merged.Whole(self.folder)

    def test_of_two_origins(self) -> None:
        other = Origin(**{**vars(RECORD), "server": {**RECORD.server, "numerics_class": "cpu avx512"}})
        self.write(Shard(1, 2), self.answer(1))
        self.write(Shard(2, 2), self.answer(2), record=other)
        with self.assertRaisesRegex(OriginError, "shard 2/2 is of another origin than 1/2: numerics_class"):
            merged.Whole(self.folder)
        (self.folder / Shard(2, 2).file).unlink()
        self.write(Shard(2, 2), self.answer(2), settings="other")
        with self.assertRaisesRegex(OriginError, "settings s there, other here"):
            merged.Whole(self.folder)


class OfASuite(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        path = self.folder / "mine.yaml"
        path.write_text("runs: [{tasks: [a], name: x}]\n")
        self.suite = suites.load(str(path))

    def test_told(self) -> None:
        run, out = self.suite.runs[0], self.folder / "out"
        self.assertIsNone(shardrun.told(self.suite, run, out))
        for _ in range(2):
            shardrun._tell(self.suite, run, out, ["--limit", "4"])
        self.assertEqual([path.name for path in shardrun.shards_of(out, run).iterdir()], [shardrun.RUN])
        with self.assertRaisesRegex(UsageError, "shards with other arguments"):
            shardrun._tell(self.suite, run, out, ["--limit", "5"])
        self.suite.runs[0]["tasks"] = ["b"]
        with self.assertRaisesRegex(UsageError, "shards of other tasks"):
            shardrun.told(self.suite, run, out)
        (shardrun.shards_of(out, run) / shardrun.RUN).write_text("[]")
        with self.assertRaisesRegex(UsageError, "not as this version writes it"):
            shardrun.told(self.suite, run, out)

    def test_nothing_to_merge(self) -> None:
        for make, expected in ((False, "is not a folder"), (True, "there are no shards")):
            if make:
                (self.folder / "out").mkdir()
            with self.assertRaisesRegex(EvalError, expected):
                merge.main([str(self.folder / "mine.yaml"), str(self.folder / "out")])

    def test_line_has_no_key_and_no_results(self) -> None:
        with mock.patch.object(suites, "subprocess") as ran:
            ran.run.return_value.returncode = 0
            server = shardrun.Access("http://h:1", api_key_file=str(self.folder / "mine.yaml"))
            with mock.patch.object(shardrun.Access, "key", return_value="secret"):
                shardrun.run_shard(self.suite, server, self.folder / "out", ["--limit", "2"], Shard(2, 4))
            line, environment = ran.run.call_args.args[0], ran.run.call_args.kwargs["env"]
        self.assertNotIn("secret", " ".join(line))
        self.assertEqual(environment["DTRNET_API_KEY"], "secret")
        given = line[line.index("--model_args") + 1]
        self.assertEqual(given, f"base_url=http://h:1,shard=2/4,answers={self.folder}/out/shards/x/answers-2-of-4.jsonl")
        self.assertNotIn("--output_path", line)


class Fleet(unittest.TestCase):
    def test_groups(self) -> None:
        def info(**more: Any) -> ServerInfo:
            return ServerInfo.read({**fake.VERSION, **more})

        other = info(model_hash="b" * 64)
        found = fleet.groups_of([("a", info()), ("b", info(threads=9)), ("c", other), ("d", info(model="big", model_hash="c" * 64))])
        self.assertEqual(
            [(group.name, group.urls) for group in found], [("tiny-aaaaaaaa", ["a", "b"]), ("tiny-bbbbbbbb", ["c"]), ("big", ["d"])]
        )
        with self.assertRaisesRegex(UsageError, "one model with different settings"):
            fleet.groups_of([("a", info()), ("b", info(dtype="bf16"))])

    def test_who_is_away_is_left_out(self) -> None:
        with fake.FakeServer(fake.version_only) as one:
            access = fleet.Access(f"{one.url}+http://127.0.0.1:1")
            with (
                mock.patch.object(fleet.Client, "version", autospec=True, side_effect=lambda client, _: _version(client.root, one.url)),
                mock.patch("builtins.print"),
            ):
                self.assertEqual([url for url, _ in fleet._ask(access)], [one.url])
            with self.assertRaisesRegex(UsageError, "twice"):
                fleet._ask(fleet.Access("http://a+http://a"))


def _version(root: str, up: str) -> ServerInfo:
    if root != up:
        raise fleet.UnreachableError("away")
    return ServerInfo.read(fake.VERSION)


if __name__ == "__main__":
    unittest.main()
