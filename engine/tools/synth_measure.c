/* How many rows the routers of a written checkpoint select, counted over whole sequences that calibration has not seen. */
#include "engine/tools/synth.h"
#include "engine/tools/trace.h"
#include "kernels/random_values.h"
#include <math.h>
#include <stdlib.h>

struct measure {
    const struct synth_options *o;
    struct model m;
    struct trace t;
    int len, n_seqs;      /* tokens of a sequence; sequences */
    int32_t *ids;         /* [len] */
    unsigned char *route; /* [n_layers, len] */
    double attended[MODEL_MAX_LAYERS], executed[MODEL_MAX_LAYERS];
};

static int open_all(struct measure *s, struct err *err)
{
    int wanted = s->o->n_tokens ? s->o->n_tokens : 32768, r = synth_open(s->o, &s->m, &s->len, err);
    if (r < 0)
        return r;
    s->n_seqs = (wanted + s->len - 1) / s->len;
    s->ids = malloc((size_t)s->len * sizeof(*s->ids));
    s->route = malloc((size_t)s->m.config.n_layers * (size_t)s->len);
    if (!s->ids || !s->route)
        return err_set(err, ERR_NOMEM, "no memory to measure the routing");
    return trace_open(&s->t, &s->m, s->len, err);
}

static void close_all(struct measure *s)
{
    trace_close(&s->t);
    model_close(&s->m);
    free(s->ids);
    free(s->route);
    free(s);
}

static int run_sequence(struct measure *s, int i)
{
    const struct model *m = &s->m;
    size_t n = (size_t)m->config.n_layers * (size_t)s->len;
    for (int j = 0; j < s->len; j++)
        s->ids[j] = (int32_t)(random_hash(s->o->seed ^ 0x6d65, (uint64_t)i * (uint64_t)s->len + (uint64_t)j) % (uint64_t)m->config.vocab);
    int r = trace_load(&s->t, s->ids, 1, s->len, 0);
    if (r >= 0)
        r = forward_layers(m, &s->t.w, &s->t.b, &s->t.kv);
    if (r >= 0)
        r = m->k->backend->download(m->k, s->route, DEV_BYTES(s->t.w.route), n);
    return r >= 0 ? m->k->backend->sync(m->k, NULL) : r;
}

static void count(struct measure *s)
{
    for (int l = 0; l < s->m.config.n_layers; l++)
        for (int j = 0; layer_is_routed(&s->m.plan[l]) && j < s->len; j++) {
            unsigned char d = s->route[(size_t)l * (size_t)s->len + (size_t)j];
            s->executed[l] += d != DECISION_SKIP;
            s->attended[l] += d == DECISION_ATTEND;
        }
}

/* Rates of attention are of the executed rows, but for layers whose one router decides both. */
static void report(const struct measure *s, struct synth_report *ret)
{
    double all = (double)s->n_seqs * s->len;
    ret->n_layers = s->m.config.n_layers;
    ret->worst = 0;
    for (int l = 0; l < ret->n_layers; l++) {
        const struct layer_plan *p = &s->m.plan[l];
        bool nested = layer_is_nested(p);
        ret->plan[l] = *p;
        ret->executed[l] = nested ? s->executed[l] / all : 1;
        ret->rate[l] = s->executed[l] > 0 ? s->attended[l] / (nested ? s->executed[l] : all) : 0;
        if (layer_is_routed(p))
            ret->worst = fmax(ret->worst, fabs(ret->rate[l] - s->o->route_rate));
        if (nested)
            ret->worst = fmax(ret->worst, fabs(ret->executed[l] - s->o->execute_rate));
    }
}

int synth_measure(const struct synth_options *o, struct synth_report *ret, struct err *err)
{
    struct measure *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, ERR_NOMEM, "no memory to measure the routing");
    s->o = o;
    int r = open_all(s, err);
    for (int i = 0; i < s->n_seqs && r >= 0; i++) {
        r = run_sequence(s, i);
        if (r >= 0)
            count(s);
        else
            err_set(err, r, "measuring the routing failed with %s", err_name(r));
    }
    if (r >= 0)
        report(s, ret);
    close_all(s);
    return r;
}
