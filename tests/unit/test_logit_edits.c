/* Bias, penalties, min-p and min_tokens against values worked out by hand with vLLM's formulas, and what must hold for any of them: logits stay
 * finite, scratch is zeros again, the draw never takes what is left out. */
#include "engine/model/logit_edits.h"
#include "engine/model/sampler.h"
#include "tests/check.h"
#include <math.h>

enum { V = 6 };
static const float plain[V] = {2.0f, -1.0f, 0.5f, 3.0f, 0.0f, -4.0f};
#define HISTORY(p, m) ((struct logit_history){p, m, sizeof(p) / sizeof((p)[0]), sizeof(m) / sizeof((m)[0])})
static const int32_t prompt[] = {0, 1, 1, 5}, made[] = {3, 1, 3, 3};

static void apply(const struct logit_edits *e, float temperature, struct logit_history h, float out[V])
{
    int32_t counts[V] = {0};
    memcpy(out, plain, sizeof(plain));
    logit_edits_apply(out, V, e, temperature, &h, counts);
    for (int i = 0; i < V; i++)
        CHECK(counts[i] == 0 && isfinite(out[i]));
}

static void check_row(const char *what, const float got[V], const float want[V])
{
    for (int i = 0; i < V; i++)
        if (!CHECK(got[i] == want[i]))
            fprintf(stderr, "  %s: logit %d is %g, not %g\n", what, i, (double)got[i], (double)want[i]);
}

static void test_values(void)
{
    static const struct logit_bias bias[] = {{1, 5}, {3, -2.5f}};
    static const struct {
        const char *what;
        struct logit_edits e;
        float want[V];
    } cases[] = {
        {"nothing", {.repetition_penalty = 1}, {2, -1, 0.5f, 3, 0, -4}},
        {"bias", {.bias = bias, .n_bias = 2, .repetition_penalty = 1}, {2, 4, 0.5f, 0.5f, 0, -4}},
        {"repetition", {.repetition_penalty = 2}, {1, -2, 0.5f, 1.5f, 0, -8}},
        {"frequency", {.repetition_penalty = 1, .frequency_penalty = 0.5f}, {2, -1.5f, 0.5f, 1.5f, 0, -4}},
        {"presence", {.repetition_penalty = 1, .presence_penalty = -1}, {2, 0, 0.5f, 4, 0, -4}},
        {"all",
         {.bias = bias, .n_bias = 2, .repetition_penalty = 2, .frequency_penalty = 1, .presence_penalty = 0.25f},
         {1, 0.75f, 0.5f, -3, 0, -8}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        float got[V];
        apply(&cases[i].e, 1, HISTORY(prompt, made), got);
        check_row(cases[i].what, got, cases[i].want);
    }
}

/* Tokens that a row can still give. */
static int left(const float logits[V], float temperature)
{
    double max = -INFINITY;
    int n = 0;
    for (int i = 0; i < V; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (int i = 0; i < V; i++)
        n |= (exp(((double)logits[i] - max) / (double)temperature) > 0) << i;
    return n;
}

static void test_min_p(void)
{
    /* shares of the likeliest: e^-1, e^-4, e^-2.5, 1, e^-3, e^-7; the temperature comes first */
    static const struct {
        float min_p, temperature;
        int left;
    } cases[] = {{0.05f, 1, 0x0d}, {0.04f, 1, 0x1d}, {0.5f, 1, 0x08}, {1, 1, 0x08}, {0.05f, 2, 0x1f}, {1e-9f, 1, 0x3f}, {0, 1, 0x3f}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        float got[V];
        struct logit_edits e = {.repetition_penalty = 1, .min_p = cases[i].min_p};
        apply(&e, cases[i].temperature, HISTORY(prompt, made), got);
        CHECK_INT(left(got, cases[i].temperature), cases[i].left);
    }
}

static void test_held(void)
{
    static const int32_t held[] = {3, 0, 3}, all[V] = {0, 1, 2, 3, 4, 5};
    float got[V];
    struct logit_edits e = {.repetition_penalty = 1, .held_ids = held, .n_held = 3, .min_tokens = 5};
    apply(&e, 1, HISTORY(prompt, made), got);
    CHECK_INT(left(got, 1), 0x36);
    apply(&e, 0, HISTORY(prompt, made), got); /* greedy: the best of the others */
    CHECK(got[2] == 0.5f && got[3] < 0.5f && got[0] < 0.5f);
    e.min_tokens = 4;
    apply(&e, 1, HISTORY(prompt, made), got);
    check_row("after min_tokens", got, plain);
    e = (struct logit_edits){.repetition_penalty = 1, .held_ids = all, .n_held = V, .min_tokens = 5};
    apply(&e, 1, HISTORY(prompt, made), got);
    check_row("no token would be left", got, plain);
}

/* Whatever the draw's number, top-k and top-p: what is left out does not come. */
static void test_draws(void)
{
    static const int32_t held[] = {3};
    struct logit_edits e = {.repetition_penalty = 1, .held_ids = held, .n_held = 1, .min_tokens = 9, .min_p = 0.2f};
    struct sampler *s = NULL;
    if (!CHECK_INT(sampler_new(V, &s), 0))
        return;
    for (int k = 0; k < 3; k++)
        for (uint64_t seed = 0; seed < 300; seed++) {
            float got[V];
            struct sampler_params p = {.temperature = 1.5f, .top_k = k == 1 ? 4 : 0, .top_p = k == 2 ? 0.99f : 1, .seed = seed};
            apply(&e, p.temperature, HISTORY(prompt, made), got);
            int32_t id = sampler_pick(s, got, &p, seed);
            CHECK(left(got, p.temperature) >> id & 1);
            CHECK(id != 3 && id != 5);
        }
    sampler_free(s);
}

int main(void)
{
    test_values();
    test_min_p();
    test_held();
    test_draws();
    return check_result();
}
