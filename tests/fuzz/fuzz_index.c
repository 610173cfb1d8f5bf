/* Any bytes as model.safetensors.index.json, and what follows a NUL as the shard a.safetensors beside it. */
#include "engine/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];

static void remove_dir(void)
{
    char command[96];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    if (system(command))
        fprintf(stderr, "%s could not be removed\n", dir);
}

static void put(const char *name, const uint8_t *data, size_t len)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || (len && fwrite(data, len, 1, f) != 1) || fclose(f))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const uint8_t *nul = len ? memchr(data, 0, len) : NULL;
    size_t n = nul ? (size_t)(nul - data) : len;
    struct safetensors *s = NULL;
    struct err err = {0};
    if (!*dir) {
        strcpy(dir, "/tmp/fuzz_index_XXXXXX");
        if (!mkdtemp(dir) || atexit(remove_dir))
            abort();
    }
    put("model.safetensors.index.json", data, n);
    put("a.safetensors", nul ? nul + 1 : data, nul ? len - n - 1 : 0);
    if (safetensors_open_dir(dir, &s, &err) < 0 && !err.text[0])
        abort();
    volatile unsigned sum = 0; /* the ends of every tensor can be read */
    for (size_t i = 0; s && i < safetensors_count(s); i++) {
        const struct tensor *t = safetensors_at(s, i);
        const unsigned char *bytes = t->data;
        sum += t->n_bytes ? bytes[0] + bytes[t->n_bytes - 1] : 0;
    }
    (void)sum;
    safetensors_close(s);
    return 0;
}
