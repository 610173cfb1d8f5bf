"""From text to token files, and training a tokenizer.

Text comes from .txt files (a document each) and .jsonl files (a document a line, under "text"), or from folders of them, in sorted order.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dtrnet_train import tokens
from dtrnet_train.errors import fail, require


def files_of(paths: list[Path]) -> list[Path]:
    """The text files in the given files and folders."""
    out = []
    for path in paths:
        require(path.exists(), f"{path}: no such file or folder")
        out += sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".jsonl")) if path.is_dir() else [path]
    require(out, f"{paths[0]}: no .txt or .jsonl file in it")
    return out


def documents(paths: list[Path], key: str = "text") -> Iterator[str]:
    """Texts, one a document; empty ones are left out."""
    for path in files_of(paths):
        try:
            if path.suffix != ".jsonl":
                yield path.read_text(encoding="utf-8")
                continue
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _text_of(line, key, f"{path}:{number}")
        except UnicodeDecodeError:
            fail(f"{path}: not UTF-8")


def _text_of(line: str, key: str, where: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        fail(f"{where}: not JSON")
    require(isinstance(row, dict) and isinstance(row.get(key), str), f"{where}: no text under {key!r}")
    return row[key]


def train_tokenizer(paths: list[Path], out: Path, vocab_size: int, key: str) -> None:
    """SentencePiece BPE as the shipped models have it: byte fallback, single digits, no normalisation, unk 0, bos 1, eos 2."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for text in documents(paths, key) for line in text.splitlines() if line),
            model_writer=model, model_type="bpe", vocab_size=vocab_size, byte_fallback=True, split_digits=True,
            normalization_rule_name="identity", character_coverage=0.9999, max_sentence_length=16384, minloglevel=1,
        )  # fmt: skip
    except RuntimeError as error:
        fail(f"--vocab-size {vocab_size}: {' '.join(str(error).split())}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(model.getvalue())


def encode(paths: list[Path], tokenizer: Path, out: Path, key: str, valid: Path | None, valid_every: int) -> dict[str, object]:
    """Token file(s) from texts; each `valid_every`th document goes to `valid` instead."""
    import sentencepiece

    require(tokenizer.is_file(), f"{tokenizer}: no such tokenizer")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    bos = pieces.bos_id()
    require(bos >= 0, f"{tokenizer}: has no BOS, which separates documents in a token file")
    parts: list[list[np.ndarray]] = [[], []]
    for number, text in enumerate(documents(paths, key)):
        if text.strip():
            held_out = valid is not None and number % valid_every == valid_every - 1
            parts[held_out].append(np.array([bos, *pieces.encode(text)], np.uint32))
    require(parts[0], f"{paths[0]}: no document with text in it")
    result: dict[str, object] = {str(out): tokens.write(out, parts[0], bos, pieces.get_piece_size())}
    if valid is not None:
        require(parts[1], f"--valid-every {valid_every}: fewer documents than that, none is held out")
        result[str(valid)] = tokens.write(valid, parts[1], bos, pieces.get_piece_size())
    return result
