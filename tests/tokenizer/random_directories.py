"""Random tokenizer directories: any mixture of what tokenizer.json, tokenizer.model and the files beside them may say.

usage: random_directories.py SEED DIR        writes one of them

Only the standard library is needed; the same seed gives the same directory.
"""

import base64
import json
import pathlib
import random
import struct
import sys
import zlib

import text_lines

SPACE = "\u2581"
WORDS = [
    "the",
    "ing",
    "er",
    "on",
    "al",
    "est",
    "pra",
    "ste",
    "ba",
    "ce",
    "un",
    "ly",
    "re",
    "com",
    "it",
    "s",
    "we",
    "cat",
    "sat",
    "12",
    "éa",
]
SPECIALS = ["<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|x|>", "<|im_start|>", "[INST]", "<mask>", "<bos>", "<eos>", "<0>"]
CLASSES = [
    *["LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"] * 4,
    *["GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast", "GPTNeoXTokenizerFast", "GPTNeoXTokenizer"],
    *["CohereTokenizerFast", "GemmaTokenizerFast", "GemmaTokenizer", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast", "BloomTokenizerFast"],
    *["CodeGenTokenizerFast", "CohereTokenizer"],
]
OTHER_CLASSES = ["T5TokenizerFast", "BertTokenizerFast", "RobertaTokenizerFast", "XLMRobertaTokenizer", "WhisperTokenizer", "NllbTokenizer"]
TYPES = ["llama"] * 8 + ["mistral", "qwen2", "qwen3", "smollm3", "gpt2", "gpt_neox", "cohere", "gemma", "phi3", "olmo2"]
SPLITS = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"\b\w+\b|\s+",
    r"\p{N}",
    r"\s+",
    r"[\p{L}&&[^a-f]]+",
    r"[a-z&&[^aeiou]]",
    r"(?i)[a-f]+|x",
    r"a(?i)b|cd",
    r"[^\S\n]+|\n",
    r"\B[ie]",
    r"[\W\d]+",
    r"[^\p{L}\p{M}]+",
]
# A character map as SentencePiece makes it of twelve rules: wide letters, digits in circles, ligatures, white space, accents, nothing.
CHARSMAP = zlib.decompress(
    base64.b64decode(
        "eNod03lQVlUUAPDzPWgaGBtnnPH/xihLLalIzbIoc6F9MbLMpDSSmrIFC9QSMOoraKEoRSsVaaFQMU2tKBcqLZn21bRUcLIZMmtate339eb97jl3zr1v3p17"
        "b2RHxJEROTkRuYdFpCKquiKJ6iMi+snbT9XkJaFbVafuqVpmbG06icPlWSy5W1NEH/Pyk6hLZ0V3dhI1JUk0jYror9TQomZ+rnyp6K3qKE+ir9jWm0TznxFH"
        "+fgAjiaPgRzDcRzLYAZxPEMYygl0FCSRL57MSZxCAcMZhiXECE5jJH4pTudMzuAsChnN2YzhHMYxFkuL8ZzHuVzA+VzEhVzCxVzGpVzOBK6gmCuZyCSuYjJX"
        "M4VruJYSpnId1zONGyiljOncxI3cnBnTmMQM8RZu41bu4HZmUs5d3EklFcxmFrYr5jCXe6jObCrzqKGWe7mf+3iANHU8yEPU8wgP08CjPM5jPEEj83mSJhaw"
        "iIU8zVMs5hmWsoRlNPMsLTzPc7TyAi/xIstpYyUrWEU7q3mZV1jDOtbyKut5ndd4I3Nm2MCbbGIjnWzmbd5iC+/wLlvZxnuZWm8qusQPeJ+P+JBP+JjP+JQv"
        "+Jyv+JKv2c5OdvAt37CbXXSzh7308B0/tqXie3FfppZORXdPKn6Q92Zq7OcnDmT6han4WfyVX/id33C14g8OcZC/+Yt/+Sf+v/8nugRFxVFa5rBVVEZna3RX"
        "18d/21+hDQ=="
    )
)


