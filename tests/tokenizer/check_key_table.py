"""The tables of keys and of classes in docs/tokenizers.md are those of the code."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
EFFECTS = {"KEY_READ": "acted on", "KEY_INERT": "no effect", "KEY_REFUSED": "refused"}


def section(text: str, heading: str) -> str:
    """From a heading to the next one."""
    return text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


def main() -> int:
    """Exit status 1 if they differ."""
    docs = (ROOT / "docs/tokenizers.md").read_text()
    code = (ROOT / "tokenizer/key_rows.c").read_text()
    in_code: dict[str, set[str]] = {effect: set() for effect in EFFECTS.values()}
    for key, effect in re.findall(r'^    \{"(\w+)", (KEY_\w+),', code, re.MULTILINE):
        in_code[EFFECTS[effect]].add(key)
    in_docs = {effect: set() for effect in EFFECTS.values()}
    for effect, keys in re.findall(r"^\| ([^|]+) \| (.+) \|$", section(docs, "Keys"), re.MULTILINE):
        if effect in in_docs:
            in_docs[effect] |= set(re.findall(r"`(\w+)`", keys))
    bad = 0
    for effect, keys in in_code.items():
        for what, more in (("only in the code", keys - in_docs[effect]), ("only in docs/tokenizers.md", in_docs[effect] - keys)):
            if more or not keys:
                print(f"keys, {effect}: {what}: {sorted(more)}")
                bad += 1
    rows = (ROOT / "tokenizer/class_rows.c").read_text().split("rows[] = {", 1)[1].split("\n};", 1)[0]
    classes = set(re.findall(r'^    \{"(\w+Tokenizer|TokenizersBackend)"', rows, re.MULTILINE))
    named = set(re.findall(r"^\| `(\w+)`", section(docs, "Classes"), re.MULTILINE))
    if classes != named or not classes:
        print(f"classes: {sorted(classes ^ named)} are only in one of code and docs")
        bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
