"""What routing saves on the CPU: a dense model against one of the same shape that routes a tenth of its tokens to attention.

For each length one process prefills the same tokens through both, in turn, and sums the time of every op (tests/bench/bench_routing.c).
Checkpoints are random (`dtrnet synth`), routers calibrated to the rate.

    saved = (t_dense - t_routed) / cost
    cost  = linear * (attention + q and k projections) + skipped * (attention + all products of a layer) - the routers' time

all of the dense run's ops in the layers that the routed model routes. `linear` and `skipped` are the measured shares of tokens there that
take the linear path and that (in nested layers, MoD and D-LLM) skip the layer. 1 means that routing itself is free. FLOPs of the model
over dense are printed under both labels (causal: half of T^2; full: T^2), the head excluded, at the measured rate; KV rows and bytes are
those held after the prompt.

usage: cpu_routing.py --build BUILD_DIR --dense CONFIG.json --routed CONFIG.json --work DIR [--lengths 2048,8192,20480] [--threads 2]
                      [--rounds 3]
"""

import argparse
import json
import pathlib
import subprocess
import sys


def run(command: list) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def checkpoint(build: pathlib.Path, config: pathlib.Path, work: pathlib.Path, rates: list) -> pathlib.Path:
    """A random checkpoint of the config, made unless it is there."""
    out = work / "-".join([config.stem, *map(str, rates[1::2])])
    if not (out / "config.json").exists():
        run([build / "dtrnet", "synth", "--config", config, "--out", out, *rates])
    return out


def row(build: pathlib.Path, models: list, length: int, a: argparse.Namespace) -> str:
    """Measures one length and returns its line of the table."""
    r = json.loads(run([build / "tests/bench/bench_routing", *models, length, a.threads, a.rounds, a.step_rows]))
    dense, routed, c = r["dense"], r["routed"], json.loads((models[0] / "config.json").read_text())
    heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    layers, executed, attended = routed["routed_layers"] / c["num_hidden_layers"], routed["executed"], routed["attended"]
    linear = dense["attention"] + dense["qkv"] * (heads + kv_heads) / (heads + 2 * kv_heads)
    whole = dense["attention"] + dense["qkv"] + dense["other_matmuls"]
    skipped = layers * ((executed - attended) * linear + (1 - executed) * whole)
    saved = (dense["all"] - routed["all"]) / (skipped - routed["router"])
    inspect = [build / "dtrnet", "inspect", "--model", models[1], "--json", "--context", length, "--route-rate", attended / executed]
    inspect += ["--execute-rate", executed]
    info = json.loads(run(inspect))
    flops = info["flops_per_token"]
    held = routed["kv_rows"] * routed["kv_row_bytes"]
    print(json.dumps({"length": length, **r}), file=sys.stderr)
    return (
        f"| {length} | {dense['all']:.3f} | {routed['all']:.3f} | {skipped:.3f} | {routed['router']:.3f} | **{saved:.2f}** "
        f"| {routed['all'] / dense['all']:.3f} | {flops['causal']['ratio']:.3f}, {flops['full']['ratio']:.3f} "
        f"| {dense['attention'] / dense['all']:.2f} | {routed['attended']:.3f} | {routed['kv_rows']} of {dense['kv_rows']} "
        f"| {held / (routed['rows_that_attended'] * routed['kv_row_bytes']):.4f} |"
    )


def main() -> None:
    """Makes the checkpoints, measures every length, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True, help="dtrnet's build directory")
    parser.add_argument("--dense", type=pathlib.Path, required=True, help="config.json of the dense model")
    parser.add_argument("--routed", type=pathlib.Path, required=True, help="config.json of the routed one")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="directory for the checkpoints")
    parser.add_argument("--lengths", default="2048,8192,20480")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--route-rate", type=float, default=0.1, help="tokens that attend; in nested layers, of those executed")
    parser.add_argument("--execute-rate", type=float, default=0.6, help="tokens that a nested layer executes")
    parser.add_argument("--step-rows", type=int, default=0, help="rows of a step; 0: the default")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    rates = ["--route-rate", a.route_rate, "--execute-rate", a.execute_rate]
    models = [checkpoint(a.build, a.dense, a.work, []), checkpoint(a.build, a.routed, a.work, rates)]
    print(f"{a.threads} threads, medians of {a.rounds} rounds; seconds\n")
    print(
        "| tokens | dense | routed | skipped work | routers | saved time | time ratio | FLOPs ratio, causal and full | attention's share "
        "of dense | rows attended | KV rows | KV bytes over rows x row size |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for length in map(int, a.lengths.split(",")):
        print(row(a.build, models, length, a), flush=True)


if __name__ == "__main__":
    main()
