"""What can be said of the compose file and of the Slurm scripts without Docker and without Slurm.

Everything that the compose file names is there and fits the balancer's configuration; `submit` refuses what is wrong in one line, and
gives sbatch what it should. Exit status 77: skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import yaml
except ImportError:
    print("skipped: no Python package yaml")
    sys.exit(77)

ROOT = Path(__file__).resolve().parents[2]
HAPROXY, SLURM = ROOT / "configs" / "haproxy", ROOT / "configs" / "slurm"
MODEL = ROOT / "models" / "dtrnet-26m"


def variables(path: Path) -> set[str]:
    """What a configuration of HAProxy takes from the environment."""
    return set(re.findall(r"\$\{(\w+)\}", path.read_text()))


def check_compose() -> None:
    """Names, files, variables, rights."""
    compose = yaml.safe_load((HAPROXY / "compose.yaml").read_text())
    services = compose["services"]
    for name, service in services.items():
        for other in service.get("depends_on", []):
            assert other in services, f"{name} waits for {other}"
        if "build" in service:
            context = HAPROXY / service["build"]["context"]
            assert context.resolve() == ROOT and (context / service["build"]["dockerfile"]).is_file(), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (HAPROXY / source).is_file() if source.startswith(".") else source in compose["volumes"], f"{name}: {volume}"
    balancer = services["balancer"]
    assert set(balancer["environment"]) == variables(HAPROXY / "haproxy.cfg"), "the balancer's variables"
    servers = [balancer["environment"][f"DTRNET_{n}"].split(":")[0] for n in range(1, 5)]
    for name in [*servers, "balancer"]:
        assert services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"], name
    assert f"{balancer['volumes'][0]}" == "./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro", "the balancer reads another file"
    print(f"compose: {', '.join(services)}")


def submit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With an sbatch that says what it was given."""
    (folder / "bin").mkdir(exist_ok=True)
    sbatch = folder / "bin" / "sbatch"
    sbatch.write_text('#!/bin/sh\nprintf "%s " "$@" >>"$SAID"; printf "\\n" >>"$SAID"; env | grep ^EVAL_ >"$SAID.env"; wc -l <"$SAID"\n')
    sbatch.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "SAID": str(folder / "said")}
    return subprocess.run([str(SLURM / "submit"), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def check_refused(folder: Path) -> None:
    """One line each, and nothing is submitted."""
    good = {"--suite": "smoke", "--models": "models.txt", "--shards": "4", "--output": "out"}
    (folder / "models.txt").write_text(f"{MODEL}\n")
    (folder / "other").mkdir()
    (folder / "other" / MODEL.name).symlink_to(MODEL)
    for name, text in {"twice": f"{MODEL}\nother/{MODEL.name}\n", "none": "\n", "gone": "nowhere\n", "empty": "other\n"}.items():
        (folder / f"{name}.txt").write_text(text)
    cases: list[tuple[dict[str, str | None], str]] = [
        ({"--suite": None}, "--suite is missing"),
        ({"--output": None}, "--output is missing"),
        ({"--shards": "0"}, "--shards must be 1 to 9999, but is 0"),
        ({"--shards": "four"}, "--shards must be 1 to 9999, but is four"),
        ({"--models": "absent.txt"}, "absent.txt: cannot be read"),
        ({"--models": "none.txt"}, "names no checkpoint"),
        ({"--models": "gone.txt"}, "there is no nowhere"),
        ({"--models": "empty.txt"}, "is no checkpoint: it has no config.json"),
        ({"--models": "twice.txt"}, f"two checkpoints are called {MODEL.name}"),
        ({"--server-flags": "--api-key abc"}, "a key among the flags"),
        ({"--partition": "gpu"}, "there is no flag --partition; flags of sbatch stand behind --"),
    ]
    for changed, expected in cases:
        given = {name: value for name, value in {**good, **changed}.items() if value is not None}
        done = submit(folder, *(word for pair in given.items() for word in pair))
        assert done.returncode == 2 and expected in done.stderr and "abc" not in done.stderr, (changed, done.stderr)
    assert submit(folder, "--suite").stderr.strip() == "submit: --suite needs a value"
    assert not (folder / "said").exists(), "something was submitted"
    print(f"submit: {len(cases) + 1} mistakes are refused")


def check_submitted(folder: Path) -> None:
    """Two checkpoints of three shards each: six jobs, and one behind them."""
    (folder / "models.txt").write_text("two\nmodels/three\n")
    for name in ("two", "models/three"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    line = ["--suite", "smoke", "--models", "models.txt", "--shards", "3", "--output", "out dir", "--limit", "8"]
    done = submit(folder, *line, "--", "--gres", "gpu:1")
    assert done.returncode == 0 and done.stdout.split() == ["1", "2"], done
    first, second = (folder / "said").read_text().splitlines()
    assert "--array=0-5 " in first and first.endswith(f"--gres gpu:1 {SLURM}/answer.sbatch "), first
    assert "--dependency=afterok:1 " in second and second.endswith(f"{SLURM}/merge.sbatch "), second
    told = dict(line.split("=", 1) for line in (folder / "said.env").read_text().splitlines())
    assert told["EVAL_OUTPUT"] == str(folder / "out dir") and told["EVAL_LIMIT"] == "8" and told["EVAL_SUITE"] == "smoke", told
    assert Path(told["EVAL_MODELS"]).read_text().splitlines() == [str(folder / "two"), str(folder / "models" / "three")]
    check_jobs(folder, told)


def check_jobs(folder: Path, told: dict[str, str]) -> None:
    """What the jobs would start: each checkpoint and shard once, a key in no command line, and the merge of both."""
    (folder / "bin" / "dtrnet").symlink_to("/bin/true")
    tool = folder / "bin" / "dtrnet-eval"
    tool.write_text('#!/bin/sh\nprintf "%s|" "$@" "$DTRNET_THREADS" "$DTRNET_API_KEY"; printf "\\n"\n')
    tool.chmod(0o755)
    environment = {**os.environ, **told, "PATH": f"{folder}/bin:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "8"}

    def lines(script: str, **more: str) -> list[str]:
        done = subprocess.run(["bash", str(SLURM / script)], env={**environment, **more}, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1].split("|")

    found, keys = [], set()
    for number in range(6):
        *words, threads, key, _ = lines("answer.sbatch", SLURM_ARRAY_TASK_ID=str(number))
        found.append((Path(words[2]).name, words[6]))
        keys.add(key)
        assert re.fullmatch("[0-9a-f]{64}", key) and key not in words and threads == "8" and words[-2:] == ["--limit", "8"], words
        assert words[:2] == ["sweep", "smoke"] and words[3:6] == ["--dtrnet", f"{folder}/bin/dtrnet", "--shard"], words
        assert words[7:9] == ["--output", str(folder / "out dir")], words
    assert found == [(name, f"{n}/3") for name in ("two", "three") for n in (1, 2, 3)] and len(keys) == 6, found
    merged = lines("merge.sbatch")
    assert merged[:4] == ["merge", "smoke", str(folder / "out dir" / "two"), str(folder / "out dir" / "three")], merged
    print(f"slurm: {len(found)} jobs, then one")


def main() -> int:
    """All parts."""
    check_compose()
    with tempfile.TemporaryDirectory() as name:
        check_refused(Path(name).resolve())
    with tempfile.TemporaryDirectory() as name:
        check_submitted(Path(name).resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
