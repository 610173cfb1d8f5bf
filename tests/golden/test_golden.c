/* A golden model through the engine: log-probabilities within 2e-4 of the published modules', decisions, rows held and greedy tokens
 * equal, decoding step by step and in chunks bit-equal to the whole pass. bf16 arithmetic is measured, not judged.
 *
 * Expert choice "exact" is compared in passes over the whole prompt, and its scores are those of a request that generates as well.
 *
 *   test_golden MODEL_DIR f32|bf16 [CPU_LEVEL|- [exact|threshold]]
 *
 * The device is DTRNET_TEST_DEVICE, else the CPU; its level DTRNET_TEST_CUDA_LEVEL; --matmul-precision is DTRNET_TEST_PRECISION. */
#include "engine/engine.h"
#include "tests/check.h"
#include "tests/golden/expected.h"
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define TOLERANCE 2e-4
#define PROB_TOLERANCE 1e-5
#define TOP 20
#define N_GEN 8
#define MAX_TOKENS 512

static const char *dir, *dtype, *level, *inference;
static bool judged; /* f32: differences are failures */
static struct {
    double sum, worst;
    long n, flips, decisions, other_tokens, tokens;
} stats;

static struct engine *open_engine(int max_batch_tokens, bool cache)
{
    const char *device = getenv("DTRNET_TEST_DEVICE");
    const struct engine_options o = {.model_dir = dir,
                                     .device = device ? device : "cpu",
                                     .dtype = dtype,
                                     .cpu_level = level,
                                     .cuda_level = getenv("DTRNET_TEST_CUDA_LEVEL"),
                                     .matmul_precision = getenv("DTRNET_TEST_PRECISION"),
                                     .n_threads = 2,
                                     .max_model_len = MAX_TOKENS,
                                     .max_batch_tokens = max_batch_tokens,
                                     .prefix_cache = cache,
                                     .expert_choice = inference,
                                     .bos_id = -1,
                                     .eos_id = -1};
    struct engine *e = NULL;
    struct err err = {0};
    int r = engine_open(&o, &e, &err);
    if (r == ERR_UNSUPPORTED || r == ERR_DEVICE) {
        printf("skipped: %s\n", err.text);
        exit(CHECK_SKIP);
    }
    if (!CHECK_INT(r, 0)) {
        fprintf(stderr, "  %s\n", err.text);
        exit(check_result());
    }
    return e;
}

static const struct eval_result *run_from(struct engine *e, const int32_t *tokens, int n, int score_begin, int max_new,
                                          struct engine_ticket **ret)
{
    const struct eval_request q = {.tokens = tokens,
                                   .n_tokens = n,
                                   .score_begin = score_begin,
                                   .top_k = TOP,
                                   .max_new = max_new,
                                   .top_p = 1,
                                   .ignore_eos = true,
                                   .want_routing = true,
                                   .want_probs = true};
    struct err err = {0};
    if (!CHECK_INT(engine_submit(e, &q, 1, ret, &err), 0)) {
        fprintf(stderr, "  %s\n", err.text);
        exit(check_result());
    }
    CHECK(engine_wait(*ret, -1));
    const struct eval_result *r = engine_result(*ret, 0);
    if (!CHECK_INT(r->code, 0)) {
        fprintf(stderr, "  %s\n", r->err.text);
        exit(check_result());
    }
    return r;
}

static const struct eval_result *run(struct engine *e, const int32_t *tokens, int n, int max_new, struct engine_ticket **ret)
{
    return run_from(e, tokens, n, 1, max_new, ret);
}

/* ---- one row of logits ------------------------------------------------------------------------------------------- */

static double log_sum_exp(const float *logits, int v)
{
    double max = logits[0], sum = 0;
    for (int i = 1; i < v; i++)
        max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < v; i++)
        sum += exp(logits[i] - max);
    return max + log(sum);
}

