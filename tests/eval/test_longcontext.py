"""`dtrnet-eval long` against a server in this process: sums, standard errors, and what a person can get wrong."""

import json
import math
import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import fake
from dtrnet_eval import longcontext
from dtrnet_eval.errors import EvalError, NotOursError, OriginError, UsageError

WORDS = 80


def reply(path: str, body: Any, _headers: Any) -> fake.Reply:
    """Tokens are words; document d has a log probability of -(d + 1) a token."""
    if path == "/version":
        return 200, {}, fake.VERSION
    if path == "/tokenize":
        return 200, {}, {"tokens": [int(word) for word in body["prompt"].split()]}
    ids, edges = body["texts"][0], body["bucket_edges"]
    counts = [
        sum(1 for p in range(len(ids)) if edge <= p < (edges[i + 1] if i + 1 < len(edges) else 1 << 30)) for i, edge in enumerate(edges)
    ]
    bucket = {"logprob": [-(ids[0] + 1.0) * n for n in counts], "num_tokens": counts, "rows_routed": [[n // 2 for n in counts], counts]}
    bucket["rows_executed"] = [[n - n // 4 for n in counts], counts]
    usage = {"prompt_tokens": len(ids), "cost": {"flops_full": 1, "dense_flops_full": 2}}
    result = {"logprob": sum(bucket["logprob"]), "num_windows": 1, "buckets": {"by_context": bucket, "by_position": bucket}}
    return 200, {}, {"results": [result], "usage": usage}


class Long(unittest.TestCase):
    def setUp(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.documents = self.folder / "documents.jsonl"
        texts = [" ".join([str(number)] * WORDS) for number in range(3)]
        self.documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        self.out = self.folder / "long.json"

    def tearDown(self) -> None:
        self.temporary.cleanup()

    def run_long(self, *more: str, answer: Any = reply, documents: Path | None = None) -> None:
        with fake.FakeServer(answer) as server:
            line = [str(documents or self.documents), "--base_url", server.url, "--output", str(self.out), *more]
            longcontext.main(line)

    def test_sums(self) -> None:
        self.run_long("--lengths", "32,64")
        found = json.loads(self.out.read_text())
        self.assertEqual([one["length"] for one in found["by_length"]], [32, 64])
        for one in found["by_length"]:
            self.assertAlmostEqual(one["nll"], 2.0)
            self.assertAlmostEqual(one["nll_stderr"], 1 / math.sqrt(3))
            self.assertEqual(one["tokens"], 3 * 64)
        self.assertEqual([row["routed_share"] for row in found["by_position"]], [[0.5, 1.0]])
        self.assertEqual([row["executed_share"] for row in found["by_position"]], [[0.75, 1.0]])
        self.assertEqual(found["dtrnet_origin"]["server"]["model_hash"], "a" * 64)
        self.assertEqual(found["documents"], 3)

    def test_another_origin(self) -> None:
        self.run_long("--lengths", "32")
        self.run_long("--lengths", "64")
        with self.assertRaisesRegex(OriginError, "another origin: dtype f32 there, bf16 here"):
            self.run_long("--lengths", "32", answer=lambda path, *rest: (200, {}, {**fake.VERSION, "dtype": "bf16"}))

    def test_mistakes(self) -> None:
        cases = [
            (["--lengths", "none"], "must be numbers from 2 on"),
            (["--lengths", "1"], "must be numbers from 2 on"),
            (["--lengths", "64,all"], "must be numbers from 2 on"),
            ([], "the server takes 128 positions; for 20480 start it with --max-model-len 20480"),
            (["--lengths", "64,4096"], "or ask for --lengths 64"),
            (["--lengths", "128"], "no document has 128 tokens, the longest has 80; for these documents: --lengths 32,64"),
        ]
        for more, expected in cases:
            with self.assertRaisesRegex(UsageError, expected, msg=more):
                self.run_long(*more)

    def test_documents(self) -> None:
        for content, expected in [
            (b"", "no documents"),
            (b'{"text": "1"}\n[1]\n', "line 2: expected one JSON object"),
            (b'{"txt": "1"}\n', "line 1: expected"),
            (b'{"text": 5}\n', "must be a string"),
            (b"\xff", "not UTF-8"),
        ]:
            path = self.folder / "bad.jsonl"
            path.write_bytes(content)
            with self.assertRaisesRegex(UsageError, expected):
                self.run_long("--lengths", "32", documents=path)
        with self.assertRaisesRegex(UsageError, "No such file"):
            self.run_long("--lengths", "32", documents=self.folder / "none")
        with self.assertRaisesRegex(UsageError, "Is a directory"):
            self.run_long("--lengths", "32", documents=self.folder)

    def test_older_server(self) -> None:
        def older(path: str, body: Any, headers: Any) -> fake.Reply:
            status, more, value = reply(path, body, headers)
            if "results" in value:
                value["usage"] = {}
            return status, more, value

        with self.assertRaisesRegex(NotOursError, "too old"):
            self.run_long("--lengths", "32", answer=older)

    def test_key(self) -> None:
        def locked(path: str, body: Any, headers: Any) -> fake.Reply:
            good = headers.get("Authorization") == "Bearer K"
            return reply(path, body, headers) if good else (401, {}, {"error": {"message": "the API key is missing"}})

        with mock.patch.dict(os.environ, {"DTRNET_API_KEY": "", "OPENAI_API_KEY": ""}):
            with self.assertRaisesRegex(EvalError, "401: the API key is missing; set DTRNET_API_KEY"):
                self.run_long("--lengths", "32", answer=locked)
            file = self.folder / "key"
            file.write_text("K\n")
            self.run_long("--lengths", "32", "--api_key_file", str(file), answer=locked)
        self.assertNotIn("Bearer", self.out.read_text())


class Ratio(unittest.TestCase):
    def test_against_plain_means(self) -> None:
        values = np.random.default_rng(1).normal(size=(8, 3))
        means, errors = longcontext.ratio(values * 10, np.full((8, 3), 10.0))
        for column in range(3):
            self.assertAlmostEqual(means[column], values[:, column].mean())
            self.assertAlmostEqual(errors[column], values[:, column].std(ddof=1) / math.sqrt(8))
        self.assertEqual(longcontext.ratio(np.ones((1, 1)), np.ones((1, 1))), ([1.0], [None]))


if __name__ == "__main__":
    unittest.main()
