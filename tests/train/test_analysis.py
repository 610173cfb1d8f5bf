"""FLOPs against the project's accounting; routing counted by groups against counts made one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dtrnet_train import account, analysis, flops, groups, shape
from dtrnet_train.errors import UserError
from dtrnet_train.model import attends, executes, load
from dtrnet_train.rows import make_rows
from dtrnet_train.tokens import TokenFile
from support import corpus, trainer

TESTS = Path(__file__).resolve().parents[1]
TOKENIZER = TESTS.parent / "models" / "dtrnet-26m" / "tokenizer.model"
ACCOUNTS = json.loads((TESTS / "ultradeep" / "accounting.json").read_text())


def shape_of(case: dict[str, Any]) -> shape.Shape:
    """The case's own config, or the 360M one with its layout."""
    own = TESTS / "ultradeep" / case["name"] / "config.json"
    if own.is_file():
        return shape.read(json.loads(own.read_text()))
    raw = json.loads((TESTS / "golden" / "configs" / "360m-dense.json").read_text())
    raw |= {"layer_layout": case["layout"], "num_hidden_layers": len(case["layout"])}
    return shape.read(raw | ({"router_type": "mamba"} if "mamba" in case["name"] else {}))


@pytest.mark.parametrize("case", ACCOUNTS, ids=lambda c: f"{c['name']}-{c['T']}-{c['e']}-{c['a']}-{c['pairs']}")
def test_flops(case: dict[str, Any]) -> None:
    model = shape_of(case)
    shares = flops.shares_at(model, case["a"], case["e"])
    got, want = flops.forward(model, case["T"], *shares, case["pairs"] == "full"), case["flops"]
    assert got["projections"] == pytest.approx(want["vo"] + want["qk"], abs=1)
    for part in ("scores", "mlp", "router"):
        assert got[part] == pytest.approx(want[part], abs=1)
    assert got["head"] == case["T"] * case["head_flops_per_token"]
    assert flops.kv_rows(model, *shares) == pytest.approx(case["kv_rows_per_token"])


def test_flops_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = TESTS.parent / "configs" / "train" / "360m-bilayer.yaml"
    account.main([str(config), "--lengths", "2048,20480"])
    assert "| 20,480 |" in capsys.readouterr().out
    (tmp_path / "routing.json").write_text(json.dumps({"layers": [{"execute": 1, "attend": 1}] * 3}))
    with pytest.raises(UserError, match="has 3 layers, the model 32"):
        account.main([str(config), "--routing", str(tmp_path / "routing.json")])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a nested checkpoint whose tokens go all three ways."""
    folder = tmp_path_factory.mktemp("routing")
    trainer(folder, "nested", train__steps=12, train__batch=4, routing__target_attn=0.5, routing__target_exec=0.6).run()
    return folder


@torch.no_grad()
def test_routing_counts(run: Path, capsys: pytest.CaptureFixture) -> None:
    """By layer and by position, document by document; cosines by the formula."""
    folder, length, documents = next((run / "run").glob("step-*")), 50, 7
    analysis.main([str(folder), str(corpus(run)), "--length", str(length), "--documents", str(documents), "--out", str(run / "out")])
    capsys.readouterr()
    got, model = json.loads((run / "out" / "routing.json").read_text()), load(folder)
    total, ran, went, first, streams = 0, torch.zeros(4), torch.zeros(4), torch.zeros(4), []
    for ids in TokenFile(corpus(run), 1, 1).documents()[:documents]:
        for begin in range(0, len(ids) - 1, length):
            tokens = torch.from_numpy(ids[begin : begin + length + 1].astype(np.int64))[:-1]
            starts = np.zeros((1, len(tokens)), bool)
            starts[:, 0] = True
            stream, records = model.run(tokens, make_rows(starts))
            e = torch.stack([executes(r, tokens) for r in records], 1)
            a = torch.stack([attends(r, letter, tokens) for r, letter in zip(records, "TSTS")], 1)
            total, ran, went, first = total + len(tokens), ran + e.sum(0), went + a.sum(0), first + a[0]
            streams.append(torch.stack(stream))
    assert got["tokens"] == total
    assert [x["execute"] for x in got["layers"]] == pytest.approx((ran / total).tolist())
    assert [x["attend"] for x in got["layers"]] == pytest.approx((went / ran).tolist())
    zero = got["by"]["position"][0]
    assert zero["group"] == "0"
    assert [x["attend_of_all"] for x in zero["layers"]] == pytest.approx((first / zero["tokens"]).tolist())
    whole = torch.cat(streams, 1)
    wanted = [[torch.cosine_similarity(x, y, dim=-1).mean().item() for y in whole] for x in whole]
    assert np.array(got["cosine"]) == pytest.approx(np.array(wanted), abs=1e-4)
    assert got["layers"][1]["cosine"]["skipped"] == pytest.approx(1)  # a skipped token is not changed


def test_routing_prints_without_a_folder(run: Path, capsys: pytest.CaptureFixture) -> None:
    analysis.main([str(next((run / "run").glob("step-*"))), str(corpus(run)), "--documents", "2"])
    said = capsys.readouterr().out
    assert "| layer | kind |" in said and "by position" in said and "word frequency" not in said


@pytest.mark.parametrize(
    ("piece", "name"),
    [
        ("▁the", "word begins"),
        ("ing", "word goes on"),
        ("▁Ä", "word begins"),
        ("7", "number"),
        ("▁", "space"),
        ("\n", "space"),
        (",", "punctuation"),
        ("▁(", "punctuation"),
        ("$", "punctuation"),
        ("a.", "other"),
    ],
)
def test_classes(piece: str, name: str) -> None:
    assert groups.CLASSES[groups.class_of(piece)] == name


def test_words_and_their_frequency() -> None:
    vocabulary = groups.Vocabulary(TOKENIZER)
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
    texts = ["The cat, the unbelievable dog.", "the end"]
    documents = [np.array([1, *model.encode(text)]) for text in texts]
    counts = groups.word_counts(documents, vocabulary)
    for ids, count in zip(documents, counts):
        for word, n in zip(vocabulary.words(ids), count):
            assert n == {"the": 3, "": 0}.get(word, 1), (word, n)
    assert set(filter(None, vocabulary.words(documents[0]))) == {"the", "cat", "unbelievable", "dog"}


def test_buckets() -> None:
    assert groups.buckets((0, 1, 4)) == ["0", "1 to 3", "4 on"]
    assert groups.bucket_of(np.array([0, 1, 3, 4, 99]), (0, 1, 4)).tolist() == [0, 1, 1, 2, 2]
    assert groups.bucket_of(np.array([0, 2]), (1, 2)).tolist() == [-1, 1]
