#!/bin/bash
# The tests of results-h100.md on this machine's GPU, several at once, each level of kernels: gpu_tests.sh BUILD_DIR LOG_DIR [REQUESTS]
# Prints a line a test as it ends: what, exit status, the last line of its log.
set -u
build=$(realpath "$1") logs=$2 requests=${3-10000} here=$(dirname "$(realpath "$0")")
root=$(dirname "$(dirname "$here")")
golden=$root/tests/golden
mkdir -p "$logs"
export DTRNET_TEST_DEVICE=cuda DTRNET_BIN=$build/dtrnet build golden logs requests

# one NAME LEVEL COMMAND...: LEVEL "" is the device's own
one() {
    name=$1 level=$2
    shift 2
    [ -z "$level" ] || export DTRNET_TEST_CUDA_LEVEL=$level
    timeout 1200 "$@" > "$logs/$name.txt" 2>&1
    echo "$name: $? $(tail -n 1 "$logs/$name.txt" | cut -c 1-170)"
}
export -f one

# many: lines "NAME LEVEL COMMAND" ("-" for the device's level), twelve at a time
many() { sed 's/ - / "" /' | xargs -d '\n' -P 12 -I LINE bash -c 'one LINE'; }

echo "== ops"
{
    for type in f32 bf16 f16; do
        for level in wgmma mma simt; do
            echo "ops-$type-$level - $build/tests/kernels/check_kernels --backend cuda --dtype $type --level $level"
        done
    done
    echo "failures - $build/tests/kernels/test_cuda_failures"
} | many
echo "== golden models"
for path in "$golden"/*/expected.safetensors; do
    model=$(basename "$(dirname "$path")")
    echo "layers-$model - $build/tests/golden/test_layers $golden/$model"
    for type in f32 bf16 f16; do echo "golden-$model-$type - $build/tests/golden/test_golden $golden/$model $type"; done
    for type in bf16 f16; do echo "golden-$model-$type-mma mma $build/tests/golden/test_golden $golden/$model $type"; done
done | many | awk '{n[$2]++} $2 {print}; END {for (s in n) printf "status %s: %d\n", s, n[s]}'
echo "== UltraDeep's golden models"
for path in "$root"/tests/ultradeep/*/expected.safetensors; do
    folder=$(dirname "$path") model=$(basename "$(dirname "$path")")
    modes=none
    [ "${model#expert}" = "$model" ] || modes="exact threshold"
    for mode in $modes; do
        words=${mode#none}
        echo "layers-$model-$mode - $build/tests/golden/test_layers $folder $words"
        for type in f32 bf16 f16; do
            for level in wgmma mma simt; do
                [ "$type-$level" = f32-mma ] || echo "golden-$model-$mode-$type-$level $level $build/tests/golden/test_golden $folder $type - $words"
            done
        done
    done
done | many | awk '{n[$2]++} $2 {print}; END {for (s in n) printf "status %s: %d\n", s, n[s]}'
echo "== processes"
one device "" python3 "$root/tests/e2e/test_device.py"
echo "== traffic of $requests requests"
{
    for model in deep92-lns-bf16 expert-nested-mamba-lns-bf16 hybridnorm-nested-mamba-bf16 lns-nested-sharded-f16; do
        words=
        [ "${model#expert}" = "$model" ] || words="- threshold"
        for type in f32 bf16; do echo "traffic-$model-$type - $build/tests/engine/test_traffic $root/tests/ultradeep/$model $type $requests $words"; done
    done
    for model in dense-gqa-tied dtrnet-bilayer mod dllm; do
        for type in f32 bf16; do echo "traffic-$model-$type - $build/tests/engine/test_traffic $golden/$model $type $requests"; done
    done
    for model in dense-gqa-tied dtrnet-bilayer; do
        echo "traffic-$model-bf16-mma mma $build/tests/engine/test_traffic $golden/$model bf16 $requests"
    done
} | many
