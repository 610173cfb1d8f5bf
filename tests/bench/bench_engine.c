/* Times the engine on random tokens, without HTTP.
 *
 *   bench_engine MODEL_DIR DEVICE DTYPE prefill LENGTH SEQUENCES    whole sequences, one token scored each: the head is as good as left out
 *   bench_engine MODEL_DIR DEVICE DTYPE generate LENGTH SEQUENCES   64 new tokens each
 *   bench_engine MODEL_DIR DEVICE DTYPE items CONTEXTS              contexts of 60 to 120 tokens, four continuations of 10 to 40 each
 *
 * Prints the best of three, tokens a second. DTRNET_BENCH_ROWS: rows of a step. DTRNET_BENCH_IN_FLIGHT: steps in flight. DTRNET_TEST_CUDA_LEVEL: the
 * level of CUDA kernels. DTRNET_TEST_PRECISION: --matmul-precision. */
#include "engine/checkpoint/model_config.h"
#include "engine/engine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTINUATIONS = 4, NEW_TOKENS = 64 };

struct load {
    struct eval_request *reqs;
    int n;
    size_t unique_tokens, new_tokens;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int between(int lo, int hi)
{
    return lo + rand() % (hi - lo + 1);
}

static int32_t *random_tokens(const struct engine_info *info, int n)
{
    int32_t *t = malloc(sizeof(*t) * (size_t)n);
    for (int i = 0; i < n; i++)
        t[i] = rand() % info->config->vocab;
    return t;
}

static struct load sequences(const struct engine_info *info, int length, int n, bool generate)
{
    struct load l = {calloc((size_t)n, sizeof(*l.reqs)), n, (size_t)n * (size_t)length, generate ? (size_t)n * NEW_TOKENS : 0};
    for (int i = 0; i < n; i++)
        l.reqs[i] = (struct eval_request){.tokens = random_tokens(info, length),
                                          .n_tokens = length,
                                          .score_begin = generate ? length : length - 1,
                                          .max_new = generate ? NEW_TOKENS : 0,
                                          .top_p = 1,
                                          .ignore_eos = true};
    return l;
}

static struct load items(const struct engine_info *info, int contexts)
{
    struct load l = {calloc((size_t)contexts * CONTINUATIONS, sizeof(*l.reqs)), contexts * CONTINUATIONS, 0, 0};
    for (int i = 0; i < contexts; i++) {
        int n = between(60, 120);
        int32_t *context = random_tokens(info, n);
        l.unique_tokens += (size_t)n;
        for (int j = 0; j < CONTINUATIONS; j++) {
            int more = between(10, 40);
            int32_t *t = random_tokens(info, n + more);
            memcpy(t, context, sizeof(*t) * (size_t)n);
            l.reqs[i * CONTINUATIONS + j] = (struct eval_request){.tokens = t, .n_tokens = n + more, .score_begin = n, .top_p = 1};
            l.unique_tokens += (size_t)more;
        }
    }
    return l;
}

static double run(struct engine *e, const struct load *l)
{
    struct engine_ticket *t;
    struct err err;
    engine_cache_clear(e);
    double start = now();
    if (engine_submit(e, l->reqs, l->n, &t, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    engine_wait(t, -1);
    double s = now() - start;
    for (int i = 0; i < l->n; i++)
        if (engine_result(t, i)->code < 0) {
            fprintf(stderr, "%s\n", engine_result(t, i)->err.text);
            exit(1);
        }
    engine_ticket_free(t);
    return s;
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return fprintf(stderr, "bench_engine: see the head of the source\n"), 2;
    bool is_items = !strcmp(argv[4], "items");
    const char *rows = getenv("DTRNET_BENCH_ROWS"), *in_flight = getenv("DTRNET_BENCH_IN_FLIGHT");
    struct engine_options o = {.model_dir = argv[1],
                               .device = argv[2],
                               .dtype = argv[3],
                               .cuda_level = getenv("DTRNET_TEST_CUDA_LEVEL"),
                               .matmul_precision = getenv("DTRNET_TEST_PRECISION"),
                               .bos_id = -1,
                               .eos_id = -1,
                               .prefix_cache = is_items,
                               .max_batch_tokens = rows ? atoi(rows) : 0,
                               .steps_in_flight = in_flight ? atoi(in_flight) : 0,
                               .max_queue = 1 << 20,
                               .max_model_len = is_items ? 2048 : atoi(argv[5]) + NEW_TOKENS};
    struct engine *e;
    struct err err;
    double start = now();
    if (engine_open(&o, &e, &err) < 0)
        return fprintf(stderr, "%s\n", err.text), err.code == ERR_DEVICE ? 77 : 1;
    double opened = now() - start, best = 1e9, passes[3];
    bool generate = !strcmp(argv[4], "generate");
    struct load l =
        is_items ? items(engine_info(e), atoi(argv[5])) : sequences(engine_info(e), atoi(argv[5]), argc > 6 ? atoi(argv[6]) : 1, generate);
    run(e, &l);
    for (int i = 0; i < 3; i++) {
        passes[i] = run(e, &l);
        best = passes[i] < best ? passes[i] : best;
    }
    struct engine_stats st;
    engine_stats(e, &st);
    const char *name = strrchr(argv[1], '/');
    printf("%-22s %s %s %-8s %6s x %-6d %9.4f s %10.0f tokens/s", name ? name + 1 : argv[1], argv[2], argv[3], argv[4], argv[5], l.n, best,
           (double)(generate ? l.new_tokens : l.unique_tokens) / best);
    printf("  (opened in %.1f s; worker busy %.3f s a pass, waiting %.3f, %.0f steps, %.0f overlapped; passes", opened, st.busy_s / 4,
           st.wait_s / 4, (double)st.steps / 4, (double)st.steps_overlapped / 4);
    for (int i = 0; i < 3; i++)
        printf(" %.4f", passes[i]);
    uint64_t routed = 0, seen = st.rows_computed * (uint64_t)engine_info(e)->config->n_layers;
    for (int i = 0; i < engine_info(e)->config->n_layers; i++)
        routed += st.rows_routed[i];
    printf("; %.1f %% of rows attend)\n", seen ? 100.0 * (double)routed / (double)seen : 0);
    engine_close(e);
    return 0;
}
