/* A model that is open on one device, opened on another. */
#include "common/thread.h"
#include "engine/model/model.h"
#include <stdlib.h>
#include <string.h>

static int take_plan(struct model *m, const struct model *first)
{
    size_t bytes = (size_t)first->config.n_layers * sizeof(*m->plan);
    m->plan = malloc(bytes);
    if (m->plan)
        memcpy(m->plan, first->plan, bytes);
    return m->plan ? 0 : ERR_NOMEM;
}

static int open_device(struct model *m, const struct model_options *o, const struct model *first, struct err *err)
{
    const struct backend *b = first->k->backend;
    struct backend_config c = {.dtype = first->k->act,
                               .precision = first->precision,
                               .device_index = o->device_index,
                               .n_threads = m->n_threads,
                               .cpu_level = o->cpu_level,
                               .cuda_level = o->cuda_level,
                               .log = o->log};
    int r = b->open(&c, &m->k, err);
    if (r < 0)
        return r;
    const char *one = b->numerics_class(first->k), *other = b->numerics_class(m->k);
    return strcmp(one, other)
               ? err_field(err, ERR_INVALID, "device_list",
                           "the devices of device_list must compute the same bits, and number %d is \"%s\" where the first is \"%s\"",
                           o->device_index, other, one)
               : 0;
}

static int copy_table(struct model *m, const struct model *first, struct dev_f32 *src, int positions, struct dev_f32 **ret)
{
    const struct backend *b = m->k->backend;
    size_t bytes = (size_t)positions * (size_t)model_config_padded_head_dim(&m->config) / 2 * sizeof(float);
    if (!src)
        return 0;
    struct dev_bytes *p = b->alloc(m->k, bytes);
    *ret = p ? dev_f32_in(p, 0) : NULL;
    return p ? b->copy(m->k, p, first->k, DEV_BYTES(src), bytes) : ERR_NOMEM;
}

static int copy_all(struct model *m, const struct model *first)
{
    int r = weights_copy(m->k, first->k, &m->config, &first->weights, &m->weights);
    if (r >= 0)
        r = copy_table(m, first, first->rope_cos, m->max_model_len, &m->rope_cos);
    if (r >= 0)
        r = copy_table(m, first, first->rope_sin, m->max_model_len, &m->rope_sin);
    if (r >= 0)
        r = copy_table(m, first, first->still_cos, 1, &m->still_cos);
    return r < 0 ? r : copy_table(m, first, first->still_sin, 1, &m->still_sin);
}

static void borrow(struct model *m, const struct model *first)
{
    m->borrows = true;
    m->weights = first->weights;
    m->rope_cos = first->rope_cos;
    m->rope_sin = first->rope_sin;
    m->still_cos = first->still_cos;
    m->still_sin = first->still_sin;
}

static int take_weights(struct model *m, const struct model *first, struct err *err)
{
    const struct backend *b = m->k->backend;
    int r = b->share ? b->share(m->k, first->k) : ERR_UNSUPPORTED;
    if (r >= 0) {
        borrow(m, first);
        return 0;
    }
    if (r == ERR_UNSUPPORTED && b->copy)
        r = copy_all(m, first);
    struct err why = {0};
    int after = b->sync(m->k, &why);
    r = r < 0 ? r : after;
    return r < 0 ? err_set(err, r, "the weights cannot be copied from one %s device to another: %s", b->name,
                           why.code         ? why.text
                           : r == ERR_NOMEM ? "there is not enough memory"
                                            : err_name(r))
                 : 0;
}

int model_open_replica(const struct model_options *o, const struct model *first, struct model *m, struct err *err)
{
    memset(m, 0, sizeof(*m));
    m->config = first->config;
    m->share = first->share;
    m->precision = first->precision;
    m->n_threads = o->n_threads ? o->n_threads : thread_usable_count();
    m->max_model_len = first->max_model_len;
    int r = take_plan(m, first) < 0 ? err_set(err, ERR_NOMEM, "layer plan") : open_device(m, o, first, err);
    if (r >= 0)
        r = take_weights(m, first, err);
    if (r < 0)
        model_close(m);
    return r;
}
