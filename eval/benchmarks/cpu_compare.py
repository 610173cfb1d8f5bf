#!/usr/bin/env python3
"""Prefill and generation on the CPU: dtrnet, Hugging Face transformers and llama.cpp on the same random checkpoint, in one run.

Every round runs every contender once, one after another, so that a noisy moment of the machine meets all of them; the table has
medians over the rounds and their ratios. llama.cpp is built from the `llama-cpp-python` source package; its AMX code needs a compiler
barrier before the tile configuration is loaded (gcc 12 drops the stores to it), which is put into the copy.

With --clock cpu everything has one thread and is measured in its own processor time: on a machine that others use, that leaves out
the waiting, though not the crowded caches.

usage: cpu_compare.py --build BUILD_DIR --config CONFIG.json --work DIR [--threads 2] [--rounds 3] [--clock wall|cpu]
                      [--only dtrnet,hf,llama,matmul]

Needs: oneDNN 2 when dtrnet is built (Debian: libdnnl-dev), torch, transformers, cmake, a C++ compiler; the network for the source package,
unless DIR has it already.
OPENBLAS_CORETYPE must be unset: it would slow the others down.
"""

import argparse
import glob
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tarfile
import time

LENGTH, GENERATE = 512, 32
LLAMA_TYPES = ["bf16", "f16", "q8_0"]
MATRICES = {
    "qkv": lambda c: ((c["heads"] + 2 * c["kv_heads"]) * c["head"], c["hidden"]),
    "o": lambda c: (c["hidden"], c["heads"] * c["head"]),
    "gate_up": lambda c: (2 * c["ffn"], c["hidden"]),
    "down": lambda c: (c["hidden"], c["ffn"]),
}


def shape(config: dict) -> dict:
    """The dimensions of a config.json of the LLaMA family."""
    heads = config["num_attention_heads"]
    return {
        "hidden": config["hidden_size"],
        "ffn": config["intermediate_size"],
        "layers": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head": config.get("head_dim") or config["hidden_size"] // heads,
        "vocab": config["vocab_size"],
    }


