/* From a directory to a model on a device. The weight files are unmapped once they are hashed. */
#include "engine/model/model.h"
#include "common/thread.h"
#include "engine/checkpoint/load_progress.h"
#include "engine/checkpoint/random_checkpoint.h"
#include "engine/checkpoint/tied_head.h"
#include "engine/model/hash_job.h"
#include "engine/model/rope.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum dtype type;
} dtype_names[] = {{"f32", DTYPE_F32}, {"bf16", DTYPE_BF16}, {"f16", DTYPE_F16}};

static int pick_dtype(const char *name, const struct backend *b, enum dtype stored, enum dtype *ret, struct err *err)
{
    if (!name || !strcmp(name, "auto")) {
        *ret = b->auto_dtype(stored);
        return 0;
    }
    for (size_t i = 0; i < sizeof(dtype_names) / sizeof(dtype_names[0]); i++) {
        if (!strcmp(name, dtype_names[i].name)) {
            *ret = dtype_names[i].type;
            return 0;
        }
    }
    return err_field(err, ERR_INVALID, "dtype", "dtype is \"%s\"; it must be auto, f32, bf16 or f16", name);
}

static int open_files(struct model *m, const struct model_options *o, struct safetensors **ret, struct err *err)
{
    return o->random_weights ? random_checkpoint_open(&m->config, o->seed, ret, err) : safetensors_open_dir(o->dir, ret, err);
}

/* From here on the files are the job's. */
static int start_hash(struct model *m, const struct model_options *o, struct safetensors *files, struct err *err)
{
    char more[64];
    snprintf(more, sizeof(more), "random weights, seed %llu", (unsigned long long)o->seed);
    return hash_job_start(o->dir, files, o->random_weights ? more : NULL, o->log, &m->hash, err);
}

static int load_weights(struct model *m, const struct model_options *o, const struct safetensors *files, struct err *err)
{
    struct load_progress layers = {
        .log = o->log, .what = "weights laid out", .bytes = safetensors_bytes(files), .total = (size_t)m->config.n_layers};
    return weights_load(m->k, &m->config, m->plan, files, &m->share, &layers, &m->weights, err);
}

static int upload_table(struct model *m, const float *values, size_t n, struct dev_f32 **ret)
{
    const struct backend *b = m->k->backend;
    *ret = dev_f32_in(b->alloc(m->k, n * sizeof(float)), 0);
    return *ret ? b->upload(m->k, DEV_BYTES(*ret), values, n * sizeof(float)) : ERR_NOMEM;
}

static bool has_still_layers(const struct model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        if (m->plan[l].no_rope)
            return true;
    return false;
}

static int upload_rope(struct model *m, struct err *err)
{
    int width = model_config_padded_head_dim(&m->config) / 2;
    size_t n = (size_t)m->max_model_len * (size_t)width;
    float *cos = malloc(n * sizeof(float)), *sin = malloc(n * sizeof(float));
    int r = cos && sin ? 0 : ERR_NOMEM;
    if (r >= 0) {
        rope_tables(&m->config.rope, m->config.head_dim, width, m->max_model_len, cos, sin);
        r = upload_table(m, cos, n, &m->rope_cos);
    }
    if (r >= 0)
        r = upload_table(m, sin, n, &m->rope_sin);
    if (r >= 0 && has_still_layers(m)) {
        for (int j = 0; j < width; j++) {
            cos[j] = 1;
            sin[j] = 0;
        }
        r = upload_table(m, cos, (size_t)width, &m->still_cos);
        if (r >= 0)
            r = upload_table(m, sin, (size_t)width, &m->still_sin);
    }
    free(cos);
    free(sin);
    return r < 0 ? err_set(err, r, "no memory for rotary tables of %d positions, or copying them to the device failed", m->max_model_len)
                 : 0;
}

static void choose_length(struct model *m, const struct model_options *o)
{
    m->max_model_len = o->max_model_len ? o->max_model_len : m->config.default_max_model_len;
    if (m->max_model_len > m->config.default_max_model_len)
        log_warn(o->log, "max_model_len %d is above the %d positions that the model was made for", m->max_model_len,
                 m->config.default_max_model_len);
}

static int check_window(const struct model *m, struct err *err)
{
    int w = m->config.window;
    if (!w || m->max_model_len <= w)
        return 0;
    return err_field(
        err, ERR_UNSUPPORTED, "max_model_len",
        "config.json gives attention a window of %d tokens (sliding_window), which is not implemented and changes texts of more "
        "than %d tokens; with max_model_len %d or less the model is served exactly",
        w, w, w);
}

/* Refuses at once what could never run, before tables of that length are made. */
static int check_length(const struct model *m, struct err *err)
{
    struct backend_memory memory;
    size_t n = (size_t)m->max_model_len, rope = (size_t)model_config_padded_head_dim(&m->config) * sizeof(float);
    size_t need = n * ((size_t)m->config.n_layers * (model_kv_row_bytes(m) + sizeof(int)) + rope);
    if (m->k->backend->memory(m->k, &memory) < 0 || need <= memory.free_bytes)
        return 0;
    return err_field(err, ERR_INVALID, "max_model_len",
                     "a sequence of max_model_len %d needs %zu MiB for K and V, and %zu MiB are free; lower max_model_len",
                     m->max_model_len, need >> 20, memory.free_bytes >> 20);
}

