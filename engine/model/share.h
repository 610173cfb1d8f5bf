/* The part of a model that one rank of several holds ("tensor parallel"): some of the heads, and of every other matrix an equal part of its output columns.
 * Every sum is taken whole by one rank, in the order in which one device takes it; ranks give one another what they computed, and the bits are
 * those of one device. Norms, routers and embedding are every rank's, the head the first one's. */
#pragma once
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/tensor_schema.h"
#include "kernels/backend.h"

struct share {
    int rank, n; /* rank of n; {0, 1} or zeros: all of it */
};

/* ERR_INVALID with a sentence where n ranks cannot divide the model: heads, ffn or hidden size are no multiple of n, or n and the KV heads are no multiple of
 * one another. */
int share_check(int n, const struct model_config *c, struct err *err);

static inline int share_n(const struct share *s)
{
    return s->n > 1 ? s->n : 1;
}
static inline int share_heads(const struct share *s, const struct model_config *c)
{
    return c->n_heads / share_n(s);
}
/* Where there are more ranks than KV heads, several ranks have the same one. */
static inline int share_kv_heads(const struct share *s, const struct model_config *c)
{
    return c->n_kv_heads > share_n(s) ? c->n_kv_heads / share_n(s) : 1;
}
static inline int share_ffn(const struct share *s, const struct model_config *c)
{
    return c->ffn / share_n(s);
}
static inline int share_hidden(const struct share *s, const struct model_config *c)
{
    return c->hidden / share_n(s);
}

/* Rows of a tensor of n_rows. */
struct share_rows {
    size_t first, n;
};
struct share_rows share_rows(const struct share *s, const struct model_config *c, enum slice slice, size_t n_rows);
