"""Records of origin: what may lie together, and what is refused with the difference named."""

import json
import tempfile
import unittest
from pathlib import Path

import fake
from dtrnet_eval import origin
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.errors import OriginError, ResultsError
from dtrnet_eval.origin import Origin

SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}


def record(limit: float | None = None, harness: str = "0.4.13", seeds: dict | None = None, **server: object) -> Origin:
    info = ServerInfo.read({**fake.VERSION, **server})
    return Origin.now(info, "dtrnet", harness=harness, limit=limit, seeds=SEEDS if seeds is None else seeds)


OTHERS = {
    "model_hash": record(model_hash="b" * 64),
    "dtype": record(dtype="bf16"),
    "device": record(device="cuda"),
    "numerics_class": record(numerics_class="cpu amx"),
    "rope": record(rope={"type": "yarn", "factor": 10}),
    "forced_dense_layers": record(forced_dense_layers=[0]),
    "dense_layers": record(dense_layers=[0, 1]),
    "version": record(version="0.2.0"),
    "commit": record(commit="def"),
    "max_model_len": record(max_model_len=64),
    "tokenizer_hash": record(tokenizer_hash="d" * 64),
    "tokenizer_rules": record(tokenizer_rules=5),
    "limit": record(limit=4.0),
    "harness": record(harness="0.4.9"),
    "seeds": record(seeds={**SEEDS, "fewshot": 7}),
}


class Together(unittest.TestCase):
    def test_others_are_refused(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            origin.check(folder, record())
            origin.check(folder / "nothing", record())
            fake.write_results(folder / "run" / "tiny")
            origin.check(folder, record())
            for field, other in OTHERS.items():
                with self.assertRaisesRegex(OriginError, rf"results of another origin: .*{field}", msg=field):
                    origin.check(folder, other)
                origin.check(folder, other, without=(field,))

    def test_without_effect(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            fake.write_results(Path(name), devices=[{"device": 0, "status": "ok"}], tensor_parallel=1)
            lost = {"devices": [{"device": 0, "status": "ok"}, {"device": 3, "status": "failed"}], "tensor_parallel": 2}
            elsewhere = {"model_path": "/elsewhere", "tokenizer_path": "/there", "model": "other name"}
            origin.check(Path(name), record(threads=64, prefix_cache=False, kv_rows_total=1, **elsewhere, **lost))

    def test_unknown_origin(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = fake.write_results(Path(name))
            with self.assertRaisesRegex(OriginError, "with and without a record"):
                origin.check(Path(name), None)
            data = json.loads(path.read_text())
            data["config"] = {}
            path.write_text(json.dumps(data))
            origin.check(Path(name), None)
            with self.assertRaisesRegex(OriginError, "with and without a record"):
                origin.check(Path(name), record())

    def test_a_json_file_as_place(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = fake.write_results(Path(name))
            path.rename(Path(name) / "mine_2026.json")
            origin.check(Path(name) / "other.json", OTHERS["dtype"])
            with self.assertRaises(OriginError):
                origin.check(Path(name) / "mine.json", OTHERS["dtype"])


class Reading(unittest.TestCase):
    def test_round_trip(self) -> None:
        made = record(limit=3.0)
        self.assertEqual(origin.read({origin.KEY: json.loads(json.dumps(made.as_json()))}, Path("x")), made)
        self.assertNotIn("api_key", json.dumps(made.as_json()))

    def test_of_the_first_version(self) -> None:
        old = origin.read({"dtrnet_server": fake.VERSION, "limit": 8}, Path("x"))
        assert old is not None
        self.assertEqual((old.info.model, old.limit, old.package), ("tiny", 8, "0.1.0"))
        self.assertIsNone(origin.read({}, Path("x")))

    def test_damaged(self) -> None:
        good = record().as_json()
        for bad in (5, {}, {**good, "schema": 2}, {**good, "server": {}}, {**good, "server": None}, {**good, "surplus": 1}):
            with self.assertRaisesRegex(ResultsError, "record of origin"):
                origin.read({origin.KEY: bad}, Path("x"))


if __name__ == "__main__":
    unittest.main()
