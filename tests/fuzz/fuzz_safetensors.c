/* Any bytes as a safetensors file: whatever opens can be read in full. */
#include "engine/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

static volatile unsigned sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct safetensors *s = NULL;
    struct err e;
    if (safetensors_open_memory("input", data, len, &s, &e) < 0)
        return 0;
    unsigned sum = 0;
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct tensor *t = safetensors_at(s, i);
        if (safetensors_find(s, t->name) != t || tensor_elements(t) < 0)
            abort();
        for (size_t j = 0; j < t->n_bytes; j++)
            sum += ((const uint8_t *)t->data)[j];
    }
    sink = sum;
    safetensors_close(s);
    return 0;
}