class Maker:
    """Makes one directory."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.later = random.Random(f"later {seed}")  # what came later does not change what a seed made before
        self.files: dict[str, bytes] = {}
        self.specials = self.r.sample(SPECIALS, self.r.randrange(3, 8)) + (["<|a b|>"] if self.chance(0.05) else [])

    def chance(self, p: float) -> bool:
        """True so often."""
        return self.r.random() < p

    def put(self, name: str, value: object) -> None:
        """A JSON file."""
        text = json.dumps(value, ensure_ascii=self.chance(0.5))
        if name == "tokenizer_config.json" and "model_max_length" not in text and self.chance(0.1):
            text = text[:-1] + (", " if len(text) > 2 else "") + '"model_max_length": Infinity}'
        self.files[name] = text.encode()

    # ---- vocabularies ----

    def merged(self, symbols: list[str], n: int) -> tuple[list[str], list[tuple[str, str]]]:
        """Pieces made of two pieces, and how."""
        pieces, merges = list(symbols), []
        known = set(pieces)
        for word in self.r.sample(WORDS, len(WORDS)):
            for prefix in ("", "\u0120" if "\u0120" in known else SPACE if SPACE in known else ""):
                left = prefix or word[0]
                for c in word if prefix else word[1:]:
                    if left in known and c in known and left + c not in known:
                        merges.append((left, c))
                        pieces.append(left + c)
                        known.add(left + c)
                    left += c
        for _ in range(n):
            a, b = self.r.choice(pieces), self.r.choice(pieces)
            if a + b not in known and len(a + b) < 12 and not a.startswith("<") and not b.startswith("<"):
                merges.append((a, b))
                pieces.append(a + b)
                known.add(a + b)
        if self.chance(0.5):
            self.r.shuffle(merges)
        made = set(symbols)
        ordered = []
        while merges:  # a merge comes behind those that make its parts
            rest = []
            for a, b in merges:
                if a in made and b in made:
                    ordered.append((a, b))
                    made.add(a + b)
                else:
                    rest.append((a, b))
            merges = rest
        return [p for p in pieces if p in made], ordered

    def numbered(self, pieces: list[str]) -> dict[str, int]:
        """Ids, sometimes with holes."""
        ids = list(range(len(pieces)))
        if self.chance(0.1):
            ids = sorted(self.r.sample(range(len(pieces) + 20), len(pieces)))
        return dict(zip(pieces, ids))

    def byte_bpe(self) -> dict:
        """A byte-level model."""
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        alphabet = [chr(b) for b in plain] + [chr(256 + i) for i in range(68)]
        symbols = [s for s in self.specials if self.chance(0.6)] + alphabet
        pieces, merges = self.merged(symbols, 80)
        return self.bpe(pieces, merges, byte_level=True)

    def mark_bpe(self) -> dict:
        """A model of pieces with space marks, with or without byte pieces."""
        byte_pieces = [f"<0x{b:02X}>" for b in range(256)] if self.chance(0.6) else []
        symbols = [*self.in_vocab(), *byte_pieces, SPACE, *"abcdefghijklmnopqrstuvwxyz0123456789.,'é", "\n", " "][
            : None if self.chance(0.7) else -2
        ]
        pieces, merges = self.merged(symbols, 80)
        return self.bpe(pieces, merges, byte_level=False)

    def in_vocab(self) -> list[str]:
        """Specials that are pieces, <unk> first."""
        return ["<unk>", "<s>", "</s>", *[s for s in self.specials if s not in ("<unk>", "<s>", "</s>") and self.chance(0.4)]]

    def bpe(self, pieces: list[str], merges: list[tuple[str, str]], byte_level: bool) -> dict:
        """The model's JSON."""
        pairs = self.chance(0.5) or any(" " in a + b for a, b in merges)
        unk = "<unk>" if "<unk>" in pieces and self.chance(0.3 if byte_level else 0.8) else None
        return {
            "type": "BPE",
            "dropout": None,
            "unk_token": unk,
            "continuing_subword_prefix": self.r.choice([None, ""]),
            "end_of_word_suffix": self.r.choice([None, ""]),
            "fuse_unk": self.chance(0.5),
            "byte_fallback": "<0x00>" in pieces and self.chance(0.9),
            "ignore_merges": self.chance(0.3),
            "vocab": self.numbered(pieces),
            "merges": [list(m) if pairs else " ".join(m) for m in merges],
        }

    def unigram(self) -> dict:
        """A model with scores."""
        byte_fallback = self.chance(0.4)
        symbols = [
            *self.in_vocab(),
            *([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else []),
            SPACE,
            *"abcdefghijklmnopqrstuvwxyz01.",
        ]
        pieces, _ = self.merged(symbols, 120)
        scored = [[p, 0.0 if i < 3 else round(-self.r.random() * 12, self.r.choice([1, 4]))] for i, p in enumerate(pieces)]
        model = {"type": "Unigram", "unk_id": 0 if self.chance(0.95) else None, "vocab": scored}
        return {**model, "byte_fallback": byte_fallback} if self.chance(0.8) or byte_fallback else model

    # ---- tokenizer.json ----

    def normalizer(self, marks: bool) -> dict | None:
        """One or several steps."""
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        if marks and self.chance(0.6):
            steps = [{"type": "Prepend", "prepend": SPACE}, replace]
            return {"type": "Sequence", "normalizers": steps if self.chance(0.7) else steps[1:]}
        some = [
            lambda: {"type": self.r.choice(["NFC", "NFD", "NFKC", "NFKD"])},
            lambda: {"type": "Lowercase"},
            lambda: {"type": "Strip", "strip_left": self.chance(0.5), "strip_right": self.chance(0.5)},
            lambda: {"type": "Prepend", "prepend": self.r.choice([SPACE, " ", "ab"])},
            lambda: {
                "type": "Replace",
                "pattern": {"Regex": self.r.choice([r" {2,}", r"\s+", r"[a-c]+", r"\A +| +\z", "x?"])},
                "content": self.r.choice([" ", "", "b"]),
            },
            lambda: {"type": "Replace", "pattern": {"String": self.r.choice(["a", "ab", "``"])}, "content": self.r.choice(["é", "", " x"])},
        ]
        if self.chance(0.5):
            return None
        if self.chance(0.6):
            return self.r.choice(some)()
        return {"type": "Sequence", "normalizers": [self.r.choice(some)() for _ in range(self.r.randrange(0, 4))]}

    def with_charsmap(self, normalizer: dict | None) -> dict | None:
        """Sometimes SentencePiece's character map in front."""
        if self.later.random() >= 0.08:
            return normalizer
        step = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(CHARSMAP).decode()}
        return {"type": "Sequence", "normalizers": [step, normalizer]} if normalizer else step

    def splitter(self) -> dict:
        """A pre-tokenizer that cuts."""
        behaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
        pattern = {"Regex": self.r.choice(SPLITS)} if self.chance(0.8) else {"String": self.r.choice([" ", ",", "a", "ab"])}
        return self.r.choice(
            [
                {
                    "type": "Split",
                    "pattern": pattern,
                    "behavior": "Isolated" if self.chance(0.6) else self.r.choice(behaviors),
                    "invert": self.chance(0.15),
                },
                {"type": "Digits", "individual_digits": self.chance(0.5)},
                {"type": "Punctuation", "behavior": self.r.choice(behaviors)},
                {"type": "Whitespace"},
                {"type": "WhitespaceSplit"},
                {"type": "BertPreTokenizer"},
            ]
        )

    def byte_level(self, use_regex: bool) -> dict:
        """The step that spells bytes."""
        return {"type": "ByteLevel", "add_prefix_space": self.chance(0.3), "trim_offsets": self.chance(0.5), "use_regex": use_regex}

    def metaspace(self) -> dict:
        """The step that marks spaces."""
        step = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": self.r.choice(["first", "always", "never"])}
        return {**step, "split": self.chance(0.4)} if self.chance(0.8) else step

    def pre_tokenizer(self, byte_level: bool, marks: bool) -> dict | None:
        """Steps that suit the model, more or less."""
        steps = [self.splitter() for _ in range(self.r.choice([0, 0, 1, 1, 2]))]
        if byte_level:
            steps.append(self.byte_level(use_regex=not steps or self.chance(0.3)))
        elif marks and self.chance(0.6):
            steps.insert(self.r.randrange(len(steps) + 1), self.metaspace())
        if not steps:
            return None
        return steps[0] if len(steps) == 1 and self.chance(0.8) else {"type": "Sequence", "pretokenizers": steps}

    def decoder(self, byte_level: bool) -> dict | None:
        """Steps that suit the model."""
        if byte_level:
            return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        steps = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
        if self.chance(0.7):
            steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return self.r.choice(
            [
                {"type": "Sequence", "decoders": steps},
                {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True},
            ]
        )

    def flags(self) -> dict:
        """An added token's flags."""
        special = self.chance(0.6)
        return {
            "single_word": self.chance(0.1),
            "lstrip": self.chance(0.2),
            "rstrip": self.chance(0.2),
            "normalized": not special if self.chance(0.8) else special,
            "special": special,
        }

    def added_tokens(self, vocab: dict[str, int]) -> list[dict]:
        """Tokens of the file, by id."""
        free = max(vocab.values(), default=-1) + 1
        tokens = []
        for content in self.r.sample([*self.specials, "ab", "word ", "Hello"], self.r.randrange(0, 5)):
            number = vocab.get(content)
            if number is None:
                number, free = free, free + 1
            tokens.append({"id": number, "content": content, **self.flags()})
        return sorted(tokens, key=lambda t: t["id"])

    def post_processor(self, ids: dict[str, int]) -> dict | None:
        """Templates of tokens that there are."""
        known = [t for t in self.specials if t in ids]
        byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        if not known or self.chance(0.4):
            return self.r.choice([None, byte_level])
        front, back = ([t for t in self.r.sample(known, 1) if self.chance(p)] for p in (0.7, 0.4))

        def piece(t: str) -> dict:
            return {"SpecialToken": {"id": t, "type_id": 0}}

        template = {
            "type": "TemplateProcessing",
            "single": [*map(piece, front), {"Sequence": {"id": "A", "type_id": 0}}, *map(piece, back)],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in {*front, *back}},
        }
        a, b = self.r.choice(known), self.r.choice(known)
        roberta = {"type": "RobertaProcessing", "sep": [a, ids[a]], "cls": [b, ids[b]], "trim_offsets": True, "add_prefix_space": False}
        bert = {"type": "BertProcessing", "sep": [a, ids[a]], "cls": [b, ids[b]]}
        return self.r.choice([template, template, template, {"type": "Sequence", "processors": [byte_level, template]}, roberta, bert])

    def tokenizer_json(self) -> None:
        """The file, of a model of any kind."""
        kind = self.r.choice(["byte", "byte", "mark", "mark", "unigram"])
        model = {"byte": self.byte_bpe, "mark": self.mark_bpe, "unigram": self.unigram}[kind]()
        vocab = model["vocab"] if kind != "unigram" else {p: i for i, (p, _) in enumerate(model["vocab"])}
        added = self.added_tokens(vocab)
        padding = None
        if self.chance(0.1):
            token = self.r.choice(self.specials)
            padding = {
                "strategy": "BatchLongest",
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": token,
            }
        truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0} if self.chance(0.1) else None
        self.put(
            "tokenizer.json",
            {
                "version": "1.0",
                "truncation": truncation,
                "padding": padding,
                "added_tokens": added,
                "normalizer": self.with_charsmap(self.normalizer(kind != "byte")),
                "pre_tokenizer": self.pre_tokenizer(kind == "byte", kind != "byte"),
                "post_processor": self.post_processor({**vocab, **{t["content"]: t["id"] for t in added}}),
                "decoder": self.decoder(kind == "byte") if self.chance(0.95) else None,
                "model": model,
            },
        )

    # ---- tokenizer.model ----

    def tokenizer_model(self) -> None:
        """A SentencePiece model, written field by field."""
        bpe, byte_fallback = self.chance(0.75), self.chance(0.7)
        extra = [s for s in self.specials if s not in ("<unk>", "<s>", "</s>") and self.chance(0.4)]
        symbols = [*([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else []), SPACE, *"abcdefghijklmnopqrstuvwxyz0123456789.,'é"]
        pieces, _ = self.merged(symbols, 100)
        rows = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *[(s, 0.0, self.r.choice([3, 4])) for s in extra]]
        if self.chance(0.2):
            rows.append((self.r.choice(["ab", SPACE + "the", "\u2581\u2581"]), 0.0, 4))
        named = {p for p, _, _ in rows}
        rows += [(p, self.score(i, bpe), 6 if p.startswith("<0x") else 1) for i, p in enumerate(pieces) if p not in named]
        out = b"".join(
            _bytes_field(1, _bytes_field(1, p.encode()) + b"\x15" + struct.pack("<f", s) + b"\x18" + bytes([k])) for p, s, k in rows
        )
        trainer = _number(3, 2 if bpe else 1) + _number(35, byte_fallback) + (_number(43, -1) if self.chance(0.5) else b"")
        if self.chance(0.2):
            trainer += _number(41, self.r.choice([-1, 1])) + _number(42, self.r.choice([-1, 2]))
        normalizer = b"".join(_number(k, self.chance(0.5)) for k in (3, 4, 5) if self.chance(0.5))
        if self.later.random() < 0.2:
            normalizer = _bytes_field(2, CHARSMAP) + normalizer
        self.files["tokenizer.model"] = out + _bytes_field(2, trainer) + _bytes_field(3, _bytes_field(1, b"identity") + normalizer)

    def score(self, place: int, bpe: bool) -> float:
        """BPE's are places; unigram's are logarithms."""
        return float(-place) if bpe and self.chance(0.9) else round(-self.r.random() * 12, self.r.choice([1, 4]))

    # ---- the files beside ----

    def boolean(self) -> object:
        """Mostly true or false."""
        return self.r.choice([True, False]) if self.chance(0.85) else self.r.choice([None, "true", "false", 1, 0, ""])

    def token(self, typed: bool = True) -> object:
        """A special token: a string, or an object with flags."""
        content = self.r.choice([*self.specials, *self.specials, "<new>", "[NEW]"])
        if self.chance(0.65):
            return content
        flags = {k: v for k, v in self.flags().items() if self.chance(0.8)}
        return {**({"__type": "AddedToken"} if typed else {}), "content": content, **flags}

    def config(self) -> dict:
        """tokenizer_config.json."""
        c: dict[str, object] = {}
        if self.chance(0.85):
            c["tokenizer_class"] = self.r.choice(self.classes()) if self.chance(0.97) else self.r.choice(OTHER_CLASSES)
        for role in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"):
            if self.chance(0.5 if role in ("bos_token", "eos_token", "unk_token") else 0.12):
                c[role] = self.token() if self.chance(0.93) else None
        slow = "tokenizer.model" in self.files or self.chance(0.1)
        for key, p in {"add_bos_token": 0.4, "add_eos_token": 0.25, "add_prefix_space": 0.25, "legacy": 0.25, "from_slow": 0.05}.items():
            if self.chance(p) and (slow or key != "from_slow"):
                c[key] = self.boolean()
        if self.chance(0.06):
            c["split_special_tokens"] = self.chance(0.7)
        if self.chance(0.15):
            c["additional_special_tokens"] = [self.token() for _ in range(self.r.randrange(0, 3))]
        if self.chance(0.1):
            names = self.r.sample(["image_token", "boi_token", "x", "pad_token"], self.r.randrange(0, 3))
            c["extra_special_tokens"] = {n: self.token() for n in names} if self.chance(0.8) else [self.token() for _ in range(2)]
        if self.chance(0.3):
            c["added_tokens_decoder"] = self.decoder_tokens()
        if self.chance(0.1):
            c["image_token"] = self.token()
        inert = {
            "model_max_length": self.r.choice([512, 1000000000000000019884624838656]),
            "clean_up_tokenization_spaces": self.chance(0.5),
            "padding_side": self.r.choice(["left", "right"]),
            "use_default_system_prompt": False,
            "sp_model_kwargs": {},
            "name_or_path": "some/model",
            "processor_class": None,
            "do_lower_case": self.chance(0.5),
            "errors": "replace",
            "chat_template": "{{ messages }}",
            "spaces_between_special_tokens": self.chance(0.5),
            "special_tokens_map_file": None,
            "an_own_key": 3,
        }
        c.update({k: v for k, v in inert.items() if self.chance(0.15)})
        if self.later.random() < (0.1 if "tokenizer.model" in self.files else 0.02):
            c["tokenizer_file"] = None
        if self.later.random() < 0.03:
            c["vocab_file"] = None if self.later.random() < 0.5 else "/nowhere/tokenizer.model"
        items = list(c.items())
        self.r.shuffle(items)
        return dict(items)

    def classes(self) -> list[str]:
        """Those that have something to read here."""
        if "tokenizer.json" in self.files or self.chance(0.1):
            return CLASSES
        return [c for c in CLASSES if c.startswith(("Llama", "CodeLlama"))]

    def decoder_tokens(self) -> dict[str, dict]:
        """added_tokens_decoder: mostly what tokenizer.json has, sometimes more or other."""
        tokens = {}
        if "tokenizer.json" in self.files:
            for t in json.loads(self.files["tokenizer.json"])["added_tokens"]:
                if self.chance(0.9):
                    tokens[str(t.pop("id"))] = t if self.chance(0.8) else {**t, **self.flags()}
        for _ in range(self.r.randrange(0, 3)):
            tokens[str(self.r.randrange(0, 900))] = {"content": self.r.choice([*self.specials, "<new>"]), **self.flags()}
        return tokens

    def beside(self) -> None:
        """The small files."""
        model = {}
        if self.chance(0.97):
            model["model_type"] = self.r.choice(TYPES)
        config = self.config() if self.chance(0.9) else None
        if config is None or "tokenizer_class" not in config:
            model.setdefault("model_type", "llama")
            if self.chance(0.2):
                model["tokenizer_class"] = self.r.choice(self.classes())
        self.put("config.json", model)
        if config is not None:
            self.put("tokenizer_config.json", config)
        if self.chance(0.35):
            roles = [k for k in ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token") if self.chance(0.5)]
            specials: dict[str, object] = {k: self.token(typed=False) for k in roles}
            if self.chance(0.3):
                specials["additional_special_tokens"] = [self.token(typed=False) for _ in range(self.r.randrange(0, 3))]
            self.put("special_tokens_map.json", specials)
        if self.chance(0.12):
            self.put("added_tokens.json", {t: 700 + i for i, t in enumerate(self.r.sample([*self.specials, "<new>", "[NEW]"], 2))})

    def make(self) -> dict[str, bytes]:
        """All files."""
        kind = self.r.random()
        if kind < 0.85:
            self.tokenizer_json()
        if kind > 0.72:
            self.tokenizer_model()
        self.beside()
        return self.files

    def texts(self) -> list[str]:
        """Lines to encode; after make()."""
        lines = text_lines.lines(8, self.r.randrange(1 << 30), [*self.specials, "<new>", "[NEW]"])
        fixed = [
            "",
            "a",
            " a",
            "a  b ",
            "<s>a</s> b",
            "the cat\nsat",
            SPACE + "a",
            "Caf\u00e9 AB\u0130 'S it's 12345 x\u0301",
            "\uff21\uff22\u2460 \ufb01e\u0301\u200bx\u3000y",
        ]
        words = [*WORDS, *self.specials, " ", "  ", "\n", "<new>", "[NEW]", "Hello", "\u00c9", "!", "word "]
        mixed = ["".join(self.r.choice(words) for _ in range(self.r.randrange(1, 14))) for _ in range(8)]
        return [*fixed, *lines[4:], *mixed, *(["a<FILL_ME>b", "x <FILL_ME>"] if self.chance(0.2) else [])]


def _varint(n: int) -> bytes:
    n &= (1 << 64) - 1
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + _varint(n >> 7)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(int(value))


def _bytes_field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def write(seed: int, directory: pathlib.Path) -> list[str]:
    """Writes a directory; returns its texts."""
    maker = Maker(seed)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in maker.make().items():
        (directory / name).write_bytes(content)
    return maker.texts()


if __name__ == "__main__":
    print(json.dumps(write(int(sys.argv[1]), pathlib.Path(sys.argv[2]))))
