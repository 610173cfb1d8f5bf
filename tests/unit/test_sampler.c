/* Draws are those of the definition, sorted out with qsort, on rows of every shape; they follow the softmax, the cuts of top-k and top-p hold, and a
 * draw depends on seed and index alone. */
#include "engine/model/sampler.h"
#include "tests/check.h"
#include <math.h>
#include <stdlib.h>

enum { V = 50, N = 20000, LONG = 3000, INDICES = 12 };

static struct sampler *sampler;

/* ---- against the definition --------------------------------------------------------------------------------------- */
static int by_logit(const void *a, const void *b, void *logits)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    float x = ((const float *)logits)[i], y = ((const float *)logits)[j];
    return x != y ? (x < y ? 1 : -1) : (i > j) - (i < j);
}

static double uniform(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* What the sampler did when it sorted the vocabulary for every token. */
static int32_t pick_sorted(const float *logits, int v, const struct sampler_params *p, uint64_t index)
{
    static int32_t ids[LONG];
    for (int i = 0; i < v; i++)
        ids[i] = i;
    qsort_r(ids, (size_t)v, sizeof(*ids), by_logit, (void *)(uintptr_t)logits);
    int n = p->top_k > 0 && p->top_k < v ? p->top_k : v;
    double max = logits[ids[0]], t = p->temperature, sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp((logits[ids[i]] - max) / t);
    double kept = 0;
    int m = 0;
    while (m < n && (m == 0 || kept < (double)p->top_p * sum))
        kept += exp((logits[ids[m++]] - max) / t);
    double u = uniform(p->seed, index) * kept, run = 0;
    for (int i = 0; i < m; i++) {
        run += exp((logits[ids[i]] - max) / t);
        if (u < run)
            return ids[i];
    }
    return ids[m - 1];
}

static float normal(void)
{
    float x = -6;
    for (int i = 0; i < 12; i++)
        x += (float)rand() / (float)RAND_MAX;
    return x;
}

static float row_normal(int i)
{
    return (float)(i % 7) + 3 * normal();
}
static float row_equal(int i)
{
    (void)i;
    return -1.5f;
}
static float row_few_values(int i)
{
    return (float)(i * 7 % 5) * 0.25f;
}
static float row_one_far_above(int i)
{
    return i == 17 ? 1e30f : normal();
}
static float row_one_far_below(int i)
{
    return i == 3 ? -3e38f : normal();
}
static float row_extremes(int i)
{
    return i % 2 ? 3e38f : -3e38f;
}
static float row_zeros(int i)
{
    return i % 3 ? -0.0f : 0.0f;
}
static float row_tiny(int i)
{
    return (float)(i % 11) * 1e-44f;
}
static float row_steps(int i)
{
    return -(float)(i % 100) * 0.5f;
}

static void test_definition(void)
{
    static const struct {
        const char *what;
        float (*logit)(int i);
        int v;
    } rows[] = {
        {"normal", row_normal, LONG},         {"normal, a few", row_normal, 9},       {"all equal", row_equal, LONG},
        {"few values", row_few_values, LONG}, {"far above", row_one_far_above, 700},  {"far below", row_one_far_below, 700},
        {"both extremes", row_extremes, 300}, {"zeros of both signs", row_zeros, 90}, {"denormal", row_tiny, 300},
        {"steps below", row_steps, LONG},     {"one token", row_normal, 1},
    };
    static const struct sampler_params params[] = {
        {1, 0, 1, 1},      {0.7f, 0, 1, 2},      {2, 0, 1, 3},        {0.01f, 0, 1, 4},    {1e-6f, 0, 1, 5},
        {1, 0, 0.9f, 6},   {1, 0, 0.3f, 7},      {0.8f, 0, 1e-6f, 8}, {1, 0, 0.99999f, 9}, {1, 1, 1, 10},
        {1, 40, 1, 11},    {1, 40, 0.9f, 12},    {0.5f, 2000, 1, 13}, {1, 2999, 0.5f, 14}, {1, 1 << 30, 0.95f, 15},
        {1e30f, 0, 1, 16}, {1e30f, 0, 0.5f, 17}, {1, 3, 0.01f, 18},
    };
    static float logits[LONG];
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        struct sampler *s;
        srand(1);
        for (int i = 0; i < rows[r].v; i++)
            logits[i] = rows[r].logit(i);
        if (!CHECK_INT(sampler_new(rows[r].v, &s), 0))
            return;
        for (size_t p = 0; p < sizeof(params) / sizeof(params[0]); p++)
            for (uint64_t index = 0; index < INDICES; index++)
                if (!CHECK_INT(sampler_pick(s, logits, &params[p], index), pick_sorted(logits, rows[r].v, &params[p], index))) {
                    fprintf(stderr, "  of \"%s\" with parameters %zu, index %d\n", rows[r].what, p, (int)index);
                    index = INDICES;
                }
        sampler_free(s);
    }
}

/* ---- the distribution ----------------------------------------------------------------------------------------------- */
static float logits[V];

static void count(const struct sampler_params *p, int *hits)
{
    memset(hits, 0, V * sizeof(int));
    for (int i = 0; i < N; i++)
        hits[sampler_pick(sampler, logits, p, (uint64_t)i)]++;
}

static void test_distribution(void)
{
    int hits[V];
    double sum = 0, seen = 0;
    for (int i = 0; i < V; i++)
        logits[i] = (float)((i * 7) % V) * 0.1f;
    for (int i = 0; i < V; i++)
        sum += exp((double)logits[i] / 0.7);
    struct sampler_params p = {.temperature = 0.7f, .top_p = 1, .seed = 5};
    count(&p, hits);
    for (int i = 0; i < V; i++) {
        double share = exp((double)logits[i] / 0.7) / sum, sd = sqrt(N * share * (1 - share));
        CHECK(fabs(hits[i] - N * share) < 5 * sd + 1);
    }
    p.top_k = 3;
    count(&p, hits);
    for (int i = 0; i < V; i++)
        CHECK((hits[i] > 0) == (logits[i] >= 4.65f)); /* the best three are 4.9, 4.8 and 4.7 */
    p = (struct sampler_params){.temperature = 1, .top_p = 0.3f, .seed = 5};
    count(&p, hits);
    sum = 0;
    for (int i = 0; i < V; i++)
        sum += exp((double)logits[i]);
    for (int i = 0; i < V; i++)
        seen += hits[i] ? exp((double)logits[i]) / sum : 0;
    CHECK(seen >= 0.3 && seen < 0.4);
    for (int i = 0; i < 100; i++)
        CHECK_INT(sampler_pick(sampler, logits, &p, (uint64_t)i), sampler_pick(sampler, logits, &p, (uint64_t)i));
    p.top_k = 1;
    CHECK_INT(sampler_pick(sampler, logits, &p, 3), 7); /* 7 * 7 = 49 */
}

int main(void)
{
    if (!CHECK_INT(sampler_new(V, &sampler), 0))
        return check_result();
    test_definition();
    test_distribution();
    sampler_free(sampler);
    return check_result();
}
