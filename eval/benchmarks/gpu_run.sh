#!/bin/sh
# Everything results-h100.md tells, in one run on one GPU: gpu_run.sh BUILD_DIR WORK_DIR
# WORK_DIR takes the random checkpoints (about 7 GB). Needs python3 with torch and transformers.
set -u
build=$(realpath "$1") work=$2 here=$(dirname "$(realpath "$0")")
root=$(dirname "$(dirname "$here")")
configs=$root/tests/golden/configs
bench="timeout 120 $build/tests/bench/bench_engine"
cd "$here" || exit 1
mkdir -p "$work"
for m in 360m-dense 360m-dtrnet-bilayer 1.3b-dense 1.3b-dtrnet-bilayer; do
    python3 gpu_models.py "$configs/$m.json" "$work/$m" --rate 0.1
done
sed 's/"vocab_size": [0-9]*/"vocab_size": 16384/' "$configs/360m-dense.json" > "$work/http.json"
python3 gpu_models.py "$work/http.json" "$work/360m-http"
cp "$root/models/dtrnet-26m/tokenizer.model" "$work/360m-http/"

timeout 200 python3 gpu_reference.py ${GPU_REFERENCE:-matmul attention routed prefill generate} --configs "$configs"
timeout 100 python3 gpu_reference.py published --model "$work/360m-dtrnet-bilayer"
for length in 512 2048 8192 16384; do timeout 60 "$build/tests/bench/bench_cuda" 16384 $length; done
# 33792 rows are 2 x 132 tiles of 128: whole waves on 132 multiprocessors
for m in 360m-dense 360m-dtrnet-bilayer 1.3b-dense 1.3b-dtrnet-bilayer; do
    DTRNET_BENCH_ROWS=33792 $bench "$work/$m" cuda bf16 prefill 2048 64
    DTRNET_BENCH_ROWS=33792 $bench "$work/$m" cuda bf16 prefill 8192 16
    DTRNET_BENCH_ROWS=33792 $bench "$work/$m" cuda bf16 prefill 20480 4
done
for m in 360m-dense 360m-dtrnet-bilayer; do
    $bench "$work/$m" cuda bf16 prefill 2048 64
    DTRNET_BENCH_ROWS=20992 $bench "$work/$m" cuda bf16 prefill 20480 1
done
$bench "$work/360m-dense" cuda bf16 items 10000
$bench "$work/360m-dtrnet-bilayer" cuda bf16 items 10000
$bench "$work/360m-dense" cuda bf16 generate 128 1
$bench "$work/360m-dense" cuda bf16 generate 128 64

"$build/dtrnet" serve --model "$work/360m-http" --device cuda --port 8123 --log-level warn --max-queue 1000000 &
server=$!
python3 - <<'PY'
import time, urllib.request
for _ in range(200):
    try:
        urllib.request.urlopen("http://127.0.0.1:8123/ready")
        break
    except OSError:
        time.sleep(0.1)
PY
for i in 1 2 3; do timeout 100 python3 gpu_http.py http://127.0.0.1:8123 --items 10000 --connections 8; done
kill $server
wait $server
