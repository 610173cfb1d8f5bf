"""The experiments of docs/training.md on a machine with one or several GPUs: a queue of runs, one a GPU, each resumed where it stopped.

    python3 train/experiments/h100.py unpack FOLDER     token files FOLDER/*.bin.xz into the work folder; call it again for more pieces
    python3 train/experiments/h100.py smoke             every variant for a few steps: values against plain forms, then tokens a second
    python3 train/experiments/h100.py speed [CASE...]   against a plain loop, bilayer against dense at 2k and 8k, two GPUs
    python3 train/experiments/h100.py runs [RUN...]     the trainings; stops in good time, and the same command goes on
    python3 train/experiments/h100.py split FOLDER OUT N    a corpus into N folders of token files, for machines that take it in pieces
    python3 train/experiments/h100.py pack [RUN...]     results and the named runs' checkpoints into $OUT, in pieces of 15 MiB
    python3 train/experiments/h100.py report FOLDER     tables from results

--seconds N ends a command in time. The work folder is $WORK, by default /tmp/dtrnet-train.
"""

from __future__ import annotations

import argparse
import itertools
import json
import lzma
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "train" / "src"))
WORK = Path(os.environ.get("WORK", "/tmp/dtrnet-train"))
TINY = bool(os.environ.get("TINY"))  # tiny shapes, to try the script without a GPU
CONFIGS = ROOT / "configs" / "train"
VARIANTS = ["dense", "bilayer", "trilayer", "mod", "nested", "nested-mamba", "bilayer-lns", "bilayer-hybridnorm", "dllm"]
ORDERED = ["dense", "bilayer", "trilayer", "mod"]
RUNS = [*(f"{v}-s1" for v in VARIANTS), *(f"{v}-s{seed}" for seed in (2, 3) for v in ORDERED)]


# ---- a queue of processes ----


def gpus() -> list[str]:
    """Numbers of the GPUs to use."""
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        return os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    try:
        found = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True).stdout.split()
    except FileNotFoundError:
        found = []
    return found or [""]


def result_of(name: str) -> dict[str, Any] | None:
    """What a finished job wrote."""
    path = WORK / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def write_result(name: str, result: dict[str, Any]) -> None:
    """Whole or not at all."""
    path = WORK / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(result))
    new.rename(path)


class Job(NamedTuple):
    """A process that writes a result under its name."""

    name: str
    words: list[str]  # this script's own words
    show: Callable[[str], str]
    cards: int = 1

    def start(self, cards: list[str]) -> subprocess.Popen:
        """Runs it on these GPUs, its output in a log."""
        log = WORK / "logs" / f"{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(cards), "PYTHONUNBUFFERED": "1", "WORK": str(WORK)}
        environment["PYTHONPATH"] = f"{ROOT / 'train' / 'src'}:{os.environ.get('PYTHONPATH', '')}"
        environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(WORK / "inductor"))
        environment.setdefault("TRITON_CACHE_DIR", str(WORK / "triton"))
        environment.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.cards}"] if self.cards > 1 else []
        with log.open("a") as out:
            command = [sys.executable, *several, str(HERE / "h100.py"), *self.words]
            return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)


