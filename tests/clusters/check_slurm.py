"""A suite divided over a job array of a real Slurm on the loopback: one of four jobs is requeued in the middle.

The merged results equal those of one undivided run: every score, value and item, and their origin. Few-shot examples are drawn anew for
each item, in the order of the items. Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge; exit status 77: skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import families
from cluster_support import ENV, PROGRAM, PYTHON, ROOT, SHIPPED, ServerProcess, check_equal, command, cost, free_port, skip, wait_until

SUBMIT = ROOT / "configs" / "slurm" / "submit"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
SHARDS, REQUEUED = 4, 1


class Slurm:
    """A controller, a node and munge with files and ports of their own, for a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        host = socket.gethostname().split(".")[0]
        values = {"HOST": host, "FOLDER": str(folder), "CONTROLLER_PORT": str(free_port()), "NODE_PORT": str(free_port())}
        text = (Path(__file__).parent / "slurm.conf.in").read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        (folder / "slurm.conf").write_text(text)
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.processes: list[subprocess.Popen[bytes]] = []

    def _start(self, *line: str) -> None:
        self.processes.append(subprocess.Popen(line, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def __enter__(self) -> Slurm:
        key, munge = self.folder / "munge.key", self.folder / "munge.socket"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={munge}", *files)
        wait_until("munged", munge.exists)
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D")
        wait_until("a node that takes jobs", lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), 0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self.ask("scancel", "--signal=KILL", "--user=root")
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def ask(self, *line: str) -> str:
        """What a command of Slurm prints; empty where it fails."""
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, check=False).stdout.strip()

    def state(self, job: str) -> dict[str, str]:
        """The fields of a job as `scontrol` shows them."""
        words = self.ask("scontrol", "show", "job", job, "-o").splitlines()
        return dict(word.split("=", 1) for word in (words[0].split() if words else []) if "=" in word)


def submit(slurm: Slurm, folder: Path, suite: Path) -> tuple[str, str]:
    """As a user does; the numbers of both jobs."""
    (folder / "bin").mkdir()
    tool = folder / "bin" / "dtrnet-eval"
    tool.write_text(f'#!/bin/sh\nexec {PYTHON} -m dtrnet_eval "$@"\n')
    tool.chmod(0o755)
    (folder / "bin" / "dtrnet").symlink_to(Path(PROGRAM).resolve())
    (folder / "models.txt").write_text(f"{SHIPPED}\n")
    environment = {**ENV, **slurm.environment, "PYTHONPATH": ENV["PYTHONPATH"], "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    environment = {name: value for name, value in environment.items() if not name.startswith("DTRNET_")}
    line = [str(SUBMIT), "--suite", str(suite), "--models", "models.txt", "--shards", str(SHARDS), "--output", "results"]
    line += ["--server-flags", "--kv-cache-memory 96M", "--", "--cpus-per-task", "1"]
    done = subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers, results = done.stdout.split()
    return answers, results


def servers_of(log: Path) -> list[int]:
    """Servers of a job: their standard output is the job's log."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            output = (process / "fd" / "1").resolve()
        except OSError:
            continue
        if b"serve" in words and output == log:
            found.append(int(process.name))
    return found


def check_secrets() -> None:
    """No command line of a server or client on this machine holds a key of 64 digits."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        keys = [word.partition(b"=")[2] for word in environment.split(b"\0") if word.startswith(b"DTRNET_API_KEY=")]
        assert not any(key and key in line for key in keys), line


def restarted(slurm: Slurm, job: str) -> bool:
    """True if a requeued job runs again; Slurm would let it wait for two minutes."""
    slurm.ask("scontrol", "update", f"jobid={job}", "StartTime=now")
    state = slurm.state(job)
    return state.get("Restarts") == "1" and state["JobState"] != "PENDING"


def requeue_one(slurm: Slurm, answers: str, results: Path) -> None:
    """The second job of the array, once it has an answer and before it has all; its server is held so that it cannot end meanwhile."""
    job, shards = f"{answers}_{REQUEUED}", results / "shards" / "questions"
    file, log = shards / f"answers-{REQUEUED + 1}-of-{SHARDS}.jsonl", results.parent / "log" / f"{answers}_{REQUEUED}.log"
    wait_until("the first answer of the second shard", lambda: file.exists() and file.read_bytes().count(b"\n") >= 2)
    held = servers_of(log)
    assert len(held) == 1, f"servers of job {job}: {held}"
    os.kill(held[0], signal.SIGSTOP)
    check_secrets()
    before = file.read_bytes()
    assert b'"end"' not in before.splitlines()[-1], "the shard was over before it was requeued"
    assert slurm.state(job)["JobState"] == "RUNNING", slurm.state(job)
    subprocess.run(["scontrol", "requeue", job], env=slurm.environment, check=True)
    wait_until("the end of the held server", lambda: not Path(f"/proc/{held[0]}").exists())
    wait_until("the requeued job's second start", lambda: restarted(slurm, job) and "start 1" in log.read_text(), 1.0)
    wait_until("what it goes on behind", lambda: "goes on behind" in log.read_text() or slurm.state(job)["JobState"] != "RUNNING", 0.2)
    said = [line for line in log.read_text().splitlines() if "goes on behind" in line]
    assert said and file.read_bytes().startswith(before[: before.rindex(b"\n") + 1]), f"answers were lost: {log.read_text()[-2000:]}"
    print(f"requeued: {said[0]}", flush=True)


def finished(slurm: Slurm, job: str, log: Path) -> bool:
    """True if a job has ended well."""
    state = slurm.state(job)["JobState"]
    assert state in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "COMPLETED"), f"{job}: {state}\n{_logs(log)}"
    return state == "COMPLETED"


def _logs(folder: Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(folder.glob("*.log")))


def run(folder: Path) -> None:
    """One server alone, then four jobs."""
    suite = families.write(folder / "tasks", tasks=12, texts=4, items=40, sampler="default")
    with ServerProcess("--kv-cache-memory", "96M", "--threads", "1") as alone:
        command("suite", str(suite), "--base_url", alone.url, "--output", str(folder / "one"))
    results = folder / "results" / SHIPPED.name
    (folder / "slurm").mkdir()
    with Slurm(folder / "slurm") as slurm:
        answers, merged = submit(slurm, folder, suite)
        print(f"jobs {answers} and {merged}", flush=True)
        requeue_one(slurm, answers, results)
        wait_until("the merging job", lambda: finished(slurm, merged, folder / "results" / "log"), 0.5)
    assert len(list((results / "shards" / "questions").glob("answers-*-of-4.jsonl"))) == SHARDS
    seal = check_equal(folder / "one", results)
    one, four = cost(folder / "one"), cost(results)
    assert one["prompt_tokens"] == four["prompt_tokens"] and one["scored_tokens"] == four["scored_tokens"], (one, four)
    command("report", str(folder / "one"), str(results), "--output", str(folder / "report"))
    assert (folder / "report.html").is_file()
    print(f"merged results are those of one run: {seal}")


def main() -> int:
    """Runs it, or skips."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        skip(f"no {', '.join(missing)}" if missing else "not root")
    with tempfile.TemporaryDirectory(prefix="dtrnet-slurm-") as name:
        run(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
