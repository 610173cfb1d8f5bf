#include "tests/check/harness.h"
#include <math.h>

#define TOLERANCE 5e-5 /* logits go up to 300, where lse is rounded to 2^-16 */

enum { LOGITS, TARGET, TARGET_LP, TOP_ID, TOP_LP, BAD, LSE, ARRAYS };

struct arg {
    int v, ld, top_k;
};

static int run(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    const struct kern_scores to = {dev[TARGET], dev[TARGET_LP], a->top_k, dev[TOP_ID], dev[TOP_LP], dev[BAD], dev[LSE]};
    int first = rows.n_max / 2; /* in two pieces, of which the second begins at an index of its own */
    int r = c->k->ops->logprobs(c->k, &to, 0, dev[LOGITS], a->ld, first, a->v);
    const struct dev_f32 *rest = dev_f32_at(dev[LOGITS], (size_t)first * a->ld);
    return r < 0 ? r : c->k->ops->logprobs(c->k, &to, first, rest, a->ld, rows.n_max - first, a->v);
}

static bool better(const float *x, int i, int j)
{
    return x[i] > x[j] || (x[i] == x[j] && i < j);
}

static void want(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    const float *x = in[LOGITS];
    double max = x[0], sum = 0;
    int target = *(const int *)in[TARGET];
    for (int i = 0; i < a->v; i++) {
        out[BAD][0] = out[BAD][0] || !isfinite(x[i]);
        max = x[i] > max ? x[i] : max;
    }
    for (int i = 0; i < a->v; i++)
        sum += exp(x[i] - max);
    double lse = max + log(sum);
    out[LSE][0] = out[BAD][0] ? NAN : lse;
    out[TARGET_LP][0] = out[BAD][0] ? NAN : target < 0 ? 0 : x[target] - lse;
    for (int j = 0, last = -1; j < a->top_k; j++) {
        int best = -1;
        for (int i = 0; i < a->v; i++)
            if ((last < 0 || better(x, last, i)) && (best < 0 || better(x, i, best)))
                best = i;
        last = best;
        out[TOP_ID][j] = out[BAD][0] ? NAN : best;
        out[TOP_LP][j] = out[BAD][0] ? NAN : x[best] - lse;
    }
}

/* Rows with ties, with one token far above the rest, flat ones, and some with a value that is not finite. */
static float *make_logits(struct check *c, int n, int v, int ld)
{
    float *x = check_floats(c, (size_t)n * ld, -12, 12);
    for (int r = 0; r < n; r++) {
        float *row = x + (size_t)r * ld;
        int form = check_int(c, 0, 5);
        for (int i = 0; i < v; i++)
            row[i] = form == 0 ? rintf(row[i]) : form == 1 ? 2.5f : form == 2 ? row[i] * 20 : row[i];
        if (form == 3)
            row[check_int(c, 0, v - 1)] = 300;
        if (form == 4 && !c->bench)
            row[check_int(c, 0, v - 1)] = check_int(c, 0, 1) ? NAN : check_int(c, 0, 1) ? INFINITY : -INFINITY;
        for (int i = v; i < ld; i++)
            row[i] = NAN; /* not the op's to read */
    }
    return x;
}

static void one(struct check *c, int n, int v, int top_k)
{
    struct arg a = {v, v + (c->bench ? 0 : 5), top_k};
    char what[64];
    snprintf(what, sizeof(what), "v %d top %d", v, top_k);
    struct check_array arrays[ARRAYS] = {
        [LOGITS] = {.name = "logits", .use = CHECK_IN, .type = CHECK_F32, .cols = a.ld, .host = make_logits(c, n, v, a.ld)},
        [TARGET] = {.name = "target", .use = CHECK_IN, .type = CHECK_I32, .cols = 1, .host = check_fill(c, CHECK_I32, n, -1, v - 1)},
        [TARGET_LP] = {.name = "target_lp", .use = CHECK_OUT, .type = CHECK_F32, .cols = 1, .abs = TOLERANCE},
        [TOP_ID] = {.name = "top_id", .use = CHECK_OUT, .type = CHECK_I32, .cols = top_k},
        [TOP_LP] = {.name = "top_lp", .use = CHECK_OUT, .type = CHECK_F32, .cols = top_k, .abs = TOLERANCE},
        [BAD] = {.name = "bad", .use = CHECK_OUT, .type = CHECK_U8, .cols = 1},
        [LSE] = {.name = "lse", .use = CHECK_OUT, .type = CHECK_F32, .cols = 1, .abs = TOLERANCE},
    };
    for (int i = TARGET_LP; i < ARRAYS; i++)
        arrays[i].host = check_fill(c, arrays[i].type, (size_t)n * arrays[i].cols, 2, 9);
    check_rows(c, &(struct check_op){
                      .what = what, .arrays = arrays, .n_arrays = ARRAYS, .n = n, .run = run, .want = want, .arg = &a, .no_subsets = true});
    check_arrays_done(arrays, ARRAYS);
}

void check_logprobs(struct check *c)
{
    static const int sizes[] = {1, 2, 15, 16, 17, 100, 1023, 1024, 1025, 3000};
    if (c->bench) {
        one(c, 64, 16384, 1);
        one(c, 64, 16384, 20);
        one(c, 64, 32000, 1);
        return;
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        for (int n = 0; n < 20; n = n * 2 + 1) {
            one(c, n, sizes[i], 1);
            one(c, n, sizes[i], sizes[i] < KERN_TOP_K_MAX ? sizes[i] : KERN_TOP_K_MAX);
        }
}