/* Refuses weights that cannot fit before any is copied. What packing adds is not counted. */
static int check_weights(const struct model *m, const struct safetensors *files, struct err *err)
{
    struct backend_memory memory;
    size_t need = 0, element = dtype_size(m->k->act);
    for (size_t i = 0; i < safetensors_count(files); i++) {
        const struct tensor *t = safetensors_at(files, i);
        size_t ranks = strncmp(t->name, "model.layers.", 13) ? 1 : (size_t)share_n(&m->share);
        need += (size_t)tensor_elements(t) * element / ranks;
    }
    if (m->k->backend->memory(m->k, &memory) < 0 || need <= memory.free_bytes)
        return 0;
    return err_field(err, ERR_NOMEM, "model", "the model needs %zu MiB for its weights in %s, and %zu of the %s device's %zu MiB are free",
                     need >> 20, dtype_name(m->k->act), memory.free_bytes >> 20, m->k->backend->name, memory.total_bytes >> 20);
}

static int pick_precision(const char *name, enum matmul_precision *ret, struct err *err)
{
    bool high = name && !strcmp(name, "high");
    if (name && !high && strcmp(name, "highest"))
        return err_field(err, ERR_INVALID, "matmul_precision", "matmul_precision must be highest or high, not \"%.32s\"", name);
    *ret = high ? MATMUL_HIGH : MATMUL_HIGHEST;
    return 0;
}

int model_open(const struct model_options *o, const struct backend *backend, struct model *m, struct err *err)
{
    memset(m, 0, sizeof(*m));
    struct safetensors *files = NULL;
    struct backend_config bc = {.device_index = o->device_index, .cpu_level = o->cpu_level, .cuda_level = o->cuda_level, .log = o->log};
    int r = pick_precision(o->matmul_precision, &m->precision, err);
    bc.precision = m->precision;
    if (r >= 0)
        r = model_config_load(o->dir, &o->overrides, o->log, &m->config, err);
    if (r >= 0)
        r = open_files(m, o, &files, err);
    if (r >= 0)
        r = pick_dtype(o->dtype, backend, weights_stored_dtype(files), &bc.dtype, err);
    if (r >= 0) {
        m->n_threads = bc.n_threads = o->n_threads ? o->n_threads : thread_usable_count();
        m->plan = calloc((size_t)m->config.n_layers, sizeof(*m->plan));
        r = m->plan ? layer_plan_fill(&m->config, files, o->overrides.dense_layers, m->plan, err) : err_set(err, ERR_NOMEM, "layer plan");
    }
    m->share = o->share;
    if (r >= 0)
        r = share_check(share_n(&m->share), &m->config, err);
    if (r >= 0) {
        choose_length(m, o);
        r = check_window(m, err);
    }
    if (r >= 0)
        r = backend->open(&bc, &m->k, err);
    if (r >= 0)
        r = check_weights(m, files, err);
    if (r >= 0 && !m->share.rank)
        r = start_hash(m, o, files, err);
    if (r >= 0)
        r = load_weights(m, o, files, err);
    if (r >= 0 && !m->share.rank)
        tied_head_check(&m->config, files, o->log);
    if (r >= 0)
        r = check_length(m, err);
    if (r >= 0)
        r = upload_rope(m, err);
    if (r >= 0)
        r = backend->sync(m->k, err);
    struct err changed;
    if (files && safetensors_check(files, &changed) < 0) { /* also where that made something else fail */
        r = changed.code;
        if (err)
            *err = changed;
    }
    if (m->hash)
        hash_job_release(m->hash);
    else
        safetensors_close(files);
    if (r < 0)
        model_close(m);
    return r;
}

static void free_device(struct model *m)
{
    const struct backend *b = m->k->backend;
    weights_free(m->k, &m->weights);
    b->free(m->k, DEV_BYTES(m->rope_cos));
    b->free(m->k, DEV_BYTES(m->rope_sin));
    b->free(m->k, DEV_BYTES(m->still_cos));
    b->free(m->k, DEV_BYTES(m->still_sin));
}

void model_close(struct model *m)
{
    hash_job_free(m->hash);
    if (m->k) {
        if (!m->borrows)
            free_device(m);
        m->k->backend->close(m->k);
    }
    free(m->plan);
    memset(m, 0, sizeof(*m));
}

size_t model_kv_row_bytes(const struct model *m)
{
    return 2 * (size_t)share_kv_heads(&m->share, &m->config) * (size_t)model_config_padded_head_dim(&m->config) * dtype_size(m->k->act);
}

size_t model_state_bytes(const struct model *m)
{
    return (size_t)m->weights.n_states * model_config_state_floats(&m->config) * sizeof(float);
}
