"""A Dockerfile's steps run in clean Debian roots, for machines where no Docker daemon is at hand.

What differs from Docker: a stage begins with a root that mmdebstrap made from the release in its FROM line; every step sees the host's
network, resolver, certificates and package settings; nothing is layered or cached. Instructions that are not understood are errors.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# The image of a FROM line -> what its root has beyond Debian's minimum, and a command that finishes it.
BASES = {
    "debian:bookworm-slim": ("", ""),
    "python:3.11-slim-bookworm": (
        "python3,python3-pip,ca-certificates",
        "ln -s python3 /usr/bin/python; rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED",
    ),
}
# Debian's slim images are set up so: dpkg does not wait for the disk, and leaves documentation and translations out.
SLIM = ("force-unsafe-io", *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "lintian", "locale", "man")))
HOST_FILES = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
PASSED = re.compile(r"PIP_.*|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|https?_proxy|no_proxy", re.IGNORECASE)
IGNORED = {"EXPOSE", "STOPSIGNAL"}
# $1 root, $2 "ro" or "rw", $3 user, $4 working directory, $5 a directory to see as /results ("" for none), then env's arguments.
ENTER = """set -e
mount --bind "$1" "$1"
[ -z "$5" ] || { mkdir -p "$1/results"; mount --bind "$5" "$1/results"; }
[ "$2" = rw ] || mount -o remount,bind,ro "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1 user=$3 dir=$4
shift 5
exec chroot --userspec="$user" "$root" /usr/bin/env -C "$dir" -i "$@"
"""


@dataclass
class Stage:
    """One FROM and what follows.

    Attributes:
        root: its file system.
        env: set by ENV.
        workdir, user, shell: in force.
        entrypoint, cmd, health: argument lists.
    """

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def command(self, line: list[str], *, root: bool = False, read_only: bool = False, results: Path | None = None) -> list[str]:
        """The host's command that runs `line` inside, in a mount namespace of its own."""
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root" if root else "/home/dtrnet"}
        env |= {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)} | self.env
        user = "0:0" if root else self.user
        enter = [str(self.root), "ro" if read_only else "rw", user, self.workdir, str(results or "")]
        return ["unshare", "--mount", "sh", "-c", ENTER, "enter", *enter, *(f"{k}={v}" for k, v in env.items()), *line]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(instruction, rest) with continued lines joined and comments dropped."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    split = [line.strip().split(None, 1) for line in text.splitlines() if line.strip()]
    return [(words[0].upper(), words[1] if len(words) > 1 else "") for words in split]


def share_host(root: Path) -> None:
    """Gives a root the host's network settings and certificates, anew where a step's packages replaced them."""
    for name in HOST_FILES:
        if Path("/", name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path("/", name), root / name)


def make_base(image: str, root: Path) -> None:
    """A root of BASES with the host's network settings: made once beside `root`, then copied for each FROM."""
    if image not in BASES:
        raise ValueError(f"no clean root stands for the image {image}; there are {', '.join(BASES)}")
    base = root.parent / f"base-{image.replace(':', '-')}"
    if not base.is_dir():
        bootstrap(image, base)
    subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)


def bootstrap(image: str, root: Path) -> None:
    """One of BASES from Debian's packages."""
    packages, finish = BASES[image]
    settings = [path for path in sorted(Path("/etc/apt/apt.conf.d").glob("*")) if "Acquire" in path.read_text()]
    options = [f"--aptopt={path}" for path in settings] + ([f"--include={packages}"] if packages else [])
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", *options, "bookworm", str(root)], check=True, timeout=600)
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(f"{option}\n" for option in SLIM))
    share_host(root)
    for path in settings:
        shutil.copy(path, root / "etc/apt/apt.conf.d" / path.name)
    if finish:
        subprocess.run(["chroot", str(root), "/bin/sh", "-ec", finish], check=True)


def _inside(root: Path, workdir: str, path: str) -> Path:
    return root / os.path.normpath(os.path.join(workdir, path)).lstrip("/")


def _context_files(context: Path) -> list[str]:
    """Names at the top of the build context that .dockerignore lets through; its deeper patterns only keep caches out."""
    ignore = context / ".dockerignore"
    patterns = [line.strip().rstrip("/") for line in ignore.read_text().splitlines() if line.strip()] if ignore.is_file() else []
    return [path.name for path in context.iterdir() if not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)]


def copy(stage: Stage, words: list[str], context: Path, stages: dict[str, Stage]) -> None:
    """COPY [--from=STAGE] SOURCE... DESTINATION, with Docker's rule that a directory stands for its contents."""
    source_root = stages[words.pop(0).removeprefix("--from=")].root if words[0].startswith("--from=") else context
    *sources, destination = words
    target = _inside(stage.root, stage.workdir, destination)
    for source in sources:
        path, into = source_root / source.strip("/"), target
        what = [f"{path}/."] if path.is_dir() else [str(path)]
        if path == context:
            what = [str(context / name) for name in _context_files(context)]
        elif path.is_file() and (destination.endswith("/") or len(sources) > 1):
            into = target / path.name
        (into if path.is_dir() else into.parent).mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--no-preserve=ownership", *what, str(into)], check=True)


def step(stage: Stage, instruction: str, rest: str, context: Path, stages: dict[str, Stage], args: dict[str, str]) -> None:
    """One instruction after FROM. An ARG is an ENV here, with its value from `args` if it is there."""
    if instruction == "RUN":
        print(f"  RUN {' '.join(rest.split())[:100]}", flush=True)
        share_host(stage.root)
        subprocess.run(stage.command([*stage.shell, rest], root=stage.user == "0:0"), check=True, timeout=1800)
    elif instruction == "COPY":
        copy(stage, rest.split(), context, stages)
    elif instruction == "WORKDIR":
        stage.workdir = os.path.join(stage.workdir, rest)
        _inside(stage.root, stage.workdir, ".").mkdir(parents=True, exist_ok=True)
    elif instruction == "ENV":
        stage.env |= dict(word.split("=", 1) for word in shlex.split(rest))
    elif instruction == "ARG":
        name, _, value = rest.partition("=")
        stage.env[name] = args.get(name, value)
    elif instruction == "USER":
        stage.user = rest if ":" in rest else f"{rest}:{rest}"
    elif instruction in ("SHELL", "ENTRYPOINT", "CMD"):
        setattr(stage, instruction.lower(), json.loads(rest))
    elif instruction == "HEALTHCHECK":
        stage.health = json.loads(rest[rest.index("CMD") + 3 :])
    elif instruction == "VOLUME":
        _inside(stage.root, "/", rest).mkdir(parents=True, exist_ok=True)
    elif instruction not in IGNORED:
        raise ValueError(f"instruction {instruction} is not understood here")


def build(dockerfile: Path, context: Path, roots: Path, args: dict[str, str] | None = None) -> Stage:
    """Runs every step, with values for its ARGs; the last stage."""
    stages: dict[str, Stage] = {}
    stage = None
    for instruction, rest in instructions(dockerfile):
        if instruction == "FROM":
            image, *name = rest.split()
            stage = Stage(roots / f"{dockerfile.suffix[1:]}-{len(stages)}")
            stages[name[-1] if name else str(len(stages))] = stage
            print(f"{dockerfile.name}: FROM {rest}", flush=True)
            make_base(image, stage.root)
        elif stage is None:
            raise ValueError(f"{instruction} stands before the first FROM")
        else:
            step(stage, instruction, rest, context, stages, args or {})
    if stage is None:
        raise ValueError(f"{dockerfile} has no FROM")
    return stage
