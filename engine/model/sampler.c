/* Sampling by inverse transform: the choice by a histogram, and by a radix sort where rounding could decide. */
#include "engine/model/sampler.h"
#include "common/err.h"
#include "kernels/portable.h"
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 2048, DIGITS = 2048, DIGIT_BITS = 11, PASSES = 3 };
#define NEGLIGIBLE 44.0f /* exponents below this cannot show in a double's sum that begins with 1: the range of the buckets ends here */

struct sampler {
    int v;
    double *weight;         /* [v] */
    uint16_t *bucket;       /* [v] 0: the best */
    int32_t *ids, *swap_id; /* [v] candidates */
    uint32_t *keys, *swap_key;
    double mass[BUCKETS];
    uint32_t digit[DIGITS];
};

int sampler_new(int vocab, struct sampler **ret)
{
    size_t v = (size_t)vocab;
    struct sampler *s = calloc(1, sizeof(*s));
    if (!s)
        return ERR_NOMEM;
    s->v = vocab;
    s->weight = malloc(v * sizeof(*s->weight));
    s->bucket = malloc(v * sizeof(*s->bucket));
    s->ids = malloc(v * sizeof(*s->ids));
    s->swap_id = malloc(v * sizeof(*s->swap_id));
    s->keys = malloc(v * sizeof(*s->keys));
    s->swap_key = malloc(v * sizeof(*s->swap_key));
    if (!s->weight || !s->bucket || !s->ids || !s->swap_id || !s->keys || !s->swap_key) {
        sampler_free(s);
        return ERR_NOMEM;
    }
    *ret = s;
    return 0;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    free(s->weight);
    free(s->bucket);
    free(s->ids);
    free(s->swap_id);
    free(s->keys);
    free(s->swap_key);
    free(s);
}

