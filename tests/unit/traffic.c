/* See traffic.h. */
#include "tests/unit/traffic.h"
#include <string.h>

enum { SEQUENCES = 24 };

static uint64_t state;
static bool generates;
static struct {
    int32_t tokens[TRAFFIC_LEN];
    int n;
} sequences[SEQUENCES];

int traffic_random(int n) /* splitmix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (int)(((z ^ (z >> 31)) >> 33) % (unsigned)n);
}

/* Most sequences begin as an earlier one; every eighth has a token somewhere after which something is not finite. */
void traffic_seed(uint64_t seed)
{
    state = seed;
    generates = false;
    for (int i = 0; i < SEQUENCES; i++) {
        int n = sequences[i].n = 2 + traffic_random(TRAFFIC_LEN - 1);
        for (int t = 0; t < n; t++)
            sequences[i].tokens[t] = traffic_random(FAKE_GOOD);
        if (!traffic_random(8))
            sequences[i].tokens[traffic_random(n)] = FAKE_BAD_TOKEN - traffic_random(2);
        int from = i && traffic_random(4) ? traffic_random(i) : i;
        int shared = 1 + traffic_random(sequences[from].n < n ? sequences[from].n : n);
        memmove(sequences[i].tokens, sequences[from].tokens, (size_t)shared * sizeof(int32_t));
    }
}

void traffic_generates(void)
{
    generates = true;
}

struct eval_request traffic_request(struct expect_watch *w)
{
    static const int tops[] = {0, 1, 1, 5, ENGINE_TOP_K_MAX};
    int seq = traffic_random(SEQUENCES), n = 1 + traffic_random(sequences[seq].n);
    int begins[] = {1, n, 1 + traffic_random(n)};
    bool sampled = !traffic_random(generates ? 12 : 3);
    struct eval_request q = {.tokens = sequences[seq].tokens,
                             .n_tokens = n,
                             .score_begin = begins[traffic_random(3)],
                             .top_k = tops[traffic_random(5)],
                             .max_new = traffic_random(generates ? 6 : 2) == 0 ? 0 : 1 + traffic_random(generates ? TRAFFIC_NEW : 5),
                             .temperature = sampled ? 0.5f : 0,
                             .top_p = 1,
                             .seed = (uint64_t)traffic_random(3),
                             .ignore_eos = traffic_random(2),
                             .want_routing = traffic_random(2),
                             .want_probs = !traffic_random(4),
                             .on_done = expect_on_done,
                             .user = w};
    *w = (struct expect_watch){.stop = traffic_random(2) ? traffic_random(FAKE_GOOD) : -1};
    if (traffic_random(2))
        q.on_token = expect_on_token;
    else
        w->stop = -1;
    return q;
}
