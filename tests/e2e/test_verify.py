"""A table verified on servers: the same, other threads, another CPU level, another dtype; and what is forged is found and named."""

import json
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import support  # isort: skip  (first: it finds the Python that has the other packages)
import commands
import twin
from support import Server

command = commands.Forked()


def verified(expected: str, *arguments: str, how: Callable[..., commands.Result] = command) -> None:
    """It must hold, in these words."""
    got = how("verify", *arguments)
    assert got.returncode == 0 and expected in got.stdout, (got.stdout, got.stderr[-1500:])
    assert "are the tasks' own, and judged as they do" in got.stdout, got.stdout


def refused(expected: str, *arguments: str) -> None:
    """It must not, and say why in one line."""
    got = command("verify", *arguments)
    assert got.returncode == 1 and expected in got.stderr and "Traceback" not in got.stderr, (expected, got.stdout, got.stderr[-1500:])


def swap_right_and_wrong(rows: list[dict]) -> None:
    """The mean stays."""
    right, wrong = (next(row for row in rows if row["acc"] == value) for value in (1, 0))
    right["acc"], wrong["acc"] = wrong["acc"], right["acc"]


def forge(out: Path, change: Callable[[list[dict]], None]) -> None:
    """Changes items of one task."""
    (path,) = out.rglob("samples_sample_twoway_*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# What is changed in the items, and sealed again -> what a verification of all items says.
FORGERIES: list[tuple[Callable[[list[dict]], None], str]] = [
    (lambda rows: rows[3]["resps"][0].__setitem__(0, ["-40.25", "False"]), "bits must be equal: item 3 of sample_twoway, request 0"),
    (lambda rows: rows[3]["arguments"]["gen_args_0"].update(arg_0="Another question"), "bits must be equal: item 3 of sample_twoway"),
    (lambda rows: rows[3].update(doc_hash="0" * 64), "item 3 of sample_twoway is another than the task's own"),
    (lambda rows: rows[3].update(target=str(1 - int(rows[3]["target"]))), "item 3 of sample_twoway: its target is"),
    (swap_right_and_wrong, "acc of these answers is"),
    (lambda rows: rows[3].update(acc=1 - rows[3]["acc"]), "acc is reported as"),
]


def check_forgeries(out: Path, url: str) -> None:
    """Each with its seal made again by who forged it, and one with the seal left alone."""
    for change, expected in FORGERIES:
        kept = out.with_name("kept")
        shutil.copytree(out, kept)
        forge(out, change)
        assert command("seal", str(out)).returncode == 0
        refused(expected, str(out), "--base_url", url, "--items", "100000")
        shutil.rmtree(out)
        kept.rename(out)
    shutil.copytree(out, kept)
    forge(out, FORGERIES[0][0])
    refused("not what was sealed", str(out), "--base_url", url)
    shutil.rmtree(out)
    kept.rename(out)
    print(f"{len(FORGERIES) + 1} forgeries found", flush=True)


def write_nudged(model: Path, out: Path) -> None:
    """A copy of `model` with the first weight of its last norm changed by a unit in the last place."""
    shutil.copytree(model, out)
    raw = bytearray((out / "model.safetensors").read_bytes())
    (size,) = struct.unpack("<Q", raw[:8])
    info = json.loads(raw[8 : 8 + size])["model.norm.weight"]
    raw[8 + size + info["data_offsets"][0]] ^= 1
    (out / "model.safetensors").write_bytes(raw)


def check_liars(folder: Path, honest: dict) -> None:
    """Tables of a model with one other weight, and with another rope factor, that claim to be of the honest server; sealed as such."""
    write_nudged(support.SHIPPED, folder / "nudged")
    yarn = ["--rope-scaling", '{"rope_type": "yarn", "factor": 2}', "--max-model-len", "2048"]
    liars: list[tuple[Path, list[str]]] = [(folder / "nudged", []), (support.SHIPPED, yarn)]
    for number, (model, flags) in enumerate(liars):
        out = folder / f"liar{number}"
        with Server(model, "--dtype", "f32", *flags) as server:
            made = command("suite", "smoke", "--base_url", server.url, "--output", str(out))
            assert made.returncode == 0, made.stderr[-1500:]
        for path in out.rglob("results_*.json"):
            data = json.loads(path.read_text())
            data["config"]["dtrnet_origin"]["server"] = honest
            path.write_text(json.dumps(data))
        assert command("seal", str(out)).returncode == 0
        with Server(support.SHIPPED, "--dtype", "f32") as server:
            refused("bits must be equal", str(out), "--base_url", server.url)


def main() -> int:
    """A table of the sample tasks in float32."""
    with tempfile.TemporaryDirectory() as name:
        out, other = Path(name) / "out", Path(name) / "other"
        twin.write_twin(support.SHIPPED, other)
        with Server(support.SHIPPED, "--dtype", "f32") as server:
            made = command("suite", "smoke", "--base_url", server.url, "--output", str(out))
            assert made.returncode == 0, made.stderr[-1500:]
            digest = commands.alone("seal", str(out)).stdout.split()[0]
            verified("50 items, ", str(out), "--base_url", server.url, "--digest", digest, how=commands.alone)
            refused("not the results of that digest", str(out), "--base_url", server.url, "--digest", "0" * 64)
            check_forgeries(out, server.url)
            honest = server.get("/version").json()
        check_liars(Path(name), honest)
        with Server(support.SHIPPED, "--dtype", "f32", "--threads", "1", "--prefix-cache", "off") as server:
            verified("the same to the bit", str(out), "--base_url", server.url)
        with Server(support.SHIPPED, "--dtype", "f32", "--cpu-level", "scalar") as server:
            verified("portable-1: the same to the bit", str(out), "--base_url", server.url, "--items", "20")
        with Server(support.SHIPPED, "--dtype", "bf16") as server:
            verified("within the bound", str(out), "--base_url", server.url)
        with Server(support.SHIPPED, "--dtype", "f32", "--rope-scaling", '{"rope_type": "yarn", "factor": 2}') as server:
            refused("not this setting: rope", str(out), "--base_url", server.url)
        with Server(other, "--dtype", "f32") as server:
            refused("not this model", str(out), "--base_url", server.url)
    print("verified to the bit, within a bound, and refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
