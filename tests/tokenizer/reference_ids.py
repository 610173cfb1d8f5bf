"""What transformers makes of tokenizer directories. Run by the interpreter of an environment with the wanted version.

usage: reference_ids.py < REQUESTS > ANSWERS

A request is a JSON line {"dir": ..., "texts": [...]}; its answer {"ids": [[...]], "special": [[...]], "text": [...], "plain": [...]}, a
list for each text: without special tokens, with them, and what these ids decode to with and without special tokens; or {"error": ...}.
"""

import json
import logging
import os
import sys
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

ANSWERS = os.fdopen(os.dup(1), "w")  # the library itself prints to descriptor 1 now and then
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

import transformers  # noqa: E402

logging.disable(logging.CRITICAL)


def answer(directory: str, texts: list[str]) -> dict:
    """Loads one and encodes the texts."""

    def load() -> "transformers.PreTrainedTokenizerBase":
        return transformers.AutoTokenizer.from_pretrained(directory)

    t = load()
    ids, special, text, plain = [], [], [], []
    for line in texts:
        encoded = []
        for add in (False, True):
            try:
                encoded.append(t.encode(line, add_special_tokens=add))
            except Exception as e:
                encoded.append(f"{type(e).__name__}: {e}")
            if "<FILL_ME>" in line:
                t = load()  # CodeLlama's tokenizer is another one once it has filled a gap
        ids.append(encoded[0])
        special.append(encoded[1])
        known = encoded[1] if isinstance(encoded[1], list) else []
        text.append(t.decode(known, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        plain.append(t.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return {"ids": ids, "special": special, "text": text, "plain": plain}


def main() -> int:
    """A line for each line."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = answer(request["dir"], request["texts"])
        except BaseException as e:  # pyo3 panics are no Exception
            if isinstance(e, KeyboardInterrupt):
                raise
            result = {"error": f"{type(e).__name__}: {e}"[:400]}
        print(json.dumps(result), file=ANSWERS, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
