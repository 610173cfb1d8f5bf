/* Sets what a written checkpoint's routers decide by: biases, or with expert choice thresholds. All sequences are taken through the model together, one
 * layer at a time: their residual streams rest on the host between layers, so a layer's routers are set before any row passes it, and
 * one pass is enough. */
#include "engine/tools/synth.h"
#include "engine/tools/synth_router.h"
#include "engine/tools/trace.h"
#include "kernels/random_values.h"
#include <limits.h>
#include <math.h>
#include <stdlib.h>

#define BATCH_ROWS 2048

struct calibration {
    const struct synth_options *o;
    const char *path; /* of the tensors */
    struct model m;
    struct trace t;
    int len, n_seqs, n_batches; /* tokens of a sequence, sequences of a batch */
    float *x;                   /* [n_batches, n_seqs * len, hidden] residual streams between layers */
    float *margin;              /* [n_batches * n_seqs * len] how far rows are above what decides, in logits; infinite: the row is forced */
    long n_margins;
    float *values;          /* [n_seqs * len] a batch's */
    unsigned char *decided; /* the same */
};

static int batch_rows(const struct calibration *c)
{
    return c->n_seqs * c->len;
}

static size_t batch_floats(const struct calibration *c)
{
    return (size_t)batch_rows(c) * (size_t)c->m.config.hidden;
}

/* ---- one router ------------------------------------------------------------------------------------------------ */

static int batch_in(struct calibration *c, int i)
{
    return c->m.k->backend->upload(c->m.k, DEV_BYTES(c->t.w.x), c->x + (size_t)i * batch_floats(c), batch_floats(c) * sizeof(float));
}

static int batch_out(struct calibration *c, int i)
{
    int r = c->m.k->backend->download(c->m.k, c->x + (size_t)i * batch_floats(c), DEV_BYTES(c->t.w.x), batch_floats(c) * sizeof(float));
    return r >= 0 ? c->m.k->backend->sync(c->m.k, NULL) : r;
}

/* Routers of MoD and D-LLM tell the probability alone: the argument of its sigmoid. */
static double logit(double p)
{
    p = fmin(fmax(p, 1e-30), 1 - 6e-8);
    return log(p / (1 - p));
}

/* Asks the router about a batch and downloads its margins and what it decided. */
static int ask(struct calibration *c, int layer, bool skip, bool has_margin)
{
    struct workspace *w = &c->t.w;
    const struct backend *be = c->m.k->backend;
    size_t n = (size_t)batch_rows(c), at = (size_t)layer * n;
    const struct dev_f32 *from = has_margin ? w->margin : dev_f32_at(w->prob, at);
    int r = skip ? forward_router_skip(&c->m, w, &c->t.b, layer) : forward_router(&c->m, w, &c->t.b, layer);
    if (r >= 0)
        r = be->download(c->m.k, c->values, DEV_BYTES(from), n * sizeof(float));
    if (r >= 0)
        r = be->download(c->m.k, c->decided, DEV_BYTES(dev_u8_at(w->route, at)), n);
    return r >= 0 ? be->sync(c->m.k, NULL) : r;
}

