"""How long a server takes from its start until /ready, with the model's files in the page cache.

    python3 loading.py --model DIR [--program build/dtrnet --program other/dtrnet] [--setting "--device cpu --dtype bf16"] ...

Each setting (flags of `dtrnet serve`, in one string; several may be given) is started --rounds times with each program in
turn, after one start to warm up. Prints, of the middle round: seconds until /ready and GB/s of the weight files, seconds of a
start that reads nothing much (--empty DIR, a tiny model: what opening devices costs), seconds until /version knows the
model's hash, and processor time until then. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def file_bytes(model: Path) -> int:
    """Bytes of the weight files."""
    return sum(f.stat().st_size for f in model.glob("*.safetensors"))


def warm(model: Path) -> None:
    """Reads the weight files once, so that they are in the page cache."""
    for f in model.glob("*.safetensors"):
        with f.open("rb", buffering=0) as data:
            while data.read(1 << 24):
                pass


def ask(port: int, path: str) -> bytes:
    """One answer of the server."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=600) as page:
        return page.read()


def start(program: str, model: Path, setting: str) -> dict:
    """One start: seconds until /ready and until the hash is known, processor seconds, bytes of weights on the devices."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        command = [program, "serve", "--model", str(model), "--port", "0", "--shutdown-delay", "0", *setting.split()]
        began = time.monotonic()
        process = subprocess.Popen(command, stderr=log)
        while not (found := re.search(r"listening on http://[^:]*:(\d+)", Path(log.name).read_text())):
            if process.poll() is not None:
                raise RuntimeError(Path(log.name).read_text())
            time.sleep(0.005)
        ask(int(found[1]), "/ready")
        ready = time.monotonic() - began
        version = json.loads(ask(int(found[1]), "/version"))
        known = time.monotonic() - began
        process.terminate()
        process.wait(120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"ready": ready, "known": known, "cpu": cpu, "bytes": version["weight_bytes"], "hash": version["model_hash"]}


def middle(rounds: list[dict]) -> dict:
    """The round whose time until /ready is the median."""
    return sorted(rounds, key=lambda r: r["ready"])[len(rounds) // 2]


def main() -> None:
    """One line a setting and program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", action="append", help="several are measured side by side")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--setting", action="append", help='default: "--device cpu"')
    parser.add_argument("--empty", type=Path, default=ROOT / "tests" / "golden" / "dense-gqa-tied")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    programs, size, hashes = args.program or [str(ROOT / "build" / "dtrnet")], file_bytes(args.model), set()
    warm(args.model)
    for setting in args.setting or ["--device cpu"]:
        rounds: dict[str, list[dict]] = {p: [] for p in programs}
        for i in range(args.rounds + 1):
            for program in programs:
                got = start(program, args.model, setting)
                rounds[program] += [got] if i else []
        for program in programs:
            got = middle(rounds[program])
            empty = statistics.median(start(program, args.empty, setting)["ready"] for _ in range(3))
            hashes.add(got["hash"])
            print(
                f"{program} {setting}: ready in {got['ready']:.2f} s, {1e-9 * size / got['ready']:.2f} GB/s of {1e-9 * size:.2f} GB "
                f"({1e-9 * size / max(got['ready'] - empty, 1e-3):.2f} beside the {empty:.2f} s of a tiny model); "
                f"hash known after {got['known']:.2f} s; {got['cpu']:.2f} s of CPU",
                flush=True,
            )
    if len(hashes) > 1:
        raise SystemExit(f"hashes differ: {hashes}")


if __name__ == "__main__":
    main()
