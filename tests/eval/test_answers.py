"""Typed answers: what is there is read, what is missing or of another type is named."""

import unittest
from typing import Any

import fake
from dtrnet_eval import answers
from dtrnet_eval.errors import NotOursError
from dtrnet_eval.totals import RunTotals

USAGE = {"prompt_tokens": 14, "scored_tokens": 2, "computed_tokens": 7, "cached_tokens": 6, "rows_routed": [0, 12], "cost": {"kv_rows": 62}}
ONE = {"logprob": -4.5, "is_greedy": False, "num_tokens": 1, "truncated": 0}
SCORES = {"results": [{"continuations": [ONE, {**ONE, "routing": ["01", "11"]}]}], "usage": USAGE}
ROLLED = {"results": [{"logprob": -7, "num_tokens": 3, "num_windows": 1}], "usage": USAGE}
TEXTS = {"choices": [{"index": 0, "text": " a", "finish_reason": "stop"}], "usage": {"prompt_tokens": 4, "prompt_tokens_details": {}}}


def without(value: Any, *path: Any) -> Any:
    """A copy that lacks what the path leads to."""
    if isinstance(value, list):
        return [without(one, *path[1:]) if i == path[0] else one for i, one in enumerate(value)]
    if len(path) == 1:
        return {name: one for name, one in value.items() if name != path[0]}
    return {name: without(one, *path[1:]) if name == path[0] else one for name, one in value.items()}


class Reading(unittest.TestCase):
    def test_whole(self) -> None:
        scores = answers.ScoreAnswer.read(SCORES)
        self.assertEqual(scores.results[0][1].routing, ("01", "11"))
        self.assertEqual(scores.results[0][0], answers.Score(-4.5, False, 0, 1))
        self.assertEqual(answers.RollingAnswer.read(ROLLED).results[0].logprob, -7.0)
        self.assertEqual(answers.CompletionAnswer.read(TEXTS).choices, [answers.Choice(0, " a")])
        info = answers.ServerInfo.read(fake.VERSION)
        self.assertEqual((info.model, info.max_model_len, info.bos, info.rope.type, info.forced_dense), ("tiny", 128, 1, "default", ()))

    def test_missing(self) -> None:
        cases = [
            (answers.ScoreAnswer, SCORES, ["results"]),
            (answers.ScoreAnswer, SCORES, ["usage"]),
            (answers.ScoreAnswer, SCORES, ["results", 0, "continuations"]),
            (answers.ScoreAnswer, SCORES, ["results", 0, "continuations", 0, "logprob"]),
            (answers.ScoreAnswer, SCORES, ["results", 0, "continuations", 1, "is_greedy"]),
            (answers.RollingAnswer, ROLLED, ["results", 0, "num_windows"]),
            (answers.CompletionAnswer, TEXTS, ["choices", 0, "text"]),
            (answers.ServerInfo, fake.VERSION, ["model_hash"]),
            (answers.ServerInfo, fake.VERSION, ["max_model_len"]),
        ]
        for kind, value, path in cases:
            kind.read(value)
            with self.assertRaisesRegex(NotOursError, str(path[-1]), msg=path):
                kind.read(without(value, *path))

    def test_other_types(self) -> None:
        for value in (None, [], "text", 5, {"tokens": "345"}, {"tokens": None}):
            with self.assertRaises(NotOursError):
                answers.TokensAnswer.read(value)
        with self.assertRaises(NotOursError):
            answers.ServerInfo.read({**fake.VERSION, "max_model_len": True})


class Totals(unittest.TestCase):
    def test_sums(self) -> None:
        totals = RunTotals()
        totals.add(answers.Usage.read(USAGE), 2)
        totals.add(answers.Usage.read({**USAGE, "rows_routed": [6, 12, 1], "rows_executed": [12, 12, 6]}), 2)
        summary = totals.summary()
        self.assertEqual(summary["positions"], 24)
        self.assertEqual(summary["rows_routed"], [6, 24, 1])
        self.assertEqual(summary["routed_share"], [0.25, 1.0, 0.041667])
        self.assertEqual((summary["rows_executed"], summary["executed_share"]), ([12, 12, 6], [0.5, 0.5, 0.25]))
        self.assertNotIn("executed_share", RunTotals().summary())
        self.assertEqual((summary["scored_tokens"], summary["cost"]), (4, {"kv_rows": 124}))
        self.assertEqual(RunTotals().summary()["routed_share"], [])


if __name__ == "__main__":
    unittest.main()
