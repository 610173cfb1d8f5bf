"""Writes the seed corpora of the tokenizer fuzz targets: small files of every kind that the loaders read.

usage: make_fuzz_seeds.py CORPUS_DIR
"""

import io
import pathlib
import random
import sys

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import configurations
import random_directories
import text_lines

SPACE = configurations.SPACE


def _bpe(pieces: list[str], merges: list[tuple[str, str]], **options: str | bool) -> Tokenizer:
    """A model of some pieces, and of what the merges make."""
    vocab = {p: i for i, p in enumerate(pieces)}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    return Tokenizer(models.BPE(vocab=vocab, merges=merges, **options))


def byte_level(pre: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None, **options: bool) -> Tokenizer:
    """Letters, digits and a few words in GPT-2's spelling of bytes."""
    pieces = ["<|e|>", *map(chr, range(97, 123)), *"ĠĊ0123456789ABC.,'"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "a"), ("a", "a"), ("aa", "a"), ("a", "aa")]
    tokenizer = _bpe(pieces, merges, **options)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens(["<|e|>"])
    return tokenizer


def llama_like(normalizer: normalizers.Normalizer, pre: pre_tokenizers.PreTokenizer | None, decoder: decoders.Decoder) -> Tokenizer:
    """A few pieces with space marks, some byte pieces, and added tokens with flags."""
    some_bytes = [f"<0x{b:02X}>" for b in (0xC3, 0xA9, 0x0A, 0xF0, 0x9F, 0x90, 0xA8)]
    merges = [(SPACE, "a"), ("h", "e"), ("l", "l"), ("he", "ll"), (SPACE, "hell"), (SPACE + "hell", "o"), (SPACE, SPACE)]
    pieces = ["<unk>", "<s>", "</s>", *some_bytes, SPACE, *"abcdehlo.,"]
    tokenizer = _bpe(pieces, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer.normalizer, tokenizer.decoder = normalizer, decoder
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.add_tokens([AddedToken("[L]", lstrip=True, rstrip=True, single_word=True), AddedToken("ab", normalized=True)])
    return tokenizer


def unigram() -> Tokenizer:
    """Pieces with scores and some bytes, behind a character map."""
    some_bytes = [(f"<0x{b:02X}>", -20.0) for b in (0xC3, 0xA9, 0x0A)]
    pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        (SPACE, -2.0),
        (SPACE + "a", -3.0),
        *((c, -5.0) for c in "abchelo"),
        ("hell", -6.5),
        ("lo", -7.25),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces + some_bytes, 0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(random_directories.CHARSMAP), normalizers.Strip()])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return tokenizer


def json_seeds() -> dict[str, bytes]:
    """tokenizer.json files; after a NUL, a text."""
    llama3 = byte_level(configurations.split_then_bytes(configurations.LLAMA3_SPLIT), ignore_merges=True)
    template = processors.TemplateProcessing(single="<|e|> $A", special_tokens=[("<|e|>", 0)])
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    steps = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(",", "merged_with_previous"),
        pre_tokenizers.Split(Regex("[A-Z]"), "merged_with_next", invert=True),
        pre_tokenizers.ByteLevel(),
    ]
    prefix = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    marks = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=True)
    words = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("merged_with_next")])
    plain = normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()])
    borders = pre_tokenizers.Split(Regex(r"\b(?i)a|[\p{L}&&[^a-f]]+|[^\W\d]\B"), "isolated")
    made = {
        "gpt2": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "llama3": llama3,
        "qwen": byte_level(configurations.split_then_bytes(configurations.QWEN_SPLIT), normalizers.NFC()),
        "digits": byte_level(pre_tokenizers.Sequence(steps), normalizers.NFKD()),
        "llama": llama_like(prefix, None, configurations.llama_decoder()),
        "metaspace": llama_like(normalizers.Replace(Regex("[.]+"), "!"), marks, decoders.Metaspace(SPACE, prepend_scheme="first")),
        "words": llama_like(plain, words, configurations.llama_decoder()),
        "borders": llama_like(normalizers.NFC(), borders, configurations.llama_decoder()),
        "unigram": unigram(),
    }
    text = b"\0a [L] hello</s> \xc3\xa9"  # unit tests read the byte-level ones as they are
    return {name: t.to_str().encode() + (text if name not in ("gpt2", "llama3", "qwen", "digits") else b"") for name, t in made.items()}


def _varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + _varint(n >> 7)


def model_seeds() -> dict[str, bytes]:
    """tokenizer.model files; one with a character map."""

    def train(model_type: str = "bpe", **options: int | bool | float | list[str]) -> bytes:
        model, r = io.BytesIO(), random.Random(1)
        text = iter([text_lines.prose(r, 20) for _ in range(200)])
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=text, model_writer=model, model_type=model_type, minloglevel=2, normalization_rule_name="identity", **options
        )
        return model.getvalue()

    small = train(vocab_size=80, self_test_sample_size=3)
    charsmap = (1024).to_bytes(4, "little") + bytes(1024) + b"a\0b\0"
    normalizer = b"\x12" + _varint(len(charsmap)) + charsmap
    return {
        "bytes": train(vocab_size=330, byte_fallback=True, character_coverage=1.0, user_defined_symbols=["<u>"]),
        "small": small,
        "unigram": train("unigram", vocab_size=80),
        "charsmap": small + b"\x1a" + _varint(len(normalizer)) + normalizer,
    }


def config_seeds() -> dict[str, bytes]:
    """The files beside random tokenizers, as the target takes them apart."""
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json")
    made = (random_directories.Maker(seed).make() for seed in (3, 78, 1057, 2081, 2180, 2500))
    return {str(i): b"\0".join([*(files.get(n, b"") for n in names), b"a <s>b\n"]) for i, files in enumerate(made, 1)}


def text_seeds() -> dict[str, bytes]:
    """Texts of all kinds, a few lines each."""
    lines = text_lines.lines(400, 9, ["<s>", "</s>"])
    return {str(i): "\n".join(lines[k : k + 6]).encode() for i, k in enumerate((15, 40, 77, 120, 200, 333), 1)}


def main() -> int:
    """Writes four folders."""
    corpus = pathlib.Path(sys.argv[1])
    made = {"json": json_seeds(), "model": model_seeds(), "config": config_seeds(), "text": text_seeds()}
    for folder, seeds in ((f"tokenizer_{kind}", seeds) for kind, seeds in made.items()):
        (corpus / folder).mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (corpus / folder / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
