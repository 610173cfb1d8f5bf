#include "engine/tools/synth_router.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/tensor_schema.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* What is written: one or two values of a tensor. */
struct setting {
    enum schema_row row;
    int n;
    float value[2];
};

static float round_to(enum dtype t, double v)
{
    float f = (float)v;
    unsigned char stored[sizeof(float)];
    dtype_from_f32(stored, t, &f, 1);
    dtype_to_f32(&f, stored, t, 1);
    return f;
}

/* Where logits are two, the second bias takes what the stored dtype cannot hold of the first. `up`: the logit that stands for the selected. */
static struct setting two_biases(enum schema_row row, int up, enum dtype t, double shift)
{
    struct setting s = {.row = row, .n = 2};
    s.value[up] = round_to(t, shift);
    s.value[1 - up] = round_to(t, s.value[up] - shift);
    return s;
}

static struct setting setting_for(const struct model *m, enum router kind, bool has_threshold, double cut)
{
    enum dtype t = m->config.save_dtype;
    if (has_threshold)
        return (struct setting){SCHEMA_THRESHOLD, 1, {(float)cut}};
    switch (kind) {
    case ROUTER_MLP: return two_biases(SCHEMA_MLP_ROUTER_OUT_BIAS, 0, t, -cut);
    case ROUTER_MAMBA: return two_biases(SCHEMA_MAMBA_OUT_BIAS, 0, t, -cut);
    case ROUTER_DLLM: return two_biases(SCHEMA_DLLM_ROUTER_OUT_BIAS, 1, t, -cut);
    case ROUTER_MOD: return (struct setting){SCHEMA_MOD_SELECT_BIAS, 1, {round_to(t, -cut)}};
    case ROUTER_NONE: break;
    }
    assert(!"a router");
    return (struct setting){0};
}

static int write_setting(const struct model *m, struct schema_of of, const struct setting *s, const char *path, struct err *err)
{
    struct safetensors *files = NULL;
    struct tensor_spec spec;
    unsigned char stored[2 * sizeof(float)];
    size_t len;
    schema_find(&m->config, of, s->row, &spec);
    dtype_from_f32(stored, spec.wide ? DTYPE_F32 : m->config.save_dtype, s->value, (size_t)s->n);
    int r = safetensors_open_file(path, &files, err), fd = r >= 0 ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    if (r < 0)
        return r;
    const struct tensor *t = safetensors_find(files, spec.name);
    off_t at = (const unsigned char *)t->data - safetensors_file_bytes(files, 0, &len);
    bool ok = fd >= 0 && pwrite(fd, stored, t->n_bytes, at) == (ssize_t)t->n_bytes;
    if (fd >= 0 && close(fd))
        ok = false;
    safetensors_close(files);
    return ok ? 0 : err_set(err, ERR_IO, "%s cannot be written: %s", path, strerror(errno));
}

int synth_router_set(struct model *m, const char *path, int layer, bool skip, double cut, struct err *err)
{
    const struct layer_plan *p = &m->plan[layer];
    struct schema_of of = {.layer = layer, .plan = p, .skip = skip};
    struct setting s = setting_for(m, skip ? p->skip_router : p->router, p->has_threshold, cut);
    struct safetensors *files = NULL;
    int r = write_setting(m, of, &s, path, err);
    if (r >= 0)
        r = safetensors_open_file(path, &files, err);
    if (r >= 0)
        r = weights_bind_router(m->k, &m->config, of, files, &m->weights, err);
    safetensors_close(files);
    return r;
}
