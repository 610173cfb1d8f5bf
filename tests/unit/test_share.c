/* Which part of a model a rank holds: every row is some rank's, KV heads lie with their query heads, and what cannot be divided is refused. */
#include "engine/model/share.h"
#include "tests/check.h"

static const struct {
    int h, hk, ffn, hidden, n;
    const char *says; /* NULL: it is divided */
} cases[] = {
    {8, 8, 64, 32, 1, NULL},
    {8, 8, 64, 32, 4, NULL},
    {8, 2, 64, 32, 2, NULL},
    {8, 2, 64, 32, 4, NULL}, /* two ranks a KV head */
    {8, 1, 64, 32, 8, NULL},
    {40, 40, 13824, 5120, 4, NULL},
    {6, 2, 64, 32, 4, "tensor_parallel 4 does not divide the model's num_attention_heads of 6"},
    {8, 8, 66, 32, 4, "tensor_parallel 4 does not divide the model's intermediate_size of 66"},
    {8, 8, 64, 34, 4, "tensor_parallel 4 does not divide the model's hidden_size of 34"},
    {6, 2, 66, 33, 3, "tensor_parallel 3 neither divides the model's num_key_value_heads of 2 nor is a multiple of it"},
};

/* Ranks' rows follow one another and are all; or, where ranks share heads, each has one head, that of its query heads. */
static void check_rows(const struct model_config *c, int n, enum slice slice, size_t rows)
{
    size_t next = 0;
    for (int rank = 0; rank < n; rank++) {
        struct share s = {rank, n};
        struct share_rows r = share_rows(&s, c, slice, rows);
        if (slice == SLICE_KV_HEADS && c->n_kv_heads < n) {
            size_t head = (size_t)rank * (size_t)share_heads(&s, c) / (size_t)(c->n_heads / c->n_kv_heads);
            CHECK(r.n == rows / (size_t)c->n_kv_heads && r.first == head * r.n);
        } else if (slice == SLICE_NONE) {
            CHECK(r.first == 0 && r.n == rows);
        } else {
            CHECK(r.first == next && r.n == rows / (size_t)n);
            next += r.n;
        }
    }
    CHECK(!next || next == rows);
}

int main(void)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_config c = {.n_heads = cases[i].h, .n_kv_heads = cases[i].hk, .ffn = cases[i].ffn, .hidden = cases[i].hidden};
        struct share whole = {0}, first = {0, cases[i].n};
        struct err err = {0};
        int r = share_check(cases[i].n, &c, &err), n = cases[i].n;
        CHECK_INT(r, cases[i].says ? ERR_INVALID : 0);
        CHECK_STR(err.text, cases[i].says ? cases[i].says : "");
        CHECK(share_heads(&whole, &c) == c.n_heads && share_kv_heads(&whole, &c) == c.n_kv_heads);
        if (r < 0)
            continue;
        CHECK_INT(share_heads(&first, &c) * n, c.n_heads);
        CHECK_INT(share_kv_heads(&first, &c), c.n_kv_heads > n ? c.n_kv_heads / n : 1);
        CHECK_INT(share_heads(&first, &c) % share_kv_heads(&first, &c), 0);
        check_rows(&c, n, SLICE_NONE, 100);
        check_rows(&c, n, SLICE_OUT, (size_t)c.ffn);
        check_rows(&c, n, SLICE_HEADS, 16 * (size_t)c.n_heads);
        check_rows(&c, n, SLICE_KV_HEADS, 16 * (size_t)c.n_kv_heads);
    }
    return check_result();
}
