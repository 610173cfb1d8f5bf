#!/usr/bin/env python3
"""lm-evaluation-harness over the same rows with four clients of the same dense model, in one run.

Our plugin and the harness's own `local-completions` (with the server's tokenizer, and with one in its own process) on our server, and its
`hf` model in process, at its best dtype and batch size.

    LOCAL_EVAL_DATA=rows harness_compare.py --model DIR --out figures.json --groups choice
    harness_compare.py --out figures.json --table

Each group of tasks is run by every client, one after the other, with a fresh server for each; figures of the groups that --out holds
already are kept, so that a long comparison can be taken group by group. `hf` first tries every dtype and batch size of --hf-dtypes
and --hf-batches on the first --tune items of every task, and the fastest pair runs the whole. Seconds are wall time:

    start     imports, loading the model (for the server: from its start until it answers); the harness's command line reads all of its own
              task files besides, which takes some seconds more and is left out here
    run       from loading the tasks to the last metric (`simple_evaluate`)
    model     of run, inside the harness's calls of the model
    engine    of model, inside the server's forward passes
    bootstrap of run, the resampling behind the standard error of a perplexity

Needs one Python with lm_eval, torch, transformers and sentencepiece; --model needs config.json, model.safetensors and tokenizer.model.
"""

from __future__ import annotations

import time

BEGIN = time.perf_counter()

import argparse  # noqa: E402  (the clock starts before the imports)
import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import urllib.request  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SHORT_CHOICES = ("arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande", "boolq", "openbookqa")
GROUPS = {
    "choice": ([f"offline_{name}" for name in SHORT_CHOICES], None),
    "tinymmlu": (["offline_tinymmlu"], None),
    "mmlu": (["offline_mmlu"], 5),
    "lambada": (["offline_lambada"], None),
    "documents": (["offline_books_2k"], None),
}
CLIENTS = ["plugin", "local", "local-hf-tokenizer", "hf"]
STAGES = ("loglikelihood", "loglikelihood_rolling", "generate_until")


# ---- one client, in a process of its own -------------------------------------------------------------------------------


class Clock:
    """Seconds spent in calls, by name; calls inside a call of the same name count once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.open: set[str] = set()

    def wrap(self, holder: Any, attribute: str, name: str) -> None:
        """Times holder.attribute from now on."""
        inner = getattr(holder, attribute)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if name in self.open:
                return inner(*args, **kwargs)
            self.open.add(name)
            begin = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.open.discard(name)
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

        setattr(holder, attribute, timed)


def make_model(a: argparse.Namespace, dtype: str) -> Any:
    """The harness's model object for a client."""
    if a.worker == "plugin":
        from dtrnet_eval.harness import keep_templates
        from dtrnet_eval.lm import DtrnetLM

        keep_templates()
        return DtrnetLM(base_url=a.url, max_length=a.max_length)
    if a.worker == "hf":
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=str(a.model), dtype=dtype, device="cpu", max_length=a.max_length)
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    remote, own = {"tokenizer_backend": "remote"}, {"tokenizer_backend": "huggingface", "tokenizer": str(a.model)}
    options = {"num_concurrent": 4, "max_length": a.max_length + 2, **(own if a.worker.endswith("tokenizer") else remote)}
    return LocalCompletionsAPI(base_url=a.url + "/v1/completions", model="any", batch_size=32, **options)


def evaluate(a: argparse.Namespace, model: Any, manager: Any, limit: int | None) -> dict[str, Any]:
    """One `simple_evaluate`: seconds by stage, and the metrics."""
    import lm_eval.api.metrics
    from lm_eval import simple_evaluate

    tasks, shots = GROUPS[a.groups]
    clock = Clock()
    for stage in STAGES:
        clock.wrap(model, stage, "model")
    bootstrap = lm_eval.api.metrics.bootstrap_stderr
    clock.wrap(lm_eval.api.metrics, "bootstrap_stderr", "bootstrap")
    begin = time.perf_counter()
    found = simple_evaluate(model=model, tasks=tasks, num_fewshot=shots, limit=limit, task_manager=manager, log_samples=False)
    run = time.perf_counter() - begin
    lm_eval.api.metrics.bootstrap_stderr = bootstrap
    for stage in STAGES:
        delattr(model, stage)
    metrics = {task: {k: v for k, v in r.items() if isinstance(v, float) and "stderr" not in k} for task, r in found["results"].items()}
    samples = {task: n["effective"] for task, n in found["n-samples"].items()}
    return {
        "run": run,
        "model": clock.seconds.get("model", 0.0),
        "bootstrap": clock.seconds.get("bootstrap", 0.0),
        "metrics": metrics,
        "samples": samples,
    }


