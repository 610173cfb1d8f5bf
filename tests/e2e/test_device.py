"""The device: none, a wrong one, too little memory, two processes on one. Each is one clear line, and the CPU still works.

DTRNET_TEST_DEVICE names the device whose memory is filled (default cpu); what needs a GPU is left out where there is none.
"""

import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from http_support import run_tests
from server_process import PATIENCE_S, PROGRAM, ROOT, ServerProcess

MODEL = ROOT / "tests" / "golden" / "dense-gqa-tied"
DEVICE = os.environ.get("DTRNET_TEST_DEVICE", "cpu")
HIDDEN_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def score(*flags: str, model: Path = MODEL, env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """`dtrnet score` of nothing: the exit status, and what it printed beside warnings."""
    end = subprocess.run(
        [PROGRAM, "score", "--model", str(model), "--log-level", "error", *flags],
        input="", capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return end.returncode, end.stderr.splitlines()


def refused(*flags: str, model: Path = MODEL, env: dict[str, str] | None = None) -> str:
    """The one line with which it refuses to start."""
    status, lines = score(*flags, model=model, env=env)
    assert status in (1, 2), (status, lines)
    assert len(lines) == 1 and lines[0].startswith("dtrnet: "), lines
    return lines[0]


def has_gpu() -> bool:
    return score("--device", "cuda")[0] == 0


def mebibytes(pattern: str, line: str) -> list[int]:
    found = re.search(pattern, line)
    assert found, line
    return [int(n) for n in found.groups()]


def write_large_model(folder: Path, least_mib: int) -> None:
    """A checkpoint of at least that much in bf16, all of it a hole in the file."""
    vocab = 1 << 24
    d = (least_mib // 32 + 127) // 128 * 128
    config = json.loads((MODEL / "config.json").read_text())
    config |= {"hidden_size": d, "intermediate_size": d, "num_hidden_layers": 1, "vocab_size": vocab}
    config |= {"num_attention_heads": d // 128, "num_key_value_heads": d // 128, "head_dim": 128}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": [vocab, d], "model.norm.weight": [d]}
    layer = {"input_layernorm": [d], "post_attention_layernorm": [d]}
    layer |= {f"self_attn.{x}_proj": [d, d] for x in "qkvo"} | {f"mlp.{x}_proj": [d, d] for x in ("gate", "up", "down")}
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + end)


def pool_refused(size: str) -> tuple[int, int]:
    """MiB free and in all, as told when the KV cache cannot have `size`."""
    line = refused("--device", DEVICE, "--kv-cache-memory", size)
    _, free, total = mebibytes(rf"needs (\d+) MiB \(--kv-cache-memory\), and (\d+) of the {DEVICE} device's (\d+) MiB are free", line)
    return free, total


def test_no_device() -> None:
    line = refused("--device", "cuda", env=HIDDEN_GPU)
    reasons = "this build has no CUDA backend|no NVIDIA driver was found|no CUDA device was found"
    assert re.fullmatch(rf"dtrnet: device cuda: ({reasons}).*", line), line
    for device in ("auto", "cpu"):
        assert score("--device", device, env=HIDDEN_GPU)[0] == 0, device


def test_model_too_large() -> None:
    too_much = 2 * pool_refused("16000G")[1]
    with tempfile.TemporaryDirectory() as folder:
        write_large_model(Path(folder), too_much)
        line = refused("--device", DEVICE, "--dtype", "bf16", model=Path(folder))
    needs, free, total = mebibytes(rf"needs (\d+) MiB for its weights in bf16, and (\d+) of the {DEVICE} device's (\d+) MiB are free", line)
    assert needs >= too_much and 0 < free <= total < needs, line


def test_two_processes() -> None:
    """The second process on a GPU sees what the first has left: it is refused what is not there, and starts with less."""
    if not has_gpu() or DEVICE != "cuda":
        return
    free, _ = pool_refused("16000G")
    most = f"{free * 3 // 4}M"
    with ServerProcess("--device", "cuda", "--kv-cache-memory", most, model=MODEL):
        left, _ = pool_refused(most)
        assert left < free / 3, (free, left)
        assert score("--device", "cuda")[0] == 0


if __name__ == "__main__":
    sys.exit(run_tests(globals()))
