/* The head over the wanted rows of a step. */
#include "engine/model/scores.h"
#include <stdlib.h>
#include <string.h>

int scores_init(struct scores *s, const struct model *m, struct drawer *drawer, int max_rows, struct err *err)
{
    size_t n = (size_t)max_rows;
    const struct backend *be = m->k->backend;
    *s = (struct scores){.k = m->k, .drawer = drawer};
    s->target_lp = be->alloc_host(m->k, n * sizeof(float));
    s->top_id = be->alloc_host(m->k, n * KERN_TOP_K_MAX * sizeof(int));
    s->top_lp = be->alloc_host(m->k, n * KERN_TOP_K_MAX * sizeof(float));
    s->bad = be->alloc_host(m->k, n);
    s->lse = be->alloc_host(m->k, n * sizeof(float));
    if (s->target_lp && s->top_id && s->top_lp && s->bad && s->lse)
        return 0;
    scores_done(s);
    return err_set(err, ERR_NOMEM, "no memory for the scores of %d rows", max_rows);
}

void scores_done(struct scores *s)
{
    if (!s->k)
        return;
    void *fetched[] = {s->target_lp, s->top_id, s->top_lp, s->bad, s->lse};
    for (size_t i = 0; i < sizeof(fetched) / sizeof(fetched[0]); i++)
        s->k->backend->free_host(s->k, fetched[i]);
    memset(s, 0, sizeof(*s));
}

/* Waits for the device, and then for a place in the drawer, which holds nothing but rows whose logits have come. */
static int make_room(struct drawer *d, const struct model *m, struct err *err)
{
    int r = m->k->backend->mark(m->k, SCORES_MARK);
    if (r >= 0)
        r = m->k->backend->wait(m->k, SCORES_MARK, err);
    if (r >= 0)
        drawer_make_room(d);
    return r;
}

/* Copies the logits of a chunk's rows that draw: those of the chunk's first row are the first in w->logits. */
static int fetch_draws(struct scores *s, const struct model *m, struct workspace *w, struct step_rows *rows, int first, int n,
                       struct err *err)
{
    const struct backend *be = m->k->backend;
    size_t v = (size_t)m->config.vocab;
    bool any = false;
    int r = 0;
    for (int i = first; i < first + n && r >= 0; i++) {
        struct draw *draw = rows->draws[i];
        if (!draw)
            continue;
        if (!any) /* before the logits, so that both are there when room must be made */
            r = be->fetch(m->k, s->lse + first, DEV_BYTES(dev_f32_at(w->lse, (size_t)first)), (size_t)n * sizeof(float));
        any = true;
        while (r >= 0 && !drawer_take(s->drawer, draw, s->step, &s->lse[i]))
            r = make_room(s->drawer, m, err);
        if (r >= 0)
            r = be->fetch(m->k, drawer_logits(s->drawer, draw), DEV_BYTES(dev_f32_at(w->logits, (size_t)(i - first) * v)),
                          v * sizeof(float));
    }
    return r;
}

int scores_run(struct scores *s, const struct model *m, struct workspace *w, struct batch *b, struct step_rows *rows, uint64_t step,
               bool head_issued, struct err *err)
{
    const struct backend *be = m->k->backend;
    size_t n = (size_t)b->n_want, k = (size_t)rows->top_k;
    int r = 0;
    s->top_k = rows->top_k;
    s->step = step;
    for (int first = 0; first < b->n_want && r >= 0; first += w->head_rows) {
        int chunk = b->n_want - first < w->head_rows ? b->n_want - first : w->head_rows;
        r = head_issued ? 0 : forward_head(m, w, b, first, chunk, s->top_k);
        if (r >= 0)
            r = fetch_draws(s, m, w, rows, first, chunk, err);
    }
    if (r >= 0)
        r = be->fetch(m->k, s->target_lp, DEV_BYTES(w->target_lp), n * sizeof(float));
    if (r >= 0)
        r = be->fetch(m->k, s->top_id, DEV_BYTES(w->top_id), n * k * sizeof(int));
    if (r >= 0)
        r = be->fetch(m->k, s->top_lp, DEV_BYTES(w->top_lp), n * k * sizeof(float));
    return r < 0 ? r : be->fetch(m->k, s->bad, DEV_BYTES(w->bad), n);
}