def _stop(processes: list[subprocess.Popen]) -> None:
    """SIGTERM, time to save, then the end."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    limit = time.monotonic() + 25
    while time.monotonic() < limit and any(p.poll() is None for p in processes):
        time.sleep(0.2)
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def run_queue(jobs: list[Job], seconds: float, per_gpu: int = 1) -> None:
    """Each job on its GPUs, the first that fits first; finished ones are left out; at the end of the time all are told to stop."""
    since, free = time.monotonic(), [gpu for _ in range(per_gpu) for gpu in gpus()]
    waiting = [job for job in jobs if result_of(job.name) is None and job.cards <= len(free)]
    running: dict[subprocess.Popen, tuple[Job, list[str], float]] = {}
    while waiting or running:
        late = time.monotonic() - since > seconds
        waiting = [] if late else waiting
        for job in [job for job in waiting if job.cards <= len(free)]:
            if job.cards <= len(free):
                waiting.remove(job)
                cards, free = free[: job.cards], free[job.cards :]
                running[job.start(cards)] = job, cards, time.monotonic()
        if late:
            _stop(list(running))
        for process in [p for p in running if p.poll() is not None]:
            job, cards, began = running.pop(process)
            free += cards
            result, at, took = result_of(job.name), time.monotonic() - since, time.monotonic() - began
            told = job.show(job.name) if result is not None else f"{job.name}: no result (exit {process.poll()})"
            print(f"[{at:5.0f} s] {told}  ({took:.0f} s on GPU {','.join(cards) or '-'})", flush=True)
            if result is None and not late:
                print("    " + "\n    ".join((WORK / "logs" / f"{job.name}.log").read_text().splitlines()[-12:]), flush=True)
        time.sleep(0.2)


# ---- configs ----


def corpus() -> tuple[list[str], str]:
    """Token files to train on and the one that is held out."""
    files = sorted(str(p) for p in (WORK / "corpus").glob("train*.bin"))
    if not files:
        sys.exit(f"h100.py: {WORK / 'corpus'} has no train*.bin; give `unpack` a folder of token files first")
    return files, str(WORK / "corpus" / "val.bin")


def make_config(variant: str, *settings: str, file: str = "") -> Any:
    """A variant's config on this machine's corpus."""
    from dtrnet_train import config

    train, valid = corpus()
    path = CONFIGS / (file or ("26m.yaml" if variant == "dense" else f"26m-{variant}.yaml"))
    fixed = ["data.tokenizer=null", f"data.train=[{','.join(train)}]", f"data.valid={valid}"]
    if TINY:
        fixed += ["model.hidden_size=32", "model.intermediate_size=48", "model.num_hidden_layers=4", "model.num_attention_heads=2"]
        fixed += ["model.head_dim=16", "model.num_key_value_heads=1", "train.length=32", "train.batch=4", "train.compile=false"]
        fixed += ["train.steps=6", "train.epochs=null", "train.tokens=null", "train.micro=0", "model.router_dim=16"]
        replaced = {text.partition("=")[0] for text in fixed[3:]}
        settings = tuple(text for text in settings if text.partition("=")[0] not in replaced)
    return config.read(path, [*fixed, *settings])


def make_trainer(name: str, variant: str, *settings: str, file: str = "", fresh: bool = False, world: Any = None) -> Any:
    """A trainer under the work folder."""
    from dtrnet_train import parallel
    from dtrnet_train.trainer import Trainer

    out = WORK / "runs" / name
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    return Trainer(make_config(variant, *settings, file=file), out, world or parallel.begin(), show=True)


def timed(trainer: Any, warm: int, steps: int) -> dict[str, Any]:
    """Tokens a second over `steps` steps behind `warm` ones."""
    import torch

    from dtrnet_train.loader import stream

    cuda = trainer.world.device.type == "cuda"
    began = time.perf_counter()
    for number, (batches, count) in enumerate(stream(trainer.loader, 0, warm + steps, trainer.world.device)):
        numbers = trainer.one_step(batches, count)
        if number == 0:
            first = numbers["loss"].item()
            compiled = time.perf_counter() - began
        if number == warm - 1:
            numbers["loss"].item()
            since = time.perf_counter()
    last = numbers["loss"].item()
    seconds = time.perf_counter() - since
    rate = trainer.train.batch * trainer.train.length * steps / seconds
    line = trainer.progress.step(trainer.step, {"loss": last, "norm": float(numbers["norm"]), "lr": 0.0})
    share = line["shares"]
    mfu = line.get("mfu", 0.0) * rate / line["tokens_per_second"]
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    shares = {"share": statistics.mean(share) if share else 1.0}
    return {"tokens_per_second": rate, "mfu": mfu, "first_loss": first, "loss": last, "compile_s": compiled, "gib": memory, **shares}


def device_name() -> str:
    """The GPU's name, or CPU."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


