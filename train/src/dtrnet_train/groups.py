"""Groups of tokens that routing is counted by: position in the window, class of the piece, how frequent its word is."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from dtrnet_train.errors import require

POSITIONS = (0, 1, 4, 16, 64, 256, 1024, 4096, 16384)
FREQUENCIES = (1, 2, 4, 16, 64, 256, 1024)
CLASSES = ("special", "word begins", "word goes on", "number", "punctuation", "space", "byte", "other")
SPACE = "\u2581"


def buckets(edges: tuple[int, ...]) -> list[str]:
    """Names of the buckets from each edge to before the next."""
    ends = [f"{b - 1:,}" for b in edges[1:]]
    return [f"{a:,}" if f"{a:,}" == b else f"{a:,} to {b}" for a, b in zip(edges, ends)] + [f"{edges[-1]:,} on"]


def bucket_of(values: np.ndarray, edges: tuple[int, ...]) -> np.ndarray:
    """Number of the bucket of each value; -1 below the first edge."""
    return np.searchsorted(np.array(edges), values, side="right") - 1


def class_of(piece: str) -> int:
    """A piece's class by its characters, the space mark left out."""
    body = piece.replace(SPACE, "")
    kinds = {unicodedata.category(c)[0] for c in body}
    if not body.strip():
        return 5
    if kinds <= {"L", "M"}:
        return 1 if piece.startswith(SPACE) else 2
    if kinds <= {"N"}:
        return 3
    return 4 if kinds <= {"P", "S"} else 7


class Vocabulary:
    """Classes of all pieces, from a tokenizer.model."""

    def __init__(self, path: Path) -> None:
        import sentencepiece

        require(path.is_file(), f"{path}: no such tokenizer")
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.pieces = model.id_to_piece(list(range(model.get_piece_size())))
        self.classes = np.array([self._class(model, i) for i in range(len(self.pieces))])

    def _class(self, model: object, i: int) -> int:
        if model.is_control(i) or model.is_unknown(i):
            return 0
        return 6 if model.is_byte(i) else class_of(self.pieces[i])

    def words(self, ids: np.ndarray) -> list[str]:
        """The word of each token, small letters; empty for what is in no word. Classes 1 and 2 make words."""
        out, first = [""] * len(ids), 0
        kinds = self.classes[ids]
        for i in range(1, len(ids) + 1):
            if i < len(ids) and kinds[i] == 2:
                continue
            if kinds[first] in (1, 2):
                word = "".join(self.pieces[t] for t in ids[first:i]).replace(SPACE, "").lower()
                out[first:i] = [word] * (i - first)
            first = i
        return out


def word_counts(documents: list[np.ndarray], vocabulary: Vocabulary) -> list[np.ndarray]:
    """For each document how often the text has the word of each token; 0 for what is in no word."""
    words = [vocabulary.words(ids) for ids in documents]
    vocab = vocabulary.classes
    begins = [np.append(True, vocab[ids[1:]] != 2) if len(ids) else np.zeros(0, bool) for ids in documents]
    counts = Counter(word for line, begin in zip(words, begins) for word, b in zip(line, begin) if b and word)
    return [np.array([counts[word] if word else 0 for word in line]) for line in words]
