/* head_norm, cast_rows and spread_values. */
#include "tests/check/harness.h"
#include <math.h>

struct arg {
    struct kern_heads hs;
    int ld, col, heads, hp, hd; /* head_norm's: heads begin at column col of rows of ld */
    float *w;                   /* host */
    void *dev_w;
};

static int run_norm(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    return c->k->ops->head_norm(c->k, dev[0], a->col, a->ld, a->heads, a->hp, a->hd, a->dev_w, rows, 1e-5f);
}

static void want_norm(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    for (int i = 0; i < a->ld; i++)
        out[0][i] = check_get(c, CHECK_ACT, in[0], i);
    for (int h = 0; h < a->heads; h++) {
        double *x = out[0] + a->col + h * a->hp, sum = 0;
        for (int i = 0; i < a->hp; i++)
            sum += x[i] * x[i];
        for (int i = 0; i < a->hp; i++)
            x[i] *= a->w[i] / sqrt(sum / a->hd + 1e-5);
    }
}

/* Columns hd/2.. and hd.. of a padded head are zero, as they are where q and k heads are padded in halves. */
static void norm_heads(struct check *c, int n, int heads, int hd, int before, int after)
{
    int hp = hd % 8 ? (hd + 15) / 16 * 16 : hd, ld = before + heads * hp + after;
    struct arg a = {.ld = ld, .col = before, .heads = heads, .hp = hp, .hd = hd, .w = check_floats(c, hp, -2, 2)};
    char what[64];
    void *x = check_fill(c, CHECK_ACT, (size_t)n * ld, -4, 4);
    for (int i = 0; hp > hd && i < n * heads; i++)
        for (int j = 0; j < hp; j++)
            if (j % (hp / 2) >= hd / 2)
                check_put(c, CHECK_ACT, x, (size_t)(i / heads) * ld + before + i % heads * hp + j, 0);
    snprintf(what, sizeof(what), "head_norm %d x %d of %d", heads, hd, ld);
    a.dev_w = check_up(c, a.w, sizeof(float) * hp);
    struct check_array arrays[] = {{.name = "x", .use = CHECK_INOUT, .type = CHECK_ACT, .cols = ld, .abs = 1e-12, .rel = 2e-6, .host = x}};
    check_rows(c, &(struct check_op){.what = what, .arrays = arrays, .n_arrays = 1, .n = n, .run = run_norm, .want = want_norm, .arg = &a});
    check_arrays_done(arrays, 1);
    check_drop(c, a.dev_w);
    free(a.w);
}

static int run_cast(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    return c->k->ops->cast_rows(c->k, dev[1], dev[0], rows, a->ld);
}

static void want_cast(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    for (int i = 0; i < a->ld; i++)
        out[1][i] = ((const float *)in[0])[i];
}

static void cast(struct check *c, int n, int d)
{
    struct arg a = {.ld = d};
    char what[64];
    snprintf(what, sizeof(what), "cast_rows d %d", d);
    struct check_array arrays[] = {
        {.name = "x", .use = CHECK_IN, .type = CHECK_F32, .cols = d, .host = check_floats(c, (size_t)n * d, -300, 300)},
        {.name = "y", .use = CHECK_OUT, .type = CHECK_ACT, .cols = d, .host = check_fill(c, CHECK_ACT, (size_t)n * d, -1, 1)}};
    check_rows(c, &(struct check_op){.what = what, .arrays = arrays, .n_arrays = 2, .n = n, .run = run_cast, .want = want_cast, .arg = &a});
    check_arrays_done(arrays, 2);
}

static int run_spread(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    return c->k->ops->spread_values(c->k, &a->hs, dev[1], dev[0], rows);
}

static void want_spread(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct kern_heads *hs = &((const struct arg *)arg)->hs;
    for (int i = 0; i < hs->h * hs->hd; i++)
        out[1][i] = check_get(c, CHECK_ACT, in[0], (hs->h + hs->hk + i / hs->hd / (hs->h / hs->hk)) * hs->hd + i % hs->hd);
}

static void spread(struct check *c, int n, int h, int hk, int hd)
{
    struct arg a = {.hs = {h, hk, hd, NULL}};
    int width = (h + 2 * hk) * hd;
    char what[64];
    snprintf(what, sizeof(what), "spread_values %d/%d x %d", h, hk, hd);
    struct check_array arrays[] = {
        {.name = "qkv", .use = CHECK_IN, .type = CHECK_ACT, .cols = width, .host = check_fill(c, CHECK_ACT, (size_t)n * width, -4, 4)},
        {.name = "out", .use = CHECK_OUT, .type = CHECK_ACT, .cols = h * hd, .host = check_fill(c, CHECK_ACT, (size_t)n * h * hd, -1, 1)}};
    check_rows(
        c, &(struct check_op){.what = what, .arrays = arrays, .n_arrays = 2, .n = n, .run = run_spread, .want = want_spread, .arg = &a});
    check_arrays_done(arrays, 2);
}

static const int sizes[] = {8, 10, 12, 16, 24, 64, 80, 128, 136, 256};
enum { SIZES = sizeof(sizes) / sizeof(*sizes) };

void check_head_norm(struct check *c)
{
    if (c->bench)
        norm_heads(c, 512, 15, 64, 0, 640);
    for (int i = 0; i < SIZES && !c->bench; i++)
        for (int n = 0; n <= 20; n = n * 4 + 1)
            norm_heads(c, n, 1 + i % 5, sizes[i], i % 3 * 16, i % 2 * 8);
}

void check_spread_values(struct check *c)
{
    if (c->bench)
        spread(c, 512, 15, 5, 64);
    for (int i = 0; i < SIZES && !c->bench; i++)
        for (int n = 0; n <= 20; n = n * 4 + 1)
            spread(c, n, (i % 3 + 1) * 2, i % 2 ? 2 : 1, sizes[i] % 8 ? 8 : sizes[i]);
}

void check_cast_rows(struct check *c)
{
    if (c->bench)
        cast(c, 512, 960);
    for (int d = 1; d < 1200 && !c->bench; d = d * 2 + 1)
        for (int n = 0; n <= 20; n = n * 4 + 1)
            cast(c, n, d + d % 3);
}