# ---- smoke ----


def check_kernels() -> dict[str, float]:
    """Attention over chosen rows and the scan on this device against their plain forms: the largest relative differences."""
    import numpy as np
    import torch

    from dtrnet_train import attention
    from dtrnet_train.rows import make_rows, put, subset, take, to_device
    from dtrnet_train.scan import scan_loop, selective_scan

    device, out = torch.device("cuda" if torch.cuda.is_available() else "cpu"), {}
    torch.manual_seed(1)
    starts = np.random.default_rng(1).random((4, 256)) < 0.02
    starts[:, 0] = True
    rows = to_device(make_rows(starts, 64), device)
    chosen = torch.rand(1024, device=device) < 0.2
    part = subset(chosen, rows)
    q, k, v, g = (torch.randn(1024, n, 64, device=device) for n in (6, 2, 2, 6))

    def attend(dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [t.to(dtype).requires_grad_() for t in (q, k, v)]
        y = put(attention.causal(*(take(t, part) for t in inputs), part.bounds, 256), part)
        (y * g.to(dtype)).sum().backward()
        return [y.detach(), *(t.grad for t in inputs)]

    def far(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
        return max(float((x.float() - y.float()).norm() / y.float().norm()) for x, y in zip(a, b))

    out["attention"] = far(attend(torch.bfloat16), attend(torch.float32))
    shape = [(1024, 128), (1024, 128), (1024, 16), (1024, 16), (128, 16)]
    values = [torch.rand(*s, device=device) if i == 0 else torch.randn(*s, device=device) for i, s in enumerate(shape)]
    values[4] = -values[4].abs() * 4

    def scanned(function: Any) -> list[torch.Tensor]:
        inputs = [t.clone().requires_grad_() for t in values]
        y = function(*inputs, rows)
        (y * torch.cos(torch.arange(y.numel(), device=device).view_as(y))).sum().backward()
        return [y.detach(), *(t.grad for t in inputs)]

    out["scan"] = far(scanned(selective_scan), scanned(scan_loop))
    return out


def precision_gap(trainer: Any) -> float:
    """The loss of a few windows in bf16 (the fast kernels) less that in float32 (the plain forms), same weights."""
    import torch

    from dtrnet_train.loader import make_batch, move

    windows = torch.stack([torch.from_numpy(trainer.loader.window(i)) for i in range(2)]).numpy()
    batch, model = move(make_batch(windows, trainer.config.data.bos), trainer.world.device), trainer.model
    model.eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        losses = []
        for dtype in (torch.bfloat16, torch.float32):
            was, model.dtype = model.dtype, dtype
            losses.append(float(model(batch.tokens, batch.rows, batch.targets)[0]) / int((batch.targets >= 0).sum()))
            model.dtype = was
    return losses[0] - losses[1]


def job_try(name: str, variant: str, warm: int, steps: int, *settings: str) -> None:
    """A few steps of a variant; two rounds: the first fills the compiler's caches beside others, the second is timed alone."""
    trainer = make_trainer(name, variant, "train.log_every=100000", *settings, fresh=True)
    gap = precision_gap(trainer)
    result = timed(trainer, warm, steps)
    write_result(name, {"variant": variant, "gap": gap, **result, "device": device_name()})


def smoke(seconds: float) -> None:
    """Kernels, then every variant."""
    began = time.monotonic()
    print(
        "kernels against plain forms:",
        {k: f"{v:.1e}" for k, v in check_kernels().items()} if not os.environ.get("SKIP") else "",
        flush=True,
    )
    for round_, per_gpu, warm, steps in (("warm", 3, 2, 2), ("timed", 1, 8, 20)):
        names = {f"smoke-{round_}-{v}": v for v in VARIANTS}
        jobs = [Job(name, ["try", name, v, str(warm), str(steps)], show_try) for name, v in names.items()]
        print(f"-- {round_}", flush=True)
        run_queue(jobs, seconds - (time.monotonic() - began), per_gpu)


def show_try(name: str) -> str:
    """One line of a `try`."""
    r = result_of(name) or {}
    told = f"{name:26} {r['tokens_per_second']:>10,.0f} tokens/s  mfu {r['mfu']:.1%}  loss {r['first_loss']:.3f} -> {r['loss']:.3f}"
    return f"{told}  share {r['share']:.2f}  bf16-f32 {r.get('gap', 0):+.4f}  {r['gib']:.1f} GiB  first step {r['compile_s']:.0f} s"


# ---- speed ----

AT_TARGET = (
    "routing.control=tracked",
    "routing.fall_from=0",
    "routing.fall_to=0",
    "routing.rate=1",
)  # the shares of the end of a run, from the first steps
SPEED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "26m-dense-2k": ("dense", "", ("train.batch=32",)),
    "26m-bilayer-2k": ("bilayer", "", ("train.batch=32", *AT_TARGET)),
    "26m-dense-8k": ("dense", "", ("train.batch=8", "train.length=8192")),
    "26m-bilayer-8k": ("bilayer", "", ("train.batch=8", "train.length=8192", *AT_TARGET)),
    "360m-dense-2k": ("dense", "360m-dense.yaml", ("train.batch=16", "train.micro=16")),
    "360m-bilayer-2k": ("bilayer", "360m-bilayer.yaml", ("train.batch=16", "train.micro=16", *AT_TARGET)),
    "360m-dense-8k": ("dense", "360m-dense.yaml", ("train.batch=4", "train.micro=4", "train.length=8192")),
    "360m-bilayer-8k": ("bilayer", "360m-bilayer.yaml", ("train.batch=4", "train.micro=4", "train.length=8192", *AT_TARGET)),
}
PLAIN = {"26m-plain-2k": ("dense", "", 32, 2048), "360m-plain-2k": ("dense", "360m-dense.yaml", 16, 2048)}


def job_speed(name: str) -> None:
    """One case."""
    variant, file, settings = SPEED[name]
    steps = ("train.epochs=null", "train.tokens=null", "train.steps=1000", "data.valid=null")
    trainer = make_trainer(f"speed-{name}", variant, *steps, "train.log_every=100000", *settings, file=file, fresh=True)
    write_result(f"speed-{name}", {**timed(trainer, 3 if TINY else 20, 3 if TINY else 40), "device": device_name()})


def job_plain(name: str) -> None:
    """One case of the plain loop."""
    import dataclasses

    import plain
    import torch

    variant, file, windows, length = PLAIN[name]
    shape = dataclasses.asdict(make_config(variant, file=file).model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    windows, length, warm, steps = (2, 32, 2, 2) if TINY else (windows, length, 10, 40)
    write_result(f"speed-{name}", {**plain.measure(shape, windows, length, warm, steps, device), "device": device_name()})


def show_speed(name: str) -> str:
    """One line of a case."""
    r = result_of(name) or {}
    more = f"  mfu {r['mfu']:.1%}  share {r['share']:.2f}  {r['gib']:.1f} GiB" if "mfu" in r else ""
    return f"{name:26} {r['tokens_per_second']:>10,.0f} tokens/s{more}  loss {r['loss']:.3f}"


# ---- trainings ----


def job_train(name: str, *settings: str) -> None:
    """One training to its end, or to a signal."""
    variant, _, seed = name.rpartition("-s")
    trainer = make_trainer(
        name, variant, f"train.seed={seed}", "train.log_every=20", "train.shard_bytes=15000000", "train.keep=1", *settings
    )
    resumed, began = trainer.resume(), time.perf_counter()
    held = trainer.run()
    if trainer.stopped or not held:
        return
    lines = [json.loads(line) for line in (trainer.out / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    rates = sorted(line["tokens_per_second"] for line in steps)
    result = {"name": name, "variant": variant, "seed": int(seed), "steps": trainer.steps, "tokens": steps[-1]["tokens"], **held}
    result |= {"tokens_per_second": statistics.median(rates), "mfu": statistics.median(line.get("mfu", 0.0) for line in steps)}
    result |= {"curve": [(line["step"], round(line["loss"], 4)) for line in steps], "shares": steps[-1]["shares"]}
    result |= {"seconds": time.perf_counter() - began, "resumed": resumed, "device": device_name(), "routers": trainer.control.names}
    result |= {"checkpoint": f"step-{trainer.step:08}", "parameters": sum(p.numel() for p in trainer.model.parameters())}
    write_result(name, result)


def show_run(name: str) -> str:
    """One line of a training."""
    r = result_of(name) or {}
    routed = [e * a for e, a in zip(r["execute"], r["attend"]) if e * a < 1]
    share = f"  attend {sum(routed) / len(routed):.3f}" if routed else ""
    return f"{name:24} held-out {r['valid']:.4f}  {r['tokens']:,} tokens  {r['tokens_per_second']:,.0f} tokens/s  mfu {r['mfu']:.1%}{share}"


# ---- two GPUs ----

PAIR = ["26m-bilayer", "360m-dense"]  # with one GPU: the cases of SPEED with -2k behind their name


def job_pair(name: str, kind: str) -> None:
    """In one of two processes: tokens a second of a case, each process with the batch that one alone has in SPEED."""
    from dtrnet_train import parallel

    world = parallel.begin()
    variant, file, settings = SPEED[f"{name}-2k"]
    each = int(settings[0].partition("=")[2])
    changes = [f"train.batch={each * world.size}", f"train.micro={each}", f"train.parallel={kind}", "train.log_every=100000"]
    changes += ["train.epochs=null", "train.tokens=null", "train.steps=1000", "data.valid=null", *AT_TARGET]
    job = f"pair-{name}-{kind}"
    trainer = make_trainer(job, variant, *changes, file=file, world=world)
    result = timed(trainer, 2 if TINY else 15, 3 if TINY else 40)
    if world.rank == 0:
        write_result(job, {**result, "device": device_name(), "processes": world.size})
    parallel.end()


def speed(seconds: float, words: list[str]) -> None:
    """Tokens a second: one GPU and two; all cases or the named ones."""
    alone = [Job(f"speed-{n}", ["plain", n], show_speed) for n in PLAIN] + [Job(f"speed-{n}", ["case", n], show_speed) for n in SPEED]
    pairs = [Job(f"pair-{n}-{kind}", ["pair", n, kind], show_speed, 2) for n in PAIR for kind in ("ddp", "fsdp")]
    run_queue([job for job in [*pairs, *alone] if not words or job.name in words], seconds)


def runs(seconds: float, words: list[str]) -> None:
    """The trainings, those that matter most first; words with = are settings, the others the names of the only ones wanted."""
    settings = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word] or RUNS
    run_queue([Job(name, ["train", name, *settings], show_run) for name in names], seconds)


# ---- files in and out ----


def unpack(folder: Path) -> None:
    """Token files into the work folder."""
    (WORK / "corpus").mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.bin.xz")):
        (WORK / "corpus" / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
    print({p.name: p.stat().st_size // 2 for p in sorted((WORK / "corpus").glob("*.bin"))}, "tokens", flush=True)


def split(folder: Path, out: Path, pieces: int) -> None:
    """Training tokens cut at documents' starts into folders out/0, out/1, ...; the held-out file goes into the first."""
    import numpy as np

    parts = [np.frombuffer(lzma.decompress(path.read_bytes()), "<u2") for path in sorted(folder.glob("train*.bin.xz"))]
    whole = np.concatenate(parts)
    starts = np.flatnonzero(whole == 1)
    cuts = [0, *(int(starts[np.searchsorted(starts, len(whole) * i // pieces)]) for i in range(1, pieces)), len(whole)]
    for i, (first, last) in enumerate(itertools.pairwise(cuts)):
        (out / str(i)).mkdir(parents=True, exist_ok=True)
        path = out / str(i) / f"train_{i}.bin.xz"
        path.write_bytes(lzma.compress(whole[first:last].tobytes(), preset=6))
        print(path, last - first, "tokens", path.stat().st_size, "bytes", flush=True)
    shutil.copy(folder / "val.bin.xz", out / "0")


def pack(names: list[str]) -> None:
    """`results`, and checkpoints of the named runs, as a tar file in pieces: cat out.tar.* | tar x."""
    out = Path(os.environ.get("OUT", WORK / "out"))
    out.mkdir(parents=True, exist_ok=True)
    last = [sorted((WORK / "runs" / name).glob("step-*"))[-1:] for name in names]
    what = ["results", *(str(path[0].relative_to(WORK)) for path in last if path)]
    tar = subprocess.Popen(["tar", "c", "-C", str(WORK), *what], stdout=subprocess.PIPE)
    subprocess.run(["split", "-b", "15M", "-d", "-", str(out / "out.tar.")], stdin=tar.stdout, check=True)
    print(what, {p.name: p.stat().st_size for p in sorted(out.iterdir())}, flush=True)


# ---- tables ----


def report(folder: Path) -> None:
    """Markdown tables from results."""
    import numpy as np

    from dtrnet_train.evaluate import paired

    results = {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}
    done = {name: r for name, r in results.items() if "sums" in r}
    base = done.get("dense-s1")
    print("| run | held-out NLL | less dense-s1, paired by document, 95 % | attends, share by routed layer | executes | tokens/s | MFU |")
    print("|---|---|---|---|---|---|---|")
    for name in [n for n in RUNS if n in done]:
        r = done[name]
        attend = " ".join(f"{a:.2f}" for e, a in zip(r["execute"], r["attend"]) if e < 1 or a < 1) or "-"
        execute = " ".join(f"{e:.2f}" for e in r["execute"] if e < 1) or "-"
        gap = ""
        if base and name != "dense-s1":
            mean, low, high = paired(np.array(r["sums"]), np.array(base["sums"]), np.array(r["counts"]))
            gap = f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
        print(f"| {name} | {r['valid']:.4f} | {gap} | {attend} | {execute} | {r['tokens_per_second']:,.0f} | {r['mfu']:.1%} |")
    print("\n| variant | seeds | mean | each |\n|---|---|---|---|")
    for variant in ORDERED:
        values = [r["valid"] for r in done.values() if r["variant"] == variant]
        if values:
            print(f"| {variant} | {len(values)} | {statistics.mean(values):.4f} | {' '.join(f'{v:.4f}' for v in values)} |")
    print("\n| case | tokens/s | MFU | share | GiB |\n|---|---|---|---|---|")
    for name, r in results.items():
        if name.startswith(("speed", "pair", "smoke-timed")):
            print(f"| {name} | {r['tokens_per_second']:,.0f} | {r.get('mfu', 0):.1%} | {r.get('share', 1):.2f} | {r.get('gib', 0):.1f} |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--seconds", type=float, default=540)
    args = parser.parse_args()
    words, seconds = args.words, args.seconds
    commands: dict[str, Callable[[], None]] = {
        "unpack": lambda: unpack(Path(words[0])),
        "smoke": lambda: smoke(seconds),
        "speed": lambda: speed(seconds, words),
        "runs": lambda: runs(seconds, words),
        "split": lambda: split(Path(words[0]), Path(words[1]), int(words[2])),
        "pack": lambda: pack(words),
        "report": lambda: report(Path(words[0])),
        "try": lambda: job_try(words[0], words[1], int(words[2]), int(words[3]), *words[4:]),
        "case": lambda: job_speed(words[0]),
        "plain": lambda: job_plain(words[0]),
        "train": lambda: job_train(*words),
        "pair": lambda: job_pair(words[0], words[1]),
    }
    if args.command not in commands:
        sys.exit(f"h100.py: unknown command {args.command!r}")
    try:
        commands[args.command]()
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main()
