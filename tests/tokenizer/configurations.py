"""Tokenizers in every configuration that the project reads, trained here; each is a directory and a reference."""

import dataclasses
import io
import json
import pathlib
import random
from collections.abc import Callable, Iterator

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import text_lines

LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK_SPLITS = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"]
SPACE = "\u2581"


@dataclasses.dataclass
class Configuration:
    """One tokenizer: what the files are, and the `tokenizers` object that says what is right."""

    name: str
    reference: Tokenizer
    files: dict[str, bytes]
    specials: list[str]
    spm: sentencepiece.SentencePieceProcessor | None = None  # where it must give the same ids as well

    def write(self, parent: pathlib.Path) -> pathlib.Path:
        """Writes the files; returns their directory."""
        directory = parent / self.name
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (directory / name).write_bytes(content)
        return directory


def corpus(seed: int, n: int = 1000, odd: int = 700) -> list[str]:
    """Training text: invented prose and lines of all kinds."""
    r = random.Random(seed)
    return [text_lines.prose(r, 30) for _ in range(n)] + [t.replace("\0", "") for t in text_lines.lines(odd, seed, [])]


# ---- tokenizer.json ----


def _train(tokenizer: Tokenizer, vocab_size: int, specials: list, alphabet: list[str] | None = None) -> None:
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet or [], show_progress=False)
    tokenizer.train_from_iterator(corpus(11), trainer)


def _byte_level(
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None = None,
    specials: list[str] | None = None,
    **model: bool,
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, 1200, specials or ["<|endoftext|>"], pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def _gpt2() -> Tokenizer:
    tokenizer = _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _gpt2_prefix() -> Tokenizer:
    return _byte_level(pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=True)]))


def _smollm() -> Tokenizer:
    split = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return _byte_level(split, specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"])


def _grouped_digits() -> Tokenizer:
    steps = [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    return _byte_level(pre_tokenizers.Sequence(steps), normalizers.NFKC())


def split_then_bytes(pattern: str) -> pre_tokenizers.PreTokenizer:
    """As LLaMA-3 and Qwen files have it: cut by an expression of one's own, then spell bytes."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _llama3() -> Tokenizer:
    tokenizer = _byte_level(split_then_bytes(LLAMA3_SPLIT), specials=["<|begin_of_text|>", "<|end_of_text|>"], ignore_merges=True)
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", special_tokens=[("<|begin_of_text|>", 0)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def _qwen() -> Tokenizer:
    return _byte_level(split_then_bytes(QWEN_SPLIT), normalizers.NFC(), ["<|endoftext|>", "<|im_start|>"])


def _deepseek() -> Tokenizer:
    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in DEEPSEEK_SPLITS]
    return _byte_level(pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def _behaviours() -> Tokenizer:
    steps = [
        pre_tokenizers.Split(",", "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"[A-Z]"), "merged_with_next"),
        pre_tokenizers.Split(Regex(r"\d"), "contiguous"),
        pre_tokenizers.Split("#", "removed"),
        pre_tokenizers.Split(Regex(r"\w+|\s+"), "isolated", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Replace(Regex("[a-c]+"), "<>")])
    return _byte_level(pre_tokenizers.Sequence(steps), normalizer)


def _llama_parts(
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
    decoder: decoders.Decoder,
    fuse_unk: bool,
    byte_fallback: bool,
) -> Tokenizer:
    """A small LLaMA-like vocabulary: byte pieces in front where asked, pieces with space marks behind."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizer
    trained.pre_tokenizer = pre_tokenizer or pre_tokenizers.Metaspace(prepend_scheme="never")
    byte_pieces = [f"<0x{b:02X}>" for b in range(256)] if byte_fallback else []
    _train(trained, 1500, ["<unk>", "<s>", "</s>", *byte_pieces])
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(m) for m in model["merges"]]
    tokenizer = Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=fuse_unk, byte_fallback=byte_fallback))
    tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def llama_decoder() -> decoders.Decoder:
    """What transformers writes for LLaMA-2."""
    return decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def _llama_legacy() -> Tokenizer:
    normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    return _llama_parts(normalizer, None, llama_decoder(), True, True)


