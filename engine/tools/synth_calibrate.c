/* Sets the routers' biases of a written checkpoint. All sequences are taken through the model together, one layer at a time: their residual
 * streams rest on the host between layers, so a layer's bias is known before any row passes it, and one pass is enough. */
#include "engine/checkpoint/safetensors.h"
#include "engine/tools/synth.h"
#include "engine/tools/trace.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_ROWS 2048

struct calibration {
    const struct synth_options *o;
    struct model m;
    struct trace t;
    int len, n_seqs, n_batches; /* tokens of a sequence, sequences of a batch */
    float *x;                   /* [n_batches, n_seqs * len, hidden] residual streams between layers */
    float *margin;              /* [n_batches * n_seqs * len] how far each row is above the threshold, in logits */
    struct {
        char name[96];
        float value[2];
        int n;
    } bias[2 * MODEL_MAX_LAYERS]; /* to be written back */
    int n_bias;
};

static size_t batch_floats(const struct calibration *c)
{
    return (size_t)c->n_seqs * (size_t)c->len * (size_t)c->m.config.hidden;
}

/* ---- one layer ----------------------------------------------------------------------------------------------- */

static int batch_in(struct calibration *c, int i)
{
    return c->m.k->backend->upload(c->m.k, DEV_BYTES(c->t.w.x), c->x + (size_t)i * batch_floats(c), batch_floats(c) * sizeof(float));
}

static int batch_out(struct calibration *c, int i)
{
    int r = c->m.k->backend->download(c->m.k, c->x + (size_t)i * batch_floats(c), DEV_BYTES(c->t.w.x), batch_floats(c) * sizeof(float));
    return r >= 0 ? c->m.k->backend->sync(c->m.k, NULL) : r;
}