/* splitmix64 (Steele, Lea, Flood 2014) as a hash of (seed, index); 53 bits in [0, 1). */
static double uniform(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

/* ---- candidates in order ---------------------------------------------------------------------------------------- */
/* Ascending keys are descending logits; both zeros are equal. */
static uint32_t key_of(float logit)
{
    uint32_t u;
    float x = logit + 0.0f;
    memcpy(&u, &x, sizeof(u));
    return u >> 31 ? u : ~(u | 0x80000000u);
}

static void sort_by_digit(struct sampler *s, int n, int shift)
{
    memset(s->digit, 0, sizeof(s->digit));
    for (int i = 0; i < n; i++)
        s->digit[s->keys[i] >> shift & (DIGITS - 1)]++;
    uint32_t at = 0;
    for (int d = 0; d < DIGITS; d++) {
        uint32_t here = s->digit[d];
        s->digit[d] = at;
        at += here;
    }
    for (int i = 0; i < n; i++) {
        uint32_t to = s->digit[s->keys[i] >> shift & (DIGITS - 1)]++;
        s->swap_key[to] = s->keys[i];
        s->swap_id[to] = s->ids[i];
    }
    uint32_t *keys = s->keys;
    int32_t *ids = s->ids;
    s->keys = s->swap_key;
    s->ids = s->swap_id;
    s->swap_key = keys;
    s->swap_id = ids;
}

/* Puts s->ids[n], which are ascending, into descending order of their logits. */
static void sort_ids(struct sampler *s, const float *logits, int n)
{
    for (int i = 0; i < n; i++)
        s->keys[i] = key_of(logits[s->ids[i]]);
    if (n > 64) {
        for (int pass = 0; pass < PASSES; pass++)
            sort_by_digit(s, n, pass * DIGIT_BITS);
        return;
    }
    for (int i = 1; i < n; i++) {
        uint32_t key = s->keys[i];
        int32_t id = s->ids[i];
        int j = i;
        for (; j > 0 && s->keys[j - 1] > key; j--) {
            s->keys[j] = s->keys[j - 1];
            s->ids[j] = s->ids[j - 1];
        }
        s->keys[j] = key;
        s->ids[j] = id;
    }
}

/* The definition, word by word: n candidates in s->ids are all that count, or more than the top k. */
static int32_t pick_in_order(struct sampler *s, const float *logits, const struct sampler_params *p, double u, int n)
{
    sort_ids(s, logits, n);
    n = p->top_k > 0 && p->top_k < n ? p->top_k : n;
    double max = logits[s->ids[0]], t = p->temperature, sum = 0, kept = 0, run = 0;
    for (int i = 0; i < n; i++)
        sum += s->weight[i] = portable_exp_double((logits[s->ids[i]] - max) / t);
    int m = 0;
    while (m < n && (m == 0 || kept < (double)p->top_p * sum))
        kept += s->weight[m++];
    for (int i = 0; i < m; i++) {
        run += s->weight[i];
        if (u * kept < run)
            return s->ids[i];
    }
    return s->ids[m - 1];
}

static int32_t pick_of_all(struct sampler *s, const float *logits, const struct sampler_params *p, double u)
{
    for (int i = 0; i < s->v; i++)
        s->ids[i] = i;
    return pick_in_order(s, logits, p, u, s->v);
}

/* ---- the histogram ----------------------------------------------------------------------------------------------- */
/* Buckets of equal width below the best logit. Larger logits never come into a later bucket. */
static float fill_buckets(struct sampler *s, const float *logits, float most)
{
    float max = logits[0], min = logits[0];
    for (int i = 1; i < s->v; i++) {
        max = logits[i] > max ? logits[i] : max;
        min = logits[i] < min ? logits[i] : min;
    }
    float range = max - min < most ? max - min : most, scale = range > 0 ? BUCKETS / range : 0;
    scale = scale < FLT_MAX ? scale : 0;
    for (int i = 0; i < s->v; i++) {
        float at = (max - logits[i]) * scale;
        s->bucket[i] = at < BUCKETS - 1 ? (uint16_t)at : BUCKETS - 1;
    }
    return max;
}

/* Makes the ids of one bucket, or of all up to it, the candidates. Returns how many. */
static int take_bucket(struct sampler *s, int b, bool up_to)
{
    int n = 0;
    for (int i = 0; i < s->v; i++) {
        s->ids[n] = i;
        n += up_to ? s->bucket[i] <= b : s->bucket[i] == b;
    }
    return n;
}

static int32_t pick_of_best(struct sampler *s, const float *logits, const struct sampler_params *p, double u)
{
    int counts[BUCKETS] = {0}, n = 0, b = 0;
    fill_buckets(s, logits, FLT_MAX);
    for (int i = 0; i < s->v; i++)
        counts[s->bucket[i]]++;
    while (n < p->top_k)
        n += counts[b++];
    return pick_in_order(s, logits, p, u, take_bucket(s, b - 1, true));
}

/* Where a running weight passes a mark. */
struct place {
    int32_t id;
    double before, with; /* the running weight without it and with it */
};

/* The first candidate with which the running weight is above the mark. False: there is none. */
static bool find_place(struct sampler *s, const float *logits, double mark, struct place *ret)
{
    double run = 0;
    int b = 0;
    while (b < BUCKETS && !(run + s->mass[b] > mark))
        run += s->mass[b++];
    int n = b < BUCKETS ? take_bucket(s, b, false) : 0;
    sort_ids(s, logits, n);
    for (int i = 0; i < n; i++) {
        double before = run;
        run += s->weight[s->ids[i]];
        if (run > mark) {
            *ret = (struct place){s->ids[i], before, run};
            return true;
        }
    }
    return false;
}

/* Is the mark so far from both sides that sums of any order agree? Nothing comes before the first. */
static bool is_clear(const struct place *at, double mark, double unsure)
{
    return (at->before <= 0 || mark - at->before > unsure) && at->with - mark > unsure;
}

/* -1: rounding could decide. */
static int32_t pick_by_mass(struct sampler *s, const float *logits, const struct sampler_params *p, double u)
{
    double t = p->temperature, sum = 0;
    float max = fill_buckets(s, logits, NEGLIGIBLE * p->temperature);
    memset(s->mass, 0, sizeof(s->mass));
    for (int i = 0; i < s->v; i++)
        s->mass[s->bucket[i]] += s->weight[i] = portable_exp_double((logits[i] - (double)max) / t);
    for (int b = 0; b < BUCKETS; b++)
        sum += s->mass[b];
    double unsure = 4 * (double)s->v * DBL_EPSILON * sum, kept = sum;
    struct place last, at;
    if (p->top_p < 1) {
        double mark = (double)p->top_p * sum;
        if (!find_place(s, logits, mark, &last) || !is_clear(&last, mark, unsure))
            return -1;
        kept = last.with;
    }
    return find_place(s, logits, u * kept, &at) && is_clear(&at, u * kept, unsure) ? at.id : -1;
}

int32_t sampler_pick(struct sampler *s, const float *logits, const struct sampler_params *p, uint64_t index)
{
    double u = uniform(p->seed, index);
    if (p->top_k > 0 && p->top_k < s->v)
        return pick_of_best(s, logits, p, u);
    int32_t id = pick_by_mass(s, logits, p, u);
    return id >= 0 ? id : pick_of_all(s, logits, p, u);
}