def _llama_metaspace() -> Tokenizer:
    return _llama_parts(None, pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False), llama_decoder(), True, True)


def _metaspace_split() -> Tokenizer:
    return _llama_parts(
        normalizers.NFKD(),
        pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True),
        decoders.Metaspace(SPACE, prepend_scheme="always"),
        False,
        False,
    )


def _added_tokens() -> Tokenizer:
    tokenizer = _llama_legacy()
    tokenizer.add_tokens(
        [
            AddedToken("[L]", lstrip=True, normalized=False),
            AddedToken("[R]", rstrip=True, normalized=False),
            AddedToken("[LR]", lstrip=True, rstrip=True),
            AddedToken("word", single_word=True, normalized=False),
            AddedToken("hello", normalized=True),
            AddedToken("[L][R]", normalized=False),
            AddedToken("  ", normalized=False),
            AddedToken("\u00e9", single_word=True, normalized=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<|x|>", normalized=True, special=True)])
    return tokenizer


def _no_decoder() -> Tokenizer:
    tokenizer = _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    del tokenizer.decoder
    return tokenizer


def _words() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("contiguous")])
    _train(tokenizer, 2500, ["<unk>"])
    return tokenizer


def _punctuation() -> Tokenizer:
    steps = [pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    return _byte_level(pre_tokenizers.Sequence(steps), normalizers.Lowercase())


BORDERS = [r"\b(?i:[a-f]+)\b|[\w&&[^\d_]]+", r"(?i)'k|[^\S\n]+|\B\W", r"[\p{L}&&[^\p{Lu}]]+|[\W\d]"]


def _borders() -> Tokenizer:
    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in BORDERS]
    return _byte_level(pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def _first_behind_cuts() -> Tokenizer:
    normalizer = normalizers.Sequence([normalizers.Replace(Regex("^ +"), ""), normalizers.Prepend("<")])
    pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("[<b]"), "isolated"), pre_tokenizers.Metaspace(SPACE, prepend_scheme="first")]
    )
    return _llama_parts(normalizer, pre_tokenizer, llama_decoder(), True, True)


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """Fields of a protobuf message that are bytes."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            shift += 7
            at += 1
            if message[at - 1] < 128:
                return value, at

    at = 0
    while at < len(message):
        tag, at = varint(at)
        size, at = (4, at) if tag & 7 == 5 else varint(at)
        if tag & 7 == 0:
            continue
        if tag >> 3 == number:
            yield message[at : at + size]
        at += size


def _unigram(rule: str, byte_fallback: bool) -> Tokenizer:
    """A unigram model and the character map that SentencePiece trained it with."""
    model = _sentencepiece_model(model_type="unigram", vocab_size=1500, byte_fallback=byte_fallback, normalization_rule_name=rule)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = Tokenizer(models.Unigram([(sp.id_to_piece(i), sp.get_score(i)) for i in range(len(sp))], sp.unk_id(), byte_fallback))
    charsmap = next(_fields(next(_fields(model, 3)), 2), b"")
    steps = [normalizers.Precompiled(charsmap)] if charsmap else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=not byte_fallback)
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    return tokenizer


_JSON: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": _gpt2,
    "gpt2-prefix": _gpt2_prefix,
    "smollm": _smollm,
    "grouped-digits": _grouped_digits,
    "llama3": _llama3,
    "qwen": _qwen,
    "deepseek": _deepseek,
    "behaviours": _behaviours,
    "llama-legacy": _llama_legacy,
    "llama-metaspace": _llama_metaspace,
    "metaspace-split": _metaspace_split,
    "added-tokens": _added_tokens,
    "words": _words,
    "punctuation": _punctuation,
    "borders": _borders,
    "first-behind-cuts": _first_behind_cuts,
    "unigram": lambda: _unigram("identity", True),
    "unigram-nfkc": lambda: _unigram("nmt_nfkc", False),
    "unigram-nfkc-cf": lambda: _unigram("nmt_nfkc_cf", True),
}


def _from_json(name: str, tokenizer: Tokenizer) -> Configuration:
    text = tokenizer.to_str()
    added = [t["content"] for t in json.loads(text)["added_tokens"]]
    return Configuration(name, tokenizer, {"tokenizer.json": text.encode()}, added)


def from_file(name: str, path: pathlib.Path) -> Configuration:
    """A tokenizer.json that is there already."""
    return _from_json(name, Tokenizer.from_file(str(path)))


# ---- tokenizer.model ----


def merges_of(pieces: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """The merges that transformers reads out of a SentencePiece model: each cut of a piece into two pieces, best score first."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    found = []
    for piece, score in zip(pieces, scores):
        cuts = [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in ids and piece[k:] in ids]
        found += [(score, a, b) for a, b in sorted(cuts, key=lambda c: (ids[c[0]], ids[c[1]]))]
    found.sort(key=lambda m: (m[0], len(m[1]), len(m[2])), reverse=True)
    return [(a, b) for _, a, b in found]