def child_seconds() -> float:
    """Processor time of finished children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command: list, env: dict | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**os.environ, **(env or {})})
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


# ---- llama.cpp ----------------------------------------------------------------------------------------------------


def build_llama(work: pathlib.Path) -> pathlib.Path:
    """llama-bench, built in `work` unless it is there."""
    found = glob.glob(str(work / "llama*/vendor/llama.cpp/build/bin/llama-bench"))
    if found:
        return pathlib.Path(found[0])
    if not glob.glob(str(work / "llama_cpp_python-*.tar.gz")):
        run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python", "-d", work, "llama-cpp-python"])
    with tarfile.open(glob.glob(str(work / "llama_cpp_python-*.tar.gz"))[0]) as archive:
        archive.extractall(work, filter="data")
    tree = pathlib.Path(glob.glob(str(work / "llama_cpp_python-*/vendor/llama.cpp"))[0])
    amx = tree / "ggml/src/ggml-cpu/amx/mmq.cpp"
    text = amx.read_text()
    fixed, n = re.subn(r"^( *)(_tile_loadconfig\(&(\w+)\);)", r'\1__asm__ volatile("" : : "r"(&\3) : "memory");\n\1\2', text, flags=re.M)
    if not n:
        sys.exit(f"{amx}: no tile configuration was found to put a barrier before")
    amx.write_text(fixed)
    run(
        [
            "cmake",
            "-S",
            tree,
            "-B",
            tree / "build",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DGGML_NATIVE=ON",
            "-DLLAMA_CURL=OFF",
            "-DLLAMA_BUILD_TESTS=OFF",
            "-DLLAMA_BUILD_SERVER=OFF",
            "-DLLAMA_BUILD_EXAMPLES=OFF",
        ]
    )
    run(["cmake", "--build", tree / "build", "--target", "llama-bench", "-j", os.cpu_count()])
    return tree / "build/bin/llama-bench"


def tensor_names(layers: int) -> dict:
    """Our checkpoint's names to GGUF's."""
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    inner = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(layers):
        names |= {f"model.layers.{layer}.{a}.weight": f"blk.{layer}.{b}.weight" for a, b in inner.items()}
    return names


def write_gguf(tree: pathlib.Path, model: pathlib.Path, kind: str, out: pathlib.Path) -> None:
    """The checkpoint as GGUF with matrices of one type and no vocabulary, written by llama.cpp's own package.

    Rows of q and k stay in Hugging Face's order: the values differ from a proper conversion, the work does not.
    """
    sys.path.insert(0, str(tree / "gguf-py"))
    import gguf
    import torch
    from safetensors.torch import load_file

    config = json.loads((model / "config.json").read_text())
    c = shape(config)
    w = gguf.GGUFWriter(str(out), "llama")
    w.add_block_count(c["layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(c["hidden"])
    w.add_feed_forward_length(c["ffn"])
    w.add_head_count(c["heads"])
    w.add_head_count_kv(c["kv_heads"])
    w.add_key_length(c["head"])
    w.add_value_length(c["head"])
    w.add_rope_dimension_count(c["head"])
    w.add_rope_freq_base(float(config.get("rope_theta", 10000)))
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_vocab_size(c["vocab"])
    w.add_tokenizer_model("no_vocab")
    wanted = getattr(gguf.GGMLQuantizationType, kind.upper())
    names = tensor_names(c["layers"])
    for name, tensor in load_file(str(model / "model.safetensors")).items():
        values = tensor.to(torch.float32).numpy()
        if values.ndim == 1:
            w.add_tensor(names[name], values)
        else:
            w.add_tensor(names[name], gguf.quants.quantize(values, wanted), raw_dtype=wanted)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def llama_round(bench: pathlib.Path, gguf_file: pathlib.Path, threads: int, clock: str) -> dict:
    """Tokens a second of one prompt of LENGTH, and of GENERATE generated tokens."""
    command = [bench, "-m", gguf_file, "-t", threads, "-fa", 1, "-ub", 512, "-o", "json"]
    if clock == "wall":
        rows = json.loads(run([*command, "-p", LENGTH, "-n", GENERATE, "-r", 1]))
        return {("generate" if r["n_gen"] else "prefill"): r["avg_ts"] for r in rows}
    result = {}
    for what, prompt, new in [("prefill", LENGTH, 0), ("generate", 0, GENERATE)]:
        spent = []
        for repeats in [1, 3]:  # loading and warming up are in both
            before = child_seconds()
            run([*command, "-p", prompt, "-n", new, "-r", repeats])
            spent.append(child_seconds() - before)
        result[what] = 2 * (prompt + new) / (spent[1] - spent[0])
    return result


# ---- Hugging Face transformers ---------------------------------------------------------------------------------------


def hf_worker(model: str, threads: int, clock: str) -> None:
    """Times prompts of LENGTH with logits of the last row, by dtype and batch; prints JSON."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    now, result = time.process_time if clock == "cpu" else time.perf_counter, {}
    for name in ["bfloat16", "float32"]:
        net = AutoModelForCausalLM.from_pretrained(model, torch_dtype=getattr(torch, name)).eval()
        for batch in [1, 4]:
            ids = torch.randint(0, net.config.vocab_size, (batch, LENGTH))
            times = []
            with torch.inference_mode():
                for _ in range(3):
                    begin = now()
                    net(ids, use_cache=True, logits_to_keep=1)
                    times.append(now() - begin)
            result[f"{name} batch {batch}"] = batch * LENGTH / min(times[1:])
        del net
    print(json.dumps(result))


# ---- dtrnet -----------------------------------------------------------------------------------------------------------


def dtrnet_round(build: pathlib.Path, model: pathlib.Path, threads: int, clock: str) -> dict:
    """Figures of `dtrnet bench`."""
    report = json.loads(
        run(
            [
                build / "dtrnet",
                "bench",
                "--model",
                model,
                "--dtype",
                "bf16",
                "--threads",
                threads,
                "--lengths",
                LENGTH,
                "--batches",
                "1,4",
                "--generate",
                GENERATE + 1,
                "--workloads",
                "prefill,generate",
                "--repeats",
                2,
                "--log-level",
                "error",
                "--json",
            ]
        )
    )
    rates = {f"{w['workload']} batch {w['batch']}": w["tokens_per_s"] for w in report["workloads"]}
    if clock == "cpu":
        rates = {f"{w['workload']} batch {w['batch']}": w["tokens"] / w["cpu_seconds"] for w in report["workloads"]}
    generation = next(w for w in report["workloads"] if w["workload"] == "generate" and w["batch"] == 1)
    memory = {"resident MB": report["resident_bytes"] / 1e6, "weights MB": report["weight_bytes"] / 1e6}
    return {**rates, "read GB/s": report["read_gb_per_s"], "weights GB/s": generation["weights_gb_per_s"], **memory}


