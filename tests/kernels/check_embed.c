/* embed, with ids and with places in the tokens that the device chose. */
#include "tests/check/harness.h"

enum { IDS, X, ARRAYS };

struct arg {
    int v, d;
    void *table; /* host, of `type` */
    enum dtype type;
    struct kern_matrix *w;
    const int *chosen; /* [n] host: what `latest` holds; NULL: no id is negative */
    struct dev_i32 *latest;
};

static int run(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    return c->k->ops->embed(c->k, dev[X], a->w, dev[IDS], a->latest, rows);
}

static void want(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    int id = *(const int *)in[IDS];
    if (id < 0)
        id = a->chosen[-1 - id] < 0 || a->chosen[-1 - id] >= a->v ? 0 : a->chosen[-1 - id];
    size_t row = (size_t)id;
    for (int i = 0; i < a->d; i++) {
        float v;
        dtype_to_f32(&v, (const char *)a->table + (row * a->d + i) * dtype_size(a->type), a->type, 1);
        uint32_t rounded;
        dtype_from_f32(&rounded, c->act, &v, 1);
        dtype_to_f32(&v, &rounded, c->act, 1);
        out[X][i] = v;
    }
}

/* Half of the ids name one of n tokens, some of which are none. Returns these. */
static int *choose(struct check *c, int n, int v, int *ids)
{
    int *chosen = check_fill(c, CHECK_I32, n, -2, v + 1);
    for (int i = 0; i < n; i++)
        if (check_int(c, 0, 1))
            ids[i] = -1 - check_int(c, 0, n - 1);
    return chosen;
}

/* random: the backend makes the values. */
static void one(struct check *c, int n, int v, int d, enum dtype type, bool random)
{
    int *ids = check_fill(c, CHECK_I32, n, 0, v - 1), *chosen = check_int(c, 0, 1) ? choose(c, n, v, ids) : NULL;
    struct arg a = {.v = v, .d = d, .type = type, .table = malloc((size_t)v * d * dtype_size(type)), .chosen = chosen};
    if (chosen)
        a.latest = check_up(c, chosen, sizeof(int) * n);
    const struct random_values made = {.stream = 7, .first = 3, .std = 0.5};
    float *values = check_floats(c, (size_t)v * d, -1, 1);
    struct err err = {0};
    char what[64];
    snprintf(what, sizeof(what), "%d x %d %s%s", v, d, dtype_name(type), random ? ", random" : "");
    if (random)
        random_fill(&made, 0, values, (size_t)v * d);
    dtype_from_f32(a.table, type, values, (size_t)v * d);
    struct matrix_part part = {.data = random ? NULL : a.table, .type = type, .n = v, .random = made};
    if (c->k->ops->matrix_new(c->k, MATRIX_EMBED, &part, 1, d, &a.w, &err) < 0)
        check_fail(c, what, "%s", err.text);
    struct check_array arrays[] = {
        [IDS] = {.name = "ids", .use = CHECK_IN, .type = CHECK_I32, .cols = 1, .host = ids},
        [X] = {.name = "x", .use = CHECK_OUT, .type = CHECK_F32, .cols = d, .host = check_floats(c, (size_t)n * d, -1, 1)},
    };
    if (a.w)
        check_rows(c, &(struct check_op){.what = what, .arrays = arrays, .n_arrays = ARRAYS, .n = n, .run = run, .want = want, .arg = &a});
    check_arrays_done(arrays, ARRAYS);
    if (chosen)
        check_drop(c, a.latest);
    free(chosen);
    c->k->ops->matrix_free(c->k, a.w);
    free(values);
    free(a.table);
}

void check_embed(struct check *c)
{
    if (c->bench) {
        one(c, 512, 16384, 384, DTYPE_BF16, false);
        one(c, 512, 32000, 960, DTYPE_BF16, false);
        return;
    }
    for (int type = 0; type < DTYPE_COUNT; type++)
        for (int n = 0; n <= 30; n = n * 5 + 1) {
            one(c, n, 1, 8, type, false);
            one(c, n, 17, 31, type, false);
            one(c, n, 256, 64, type, false);
            one(c, n, 320, 96, type, false);
            one(c, n, 777, 385, type, false);
            one(c, n, 777, 385, type, true);
        }
}