def _sentencepiece_model(**options: str | float | list[str]) -> bytes:
    model = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 1400,
        "byte_fallback": True,
        "character_coverage": 0.999,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus(5, odd=100)), model_writer=model, **{**settings, **options})
    return model.getvalue()


def from_sentencepiece(name: str, model: bytes, legacy: bool = True, prefix: bool = True, same: bool = True) -> Configuration:
    """A directory with a tokenizer.model, and LLaMA's conventions over it; same: the library's own ids do not differ from these."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [sp.id_to_piece(i) for i in range(len(sp))]
    scores = [0.0 if i < 3 else sp.get_score(i) for i in range(len(sp))]
    vocab = {p: i for i, p in enumerate(pieces)}
    model_of_merges = models.BPE(vocab, merges_of(pieces, scores), unk_token=pieces[sp.unk_id()], fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model_of_merges)
    user_defined = [p for i, p in enumerate(pieces) if p.startswith("<user")]
    tokenizer.add_special_tokens([AddedToken(p, normalized=False, special=True) for i, p in enumerate(pieces) if sp.is_control(i)])
    tokenizer.add_tokens([AddedToken(p, normalized=False) for p in user_defined])
    tokenizer.add_special_tokens([AddedToken(p, normalized=False, special=True) for p in ("<unk>", "<s>", "</s>")])
    if legacy:
        steps = [normalizers.Prepend(SPACE)] if prefix else []
        tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first" if prefix else "never", split=False)
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    config = json.dumps({"legacy": legacy, "add_prefix_space": prefix}).encode()
    files = {"tokenizer.model": model, "tokenizer_config.json": config}
    return Configuration(name, tokenizer, files, ["<s>", "</s>", "<unk>", *user_defined], sp if legacy and prefix and same else None)


def configurations() -> Iterator[Configuration]:
    """All of them, one at a time."""
    for name, make in _JSON.items():
        yield _from_json(name, make())
    plain = _sentencepiece_model()
    yield from_sentencepiece("spm", plain)
    yield from_sentencepiece("spm-modern", plain, legacy=False)
    yield from_sentencepiece("spm-no-prefix", plain, prefix=False)
    symbols = _sentencepiece_model(user_defined_symbols=["<user1>", "<user 2>"], control_symbols=["<ctl>"])
    yield from_sentencepiece("spm-user-defined", symbols)
    yield from_sentencepiece("spm-across-words", _sentencepiece_model(split_by_whitespace=False, split_by_number=False))
    yield from_sentencepiece("spm-no-bytes", _sentencepiece_model(byte_fallback=False, vocab_size=900))
    yield from_sentencepiece("spm-suffix", _sentencepiece_model(treat_whitespace_as_suffix=True), same=False)
