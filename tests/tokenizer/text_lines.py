"""Texts of all kinds for tokenizer tests: every Unicode plane, code, white space, marks, special tokens in the text."""

import random

_RANGES = [
    (0x20, 0x7F),
    (0x20, 0x7F),
    (0x00, 0x20),
    (0x7F, 0x250),
    (0x250, 0x500),
    (0x600, 0x700),
    (0x900, 0xE80),
    (0x1100, 0x1200),
    (0x1E00, 0x2100),
    (0x2000, 0x2070),
    (0x2100, 0x2C00),
    (0x3000, 0x3100),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A4),
    (0xE000, 0xF900),
    (0xF900, 0xFB50),
    (0xFE00, 0x10000),
    (0x10000, 0x11000),
    (0x1D400, 0x1D800),
    (0x1F300, 0x1FA00),
    (0x1F1E6, 0x1F200),
    (0xE0000, 0xE0200),
    (0x20000, 0x2A6D0),
    (0x0, 0x110000),
]
_CODE = [
    "def f(x):\n    return x + 1\n",
    "for (int i = 0; i < n; i++) {\n\t\ta[i] = b[i];\n}\n",
    '<html>\n  <body class="x">&nbsp;</body>\n</html>',
    "SELECT * FROM t WHERE a = 'it''s';",
    "\tif x == 0:\r\n\t\tpass\r\n",
    "0x1F 3.14159 1e-7 1234567890 1,000,000",
    "it's we're I've I'm you'll he'd IT'S WE'RE o'clock",
    "https://example.org/a?b=c&d=%20e#f",
    "C:\\path\\to\\file.txt",
    '{"a": [1, 2, {"b": null}]}',
    "a = b != c <= d >= e << 2 && !f",
]
_SPACES = [
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    "\x0b",
    "\x85",
    "\u00a0",
    "\u2003",
    "\u2028",
    "\u3000",
    "\u180e",
    "\u200b",
    "\u2581",
]
_MARKS = [
    "e\u0301",
    "\u0301",
    "\u1100\u1161\u11a8",
    "\u00e9",
    "\ufb01",
    "\u212b",
    "\u00c5",
    "A\u030a",
    "\u0344",
    "\u0958",
    "\u200d",
    "\ufe0f",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea",
    "1\ufe0f\u20e3",
    "\ufdfa",
    "\u017f",
    "\u212a",
    "\u0130",
    "\u00df",
    "\u03d3",
    "\u0345",
    "\u24b6",
    "\u2160",
    "\u00b2",
    "\u0663",
]
_SYLLABLES = [
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "ke",
    "li",
    "mo",
    "nu",
    "pra",
    "ste",
    "tri",
    "blo",
    "sku",
    "th",
    "ing",
    "er",
    "on",
    "al",
    "est",
    "ion",
    "re",
    "com",
    "pre",
    "un",
    "ly",
    "ed",
]


def _character(r: random.Random, low: int, high: int) -> str:
    while True:
        c = r.randrange(low, high)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def _word(r: random.Random) -> str:
    word = "".join(r.choice(_SYLLABLES) for _ in range(r.randrange(1, 4)))
    return r.choice([word, word, word, word.capitalize(), word.upper()])


def prose(r: random.Random, n_words: int) -> str:
    """Invented words with punctuation between them."""
    return "".join(_word(r) + r.choice([" "] * 12 + [", ", ". ", "? ", "-", "\n", "; ", ": ", "'s ", ' "', "!) "]) for _ in range(n_words))


def _line(r: random.Random, specials: list[str]) -> str:
    kind = r.randrange(11)
    if kind < 2:
        return prose(r, r.randrange(1, 40))
    if kind == 2:
        return "".join(_character(r, *r.choice(_RANGES)) for _ in range(r.randrange(1, 60)))
    if kind == 3:
        block = r.choice(_RANGES)
        return "".join(_character(r, *block) for _ in range(r.randrange(1, 40)))
    if kind == 4:
        return "".join(r.choice([*_SPACES, "a", "b.", " c", ".", "1", "'s", "\u00e9"]) for _ in range(r.randrange(1, 40)))
    if kind == 5:
        return r.choice(_CODE) * r.randrange(1, 3) + r.choice(_CODE)
    if kind == 6:
        parts = [*specials, "<", ">", "/", "s", "<s", "</", "<0x41>", "<|", "|>", "<unk>"]
        between = ["", " ", "  ", "\n", "x", "hello", " hi ", "_", "\u00e9", "."]
        return "".join(r.choice(parts) + r.choice(between) for _ in range(r.randrange(1, 12)))
    if kind == 7:
        return r.choice(["a", "b", " ", "x", "\u00e9", "\u4e2d", "1", ".", "\n", "\u2581", "ab", "ha "]) * r.randrange(1, 200)
    if kind == 8:
        return "".join(r.choice(_MARKS) for _ in range(r.randrange(1, 20)))
    if kind == 9:
        ends = [" ", ",", ".", "-", "", "", "\u0663", "\u00b2", "\u00bd", "\u2167", "\u4e00"]
        return "".join(str(r.randrange(10 ** r.randrange(1, 15))) + r.choice(ends) for _ in range(r.randrange(1, 10)))
    text = list(prose(r, r.randrange(1, 15)))
    for _ in range(r.randrange(1, 8)):
        text.insert(r.randrange(len(text) + 1), _character(r, *r.choice(_RANGES)))
    return "".join(text)


def lines(n: int, seed: int, specials: list[str]) -> list[str]:
    """As many texts, the same for the same seed; `specials` turn up inside some of them."""
    r = random.Random(seed)
    fixed = ["", " ", "  ", "\n", "a", " a", "a ", "\u2581", "\u2581a", " \u2581"]
    return (fixed + [_line(r, specials) for _ in range(n)])[:n]
