/* Writes random tensors as one safetensors file, a chunk at a time. */
#include "common/buf.h"
#include "engine/checkpoint/tensor_schema.h"
#include "engine/tools/synth.h"
#include <errno.h>
#include <math.h>
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

static enum dtype stored_type(const struct writer *w, const struct tensor_spec *t)
{
    return t->wide ? DTYPE_F32 : w->config->save_dtype;
}

static int add_to_header(void *user, const struct tensor_spec *t)
{
    static const char *const names[] = {"F32", "BF16", "F16"};
    struct writer *w = user;
    uint64_t begin = w->offset;
    w->offset += (uint64_t)tensor_spec_elements(t) * dtype_size(stored_type(w, t));
    int r = buf_printf(&w->header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, names[stored_type(w, t)]);
    for (int i = 0; i < t->n_dims && r >= 0; i++)
        r = buf_printf(&w->header, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    return r >= 0 ? buf_printf(&w->header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin, (unsigned long long)w->offset) : r;
}

/* Standard deviation of a tensor's values; 0 for those that are not random. */
static double spread(const struct model_config *c, const struct tensor_spec *t)
{
    double residual = 0.02 / sqrt(2.0 * c->n_layers);
    switch (t->role) {
    case ROLE_EMBEDDING: return 2 / sqrt((double)t->shape[1]);
    case ROLE_BIAS: return 0.02;
    case ROLE_LINEAR: return t->row == SCHEMA_O ? residual / 8 : t->row == SCHEMA_DOWN ? residual : 0.02;
    case ROLE_ROUTER_LINEAR: return 1 / sqrt((double)t->shape[t->n_dims - 1]);
    default: return 0;
    }
}

/* Value i of a tensor that is not random. Of Mamba routers, as their authors begin: decay rates 1, 2, ..., step sizes from 0.001 to 0.1. */
static float constant(const struct tensor_spec *t, uint64_t i)
{
    switch (t->role) {
    case ROLE_NORM:
    case ROLE_ROUTER_NORM:
    case ROLE_ROUTER_D: return 1;
    case ROLE_ROUTER_A_LOG: return (float)log((double)(i % (uint64_t)t->shape[1]) + 1);
    case ROLE_ROUTER_DT_BIAS: {
        double step = 0.001 * pow(100, t->shape[0] > 1 ? (double)i / (double)(t->shape[0] - 1) : 0.5);
        return (float)log(expm1(step)); /* softplus of it is the step */
    }
    default: return 0;
    }
}

/* Box-Muller; pair i of a tensor's stream gives values 2i and 2i+1. */
static void fill_normal(float *x, uint64_t first, int n, uint64_t stream, double std)
{
    for (int i = 0; i < n; i += 2) {
        uint64_t h = synth_hash(stream, (first + (uint64_t)i) / 2);
        double u = ((double)(h >> 32) + 1) / 4294967296.0, angle = 2 * M_PI * (double)(h & 0xffffffffu) / 4294967296.0;
        double radius = std * sqrt(-2 * log(u));
        x[i] = (float)(radius * cos(angle));
        x[i + 1] = (float)(radius * sin(angle));
    }
}

static int write_tensor(void *user, const struct tensor_spec *t)
{
    struct writer *w = user;
    enum dtype type = stored_type(w, t);
    int64_t n = tensor_spec_elements(t);
    double std = spread(w->config, t);
    uint64_t stream = synth_hash(w->seed, w->index++);
    float x[CHUNK];
    char stored[CHUNK * sizeof(float)];
    for (int64_t at = 0; at < n; at += CHUNK) {
        int m = n - at < CHUNK ? (int)(n - at) : CHUNK;
        if (std > 0)
            fill_normal(x, (uint64_t)at, CHUNK, stream, std);
        for (int i = 0; std == 0 && i < m; i++)
            x[i] = constant(t, (uint64_t)at + (uint64_t)i);
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
