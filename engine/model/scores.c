/* The head over the wanted rows of a step. */
#include "engine/model/scores.h"
#include <stdlib.h>
#include <string.h>

enum { GROUP_MAX = 256 };

int scores_init(struct scores *s, const struct model *m, struct drawer *drawer, int max_rows, struct err *err)
{
    size_t n = (size_t)max_rows;
    const struct backend *be = m->k->backend;
    *s = (struct scores){.k = m->k, .drawer = drawer};
    s->target_lp = be->alloc_host(m->k, n * sizeof(float));
    s->top_id = be->alloc_host(m->k, n * KERN_TOP_K_MAX * sizeof(int));
    s->top_lp = be->alloc_host(m->k, n * KERN_TOP_K_MAX * sizeof(float));
    s->bad = be->alloc_host(m->k, n);
    if (s->target_lp && s->top_id && s->top_lp && s->bad)
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
    memset(s, 0, sizeof(*s));
}

/* Wanted rows of a chunk that draw, as many as the drawer takes at once. */
struct group {
    int n;
    int row[GROUP_MAX]; /* among the step's wanted rows */
    const struct draw *draws[GROUP_MAX];
    int32_t tokens[GROUP_MAX];
};

/* Collects rows from *next on, up to `end`, and copies their logits, which are those of the chunk that begins with row `first`. */
static int collect(struct drawer *d, const struct model *m, struct workspace *w, const struct step_rows *rows, int first, int end,
                   int *next, struct group *g)
{
    size_t v = (size_t)m->config.vocab;
    int r = 0;
    g->n = 0;
    for (; *next < end && r >= 0 && g->n < GROUP_MAX && g->n < drawer_capacity(d); ++*next) {
        if (!rows->draws[*next].params)
            continue;
        struct dev_f32 *from = dev_f32_at(w->logits, (size_t)(*next - first) * v);
        r = m->k->backend->download(m->k, drawer_logits(d, g->n), DEV_BYTES(from), v * sizeof(float));
        g->row[g->n] = *next;
        g->draws[g->n++] = &rows->draws[*next];
    }
    return r;
}

/* Draws tokens for the rows of a chunk that want it, and scores them from the logits that are still there. Where the logits are not finite, `bad`
 * says so and nothing is drawn. */
static int draw_chunk(struct scores *s, const struct model *m, struct workspace *w, struct batch *b, struct step_rows *rows, int first,
                      int n, struct err *err)
{
    struct group g;
    bool drawn = false;
    int r = 0;
    for (int next = first; next < first + n && r >= 0;) {
        r = collect(s->drawer, m, w, rows, first, first + n, &next, &g);
        if (r >= 0 && g.n)
            r = m->k->backend->sync(m->k, err);
        if (r < 0 || !g.n)
            break;
        drawer_run(s->drawer, g.draws, g.n, g.tokens);
        for (int i = 0; i < g.n; i++)
            if (g.tokens[i] >= 0)
                rows->want_target[g.row[i]] = g.tokens[i];
        drawn = true;
    }
    if (r < 0 || !drawn)
        return r;
    struct dev_i32 *to = dev_i32_at(b->d_want_target, (size_t)first);
    r = m->k->backend->upload(m->k, DEV_BYTES(to), rows->want_target + first, (size_t)n * sizeof(int));
    return r < 0 ? r : forward_scores(m, w, b, first, n, s->top_k);
}

int scores_run(struct scores *s, const struct model *m, struct workspace *w, struct batch *b, struct step_rows *rows, bool head_issued,
               struct err *err)
{
    const struct backend *be = m->k->backend;
    size_t n = (size_t)b->n_want, k = (size_t)rows->top_k;
    int r = 0;
    s->top_k = rows->top_k;
    for (int first = 0; first < b->n_want && r >= 0; first += w->head_rows) {
        int chunk = b->n_want - first < w->head_rows ? b->n_want - first : w->head_rows;
        r = head_issued ? 0 : forward_head(m, w, b, first, chunk, s->top_k);
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
