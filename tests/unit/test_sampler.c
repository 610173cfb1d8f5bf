/* Draws follow the softmax, the cuts of top-k and top-p hold, and a draw depends on seed and index alone. */
#include "engine/model/sampler.h"
#include "tests/check.h"
#include <math.h>

#define V 50
#define N 20000

static float logits[V];
static int32_t scratch[V];

static void count(const struct sampler_params *p, int *hits)
{
    memset(hits, 0, V * sizeof(int));
    for (int i = 0; i < N; i++)
        hits[sampler_pick(logits, V, p, (uint64_t)i, scratch)]++;
}

int main(void)
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
        CHECK_INT(sampler_pick(logits, V, &p, (uint64_t)i, scratch), sampler_pick(logits, V, &p, (uint64_t)i, scratch));
    p.top_k = 1;
    CHECK_INT(sampler_pick(logits, V, &p, 3, scratch), 7); /* 7 * 7 = 49 */
    return check_result();
}