/* Margins of the rows that the router has a say about: all, or in a nested layer's second router the executed ones. */
static int read_margins(struct calibration *c, int layer, bool skip)
{
    const struct layer_plan *p = &c->m.plan[layer];
    enum router kind = skip ? p->skip_router : p->router;
    bool has_margin = kind == ROUTER_MLP || kind == ROUTER_MAMBA, executed_only = !skip && p->skip_router != ROUTER_NONE;
    int r = 0;
    c->n_margins = 0;
    for (int i = 0; i < c->n_batches && r >= 0; i++) {
        r = batch_in(c, i);
        if (r >= 0)
            r = ask(c, layer, skip, has_margin);
        for (int j = 0; j < batch_rows(c) && r >= 0; j++) {
            bool forced = j % c->len < p->forced;
            if (!executed_only || c->decided[j] != DECISION_SKIP)
                c->margin[c->n_margins++] = forced ? INFINITY : has_margin ? c->values[j] : (float)logit(c->values[j]);
        }
    }
    return r;
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The value above which the wanted share of margins lies. Forced rows count as selected. */
static double cut_for(struct calibration *c, double rate)
{
    long n = c->n_margins, k = lrint(rate * (double)n), forced = 0;
    qsort(c->margin, (size_t)n, sizeof(*c->margin), descending);
    while (forced < n && !isfinite(c->margin[forced]))
        forced++;
    if (forced == n)
        return 0;
    if (k <= forced)
        return c->margin[forced] + 1;
    if (k == n)
        return c->margin[n - 1] - 1;
    return ((double)c->margin[k - 1] + c->margin[k]) / 2;
}

static int calibrate_router(struct calibration *c, int layer, bool skip, struct err *err)
{
    int r = read_margins(c, layer, skip);
    if (r < 0)
        return err_set(err, r, "calibration failed with %s", err_name(r));
    return synth_router_set(&c->m, c->path, layer, skip, cut_for(c, skip ? c->o->execute_rate : c->o->route_rate), err);
}

static int calibrate_layer(struct calibration *c, int layer, struct err *err)
{
    const struct layer_plan *p = &c->m.plan[layer];
    int r = p->skip_router != ROUTER_NONE ? calibrate_router(c, layer, true, err) : 0;
    if (r >= 0 && layer_is_routed(p))
        r = calibrate_router(c, layer, false, err);
    if (r < 0)
        return r;
    for (int i = 0; i < c->n_batches && r >= 0 && layer + 1 < c->m.config.n_layers; i++) {
        r = batch_in(c, i);
        if (r >= 0)
            r = forward_layer(&c->m, &c->t.w, &c->t.b, &c->t.kv, layer);
        if (r >= 0)
            r = batch_out(c, i);
    }
    return r < 0 ? err_set(err, r, "calibration failed with %s", err_name(r)) : 0;
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
    int i = d->next++, j = i + (int)(random_hash(d->seed, d->draws++) % (uint64_t)(d->n - i)); /* Fisher-Yates, a card at a time */
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
    struct deck d = {.n = c->m.config.vocab, .seed = random_hash(c->o->seed, 0x6361)};
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
    if (r < 0)
        return err_set(err, r, "calibration failed with %s", err_name(r));
    for (int l = 0; l < c->m.config.n_layers && r >= 0; l++) {
        r = calibrate_layer(c, l, err);
        log_debug(c->o->log, "calibrated layer %d of %d", l + 1, c->m.config.n_layers);
    }
    return r;
}

static int open_all(struct calibration *c, struct err *err)
{
    int wanted = c->o->n_tokens ? c->o->n_tokens : 32768, r = synth_open(c->o, &c->m, &c->len, err);
    if (r < 0)
        return r;
    c->n_seqs = BATCH_ROWS / c->len;
    c->n_batches = (wanted + batch_rows(c) - 1) / batch_rows(c);
    c->x = malloc((size_t)c->n_batches * batch_floats(c) * sizeof(*c->x));
    c->margin = malloc((size_t)c->n_batches * (size_t)batch_rows(c) * sizeof(*c->margin));
    c->values = malloc((size_t)batch_rows(c) * sizeof(*c->values));
    c->decided = malloc((size_t)batch_rows(c));
    if (!c->x || !c->margin || !c->values || !c->decided)
        return err_set(err, ERR_NOMEM, "no memory to calibrate on %d tokens; ask for fewer", wanted);
    return trace_open(&c->t, &c->m, batch_rows(c), err);
}

static void close_all(struct calibration *c)
{
    trace_close(&c->t);
    model_close(&c->m);
    free(c->x);
    free(c->margin);
    free(c->values);
    free(c->decided);
    free(c);
}

int synth_calibrate(const struct synth_options *o, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/model.safetensors", o->out);
    struct calibration *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, ERR_NOMEM, "no memory to calibrate");
    c->o = o;
    c->path = path;
    int r = open_all(c, err);
    if (r >= 0)
        r = run_layers(c, err);
    close_all(c);
    return r;
}
