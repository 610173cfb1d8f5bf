/* Log-softmax of a row of logits: target, best tokens, non-finite check. Scalar form.
 *
 * lse = max + log(sum exp(logit - max)); the sum is taken in SUM_LANES parts over a chunk, chunk totals in
 * double. */
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/ops.h"

enum { CHUNK = 1024, STRETCH = 128 };

struct logprobs {
    const float *logits;
    size_t ld;
    int v, top_k;
    const int *target;
    float *target_lp, *top_lp;
    int *top_id;
    unsigned char *bad;
    float *lse;
};

static int any_not_finite(const float *x, int n)
{
    int bad = 0;
    for (int i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], 4);
        bad |= (u & 0x7f800000) == 0x7f800000;
    }
    return bad;
}

/* sum exp(x - max) of at most CHUNK values. */
static float sum_exp(const float *x, int n, float max)
{
    float e[CHUNK];
    struct lanes sum = {0};
    for (int i = 0; i < n; i++)
        e[i] = portable_exp(x[i] - max);
    for (int i = 0; i < n; i += SUM_LANES)
        lanes_add(&sum, lanes_load(e + i, n - i));
    return lanes_sum(&sum);
}

static float log_sum_exp(const float *x, int v, float max)
{
    double sum = 0;
    for (int i = 0; i < v; i += CHUNK)
        sum += sum_exp(x + i, min_int(CHUNK, v - i), max);
    return (float)(max + portable_log_double(sum));
}

/* Puts i among the n best so far, of k at most; returns how many they are now. */
static int insert(const float *x, int i, int k, int *id, int n)
{
    if (n == k && !(x[i] > x[id[n - 1]]))
        return n;
    int j = n < k ? n++ : n - 1;
    for (; j > 0 && x[i] > x[id[j - 1]]; j--)
        id[j] = id[j - 1];
    id[j] = i;
    return n;
}

/* The k best of x[v] in descending order; among equals the smaller id comes first. Stretches that hold nothing above the worst of the
 * best are passed over whole. */
static void top(const float *x, int v, int k, int *ret_id)
{
    int n = 0;
    for (int i = 0; i < v; i += STRETCH) {
        int end = min_int(i + STRETCH, v), any = n < k;
        float worst = n ? x[ret_id[n - 1]] : 0;
        for (int j = i; j < end; j++)
            any |= x[j] > worst;
        for (int j = i; any && j < end; j++)
            n = insert(x, j, k, ret_id, n);
    }
}

static void row(void *arg, int i)
{
    const struct logprobs *a = arg;
    const float *x = a->logits + (size_t)i * a->ld;
    a->bad[i] = any_not_finite(x, a->v) != 0;
    if (a->bad[i])
        return;
    int *best = a->top_id + (size_t)i * a->top_k;
    top(x, a->v, a->top_k, best);
    float lse = a->lse[i] = log_sum_exp(x, a->v, x[best[0]]);
    for (int j = 0; j < a->top_k; j++)
        a->top_lp[(size_t)i * a->top_k + j] = x[best[j]] - lse;
    a->target_lp[i] = a->target[i] < 0 ? 0 : x[a->target[i]] - lse;
}

static int logprobs_c(struct kern_ctx *k, const struct kern_scores *to, int first, const struct dev_f32 *logits, size_t ld, int n, int v)
{
    size_t top = (size_t)first * to->top_k;
    struct logprobs a = {.logits = f32_of(logits),
                         .ld = ld,
                         .v = v,
                         .top_k = to->top_k,
                         .target = i32_of(to->target) + first,
                         .target_lp = f32_of(to->target_lp) + first,
                         .top_lp = f32_of(to->top_lp) + top,
                         .top_id = i32_of(to->top_id) + top,
                         .bad = u8_of(to->bad) + first,
                         .lse = f32_of(to->lse) + first};
    cpu_for_rows(k, (struct rows){NULL, NULL, n}, 16 * v, row, &a);
    return 0;
}

void CPU_NAME(logprob_init)(struct kern_ops *o)
{
    o->logprobs = logprobs_c;
}
