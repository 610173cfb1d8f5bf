"""Over 200 spoilt checkpoints, made by rules from two good ones: each ends `dtrnet score` with one line that names what is wrong, and
status 1 or 2. test_checkpoints.py has those that need more than a rule.
"""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from http_support import run_tests
from server_process import PROGRAM, ROOT

GOLDEN = ROOT / "tests" / "golden"
REQUEST = json.dumps({"context": [1, 2, 3], "continuations": [[4, 5]]}) + "\n"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NOT_INT = ["96", 1.5, [], {}, True, -1, 1 << 40, 1e300]
NOT_NUMBER = ["1", [], {}, True, -1]
Spoilt = tuple[str, str, bytes]  # the file, a word of the line, the file's new content


def of_config(folder: Path) -> Iterator[Spoilt]:
    """Every key with another type, out of its range, or another size than the tensors have."""
    config = json.loads((folder / "config.json").read_text())
    values: dict[str, list[Any]] = {
        **{key: [*NOT_INT, 0] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size",
                                          "max_position_embeddings", "num_key_value_heads", "head_dim")},
        "rms_norm_eps": [*NOT_NUMBER, 0], "rope_theta": [*NOT_NUMBER, 0],
        "tie_word_embeddings": ["true", 1, [], {}], "attention_bias": ["false", 0, [], {}], "mlp_bias": ["no", 1, []],
        "model_type": [5, [], "gpt_neox", "mamba"], "hidden_act": [5, "gelu", []],
        "dtrnet_layers": [5, {}, [8], [-1], ["2"], [2.5], [2, 2], [2, 4, 6, 7]],
        "rope_scaling": [5, [], {"rope_type": 5}, {"rope_type": "odd"}, {"rope_type": "yarn"}, {"rope_type": "linear", "factor": -1},
                         {"rope_type": "linear", "factor": "2"}, {"rope_type": "llama3", "factor": 2}],
        "quantization_config": [{"bits": 4}], "torch_dtype": [],
    }  # fmt: skip
    for key, wrong in values.items():
        for value in wrong:
            yield "config.json", key, json.dumps({**config, key: value}).encode()


def of_config_text(folder: Path) -> Iterator[Spoilt]:
    text = (folder / "config.json").read_bytes()
    broken = [b"", b" ", b"{", b"[]", b"null", b'"a"', b"5", b"{}", text[:-3], text + b"x", text.replace(b":", b"=", 1), b"\xff" + text,
              text.replace(b'"silu"', b'"si\x00lu"'), b"\xef\xbb\xbf" + text[:50], b'{"a":' * 100, text.replace(b"96", b"9" * 5000, 1),
              text.replace(b"1e-05", b"NaN"), text.replace(b"{", b'{"vocab_size": 320, ', 1)]  # fmt: skip
    for content in broken:
        yield "config.json", "", content


