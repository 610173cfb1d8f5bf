"""Hostile checkpoints through the program: each ends `dtrnet score` with one line and a non-zero status, naming what is wrong."""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from http_support import run_tests
from server_process import PATIENCE_S, PROGRAM, ROOT

GOLDEN = ROOT / "tests" / "golden"
REQUEST = json.dumps({"context": [1, 2, 3], "continuations": [[4, 5]]}) + "\n"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def score(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, "score", "--model", str(folder), "--dtype", "f32", "--threads", "1", "--log-level", "error", *flags],
                          input=REQUEST, capture_output=True, text=True, timeout=PATIENCE_S)  # fmt: skip


def refused(folder: Path, *says: str, flags: tuple[str, ...] = ()) -> None:
    done = score(folder, *flags)
    lines = done.stderr.splitlines()
    assert done.returncode in (1, 2), f"status {done.returncode}: {done.stderr}"
    assert len(lines) == 1 and lines[0].startswith("dtrnet: ") and not done.stdout, done.stderr
    for text in says:
        assert text in lines[0], f"{text!r} is not in {lines[0]!r}"


def works(folder: Path, *flags: str) -> str:
    done = score(folder, *flags)
    assert done.returncode == 0 and "results" in json.loads(done.stdout), done.stderr
    return done.stdout


