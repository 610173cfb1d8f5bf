/* Sampling by inverse transform over the candidates in descending order (ties by smaller id). */
#include "engine/model/sampler.h"
#include <math.h>
#include <stdlib.h>

/* splitmix64 (Steele, Lea, Flood 2014) as a hash of (seed, index); 53 bits in [0, 1). */
static double uniform(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

static int by_logit(const void *a, const void *b, void *logits)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    float x = ((const float *)logits)[i], y = ((const float *)logits)[j];
    return x != y ? (x < y ? 1 : -1) : (i > j) - (i < j);
}

int32_t sampler_pick(const float *logits, int v, const struct sampler_params *p, uint64_t index, int32_t *scratch)
{
    for (int i = 0; i < v; i++)
        scratch[i] = i;
    qsort_r(scratch, (size_t)v, sizeof(*scratch), by_logit, (void *)logits);
    int n = p->top_k > 0 && p->top_k < v ? p->top_k : v;
    double max = logits[scratch[0]], t = p->temperature, sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp((logits[scratch[i]] - max) / t);
    /* top-p keeps the shortest prefix whose share reaches p; what is drawn is then a share of that prefix */
    double kept = 0;
    int m = 0;
    while (m < n && (m == 0 || kept < (double)p->top_p * sum))
        kept += exp((logits[scratch[m++]] - max) / t);
    double u = uniform(p->seed, index) * kept, run = 0;
    for (int i = 0; i < m; i++) {
        run += exp((logits[scratch[i]] - max) / t);
        if (u < run)
            return scratch[i];
    }
    return scratch[m - 1];
}
