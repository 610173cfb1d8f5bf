"""Makes the items of the long-context tasks long_passkey_* and long_needles_* from a seed; no data and no network are needed.

The filler is the project's own story (../samples/passage.jsonl), its sentences drawn at random. Lengths are in characters of the filler,
since no tokenizer is at hand here: about 4 make a token for the shipped model's vocabulary.
"""

import json
import math
import random
from pathlib import Path

import datasets

STORY = Path(__file__).resolve().parent.parent / "samples" / "passage.jsonl"
COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown", "grey"]


def _filler(draw: random.Random, chars: int) -> list[str]:
    """Sentences of about `chars` characters together."""
    text = json.loads(STORY.read_text(encoding="utf-8").splitlines()[0])["text"]
    sentences = [sentence.strip() + "." for sentence in text.replace("\n\n", " ").split(". ") if '"' not in sentence]
    out, size = [], 0
    while size < chars:
        out.append(draw.choice(sentences))
        size += len(out[-1]) + 1
    return out


def _spread(items: int) -> list[int]:
    """0 to items - 1 in an order whose first few are far apart, so that the harness's --limit takes depths of all kinds."""
    stride = next(step for step in range(round(0.382 * items), 2 * items) if math.gcd(step, items) == 1)
    return [i * stride % items for i in range(items)]


def passkey(chars: int, items: int = 20, seed: int = 1, **_ignored: object) -> datasets.DatasetDict:
    """One number hidden in filler, at depths from 0 to 1 in equal steps.

    Args:
        chars: length of the filler.
        items: how many.
        seed: of everything drawn.
        **_ignored: what the harness passes to every loader.
    """
    draw = random.Random(f"passkey {chars} {seed}")
    rows = []
    for i in range(items):
        sentences = _filler(draw, chars)
        key = str(draw.randrange(10000, 100000))
        depth = i / max(1, items - 1)
        sentences.insert(round(depth * len(sentences)), f"The pass key is {key}. Remember it. The pass key is {key}.")
        rows.append({"text": " ".join(sentences) + "\nWhat is the pass key? The pass key is", "key": key, "depth": depth})
    return datasets.DatasetDict({"test": datasets.Dataset.from_list([rows[i] for i in _spread(items)])})


def needles(chars: int, items: int = 20, seed: int = 1, hidden: int = 4, **_ignored: object) -> datasets.DatasetDict:
    """Several boxes, each with a number, hidden in filler at random depths; one of them is asked for, the others' numbers are the choices.

    Args:
        chars: length of the filler.
        items: how many.
        seed: of everything drawn.
        hidden: boxes in each item, at most 8.
        **_ignored: what the harness passes to every loader.
    """
    draw = random.Random(f"needles {chars} {seed}")
    rows = []
    for _ in range(items):
        sentences = _filler(draw, chars)
        colours = draw.sample(COLOURS, hidden)
        numbers = [str(number) for number in draw.sample(range(10000, 100000), hidden)]
        for colour, number in zip(colours, numbers):
            sentences.insert(draw.randrange(len(sentences) + 1), f"The number in the {colour} box is {number}.")
        asked = draw.randrange(hidden)
        rows.append({"text": " ".join(sentences) + f"\nThe number in the {colours[asked]} box is", "choices": numbers, "label": asked})
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