def with_header(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def of_headers(folder: Path) -> Iterator[Spoilt]:
    """One tensor's entry with another dtype, shape or place."""
    whole = (folder / WEIGHTS).read_bytes()
    n = struct.unpack("<Q", whole[:8])[0]
    header, data = json.loads(whole[8 : 8 + n]), whole[8 + n :]
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.7.self_attn.v_proj.weight"):
        entry = header[name]
        begin, end = entry["data_offsets"]
        entries: list[Any] = [
            None, 5, [], {}, {**entry, "dtype": "F99"}, {**entry, "dtype": 5}, {**entry, "dtype": "I64"}, {**entry, "dtype": None},
            {**entry, "shape": []}, {**entry, "shape": "96"}, {**entry, "shape": [-1, 96]}, {**entry, "shape": [96.5, 96]},
            {**entry, "shape": [1 << 62, 4]}, {**entry, "shape": [1] * 9}, {**entry, "shape": [*entry["shape"], 2]},
            {**entry, "shape": [entry["shape"][0] + 1, *entry["shape"][1:]]}, {**entry, "data_offsets": [begin]},
            {**entry, "data_offsets": [end, begin]}, {**entry, "data_offsets": [begin, end - 4]},
            {**entry, "data_offsets": [begin + 4, end]},
            {**entry, "data_offsets": [begin, len(data) + 4]}, {**entry, "data_offsets": [-4, end]}, {**entry, "data_offsets": "0"},
            {**entry, "data_offsets": [0, 0]}, {**entry, "data_offsets": [float(begin), end]},
        ]  # fmt: skip
        for wrong in entries:
            yield WEIGHTS, name, with_header({**header, name: wrong}, data)
        yield WEIGHTS, "", with_header({k: v for k, v in header.items() if k != name}, data)
        yield WEIGHTS, "", with_header({k + ("x" if k == name else ""): v for k, v in header.items()}, data)
        yield WEIGHTS, "", with_header(json.dumps(header).encode().replace(b"{", b'{"%s": {}, ' % name.encode(), 1), data)


def of_weight_files(folder: Path) -> Iterator[Spoilt]:
    whole = (folder / WEIGHTS).read_bytes()
    n = struct.unpack("<Q", whole[:8])[0]
    text, data = whole[8 : 8 + n], whole[8 + n :]
    for size in (0, 1, 7, 8, 9, 8 + n // 2, 8 + n - 1, 8 + n, 9 + n, len(whole) // 2, len(whole) - 1):
        yield WEIGHTS, "", whole[:size]
    for length in (0, 1, n - 1, n + 1, len(whole), 1 << 40, (1 << 64) - 1, 1 << 63):
        yield WEIGHTS, "", struct.pack("<Q", length) + whole[8:]
    for wrong in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        text.rstrip()[:-1],
        text + b"}",
        b"\0" * n,
        b"\xff" * n,
        b"{" * n,
        text.replace(b'"F32"', b"F32", 1),
    ):
        yield WEIGHTS, "", with_header(wrong, data)
    yield WEIGHTS, "", whole + b"\0"
    yield WEIGHTS, "not finite", whole[:-4] + struct.pack("<f", float("nan"))
    yield WEIGHTS, "not finite", whole[:-4] + struct.pack("<f", float("inf"))


def of_indexes(folder: Path) -> Iterator[Spoilt]:
    index = json.loads((folder / INDEX).read_text())
    names = index["weight_map"]
    first = next(iter(names))
    for shard in ("", ".", "..", "absent.safetensors", "../a", "/etc/passwd", "a/b", INDEX, "config.json", 5, None, [], {}):
        yield INDEX, "", json.dumps({**index, "weight_map": {**names, first: shard}}).encode()
    for weight_map in (None, 5, [], {}, "a", {"a": "b"}, {"a": "/dev/zero"}):
        yield INDEX, "", json.dumps({**index, "weight_map": weight_map}).encode()
    for shard in set(names.values()) - {names[first]}:
        yield INDEX, first, json.dumps({**index, "weight_map": {**names, first: shard}}).encode()
    for content in (b"", b"{", b"[]", b"null", b"{}", json.dumps(index).encode()[:-1], json.dumps(index).encode() + b"x"):
        yield INDEX, "", content


def is_refused(folder: Path, spoilt: Spoilt) -> str | None:
    """What is wrong with the refusal, or None."""
    name, word, content = spoilt
    kept = (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    command = [
        PROGRAM,
        "score",
        "--model",
        str(folder),
        "--dtype",
        "f32",
        "--threads",
        "1",
        "--log-level",
        "error",
        "--kv-cache-memory",
        "8M",
    ]
    got = subprocess.run(command, input=REQUEST, capture_output=True, text=True, timeout=600)
    (folder / name).write_bytes(kept)
    good = got.returncode in (1, 2) and not got.stdout and got.stderr.startswith("dtrnet: ") and got.stderr.count("\n") == 1
    return (
        None
        if good and word in got.stderr
        else f"{name} ({word}): {content[:90]!r}: {got.returncode} {got.stdout[:200]} {got.stderr[:300]}"
    )


def run_all(model: str, rules: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        shutil.copytree(GOLDEN / model, folder, ignore=shutil.ignore_patterns("expected*"))
        for path in [folder, *folder.iterdir()]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        cases = [case for rule in rules for case in rule(folder)]
        wrong = [fault for case in cases if (fault := is_refused(folder, case))]
        print("".join(f"        {fault}\n" for fault in wrong), end="")
        print(f"        {len(cases)} checkpoints")
        assert not wrong, f"{len(wrong)} of {len(cases)}"


def test_configs() -> None:
    run_all("dtrnet-bilayer", [of_config, of_config_text])


def test_weights() -> None:
    run_all("dtrnet-bilayer", [of_headers, of_weight_files])


def test_indexes() -> None:
    run_all("dtrnet-trilayer-sharded", [of_indexes])


if __name__ == "__main__":
    sys.exit(run_tests(globals()))
