"""The images without a Docker daemon: linted, then their build steps in clean roots, then compose's two services against each other.

test_containers.py         all of it for the CPU's images, which takes about five minutes
test_containers.py lint    the files alone
test_containers.py cuda    the GPU's image

The server runs as its own user on a read-only root, as compose.yaml asks, until its health check passes; then the smoke job's command runs
in the client's root against it. Needs root, mmdebstrap and a network for packages.

Exit status 77: skipped. DTRNET_TEST_ROOTS names a folder for the roots that is kept.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import clean_root

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def skip(reason: str) -> None:
    """Ends the program as skipped."""
    print(f"skipped: {reason}")
    sys.exit(77)


def lint() -> None:
    """Hadolint on every Dockerfile, where it is installed; what compose.yaml names must be there."""
    import yaml

    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    files = sorted(DOCKER.glob("Dockerfile.*"))
    if hadolint:
        subprocess.run([hadolint, *map(str, files)], check=True, timeout=60)
    print(f"lint: {', '.join(file.name for file in files)}: {'clean' if hadolint else 'no hadolint'}")
    copied = [rest.split() for file in files for what, rest in clean_root.instructions(file) if what == "COPY"]
    named = {name for words in copied if not words[0].startswith("--from=") for name in words[:-1]}
    assert named and all((ROOT / name).exists() for name in named), f"not all of {', '.join(sorted(named))} is there"
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    services, volumes = compose["services"], compose.get("volumes", {})
    for name, service in services.items():
        file = (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).resolve()
        assert file in files, f"{name}: {file} is not there"
        for other, how in service.get("depends_on", {}).items():
            needs_check = how["condition"] == "service_healthy"
            other_file = DOCKER.parent / services[other]["build"]["dockerfile"]
            assert not needs_check or "HEALTHCHECK" in other_file.read_text(), f"{name} waits for {other}, which has no health check"
        assert all(volume.split(":")[0] in volumes for volume in service.get("volumes", [])), f"{name}: a volume is not declared"
    print(f"compose: {', '.join(services)}")


def free_port() -> str:
    """One that nobody listens on; the images' own may be taken on this machine."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def wait_healthy(stage: clean_root.Stage, server: subprocess.Popen, timeout_s: float = 60) -> None:
    """Until the image's own health check passes."""
    until = time.monotonic() + timeout_s
    while True:
        asked = subprocess.run(stage.command(stage.health), capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return
        assert server.poll() is None, f"the server ended with status {server.returncode}"
        assert time.monotonic() < until, f"not healthy after {timeout_s} s: {asked.stderr.strip()}"
        time.sleep(0.2)


def check_server_root(stage: clean_root.Stage) -> None:
    """A user that is not root, no compiler, the model in place, and a health check that fails while nobody answers."""
    assert stage.user.split(":")[0] not in ("0", "root") and stage.health
    assert not (stage.root / "usr/bin/gcc").exists(), "the compiler is in the image that runs"
    assert subprocess.run(stage.command(stage.health), capture_output=True, check=False).returncode != 0, "healthy without a server"


def run_services(server_image: clean_root.Stage, client_image: clean_root.Stage, services: dict, results: Path) -> None:
    """Compose's `server` and `smoke`."""
    port = free_port()
    server_image.env["DTRNET_PORT"] = port
    (client_image.root / "etc/hosts").write_text("127.0.0.1 localhost server\n")
    check_server_root(server_image)
    line = server_image.entrypoint + services["server"].get("command", server_image.cmd)
    start = server_image.command(line, read_only=services["server"]["read_only"])
    with subprocess.Popen(start) as server:
        try:
            wait_healthy(server_image, server)
            print("server: healthy", flush=True)
            job = [word.replace(":8000", f":{port}") for word in services["smoke"]["command"]]
            subprocess.run(client_image.command(client_image.entrypoint + job, results=results), check=True, timeout=300)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, f"the server ended with status {server.returncode}"


def run(roots: Path) -> None:
    """Builds both, runs both."""
    import yaml

    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    files = {name: (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).resolve() for name, service in services.items()}
    images = {name: clean_root.build(file, ROOT, roots) for name, file in files.items()}
    results = roots / "results"
    results.mkdir()
    os.chown(results, 10001, 10001)
    run_services(images["server"], images["smoke"], services, results)
    found = list(results.rglob("results_*.json"))
    assert found and (results / "samples" / "finished.json").is_file(), "the smoke job left no results"
    print(f"smoke: {found[0].relative_to(results)}")


def run_cuda(roots: Path) -> None:
    """Builds the GPU's image, its kernels for one device to save time; without a driver it says so, and computes on the CPU."""
    probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(roots), "nvidia-cuda-crt==13.0.*"]
    if subprocess.run(probe, check=False).returncode:
        skip("the package index has no nvidia-cuda-crt 13.0")
    image = clean_root.build(DOCKER / "Dockerfile.cuda", ROOT, roots, {"NVCC_ARCH": "-gencode=arch=compute_80,code=sm_80"})
    check_server_root(image)
    for device, status in (("cuda", 1), ("auto", 0)):
        line = image.command([*image.entrypoint, "score", "--device", device, "--log-level", "error"])
        done = subprocess.run(line, input="", capture_output=True, text=True, check=False)
        print(f"--device {device}: {done.returncode} {done.stderr.strip()}", flush=True)
        driver = Path("/dev/nvidia0").exists()
        assert driver or (done.returncode == status and ("no NVIDIA driver" in done.stderr) == (status == 1))


def main() -> int:
    """Lints, then runs, or skips where it cannot."""
    lint()
    if sys.argv[1:] == ["lint"]:
        return 0
    if os.geteuid() != 0:
        skip("not root")
    missing = [name for name in ("mmdebstrap", "unshare", "chroot") if shutil.which(name) is None]
    if missing:
        skip(f"no {', '.join(missing)}")
    kept = os.environ.get("DTRNET_TEST_ROOTS")
    images = run_cuda if sys.argv[1:] == ["cuda"] else run
    if kept:
        images(Path(kept))
        return 0
    with tempfile.TemporaryDirectory(prefix="dtrnet-roots-") as name:
        images(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
