#!/bin/sh
# The class portable-1 on one machine with a CUDA device: every op against the scalar CPU code, every model at every CPU level against the device, and float32's
# speed. Status 1 if any bit differs.
#
# usage: eval/benchmarks/portable_gpu.sh BUILD [JOBS]        BUILD: a build directory with the CUDA backend
set -u
build=$1 jobs=${2:-4} here=$(dirname "$0") status=0
echo "== ops: cuda float32 against the CPU's plain C"
"$build/tests/kernels/check_kernels" --backend cuda --dtype f32 || status=1
echo "== ops: every CPU level against plain C"
for level in avx2 avx512 avx512bf16 amx; do
    "$build/tests/kernels/check_kernels" --dtype f32 --level $level >"/tmp/portable_ops.$$" 2>&1
    case $? in
    0) echo "$level: equal" ;;
    77) echo "$level: not on this machine" ;;
    *) cat "/tmp/portable_ops.$$"; status=1 ;;
    esac
done
rm -f "/tmp/portable_ops.$$"
echo "== models, against the hashes in the tree; what differs is traced to its op"
DTRNET_TEST_DEVICE=cuda "$build/tests/portable/test_models" "$here/../../tests/portable/hashes.txt" $(ls -d "$here"/../../tests/golden/*/config.json \
    "$here"/../../tests/ultradeep/*/config.json | xargs -n1 dirname) "$(realpath "$here/../../models/dtrnet-26m")" || status=1
echo "== models over HTTP"
python3 "$here/portable_bits.py" "$build/dtrnet" --jobs "$jobs" || status=1
echo "== random traffic on the device against one sequence at a time on the CPU"
for model in dense-gqa-tied dtrnet-bilayer mod dllm; do
    DTRNET_TEST_DEVICE=cuda DTRNET_TEST_REFERENCE_DEVICE=cpu "$build/tests/engine/test_traffic" "$here/../../tests/golden/$model" f32 10000 || status=1
done
for model in hybridnorm-nested-mamba-bf16 nested-mlp; do
    DTRNET_TEST_DEVICE=cuda DTRNET_TEST_REFERENCE_DEVICE=cpu "$build/tests/engine/test_traffic" "$here/../../tests/ultradeep/$model" f32 2000 || status=1
done
echo "== speed of float32, tokens/s at 2,048-token prompts and in generation"
for name in 360m-dense 1.3b-dense; do
    model=${TMPDIR:-/tmp}/portable-$name
    [ -d "$model" ] || "$build/dtrnet" synth --config "$here/../../tests/golden/configs/$name.json" --out "$model" >/dev/null || continue
    timeout 200 "$build/tests/bench/bench_engine" "$model" cuda f32 prefill 2048 16
    timeout 100 "$build/tests/bench/bench_engine" "$model" cuda f32 generate 128 1
    timeout 100 "$build/tests/bench/bench_engine" "$model" cuda f32 generate 128 64
done
exit $status
