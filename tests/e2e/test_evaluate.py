"""Whose results are whose, and keys: every command against servers with a key and TLS, and two models through one output folder."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import support  # isort: skip  (first: it finds the Python that has the other packages)
import commands
import twin
from server_process import PATIENCE_S, PROGRAM
from support import Server

KEY = "key-that-nobody-may-see"
forked = commands.Forked()
LOCAL = ("local", "--dtrnet", PROGRAM, "--tasks", "sample_twoway", "--limit", "4")


def works(*arguments: str, **environment: str) -> str:
    """It must succeed, and not say the key; what it said."""
    got = commands.alone(*arguments, **environment)
    assert got.returncode == 0, (arguments, got.stderr[-2000:])
    assert KEY not in got.stdout + got.stderr, arguments
    return got.stdout


def refused(expected: str, *arguments: str, **environment: str) -> None:
    """One line that names the mistake, no traceback."""
    got = forked(*arguments, **environment)
    last = (got.stderr.strip().splitlines() or [""])[-1]
    assert got.returncode != 0 and expected in got.stdout + last and "Traceback" not in got.stderr, (
        arguments,
        got.stdout,
        got.stderr[-1500:],
    )
    assert KEY not in got.stdout + got.stderr, arguments


class Watch:
    """Looks at the command lines of all processes but those of this test's own commands, for a `with` block."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self) -> None:
        while not self.over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes().decode(errors="replace").replace("\0", " ")
                except OSError:
                    continue
                if KEY in line and " dtrnet_eval local " not in line and " dtrnet_eval sweep " not in line:
                    self.seen.add(line)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def certificate(folder: Path) -> tuple[str, str]:
    """A self-signed one for the loopback, and its key."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-keyout", key, "-out", cert]
    subprocess.run([*line, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key


def no_key_below(folder: Path) -> None:
    """No file holds the key."""
    found = [str(path) for path in folder.rglob("*") if path.is_file() and KEY in path.read_text(errors="replace")]
    assert not found, found


def origin_of(folder: Path) -> dict:
    """The record in the one results file below."""
    (path,) = folder.rglob("results_*.json")
    return json.loads(path.read_text())["config"]["dtrnet_origin"]


def check_local(folder: Path, other: Path, cert: tuple[str, str]) -> None:
    """What ./evaluate does, with key and TLS; then another model, and another dtype, into the same folder."""
    out = folder / "local"
    flags = ("--api-key", KEY, "--tls-cert", cert[0], "--tls-key", cert[1])
    with Watch() as watch:
        said = works(*LOCAL, "--output_path", str(out), "--log_samples", "--", *flags, REQUESTS_CA_BUNDLE=str(folder / "nothing.pem"))
    assert not watch.seen, watch.seen
    assert "sample_twoway" in said and "12 layers" in said, said
    no_key_below(out)
    found = origin_of(out)
    assert found["server"]["model_path"] == str(support.SHIPPED) and found["server"]["dtype"] and found["server"]["version"], found
    assert found["limit"] == 4 and found["tasks"] == {"sample_twoway": 1.0} and found["harness"] and found["client"] == "local-completions"
    assert (out / "dtrnet-26m").is_dir()
    refused("holds results of another origin: ", *LOCAL, "--output_path", str(out), "--model", str(other))
    refused("dtype", *LOCAL, "--output_path", str(out), "--", "--dtype", "f16")
    refused("limit 4.0 there, none here", "local", "--dtrnet", PROGRAM, "--tasks", "sample_twoway", "--output_path", str(out))
    print("local: key and TLS, origin recorded, others refused", flush=True)


def check_suite(folder: Path, other: Path, cert: tuple[str, str]) -> None:
    """A suite with key and TLS; again, against the same server and against others."""
    out, file = folder / "suite", folder / "key.txt"
    file.write_text(KEY + "\n")
    line = ("suite", "smoke", "--limit", "2", "--output", str(out), "--base_url")
    trust = ("--api_key_file", str(file), "--ca_cert_path", cert[0])
    with Server(support.SHIPPED, "--tls-cert", cert[0], "--tls-key", cert[1], env={"DTRNET_API_KEY": KEY}) as server, Watch() as watch:
        refused("401", *line, server.url, "--ca_cert_path", cert[0])
        refused("TLS failed", *line, server.url, "--api_key_file", str(file))
        works(*line, server.url, *trust)
        assert "finished before" in works(*line, server.url, "--no_verify_certificate", DTRNET_API_KEY=KEY)
        refused(
            "the suite long needs 21000 positions, but the server takes 2048; start it with --max-model-len 21000",
            "suite",
            "long",
            *line[4:],
            server.url,
            *trust,
        )
    assert not watch.seen, watch.seen
    no_key_below(out)
    for model, flags in (
        (other, ()),
        (support.SHIPPED, ("--rope-scaling", '{"rope_type": "yarn", "factor": 2}')),
        (support.SHIPPED, ("--dense-layers", "all")),
    ):
        with Server(model, *flags) as server:
            refused("holds results of another origin", *line, server.url)
    print("suite: key and TLS, other servers refused", flush=True)


def check_run(folder: Path, other: Path) -> None:
    """Model arguments that nobody knows, keys among them, and another model."""
    out = ("--output_path", str(folder / "run"))
    line = ("run", "--model", "dtrnet", "--tasks", "sample_twoway", "--limit", "2", *out, "--model_args")
    with Server() as server:
        refused("no argument max_lenght; did you mean max_length", *line, f"base_url={server.url},max_lenght=64")
        refused("would stand in results", *line, f"base_url={server.url},api_key={KEY}")
        works(*line, f"base_url={server.url}")
    with Server(other) as server:
        refused("model_hash", *line, f"base_url={server.url}")
        refused(
            "model_hash",
            "run",
            "--model",
            "local-completions",
            *line[3:],
            f"model=x,base_url={server.url}/v1/completions,tokenizer_backend=remote",
        )
    print("run: unknown arguments and another model refused", flush=True)


def check_sweep(folder: Path, other: Path, cert: tuple[str, str]) -> None:
    """Key and TLS through --server-flags; then another checkpoint of the same name."""
    first, second = folder / "a" / "model", folder / "b" / "model"
    for link, target in ((first, support.SHIPPED), (second, other)):
        link.parent.mkdir()
        shutil.copytree(target, link)
    out = folder / "sweep"
    flags = f"--api-key {KEY} --tls-cert {cert[0]} --tls-key {cert[1]}"
    line = ("--output", str(out), "--dtrnet", PROGRAM, "--limit", "2")
    with Watch() as watch:
        works("sweep", "smoke", str(first), *line, "--server-flags", flags)
    assert not watch.seen, watch.seen
    no_key_below(out)
    begin = time.monotonic()
    works("sweep", "smoke", str(first), *line, "--server-flags", flags)
    print(f"sweep: again in {time.monotonic() - begin:.1f} s, nothing started")
    refused("holds results of another origin", "sweep", "smoke", str(second), *line)
    print("sweep: key and TLS, another checkpoint of the same name refused", flush=True)


def check_script() -> None:
    """./evaluate names a task that is not there before it builds."""
    if not (support.ROOT / ".venv" / "installed-eval.txt").is_file():
        return
    line = [str(support.ROOT / "evaluate"), "--tasks", "sample_twoway,nosuch"]
    got = subprocess.run(line, env=commands.ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert got.returncode != 0 and "Tasks not found: nosuch" in got.stderr and "building" not in got.stdout, (
        got.stdout,
        got.stderr[-1000:],
    )
    print("evaluate: an unknown task is named before anything is built")


def main() -> int:
    """All parts."""
    if shutil.which("openssl") is None:
        support.skip("no openssl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        twin.write_twin(support.SHIPPED, folder / "other")
        cert = certificate(folder)
        check_local(folder, folder / "other", cert)
        check_suite(folder, folder / "other", cert)
        check_run(folder, folder / "other")
        check_sweep(folder, folder / "other", cert)
    check_script()
    return 0


if __name__ == "__main__":
    sys.exit(main())
