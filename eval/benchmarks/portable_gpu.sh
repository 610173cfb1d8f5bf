#!/bin/bash
# The class portable-1 on one machine with a CUDA device: ops, models and traffic on the device against the CPU's plain C, every CPU level, and float32's speed.
# Status 1 if any bit differs.
#
# usage: eval/benchmarks/portable_gpu.sh BUILD [SECTION ...]     BUILD: a build directory with the CUDA backend; sections: ops levels models traffic
#                                                                speed http, all by default (about ten minutes)
set -u
build=$(realpath "$1") root=$(realpath "$(dirname "$0")/../..") status=0
shift
export DTRNET_TEST_REFERENCE_DEVICE=cpu
models=("$root"/tests/golden/*/config.json "$root"/tests/ultradeep/*/config.json "$root/models/dtrnet-26m/config.json")

section_ops() { "$build/tests/kernels/check_kernels" --backend cuda --dtype f32; }

section_levels() {
    local level code failed=0
    for level in scalar avx2 avx512 avx512bf16 amx; do
        "$build/tests/kernels/check_kernels" --dtype f32 --level "$level" >"/tmp/portable.$$" 2>&1
        code=$?
        case $code in
        0) echo "$level: equal" ;;
        77) echo "$level: not on this machine" ;;
        *)
            grep -v " 0 failures" "/tmp/portable.$$"
            failed=1
            ;;
        esac
    done
    rm -f "/tmp/portable.$$"
    return $failed
}

# At every level and on the device, against the hashes in the tree; what differs is traced to its op.
section_models() { DTRNET_TEST_DEVICE=cuda "$build/tests/portable/test_models" "$root/tests/portable/hashes.txt" "${models[@]%/config.json}"; }

section_traffic() {
    local model failed=0
    for model in golden/dense-gqa-tied golden/dtrnet-bilayer golden/mod golden/dllm ultradeep/hybridnorm-nested-mamba-bf16; do
        echo "$model"
        DTRNET_TEST_DEVICE=cuda timeout 300 "$build/tests/engine/test_traffic" "$root/tests/$model" f32 "${REQUESTS:-10000}" || failed=1
    done
    return $failed
}

# Tokens/s at 2,048-token prompts and in generation.
section_speed() {
    local name model
    for name in 360m-dense 1.3b-dense; do
        model=${TMPDIR:-/tmp}/portable-$name
        [[ -d $model ]] || "$build/dtrnet" synth --config "$root/tests/golden/configs/$name.json" --out "$model" >/dev/null || return 1
        timeout 100 "$build/tests/bench/bench_engine" "$model" cuda f32 prefill 2048 16
        timeout 100 "$build/tests/bench/bench_engine" "$model" cuda f32 generate 128 1
        timeout 100 "$build/tests/bench/bench_engine" "$model" cuda f32 generate 128 64
    done
}

section_http() {
    python3 "$root/eval/benchmarks/portable_bits.py" "$build/dtrnet" --jobs 4 && python3 "$root/eval/benchmarks/portable_bits.py" "$build/dtrnet" --long
}

for name in ${*:-ops levels models speed traffic http}; do
    echo "== $name"
    "section_$name" || status=1
done
exit $status
