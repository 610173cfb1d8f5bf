"""What a person can get wrong with the program, and what it says then; a tokenizer from elsewhere."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from http_support import Process, run_tests
from server_process import PROGRAM, ROOT, SERVED, SHIPPED

GOLDEN = ROOT / "tests" / "golden" / "dtrnet-bilayer"  # a checkpoint without a tokenizer
SHAPE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 16384,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
HASHED = ("added_tokens.json", "generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model")
HASHED += ("tokenizer_config.json",)


def run(*args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *args], input=stdin, capture_output=True, text=True, timeout=300, env={**os.environ, **env}, check=False
    )


def hash_of(folder: Path) -> str:
    """As server/api/tokenizer_hash.h says."""
    sums = hashlib.sha256()
    for name in HASHED:
        if (folder / name).is_file():
            data = (folder / name).read_bytes()
            sums.update(name.encode() + b"\0" + len(data).to_bytes(8, "little") + data)
    return sums.hexdigest()


def test_score_names_the_line() -> None:
    good = '{"context": "It rained the whole", "continuations": [" day"]}'
    wrong = {
        '{"context": "a", "continuations": "b"}': "continuations must be a list of 1 to 4096, but is a string",
        '{"context": "a", "continuations": []}': "continuations must be a list of 1 to 4096, but has 0",
        '{"context": "a"}': "continuations must be a list of 1 to 4096, but is missing",
        '{"requests": 7}': "requests must be a list of 1 to 65536 objects, but is an integer",
        "{}": "requests must be a list of 1 to 65536 objects, but is missing",
        "nonsense": "is not valid JSON",
        "[]": "must be a JSON object",
    }
    text = "".join(f"{good}\n\n{line}\n" for line in wrong)  # an empty line is no request, but counts
    got = run("score", stdin=text)
    answers = [json.loads(line) for line in got.stdout.splitlines()]
    assert got.returncode == 1 and len(answers) == 2 * len(wrong), got
    for i, expected in enumerate(wrong.values()):
        said = answers[2 * i + 1]["error"]["message"]
        assert "results" in answers[2 * i] and said.startswith(f"line {3 * i + 3}: ") and expected in said, said


def test_wrong_types_and_names_over_http() -> None:
    with Process("--strict-model-name", "--served-model-name", "dtrnet-26m") as server:
        client = server.client
        said = client.call("POST", "/v1/loglikelihood", {"model": "dtrnet-26m", "requests": {}}).json["error"]["message"]
        assert said == "requests must be a list of 1 to 65536 objects, but is an object", said
        answer = client.call("POST", "/v1/completions", {"prompt": "x"})
        assert answer.status == 404 and "model is missing" in answer.json["error"]["message"], answer.json
        answer = client.call("POST", "/v1/completions", {"prompt": "x", "model": "other"})
        assert answer.status == 404 and '"other" is not served here' in answer.json["error"]["message"], answer.json


def test_unknown_variables() -> None:
    got = run("score", DTRNET_PROT="1", DTRNET_MAX_QUEUE_="5", DTRNET_THREADS="1", DTRNET_API_KEY="s3cret", DTRNET_TEST_X="1")
    warned = [line for line in got.stderr.splitlines() if "is no setting" in line]
    assert got.returncode == 0 and len(warned) == 2, got.stderr
    assert all(any(f"variable {name} is no setting" in line for line in warned) for name in ("DTRNET_PROT", "DTRNET_MAX_QUEUE_"))
    assert "s3cret" not in got.stderr


def test_sizes() -> None:
    said = run("serve", "--kv-cache-memory", "4GX").stderr
    assert '"4GX" is not a size in bytes' in said, said
    with Process("--kv-cache-memory", "32MB", "--request-memory", "64MiB") as server:
        version = server.client.get("/version")
        assert version["kv_rows_total"] * version["kv_row_bytes"] <= 32 << 20


def test_version_tells_the_tokenizer() -> None:
    with Process() as server:
        version = server.client.get("/version")
    assert version["tokenizer_hash"] == hash_of(SERVED) and version["tokenizer_path"] == str(SERVED), version


def test_tokenizer_from_elsewhere() -> None:
    with Process("--tokenizer", str(SHIPPED), model=GOLDEN) as server:
        version = server.client.get("/version")
        assert version["tokenizer"] and version["tokenizer_hash"] == hash_of(SHIPPED) and version["tokenizer_path"] == str(SHIPPED)
        assert server.client.post("/tokenize", {"prompt": "It rained"})["tokens"]
    got = run("serve", "--port", "0", "--model", str(GOLDEN), "--tokenizer", str(GOLDEN))
    assert got.returncode == 2 and "holds no tokenizer.json and no tokenizer.model" in got.stderr, got.stderr


def test_synth() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "small.json").write_text(json.dumps({**SHAPE, "vocab_size": 100}))
        (folder / "config.json").write_text(json.dumps(SHAPE))
        small = run("synth", "--config", f"{name}/small.json", "--out", f"{name}/small", "--tokenizer", str(SHIPPED))
        assert small.returncode == 2 and "has 16384 ids, but vocab_size" in small.stderr and not (folder / "small").exists(), small.stderr
        # Nothing is routed, so nothing is measured: as many tokens as this would take minutes.
        line = ("--config", f"{name}/config.json", "--out", f"{name}/out", "--tokenizer", str(SHIPPED), "--tokens", "16777216")
        made = run("synth", *line)
        assert made.returncode == 0 and "layer" not in made.stdout, made
        assert (folder / "out" / "tokenizer.model").read_bytes() == (SHIPPED / "tokenizer.model").read_bytes()
        with Process(model=folder / "out") as server:
            assert server.client.post("/v1/completions", {"prompt": "It rained", "max_tokens": 2})["usage"]["completion_tokens"] >= 1


if __name__ == "__main__":
    sys.exit(run_tests(globals()))
