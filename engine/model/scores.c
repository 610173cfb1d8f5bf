/* The head over the wanted rows of a step. */
#include "engine/model/scores.h"
#include <stdlib.h>
#include <string.h>

int scores_init(struct scores *s, const struct model *m, int max_rows, struct err *err)
{
    size_t n = (size_t)max_rows, v = (size_t)m->config.vocab;
    const struct backend *be = m->k->backend;
    *s = (struct scores){.k = m->k};
    s->target_lp = be->alloc_host(m->k, n * sizeof(float));
    s->top_id = be->alloc_host(m->k, n * KERN_TOP_K_MAX * sizeof(int));
    s->top_lp = be->alloc_host(m->k, n * KERN_TOP_K_MAX * sizeof(float));
    s->bad = be->alloc_host(m->k, n);
    s->logits = malloc(v * sizeof(float));
    s->counts = calloc(v, sizeof(int32_t));
    if (s->target_lp && s->top_id && s->top_lp && s->bad && s->logits && s->counts && sampler_new(m->config.vocab, &s->sampler) >= 0)
        return 0;
    scores_done(s);
    return err_set(err, ERR_NOMEM, "no memory for the scores of %d rows", max_rows);
}

void scores_done(struct scores *s)
{
    if (!s->k)
        return;
    void *fetched[] = {s->target_lp, s->top_id, s->top_lp, s->bad};
    for (size_t i = 0; i < sizeof(fetched) / sizeof(fetched[0]); i++)
        s->k->backend->free_host(s->k, fetched[i]);
    free(s->logits);
    free(s->counts);
    sampler_free(s->sampler);
    memset(s, 0, sizeof(*s));
}

static int32_t greedy(const float *logits, int v)
{
    int32_t best = 0;
    for (int i = 1; i < v; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static int32_t choose(struct scores *s, int v, const struct draw *d)
{
    if (d->edits)
        logit_edits_apply(s->logits, v, d->edits, d->params->temperature, &d->history, s->counts);
    return d->params->temperature > 0 ? sampler_pick(s->sampler, s->logits, d->params, d->index) : greedy(s->logits, v);
}

/* Draws the token after wanted row i, whose logits are row chunk_row of w->logits. Returns 1 if one was drawn. */
static int draw_row(struct scores *s, const struct model *m, struct workspace *w, struct step_rows *rows, int i, int chunk_row,
                    struct err *err)
{
    size_t v = (size_t)m->config.vocab;
    int r = m->k->backend->download(m->k, s->logits, DEV_BYTES(dev_f32_at(w->logits, (size_t)chunk_row * v)), v * sizeof(float));
    if (r >= 0)
        r = m->k->backend->sync(m->k, err);
    if (r < 0)
        return r;
    for (size_t j = 0; j < v; j++)
        if (!(s->logits[j] - s->logits[j] == 0))
            return 0; /* not finite: `bad` says so, nothing is drawn */
    rows->want_target[i] = choose(s, m->config.vocab, &rows->draws[i]);
    return 1;
}

/* Draws tokens for the rows of a chunk that want it, and scores them from the logits that are still there. */
static int draw_chunk(struct scores *s, const struct model *m, struct workspace *w, struct batch *b, struct step_rows *rows, int first,
                      int n, struct err *err)
{
    bool drawn = false;
    int r = 0;
    for (int i = first; i < first + n && r >= 0; i++) {
        if (rows->draws[i].params)
            r = draw_row(s, m, w, rows, i, i - first, err);
        drawn |= r > 0;
    }
    if (r < 0 || !drawn)
        return r;
    struct dev_i32 *to = dev_i32_at(b->d_want_target, (size_t)first);
    r = m->k->backend->upload(m->k, DEV_BYTES(to), rows->want_target + first, (size_t)n * sizeof(int));
    return r < 0 ? r : forward_scores(m, w, b, first, n, s->top_k);
}

int scores_run(struct scores *s, const struct model *m, struct workspace *w, struct batch *b, struct step_rows *rows, struct err *err)
{
    const struct backend *be = m->k->backend;
    size_t n = (size_t)b->n_want, k = (size_t)rows->top_k;
    int r = 0;
    s->top_k = rows->top_k;
    for (int first = 0; first < b->n_want && r >= 0; first += w->head_rows) {
        int chunk = b->n_want - first < w->head_rows ? b->n_want - first : w->head_rows;
        r = forward_head(m, w, b, first, chunk, s->top_k);
        if (r >= 0)
            r = draw_chunk(s, m, w, b, rows, first, chunk, err);
    }
    if (r >= 0)
        r = be->fetch(m->k, s->target_lp, DEV_BYTES(w->target_lp), n * sizeof(float));
    if (r >= 0)
        r = be->fetch(m->k, s->top_id, DEV_BYTES(w->top_id), n * k * sizeof(int));
    if (r >= 0)
        r = be->fetch(m->k, s->top_lp, DEV_BYTES(w->top_lp), n * k * sizeof(float));
    return r < 0 ? r : be->fetch(m->k, s->bad, DEV_BYTES(w->bad), n);
}
