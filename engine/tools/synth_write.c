/* Writes random tensors as one safetensors file, a chunk at a time. */
#include "common/buf.h"
#include "engine/checkpoint/random_tensor.h"
#include "engine/tools/synth.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CHUNK 4096

struct writer {
    FILE *file;
    const struct model_config *config;
    uint64_t seed;
    uint64_t index; /* of the tensor */
    struct buf header;
    uint64_t offset;
};

static int add_to_header(void *user, const struct tensor_spec *t)
{
    static const char *const names[] = {"F32", "BF16", "F16"};
    struct writer *w = user;
    uint64_t begin = w->offset;
    w->offset += (uint64_t)tensor_spec_elements(t) * dtype_size(random_tensor_dtype(w->config, t));
    int r = buf_printf(&w->header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, names[random_tensor_dtype(w->config, t)]);
    for (int i = 0; i < t->n_dims && r >= 0; i++)
        r = buf_printf(&w->header, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    return r >= 0 ? buf_printf(&w->header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin, (unsigned long long)w->offset) : r;
}

static int write_tensor(void *user, const struct tensor_spec *t)
{
    struct writer *w = user;
    enum dtype type = random_tensor_dtype(w->config, t);
    int64_t n = tensor_spec_elements(t);
    struct random_values values = random_tensor_values(w->config, t, w->seed, w->index++);
    float x[CHUNK];
    char stored[CHUNK * sizeof(float)];
    for (int64_t at = 0; at < n; at += CHUNK) {
        int m = n - at < CHUNK ? (int)(n - at) : CHUNK;
        if (values.std > 0)
            random_fill(&values, (uint64_t)at, x, (size_t)m);
        for (int i = 0; values.std == 0 && i < m; i++)
            x[i] = random_tensor_constant(t, (uint64_t)at + (uint64_t)i);
        dtype_from_f32(stored, type, x, (size_t)m);
        if (fwrite(stored, dtype_size(type), (size_t)m, w->file) != (size_t)m)
            return ERR_IO;
    }
    return 0;
}

/* The header is padded with blanks, so that the data are aligned to 8 bytes. */
static int write_header(struct writer *w)
{
    unsigned char len[8];
    int r = buf_puts(&w->header, "}");
    while (r >= 0 && w->header.len % 8)
        r = buf_puts(&w->header, " ");
    for (int i = 0; i < 8; i++)
        len[i] = (unsigned char)((uint64_t)w->header.len >> (8 * i));
    if (r >= 0 && (fwrite(len, 1, 8, w->file) != 8 || fwrite(w->header.data, 1, w->header.len, w->file) != w->header.len))
        r = ERR_IO;
    return r;
}

int synth_write(const char *path, const struct model_config *c, const struct layer_plan *plan, uint64_t seed, struct err *err)
{
    struct writer w = {.config = c, .seed = seed, .file = fopen(path, "wbx")};
    if (!w.file)
        return err_set(err, ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    buf_init(&w.header, 100000000);
    int r = buf_puts(&w.header, "{\"__metadata__\":{\"format\":\"pt\"}");
    if (r >= 0)
        r = schema_walk(c, plan, add_to_header, &w);
    if (r >= 0)
        r = write_header(&w);
    if (r >= 0)
        r = schema_walk(c, plan, write_tensor, &w);
    buf_done(&w.header);
    if (fclose(w.file) && r >= 0)
        r = ERR_IO;
    return r < 0 ? err_set(err, r, "%s cannot be written: %s", path, r == ERR_IO ? strerror(errno) : "no memory") : 0;
}