def matmul_round(build: pathlib.Path, config: dict, threads: int) -> dict:
    """Seconds of all matmuls of one 512-token prompt, each kernel by itself: ours and oneDNN's."""
    c = shape(config)
    lines = run(
        [build / "tests/bench/bench_matmul", threads, LENGTH, 15, *(f"{n},{k}" for n, k in (f(c) for f in MATRICES.values()))],
        {"OMP_NUM_THREADS": str(threads)},
    )
    found = {
        (int(n), int(k)): (float(a), float(b))
        for n, k, a, b in re.findall(r"n +(\d+) k +(\d+) +ours +([\d.]+) ms.*onednn +([\d.]+) ms", lines)
    }
    total = [c["layers"] * 1e-3 * sum(found[f(c)][i] for f in MATRICES.values()) for i in (0, 1)]
    return {"ours alone": LENGTH / total[0], "oneDNN alone": LENGTH / total[1]}


# ---- the run ------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Prepares what is missing, runs the rounds, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, help="dtrnet's build directory")
    parser.add_argument("--config", type=pathlib.Path, help="config.json of a dense model")
    parser.add_argument("--work", type=pathlib.Path, help="directory for the checkpoint, its copies and llama.cpp")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--only", default="dtrnet,hf,llama,matmul")
    parser.add_argument("--hf-worker", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.hf_worker:
        return hf_worker(a.hf_worker, a.threads, a.clock)
    if "OPENBLAS_CORETYPE" in os.environ:
        sys.exit("unset OPENBLAS_CORETYPE")
    if a.clock == "cpu" and a.threads != 1:
        sys.exit("--clock cpu needs --threads 1")
    a.work.mkdir(parents=True, exist_ok=True)
    config, model = json.loads(a.config.read_text()), a.work / f"{a.config.stem}-model"
    if not model.exists():
        run([a.build / "dtrnet", "synth", "--config", a.config, "--out", model, "--family", "dense"])
    rounds: dict[str, list] = {}

    def note(prefix: str, figures: dict) -> None:
        for key, value in figures.items():
            rounds.setdefault(f"{prefix} {key}", []).append(value)
            print(f"  {prefix} {key}: {value:.1f}", flush=True)

    if "llama" in a.only:
        bench, files = build_llama(a.work), {t: a.work / f"{a.config.stem}-{t}.gguf" for t in LLAMA_TYPES}
        for kind, file in files.items():
            if not file.exists():
                write_gguf(bench.parents[2], model, kind, file)
    for i in range(a.rounds):
        print(f"round {i + 1}")
        if "dtrnet" in a.only:
            note("dtrnet", dtrnet_round(a.build, model, a.threads, a.clock))
        if "matmul" in a.only:
            note("matmul", matmul_round(a.build, config, a.threads))
        if "hf" in a.only:
            worker = [sys.executable, __file__, "--hf-worker", model, "--threads", a.threads, "--clock", a.clock]
            note("transformers", json.loads(run(worker)))
        if "llama" in a.only:
            for kind, file in files.items():
                note(f"llama.cpp {kind}", llama_round(bench, file, a.threads, a.clock))
    print_table(rounds, a.threads)


def print_table(rounds: dict, threads: int) -> None:
    """Medians, and each contender against dtrnet's figure for the same work."""
    mid = {k: statistics.median(v) for k, v in rounds.items()}
    prefill, generate = mid.get("dtrnet prefill batch 1"), mid.get("dtrnet generate batch 1")
    best = max((mid.get(f"dtrnet prefill batch {b}", 0) for b in (1, 4)), default=0)
    print(f"\n{threads} threads, medians of {max(map(len, rounds.values()))} rounds, tokens/s where nothing else is said\n")
    print("| what | figure | dtrnet's ratio to it |\n|---|---|---|")
    for key, value in mid.items():
        ours = None
        if key.startswith("matmul"):
            ours = best
        elif key.startswith("transformers"):
            ours = best if key.endswith("4") else prefill
        elif key.startswith("llama.cpp"):
            ours = generate if key.endswith("generate") else prefill
        print(f"| {key} | {value:.1f} | {'' if not ours else f'{ours / value:.2f}'} |")


if __name__ == "__main__":
    main()