static bool near(double got, double want)
{
    double d = fabs(got - want);
    stats.sum += d;
    stats.worst = d > stats.worst ? d : stats.worst;
    stats.n++;
    return !judged || CHECK(d <= TOLERANCE);
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Checks a token's log-probability and the best alternatives against a row of expected logits. */
static bool check_row(const float *logits, int v, int32_t token, float logprob, const int32_t *top_ids, const float *top_lps)
{
    double lse = log_sum_exp(logits, v);
    bool ok = near(logprob, logits[token] - lse);
    float *sorted = malloc((size_t)v * sizeof(*sorted));
    memcpy(sorted, logits, (size_t)v * sizeof(*sorted));
    qsort(sorted, (size_t)v, sizeof(*sorted), descending);
    for (int j = 0; j < TOP; j++) {
        ok &= near(top_lps[j], logits[top_ids[j]] - lse); /* each alternative is what it says, */
        if (judged)
            ok &= CHECK(fabs(top_lps[j] - (sorted[j] - lse)) <= TOLERANCE); /* and none better is left out */
    }
    free(sorted);
    return ok;
}

/* The last row's score is the first generated token's. */
static bool check_prompt_scores(const struct expected *x, const struct eval_result *r)
{
    bool ok = true;
    for (int i = 0; i < x->n_pos; i++) {
        int p = x->pos[i];
        if (p + 1 < x->n_tokens)
            ok &= check_row(x->logits + (size_t)i * x->vocab, x->vocab, x->tokens[p + 1], r->logprobs[p], r->top_ids + p * TOP,
                            r->top_logprobs + p * TOP);
    }
    return ok;
}

static bool check_generated(const struct expected *x, const struct eval_result *r)
{
    bool ok = true;
    for (int i = 0; i < x->n_gen; i++) {
        bool same = r->new_tokens[i] == x->gen_tokens[i];
        stats.tokens++;
        stats.other_tokens += !same;
        if (judged)
            ok &= CHECK_INT(r->new_tokens[i], x->gen_tokens[i]);
        if (!same)
            break; /* from here on the two continue different texts */
        ok &= check_row(x->gen_logits + (size_t)i * x->vocab, x->vocab, x->gen_tokens[i], r->new_logprobs[i], r->new_top_ids + i * TOP,
                        r->new_top_logprobs + i * TOP);
    }
    return ok;
}

static void check_scores(const struct expected *x, const struct eval_result *prompt, const struct eval_result *generated)
{
    bool ok = check_prompt_scores(x, prompt);
    ok &= check_generated(x, generated);
    if (!ok)
        fprintf(stderr, "  scores of a prompt of %d tokens\n", x->n_tokens);
}

/* ---- routing ------------------------------------------------------------------------------------------------------ */

/* n_same: generated tokens that agree with the expected ones, so that their routing can be compared. */
static void check_routing(const struct expected *x, const struct engine_info *info, const struct eval_result *r, int n_same)
{
    int routed = 0, nested = 0, T = x->n_tokens, n = T + (n_same < x->n_gen ? n_same : x->n_gen - 1);
    CHECK_INT(r->n_routing, T + x->n_gen - 1);
    for (int l = 0; l < x->n_layers; l++) {
        bool dense = !layer_is_routed(&info->plan[l]), nests = info->plan[l].skip_router != ROUTER_NONE;
        int wrong = 0, selected = 0, N = x->n_gen - 1;
        for (int t = 0; t < r->n_routing; t++) {
            int got = r->routing[l * r->n_routing + t];
            selected += got == DECISION_ATTEND;
            if (t < n)
                wrong += (got == DECISION_ATTEND) != (dense ? 1 : t < T ? x->route[routed * T + t] : x->gen_route[routed * N + t - T]);
            if (t < n && nests)
                wrong += (got != DECISION_SKIP) != (t < T ? x->exec[nested * T + t] : x->gen_exec[nested * N + t - T]);
        }
        CHECK_INT(r->rows_routed[l], selected);
        stats.flips += wrong;
        stats.decisions += dense ? 0 : n;
        if (judged && !CHECK_INT(wrong, 0))
            fprintf(stderr, "  decisions of layer %d in a prompt of %d tokens\n", l, T);
        routed += !dense;
        nested += nests;
    }
    CHECK_INT(routed, x->n_routed);
    CHECK_INT(nested, x->n_nested);
}

/* What routers compared for the prompt; nothing where none was asked. */
static bool check_probs_of(const struct expected *x, const struct layer_plan *p, const struct eval_result *r, int l, int routed, int nested)
{
    int n = x->n_tokens, wrong = 0;
    bool nests = p->skip_router != ROUTER_NONE;
    for (int t = 0; t < n; t++) {
        float prob = r->probs[t * x->n_layers + l], skip = r->skip_probs[t * x->n_layers + l];
        bool asked = layer_is_routed(p) && (!nests || x->exec[nested * n + t]);
        wrong += asked ? !(fabsf(prob - x->prob[routed * n + t]) <= PROB_TOLERANCE) : !isnan(prob);
        wrong += nests ? !(fabsf(skip - x->exec_prob[nested * n + t]) <= PROB_TOLERANCE) : !isnan(skip);
    }
    return CHECK_INT(wrong, 0);
}

static void check_probs(const struct expected *x, const struct engine_info *info, const struct eval_result *r)
{
    int routed = 0, nested = 0;
    for (int l = 0; l < x->n_layers && judged; l++) {
        if (!check_probs_of(x, &info->plan[l], r, l, routed, nested))
            fprintf(stderr, "  probabilities of layer %d in a prompt of %d tokens\n", l, x->n_tokens);
        routed += layer_is_routed(&info->plan[l]);
        nested += info->plan[l].skip_router != ROUTER_NONE;
    }
}

static int n_same_tokens(const struct expected *x, const struct eval_result *r)
{
    int n = 0;
    while (n < x->n_gen && r->new_tokens[n] == x->gen_tokens[n])
        n++;
    return n;
}

/* With the prefix cache on, exactly the rows of the prompt stay: kv_len of them in each layer. */
static void check_rows_held(struct engine *cached, const struct expected *x)
{
    int32_t tokens[MAX_TOKENS + 1];
    struct engine_ticket *t = NULL;
    struct engine_stats st;
    uint64_t want = 0;
    memcpy(tokens, x->tokens, (size_t)x->n_tokens * sizeof(*tokens));
    tokens[x->n_tokens] = x->gen_tokens[0]; /* scoring n tokens computes n - 1 positions */
    engine_cache_clear(cached);
    run(cached, tokens, x->n_tokens + 1, 0, &t);
    engine_ticket_free(t);
    for (int l = 0; l < x->n_layers; l++)
        want += (uint64_t)x->kv_len[l];
    for (int tries = 0; tries < 60000; tries++) { /* rows are counted between steps, so maybe just after the answer */
        engine_stats(cached, &st);
        if (st.kv_rows_held == want && !st.kv_rows_reserved)
            break;
        usleep(1000);
    }
    CHECK_INT(st.kv_rows_held, want);
    CHECK_INT(st.kv_rows_reserved, 0);
}

/* ---- the same bits in every way ------------------------------------------------------------------------------------- */

static bool same_probs(const float *a, const float *b, int n)
{
    int differ = 0;
    for (int i = 0; i < n; i++)
        differ += isnan(a[i]) != isnan(b[i]) || (!isnan(a[i]) && memcmp(&a[i], &b[i], sizeof(*a)));
    return CHECK_INT(differ, 0);
}

/* Scores prompt and continuation as one text; must give the bits that decoding gave (r). */
static void check_whole_pass(struct engine *e, const struct expected *x, const struct eval_result *r)
{
    int32_t tokens[MAX_TOKENS];
    struct engine_ticket *t = NULL;
    int n = x->n_tokens;
    memcpy(tokens, x->tokens, (size_t)n * sizeof(*tokens));
    memcpy(tokens + n, r->new_tokens, N_GEN * sizeof(*tokens));
    const struct eval_result *w = run(e, tokens, n + N_GEN, 0, &t);
    bool ok = CHECK(!memcmp(w->logprobs, r->logprobs, (size_t)(n - 1) * sizeof(float))) &&
              CHECK(!memcmp(w->logprobs + n - 1, r->new_logprobs, N_GEN * sizeof(float))) &&
              CHECK(!memcmp(w->top_logprobs + (n - 1) * TOP, r->new_top_logprobs, N_GEN * TOP * sizeof(float))) &&
              CHECK(!memcmp(w->top_ids + (n - 1) * TOP, r->new_top_ids, N_GEN * TOP * sizeof(int32_t))) &&
              CHECK_INT(w->n_routing, r->n_routing) && CHECK(!memcmp(w->routing, r->routing, (size_t)r->n_routing * x->n_layers)) &&
              same_probs(w->probs, r->probs, r->n_routing * x->n_layers) &&
              same_probs(w->skip_probs, r->skip_probs, r->n_routing * x->n_layers);
    if (!ok)
        fprintf(stderr, "  prompt of %d tokens and its continuation in one pass\n", n);
    engine_ticket_free(t);
}

static void check_prompt(struct engine *plain, struct engine *chunked, const struct expected *x)
{
    struct engine_ticket *t = NULL;
    const struct eval_result *r = run(plain, x->tokens, x->n_tokens, N_GEN, &t);
    CHECK_INT(x->n_gen, N_GEN);
    CHECK_INT(r->n_new, N_GEN);
    check_scores(x, r, r);
    check_routing(x, engine_info(plain), r, n_same_tokens(x, r));
    check_probs(x, engine_info(plain), r);
    check_whole_pass(plain, x, r);
    check_whole_pass(chunked, x, r); /* cold, in chunks of 7 rows */
    check_whole_pass(chunked, x, r); /* warm: from the tree */
    if (judged)
        check_rows_held(chunked, x);
    engine_ticket_free(t);
}

/* Expert choice, exact: a pass over the prompt and one more token to score the prompt; a request that scores and generates gives the scores of one
 * that scores alone, whose pass has one token less. */
static void check_prompt_exact(struct engine *e, const struct expected *x)
{
    int32_t tokens[MAX_TOKENS + 1];
    struct engine_ticket *whole = NULL, *alone = NULL, *both = NULL;
    int n = x->n_tokens;
    memcpy(tokens, x->tokens, (size_t)n * sizeof(*tokens));
    tokens[n] = x->gen_tokens[0];
    const struct eval_result *w = run(e, tokens, n + 1, 0, &whole), *b = run(e, tokens, n, N_GEN, &both);
    check_scores(x, w, b);
    check_routing(x, engine_info(e), b, n_same_tokens(x, b));
    check_probs(x, engine_info(e), b);
    for (int l = 0; l < x->n_layers; l++)
        CHECK_INT(w->rows_routed[l], x->kv_len[l]);
    CHECK(w->logprobs[n - 1] == b->new_logprobs[0]);
    if (n > 1) {
        const struct eval_result *a = run(e, tokens, n, 0, &alone);
        CHECK(!memcmp(a->logprobs, b->logprobs, (size_t)(n - 1) * sizeof(float)));
        CHECK(!memcmp(a->top_logprobs, b->top_logprobs, (size_t)(n - 1) * TOP * sizeof(float)));
        CHECK_INT(b->rows_computed, n - 1 + n + N_GEN - 1);
        CHECK_INT(b->rows_cached, 0);
    }
    engine_ticket_free(whole);
    engine_ticket_free(alone);
    engine_ticket_free(both);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: test_golden MODEL_DIR f32|bf16 [CPU_LEVEL|- [exact|threshold]]\n");
        return 2;
    }
    dir = argv[1];
    dtype = argv[2];
    level = argc > 3 && strcmp(argv[3], "-") ? argv[3] : NULL;
    inference = argc > 4 ? argv[4] : NULL;
    bool exact = inference && !strcmp(inference, "exact");
    judged = !strcmp(dtype, "f32");
    char path[512];
    struct safetensors *s = NULL;
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/expected.safetensors", dir);
    if (!CHECK_INT(safetensors_open_file(path, &s, &err), 0))
        return check_result();
    struct engine *plain = open_engine(0, false), *chunked = exact ? NULL : open_engine(7, true);
    struct expected x;
    int i = 0;
    for (; expected_read(s, i, inference && !exact ? "thr_" : "", &x); i++)
        if (exact)
            check_prompt_exact(plain, &x);
        else
            check_prompt(plain, chunked, &x);
    CHECK(i >= 3);
    printf("%s %s, %s: %d prompts; |logprob difference| mean %.3g, worst %.3g of %ld; decisions that differ %ld of %ld; greedy tokens that "
           "differ %ld of %ld\n",
           dir, dtype, engine_info(plain)->numerics_class, i, stats.sum / (double)stats.n, stats.worst, stats.n, stats.flips,
           stats.decisions, stats.other_tokens, stats.tokens);
    engine_close(plain);
    engine_close(chunked);
    safetensors_close(s);
    return check_result();
}