def tuned_hf(a: argparse.Namespace, manager: Any) -> tuple[Any, dict[str, Any]]:
    """The Hugging Face model at its fastest, and what was tried."""
    dtypes, batches = a.hf_dtypes.split(","), list(map(int, a.hf_batches.split(",")))
    tried: dict[tuple[str, int], float] = {}
    for dtype in dtypes if len(dtypes) * len(batches) > 1 else []:
        model = make_model(a, dtype)
        for batch in batches:
            model.batch_size_per_gpu = batch
            tried[dtype, batch] = evaluate(a, model, manager, a.tune)["model"]
        del model
    dtype, batch = min(tried, key=tried.__getitem__) if tried else (dtypes[0], batches[0])
    begin = time.perf_counter()
    model = make_model(a, dtype)
    model.batch_size_per_gpu = batch
    load = time.perf_counter() - begin
    return model, {"dtype": dtype, "batch": batch, "tried": {f"{d} {b}": round(s, 2) for (d, b), s in tried.items()}, "load": load}


def worker(a: argparse.Namespace) -> dict[str, Any]:
    """Everything that one client does; what it prints goes to the parent."""
    sys.path.insert(0, str(ROOT / "eval" / "src"))
    import lm_eval.evaluator  # noqa: F401  (what a run imports first)
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(ROOT / "eval" / "src" / "dtrnet_eval" / "data" / "tasks"), include_defaults=False)
    start = time.perf_counter() - BEGIN
    if a.worker == "hf":
        model, extra = tuned_hf(a, manager)
        start += extra.pop("load")
    else:
        begin = time.perf_counter()
        model, extra = make_model(a, ""), {}
        start += time.perf_counter() - begin
    if not a.profile:
        return {"start": start, **extra, **evaluate(a, model, manager, a.limit)}
    import cProfile
    import pstats

    profile = cProfile.Profile()
    figures = profile.runcall(evaluate, a, model, manager, a.limit)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("cumtime").print_stats(60)
    return {"start": start, **extra, **figures}


# ---- the run -----------------------------------------------------------------------------------------------------------


class Served:
    """`dtrnet serve` for one client."""

    def __init__(self, a: argparse.Namespace) -> None:
        begin = time.perf_counter()
        command = [a.dtrnet, "serve", "--port", "0", "--model", a.model, "--threads", a.threads, "--dtype", a.dtype]
        command += ["--max-model-len", a.max_length + 1]
        self.process = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        for line in self.process.stderr:
            if found := re.search(r"listening on (http://[^\s\"]*)", line):
                self.url = found[1]
                break
        else:
            sys.exit("the server did not start")
        self.start_s = time.perf_counter() - begin
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def counters(self) -> dict[str, float]:
        """What the engine has done so far."""
        lines = urllib.request.urlopen(self.url + "/metrics").read().decode().splitlines()
        wanted = {"engine": "dtrnet_busy_seconds_total", "rows": "dtrnet_rows_computed_total", "steps": "dtrnet_steps_total"}
        values = dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(values[series]) for name, series in wanted.items()}

    def stop(self) -> None:
        """SIGTERM, and the end."""
        self.process.terminate()
        self.process.wait()
        self.drain.wait()


@contextlib.contextmanager
def server_for(client: str, a: argparse.Namespace) -> Iterator[Served | None]:
    """A server where the client needs one."""
    served = None if client == "hf" else Served(a)
    try:
        yield served
    finally:
        if served:
            served.stop()


def run_client(client: str, group: str, a: argparse.Namespace) -> dict[str, Any]:
    """Figures of one client on one group."""
    own = ["--worker", client, "--groups", group, "--model", a.model, "--max-length", a.max_length, "--out", a.out]
    own += ["--hf-dtypes", a.hf_dtypes, "--hf-batches", a.hf_batches, "--tune", a.tune]
    own += [*(["--limit", a.limit] if a.limit else []), *(["--profile"] if a.profile else [])]
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "OMP_NUM_THREADS": str(a.threads),
    }
    with server_for(client, a) as served:
        own += ["--url", served.url] if served else []
        done = subprocess.run(
            [sys.executable, __file__, *map(str, own)],
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            check=True,
            stderr=None if a.profile else subprocess.DEVNULL,
        )
        figures = json.loads(done.stdout.splitlines()[-1])
        if served:
            figures |= served.counters()
            figures["start"] += served.start_s
    return figures


