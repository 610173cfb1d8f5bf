/* The head on wanted rows, behind the last layer. */
#include "engine/model/forward.h"

int forward_scores(const struct model *m, struct workspace *w, const struct batch *b, int first, int n, int top_k)
{
    struct kern_scores to = {.target = b->d_want_target,
                             .target_lp = w->target_lp,
                             .top_k = top_k,
                             .top_id = w->top_id,
                             .top_lp = w->top_lp,
                             .bad = w->bad,
                             .lse = w->lse};
    return m->k->ops->logprobs(m->k, &to, first, w->logits, (size_t)m->config.vocab, n, m->config.vocab);
}

/* w->logits = head(norm(x)) of wanted rows. */
static int logits(const struct model *m, struct workspace *w, const struct rows *wanted)
{
    const struct model_config *c = &m->config;
    struct kern_ctx *k = m->k;
    struct rows compact = {.n_max = wanted->n_max};
    const struct kern_norm norm = {.x = w->x, .w = m->weights.final_norm, .idx = wanted->idx, .eps = c->rms_eps};
    int r = k->ops->matmul_f32_normed ? k->ops->matmul_f32_normed(k, w->logits, &norm, m->weights.head, compact) : 0;
    if (r)
        return r;
    r = k->ops->gather_rows(k, w->want_x, w->x, c->hidden, *wanted);
    if (r >= 0)
        r = k->ops->rmsnorm(k, w->want_xn, NULL, w->want_x, m->weights.final_norm, compact, c->hidden, c->rms_eps);
    return r < 0 ? r : k->ops->matmul_f32(k, w->logits, w->want_xn, m->weights.head, compact);
}

int forward_head(const struct model *m, struct workspace *w, const struct batch *b, int first, int n, int top_k)
{
    struct rows wanted = {.idx = dev_i32_at(b->d_want_row, (size_t)first), .n_max = n};
    int r = logits(m, w, &wanted);
    return r < 0 ? r : forward_scores(m, w, b, first, n, top_k);
}
