/* Which rows of a tensor are whose. */
#include "engine/model/share.h"

int share_check(int n, const struct model_config *c, struct err *err)
{
    const struct {
        const char *what;
        int size;
    } sizes[] = {{"num_attention_heads", c->n_heads}, {"intermediate_size", c->ffn}, {"hidden_size", c->hidden}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        if (sizes[i].size % n)
            return err_field(err, ERR_INVALID, "tensor_parallel", "tensor_parallel %d does not divide the model's %s of %d", n,
                             sizes[i].what, sizes[i].size);
    if (c->n_kv_heads % n && n % c->n_kv_heads)
        return err_field(err, ERR_INVALID, "tensor_parallel",
                         "tensor_parallel %d neither divides the model's num_key_value_heads of %d nor is a multiple of it", n,
                         c->n_kv_heads);
    return 0;
}

struct share_rows share_rows(const struct share *s, const struct model_config *c, enum slice slice, size_t n_rows)
{
    size_t n = (size_t)share_n(s), rank = (size_t)s->rank, hk = (size_t)c->n_kv_heads;
    if (slice == SLICE_NONE)
        return (struct share_rows){0, n_rows};
    if (slice == SLICE_KV_HEADS && hk < n)
        return (struct share_rows){rank * hk / n * (n_rows / hk), n_rows / hk};
    return (struct share_rows){rank * (n_rows / n), n_rows / n};
}