def share(figures: dict[str, Any]) -> str:
    """Time of a run outside the engine."""
    return f"{100 * (1 - figures['engine'] / figures['run']):.0f} %" if "engine" in figures else ""


def with_sums(kept: dict[str, Any]) -> dict[str, Any]:
    """The groups, and the sums over them of every client that ran them all."""
    sums: dict[str, Any] = {}
    for client in CLIENTS:
        each = [clients[client] for clients in kept.values() if client in clients]
        if len(each) == len(kept) > 1:
            names = ("start", "run", "model", "bootstrap", *(["engine"] if "engine" in each[0] else []))
            sums[client] = {name: sum(f[name] for f in each) for name in names}
            sums[client]["samples"] = {"all": sum(sum(f["samples"].values()) for f in each)}
    return {**kept, "all of these": sums}


def print_table(kept: dict[str, Any]) -> None:
    """One line for each group and client, ratios to the plugin."""
    columns = "tasks (items) | client | start s | run s | model s | engine s | bootstrap s | outside the engine"
    print(f"| {columns} | run, ratio to the plugin | model, ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for group, clients in with_sums(kept).items():
        for client, f in clients.items():
            name = f"{client} {f['dtype']} batch {f['batch']}" if "dtype" in f else client
            ours = clients.get("plugin", f)
            engine = f"{f['engine']:.1f}" if "engine" in f else ""
            print(
                f"| {group} ({sum(f['samples'].values())}) | {name} | {f['start']:.1f} | {f['run']:.1f} | {f['model']:.1f} | {engine} | "
                f"{f['bootstrap']:.1f} | {share(f)} | {f['run'] / ours['run']:.2f} | {f['model'] / ours['model']:.2f} |"
            )


def print_differences(kept: dict[str, Any]) -> None:
    """The largest difference of a metric from the plugin's, relative for perplexities."""
    for group, clients in kept.items():
        for client, f in clients.items():
            worst = (0.0, "")
            for task, metrics in f["metrics"].items():
                for metric, value in metrics.items():
                    want = clients.get("plugin", f)["metrics"][task][metric]
                    worst = max(worst, (abs(value - want) / max(1.0, abs(want)), f"{task} {metric}"))
            if client != "plugin":
                print(f"{group}: {client} against the plugin: metrics differ by at most {worst[0]:.2g} {worst[1]}")


def main() -> None:
    """Runs what is asked for, and prints the table of all that --out holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtrnet", type=Path, default=ROOT / "build" / "dtrnet", help="our program (%(default)s)")
    parser.add_argument("--model", type=Path, help="dense checkpoint")
    parser.add_argument("--dtype", default="bf16", help="the server's (%(default)s)")
    parser.add_argument("--groups", default="choice", help=f"of {', '.join(GROUPS)}, with commas between")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="%(default)s")
    parser.add_argument("--limit", type=int, help="items of each task")
    parser.add_argument("--tune", type=int, default=16, help="items of each task to choose the dtype and batch size of hf on (%(default)s)")
    parser.add_argument("--hf-dtypes", default="bfloat16,float32", help="%(default)s")
    parser.add_argument("--hf-batches", default="1,8,32", help="%(default)s")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=2047, help="model positions (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with the figures")
    parser.add_argument("--table", action="store_true", help="only print what --out holds")
    parser.add_argument("--profile", action="store_true", help="each client's profile on stderr; its times are longer then")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.worker:
        print("\n" + json.dumps(worker(a)))
        return
    kept = json.loads(a.out.read_text()) if a.out.exists() else {}
    for group in [] if a.table else a.groups.split(","):
        for client in a.clients.split(","):
            kept.setdefault(group, {})[client] = run_client(client, group, a)
            a.out.write_text(json.dumps(kept, indent=1) + "\n")
            print(f"{group} {client}: run {kept[group][client]['run']:.1f} s", flush=True)
    print_table(kept)
    print_differences(kept)


if __name__ == "__main__":
    main()