def copy(model: str, to: Path) -> Path:
    shutil.copytree(GOLDEN / model, to, ignore=shutil.ignore_patterns("expected*"))
    for path in [to, *to.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return to


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def write(path: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def with_copy(check: Callable[[Path], None], model: str = "dtrnet-bilayer") -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(copy(model, Path(folder) / "model"))


def test_the_copy_works() -> None:
    def check(folder: Path) -> None:
        done = score(folder)
        assert done.returncode == 0 and "results" in json.loads(done.stdout), done.stderr

    with_copy(check)
    with_copy(check, "dtrnet-trilayer-sharded")


def test_missing_files() -> None:
    def check(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "elsewhere")
        refused(folder, WEIGHTS)
        os.mkfifo(folder / WEIGHTS)
        refused(folder, "not a regular file")
        (folder / WEIGHTS).unlink()
        (folder / WEIGHTS).mkdir()
        refused(folder, "not a regular file")
        (folder / WEIGHTS).rmdir()
        (folder / WEIGHTS).symlink_to("/dev/zero")
        refused(folder, "not a regular file")
        (folder / WEIGHTS).unlink()
        (folder / WEIGHTS).write_bytes(b"")
        refused(folder, "too few")
        (folder / "config.json").unlink()
        refused(folder, "config.json")
        refused(folder / "absent", "absent")

    with_copy(check)


def test_truncation() -> None:
    def check(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        n = 8 + struct.unpack("<Q", data[:8])[0]
        rng = random.Random(1)
        for size in [1, 7, 8, 9, n - 1, n, n + 1, len(data) - 1, *(rng.randrange(len(data)) for _ in range(12))]:
            (folder / WEIGHTS).write_bytes(data[:size])
            refused(folder)
        (folder / WEIGHTS).write_bytes(data + b"\0")
        refused(folder, "1 bytes follow")

    with_copy(check)


def test_tensors() -> None:
    def check(folder: Path) -> None:
        header, data = read(folder / WEIGHTS)
        q = "model.layers.3.self_attn.q_proj.weight"
        write(folder / WEIGHTS, {k.replace("layers.3.self_attn.q_proj", "layers.3.self_attn.r_proj"): v for k, v in header.items()}, data)
        refused(folder, q, "missing")
        write(
            folder / WEIGHTS,
            {k: {**v, "shape": v["shape"][::-1]} if k.endswith("down_proj.weight") and "layers.2" in k else v for k, v in header.items()},
            data,
        )
        done = score(folder)  # square in this model: the same shape
        assert done.returncode == 0, done.stderr
        write(folder / WEIGHTS, {k: {**v, "shape": [v["shape"][0] * v["shape"][1]]} if k == q else v for k, v in header.items()}, data)
        refused(folder, q, "must be [96,96]")
        write(folder / WEIGHTS, {k: {**v, "dtype": "I32"} if k == q else v for k, v in header.items()}, data)
        refused(folder, q, "I32")
        write(
            folder / WEIGHTS,
            {**header, "surprise": {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}},
            data + bytes(4),
        )
        refused(folder, "surprise")
        for name in (q, "model.norm.weight", "model.layers.1.router.weight_predictor.0.bias", "model.embed_tokens.weight"):
            for value in (float("nan"), float("-inf")):
                at = header[name]["data_offsets"][0]
                write(folder / WEIGHTS, header, data[:at] + struct.pack("<f", value) + data[at + 4 :])
                refused(folder, name, "not finite")

    with_copy(check)


def test_logits_that_overflow() -> None:
    """Finite weights whose products are not: the request fails, naming the position; the program does not."""

    def check(folder: Path) -> None:
        header, data = read(folder / WEIGHTS)
        begin, end = header["model.norm.weight"]["data_offsets"]
        write(folder / WEIGHTS, header, data[:begin] + struct.pack("<f", 3e38) * ((end - begin) // 4) + data[end:])
        done = score(folder)
        error = json.loads(done.stdout)["error"]
        assert done.returncode == 1 and "finite" in error["message"] and any(c.isdigit() for c in error["message"]), done.stdout

    with_copy(check)


def test_indexes() -> None:
    def check(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        name, shard = next(iter(index["weight_map"].items()))
        outside = folder.parent / "outside.safetensors"
        shutil.copy(folder / shard, outside)
        for target, says in {"../outside.safetensors": "not a file name", str(outside): "not a file name", "absent.safetensors": "absent",
                             "..": "not a file name", "": "not a file name"}.items():  # fmt: skip
            (folder / INDEX).write_text(
                json.dumps({**index, "weight_map": {k: target if v == shard else v for k, v in index["weight_map"].items()}})
            )
            refused(folder, says)
        (folder / INDEX).write_text(json.dumps(index))
        (folder / shard).unlink()
        (folder / shard).symlink_to(outside)
        works(folder)  # as in the hub's cache
        (folder / shard).unlink()
        (folder / shard).symlink_to("/dev/null")
        refused(folder, "not a regular file")
        (folder / shard).unlink()
        (folder / shard).symlink_to(folder.parent / "gone")
        refused(folder, "link to a file that is gone")
        (folder / shard).unlink()
        shutil.copy(outside, folder / shard)
        (folder / INDEX).write_text(json.dumps({**index, "weight_map": {k: v for k, v in index["weight_map"].items() if k != name}}))
        works(folder)  # the shard has it
        phantoms = {"phantom": shard, "model.layers.0.self_attn.rotary_emb.inv_freq": shard}
        (folder / INDEX).write_text(json.dumps({**index, "weight_map": {**index["weight_map"], **phantoms}}))
        works(folder)
        others = [v for v in index["weight_map"].values() if v != shard]
        (folder / INDEX).write_text(json.dumps({**index, "weight_map": {**index["weight_map"], name: others[0]}}))
        refused(folder, name, "but the index says")
        for text in ("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
            (folder / INDEX).write_text(text)
            refused(folder, INDEX)

    with_copy(check, "dtrnet-trilayer-sharded")


def test_configs() -> None:
    def check(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        changes: dict[str, tuple[Any, ...]] = {
            "model_type": ("mistral", None), "hidden_act": ("gelu",), "hidden_size": (64, 0, "96", 1 << 40), "num_attention_heads": (7, -6),
            "num_hidden_layers": (7, 9, 0, 1 << 20), "vocab_size": (319, 321), "head_dim": (17, 24), "intermediate_size": (95,),
            "dtrnet_layers": ([2, 4], [2, 4, 6, 7], None, [99], "2,4"), "sliding_window": (16, 0), "quantization_config": ({"bits": 4},),
            "rope_scaling": ({"rope_type": "dynamic", "factor": 2}, {"type": "longrope"}, 3), "eos_token_id": ("2", [1, [2]]),
            "secret": (1,), "tie_word_embeddings": (False, 1), "rms_norm_eps": (0, "1e-5"), "max_position_embeddings": (0, 1 << 40),
        }  # fmt: skip
        for key, values in changes.items():
            for value in values:
                (folder / "config.json").write_text(json.dumps({**config, key: value}))
                refused(folder)
        for text in ("", "{", "[]", "{}", "\0", "{" * 100000, '{"a": 1, "a": 2}'):
            (folder / "config.json").write_text(text)
            refused(folder, "config.json")
        (folder / "config.json").write_text(json.dumps(config))
        refused(folder, "--dense-layers", flags=("--dense-layers", "0,1"))
        refused(folder, "--rope-scaling", flags=("--rope-scaling", '{"rope_type": "dynamic"}'))
        (folder / "generation_config.json").write_text('{"eos_token_id": "none"}')
        refused(folder, "generation_config.json", "eos_token_id")

    with_copy(check)


def test_config_flags() -> None:
    def check(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        same = works(folder)
        changes = {"secret": 1, "logit_scale": 2, "eos_token_id": -1, "bos_token_id": 320, "max_sequence_length": 64, "rope_scaling": {}}
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        refused(folder, "secret = 1", "(--accept-config-key passes over it)", flags=("--accept-config-key", "logit_scale"))
        refused(folder, "--accept-config-key vocab_size: this key is read", flags=("--accept-config-key", "vocab_size"))
        assert works(folder, "--accept-config-key", "secret", "--accept-config-key", "logit_scale") == same
        yarn = {"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 2048}
        (folder / "config.json").write_text(json.dumps({**config, "rope_scaling": yarn}))
        assert works(folder, "--rope-factor", "ratio") == works(folder) != works(folder, "--rope-factor", "config")

    with_copy(check)


def test_windows() -> None:
    def check(folder: Path) -> None:
        refused(folder, "window of 512 tokens", "with --max-model-len 512 or less", flags=("--max-model-len", "513"))
        same = works(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 8}))
        refused(folder, "window of 8 tokens")
        assert works(folder, "--max-model-len", "8") == same

    with_copy(check, "mistral-window-bf16")


def test_hints() -> None:
    """What is no checkpoint in safetensors: one line that says what it is and what to do."""
    refused(Path("org/name"), "Hugging Face hub", "hf download org/name --local-dir DIR, then name DIR")

    def check(folder: Path) -> None:
        refused(folder.parent, "holds no model itself", f"name {folder}")
        weights = (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
        config = json.loads((folder / "config.json").read_text())
        refused(folder, "PyTorch pickle", "save_pretrained")
        refused(weights, "PyTorch pickle")
        gguf = weights.rename(folder / "model.Q8_0.gguf")
        refused(folder, "GGUF", "config.json and model.safetensors")
        refused(gguf, "GGUF")
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq", "bits": 4}}))
        refused(folder, "quantised", "awq", "take the checkpoint that it was made from")

    with_copy(check)


if __name__ == "__main__":
    sys.exit(run_tests(globals()))