/* margin = the argument of the sigmoid, or the difference of the two logits, that the probability came from. */
static int read_margins(struct calibration *c, int layer)
{
    int n = c->n_seqs * c->len, r = 0;
    for (int i = 0; i < c->n_batches && r >= 0; i++) {
        float *m = c->margin + (size_t)i * n;
        r = batch_in(c, i);
        if (r >= 0)
            r = forward_router(&c->m, &c->t.w, &c->t.b, layer);
        if (r >= 0)
            r = c->m.k->backend->download(c->m.k, m, DEV_BYTES(dev_f32_at(c->t.w.prob, (size_t)layer * (size_t)n)), (size_t)n * sizeof(*m));
        if (r >= 0)
            r = c->m.k->backend->sync(c->m.k, NULL);
        for (int j = 0; j < n && r >= 0; j++) {
            double p = fmin(fmax(m[j], 1e-30), 1 - 6e-8);
            m[j] = j % c->len < c->m.plan[layer].forced ? INFINITY : (float)log(p / (1 - p));
        }
    }
    return r;
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* What to add to every margin so that the wanted share lies above 0. Forced rows (infinite) count as selected. */
static double shift_for(struct calibration *c)
{
    long n = (long)c->n_batches * c->n_seqs * c->len, k = lrint(c->o->route_rate * (double)n), forced = 0;
    qsort(c->margin, (size_t)n, sizeof(*c->margin), descending);
    while (forced < n && !isfinite(c->margin[forced]))
        forced++;
    if (forced == n)
        return 0;
    if (k <= forced)
        return -(c->margin[forced] + 1);
    if (k == n)
        return -(c->margin[n - 1] - 1);
    return -((double)c->margin[k - 1] + c->margin[k]) / 2;
}

static double round_to(enum dtype t, double v)
{
    float f = (float)v;
    unsigned char stored[sizeof(float)];
    dtype_from_f32(stored, t, &f, 1);
    dtype_to_f32(&f, stored, t, 1);
    return f;
}

static void note(struct calibration *c, int layer, const char *tail, int n, const float *value)
{
    snprintf(c->bias[c->n_bias].name, sizeof(c->bias[0].name), "model.layers.%d.%s", layer, tail);
    c->bias[c->n_bias].n = n;
    memcpy(c->bias[c->n_bias].value, value, (size_t)n * sizeof(*value));
    c->n_bias++;
}

/* With two biases the second takes what the stored dtype cannot hold of the first. */
static int set_bias(struct calibration *c, int layer, double shift)
{
    enum dtype t = c->m.config.save_dtype;
    enum router router = c->m.plan[layer].router;
    float b[2] = {(float)round_to(t, shift), 0};
    if (router == ROUTER_MOD) {
        note(c, layer, "aux_router.predictor.bias", 1, b);
    } else {
        int up = router == ROUTER_MLP ? 0 : 1; /* which logit stands for attention or execution */
        float coarse = b[0], rest = (float)round_to(t, coarse - shift);
        b[up] = coarse;
        b[1 - up] = rest;
        note(c, layer, router == ROUTER_MLP ? "router.weight_predictor.2.bias" : "router.linear_2.bias", 2, b);
    }
    return c->m.k->backend->upload(c->m.k, DEV_BYTES(c->m.weights.layers[layer].router.out_bias), b, sizeof(b));
}

static int calibrate_layer(struct calibration *c, int layer)
{
    int r = 0;
    if (layer_is_routed(&c->m.plan[layer])) {
        r = read_margins(c, layer);
        if (r >= 0)
            r = set_bias(c, layer, shift_for(c));
    }
    for (int i = 0; i < c->n_batches && r >= 0 && layer + 1 < c->m.config.n_layers; i++) {
        r = batch_in(c, i);
        if (r >= 0)
            r = forward_layer(&c->m, &c->t.w, &c->t.b, &c->t.kv, layer);
        if (r >= 0)
            r = batch_out(c, i);
    }
    return r;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

/* Ids in random order, each as often as any other: what a router does depends first on the token, so this leaves less to chance than
 * independent draws. */
struct deck {
    int32_t *ids; /* [n] */
    int n, next;
    uint64_t seed, draws;
};

static int32_t deck_draw(struct deck *d)
{
    if (d->next == d->n)
        d->next = 0;
    int i = d->next++, j = i + (int)(synth_hash(d->seed, d->draws++) % (uint64_t)(d->n - i)); /* Fisher-Yates, a card at a time */
    int32_t id = d->ids[j];
    d->ids[j] = d->ids[i];
    d->ids[i] = id;
    return id;
}

static int embed_batch(struct calibration *c, struct deck *d, int32_t *ids, int i)
{
    for (int j = 0; j < c->n_seqs * c->len; j++)
        ids[j] = deck_draw(d);
    int r = trace_load(&c->t, ids, c->n_seqs, c->len, 0);
    if (r >= 0)
        r = forward_embed(&c->m, &c->t.w, &c->t.b);
    return r >= 0 ? batch_out(c, i) : r;
}

static int embed_all(struct calibration *c)
{
    struct deck d = {.n = c->m.config.vocab, .seed = synth_hash(c->o->seed, 0x6361)};
    int32_t *ids = malloc((size_t)(c->n_seqs * c->len) * sizeof(*ids));
    d.ids = malloc((size_t)d.n * sizeof(*d.ids));
    int r = ids && d.ids ? 0 : ERR_NOMEM;
    for (int i = 0; i < d.n && r >= 0; i++)
        d.ids[i] = i;
    for (int i = 0; i < c->n_batches && r >= 0; i++)
        r = embed_batch(c, &d, ids, i);
    free(d.ids);
    free(ids);
    return r;
}

static int run_layers(struct calibration *c, struct err *err)
{
    int r = embed_all(c);
    for (int l = 0; l < c->m.config.n_layers && r >= 0; l++) {
        r = calibrate_layer(c, l);
        log_debug(c->o->log, "calibrated layer %d of %d", l + 1, c->m.config.n_layers);
    }
    return r < 0 ? err_set(err, r, "calibration failed with %s", err_name(r)) : 0;
}

static int write_back(const struct calibration *c, const char *path, struct err *err)
{
    struct safetensors *s = NULL;
    size_t len;
    int r = safetensors_open_file(path, &s, err);
    int fd = r >= 0 ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    if (r >= 0 && fd < 0)
        r = err_set(err, ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    for (int i = 0; i < c->n_bias && r >= 0; i++) {
        const struct tensor *t = safetensors_find(s, c->bias[i].name);
        unsigned char stored[2 * sizeof(float)];
        dtype_from_f32(stored, c->m.config.save_dtype, c->bias[i].value, (size_t)c->bias[i].n);
        off_t at = (const unsigned char *)t->data - safetensors_file_bytes(s, 0, &len);
        if (pwrite(fd, stored, t->n_bytes, at) != (ssize_t)t->n_bytes)
            r = err_set(err, ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    }
    if (fd >= 0 && close(fd) && r >= 0)
        r = err_set(err, ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    safetensors_close(s);
    return r;
}

static int open_model(struct calibration *c, struct err *err)
{
    const struct synth_options *o = c->o;
    const struct model_options mo = {
        .dir = o->out, .n_threads = o->n_threads, .max_model_len = SYNTH_SEQUENCE, .overrides = {.bos_id = -1, .eos_id = -1}};
    const struct backend *backend;
    int r = backend_find("auto", &backend, err);
    if (r >= 0)
        r = model_open(&mo, backend, &c->m, err);
    if (r < 0)
        return r;
    int longest = c->m.config.default_max_model_len, wanted = o->n_tokens ? o->n_tokens : 32768;
    c->len = longest < SYNTH_SEQUENCE ? longest : SYNTH_SEQUENCE;
    c->n_seqs = BATCH_ROWS / c->len;
    c->n_batches = (wanted + c->n_seqs * c->len - 1) / (c->n_seqs * c->len);
    c->x = malloc((size_t)c->n_batches * batch_floats(c) * sizeof(*c->x));
    c->margin = malloc((size_t)c->n_batches * (size_t)(c->n_seqs * c->len) * sizeof(*c->margin));
    if (!c->x || !c->margin)
        return err_set(err, ERR_NOMEM, "no memory to calibrate on %d tokens; ask for fewer", wanted);
    return trace_open(&c->t, &c->m, c->n_seqs * c->len, err);
}

int synth_calibrate(const struct synth_options *o, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/model.safetensors", o->out);
    struct calibration *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, ERR_NOMEM, "no memory to calibrate");
    c->o = o;
    int r = open_model(c, err);
    if (r >= 0)
        r = run_layers(c, err);
    if (r >= 0)
        r = write_back(c, path, err);
    trace_close(&c->t);
    model_close(&c->m);
    free(c->x);
    free(c->margin);
    free(c);
    return r;
}
