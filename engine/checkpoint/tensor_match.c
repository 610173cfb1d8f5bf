#include "engine/checkpoint/tensor_match.h"
#include "engine/checkpoint/tensor_schema.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct match {
    const struct model_config *c;
    const struct safetensors *s;
    bool *used; /* [safetensors_count] */
    struct err *err;
};

int tensor_match_dtype(const struct tensor *t, enum dtype *ret, struct err *err)
{
    switch (t->type) {
    case TENSOR_F32: *ret = DTYPE_F32; return 0;
    case TENSOR_BF16: *ret = DTYPE_BF16; return 0;
    case TENSOR_F16: *ret = DTYPE_F16; return 0;
    default: return err_set(err, ERR_UNSUPPORTED, "tensor %s has dtype %s; F32, BF16 and F16 are implemented", t->name, t->dtype);
    }
}

static void shape_text(char *out, size_t size, const int64_t *shape, int n)
{
    size_t at = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%lld", i ? "," : "", (long long)shape[i]);
    if (at < size)
        snprintf(out + at, size - at, "]");
}

static int check_shape(const struct tensor *t, const struct tensor_spec *want, struct err *err)
{
    if (t->n_dims == want->n_dims && !memcmp(t->shape, want->shape, (size_t)want->n_dims * sizeof(want->shape[0])))
        return 0;
    char is[192], must[64];
    shape_text(is, sizeof(is), t->shape, t->n_dims);
    shape_text(must, sizeof(must), want->shape, want->n_dims);
    return err_set(err, ERR_CORRUPT, "tensor %s must be %s as the config says, and is %s", t->name, must, is);
}

static int match_one(void *user, const struct tensor_spec *want)
{
    struct match *m = user;
    const struct tensor *t = safetensors_find(m->s, want->name);
    enum dtype type;
    if (!t) {
        char must[64];
        shape_text(must, sizeof(must), want->shape, want->n_dims);
        return err_set(m->err, ERR_CORRUPT, "tensor %s %s is missing", want->name, must);
    }
    m->used[t - safetensors_at(m->s, 0)] = true;
    int r = check_shape(t, want, m->err);
    return r >= 0 ? tensor_match_dtype(t, &type, m->err) : r;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* The router of a layer that runs dense by --dense-layers. */
static bool is_dropped_router(const struct model_config *c, const struct layer_plan *plan, const char *name)
{
    int l = -1, at = 0;
    if (sscanf(name, "model.layers.%d.%n", &l, &at) != 1 || !at || l < 0 || l >= c->n_layers || !plan[l].forced_dense)
        return false;
    static const char *const prefixes[] = {"router.", "skip_router.", "aux_router."};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (!strncmp(name + at, prefixes[i], strlen(prefixes[i])))
            return true;
    return false;
}

static int check_unused(const struct match *m, const struct layer_plan *plan, int64_t *n_params)
{
    for (size_t i = 0; i < safetensors_count(m->s); i++) {
        const struct tensor *t = safetensors_at(m->s, i);
        if (!m->used[i] && (ends_with(t->name, ".rotary_emb.inv_freq") || (m->c->tied && !strcmp(t->name, "lm_head.weight"))))
            continue;
        if (!m->used[i] && !is_dropped_router(m->c, plan, t->name))
            return err_set(m->err, ERR_CORRUPT, "tensor %s belongs to nothing that this model's config describes", t->name);
        *n_params += tensor_elements(t);
    }
    return 0;
}

/* Names that quantisers give: GPTQ and AWQ, compressed-tensors, FP8, bitsandbytes. Said before a weight is found missing. */
static int check_quantised(const struct safetensors *s, struct err *err)
{
    static const char *const tails[] = {".qweight",          ".qzeros", ".weight_packed", ".weight_scale",
                                        ".weight_scale_inv", ".SCB",    ".absmax",        ".quant_map"};
    for (size_t i = 0; i < safetensors_count(s); i++)
        for (size_t k = 0; k < sizeof(tails) / sizeof(tails[0]); k++)
            if (ends_with(safetensors_at(s, i)->name, tails[k]))
                return err_set(
                    err, ERR_UNSUPPORTED,
                    "tensor %s is of quantised weights, and only float32, bfloat16 and float16 weights are implemented: take the "
                    "checkpoint that it was made from",
                    safetensors_at(s, i)->name);
    return 0;
}

int tensor_match(const struct model_config *c, const struct layer_plan *plan, const struct safetensors *s, int64_t *ret_params,
                 struct err *err)
{
    struct match m = {.c = c, .s = s, .err = err, .used = calloc(safetensors_count(s) + 1, sizeof(*m.used))};
    int64_t n = 0;
    int r = m.used ? check_quantised(s, err) : err_set(err, ERR_NOMEM, "no memory for the list of tensors");
    if (r >= 0)
        r = schema_walk(c, plan, match_one, &m);
    if (r >= 0)
        r = check_unused(&m, plan, &n);
    if (r >= 0 && ret_params)
        *ret_params = n;
    free(m.used);
    return r;
}
