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
echo "== models"
python3 "$here/portable_bits.py" "$build/dtrnet" --jobs "$jobs" || status=1
echo "== speed of float32"
for config in "$here"/../../configs/models/*360m*.json "$here"/../../configs/models/*1.3b*.json; do
    [ -f "$config" ] || continue
    model=/tmp/portable-$(basename "$config" .json)
    [ -d "$model" ] || "$build/dtrnet" synth --config "$config" --out "$model" >/dev/null || continue
    echo "$config"
    "$build/dtrnet" bench --model "$model" --device cuda --dtype f32 --workloads prefill,generate --lengths 2048
done
exit $status
