/* The workloads that go straight into the engine. */
#include "server/bench/bench.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCORE_CONTEXTS = 32, GENERATE_PROMPT = 32 };

/* Runs the requests with an empty cache. *ret_s: seconds; *ret_routed: rows that attended, of rows times layers. */
static int run_once(struct bench *b, const struct eval_request *reqs, int n, double *ret_s, double *ret_routed, struct err *err)
{
    struct engine_ticket *t = NULL;
    double attended = 0, rows = 0;
    engine_cache_clear(b->engine);
    double begin = bench_seconds();
    int r = engine_submit(b->engine, reqs, n, &t, err);
    if (r >= 0)
        engine_wait(t, -1);
    *ret_s = bench_seconds() - begin;
    for (int i = 0; r >= 0 && i < n; i++) {
        const struct eval_result *res = engine_result(t, i);
        if (res->code < 0) {
            *err = res->err;
            r = res->code;
            break;
        }
        rows += (double)(res->rows_computed + res->rows_cached) * b->info->config->n_layers;
        for (int l = 0; l < b->info->config->n_layers; l++)
            attended += res->rows_routed[l];
    }
    *ret_routed = rows > 0 ? attended / rows : 0;
    engine_ticket_free(t);
    return r;
}

/* One workload: adds {"workload", ..., "seconds", "tokens_per_s"} to the report and prints a line. `tokens` are counted a run. */
static int measure(struct bench *b, const char *workload, int length, int batch, const struct eval_request *reqs, int n, double tokens,
                   struct err *err)
{
    double s[BENCH_MAX_REPEATS], cpu[BENCH_MAX_REPEATS], routed = 0;
    int r = 0;
    for (int i = -1; i < b->o->repeats && r >= 0; i++) { /* the first run warms up */
        double begin = bench_cpu_seconds();
        r = run_once(b, reqs, n, &s[i < 0 ? 0 : i], &routed, err);
        cpu[i < 0 ? 0 : i] = bench_cpu_seconds() - begin;
    }
    if (r < 0)
        return r;
    double mid = bench_median(s, b->o->repeats), mid_cpu = bench_median(cpu, b->o->repeats);
    if (!b->o->json)
        printf("%-10s length %6d batch %4d  %10.4f s  %10.1f tokens/s  %8.4f s of CPU  rows attended %.3f\n", workload, length, batch, mid,
               tokens / mid, mid_cpu, routed);
    json_t *row =
        json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "workload", workload, "length", length, "batch", batch, "tokens", tokens,
                  "seconds", mid, "best_seconds", s[0], "cpu_seconds", mid_cpu, "tokens_per_s", tokens / mid, "rows_attended", routed);
    return bench_add_row(b, row, err);
}

/* `batch` prompts of `length` tokens; of the head only the last row of each is computed, as for the first generated token. */
int bench_prefill(struct bench *b, int length, int batch, struct err *err)
{
    struct eval_request *reqs = calloc(batch, sizeof(*reqs));
    int32_t *tokens = bench_random_tokens(b, (size_t)length * batch);
    int r = reqs && tokens ? 0 : err_set(err, ERR_NOMEM, "no memory for %d prompts", batch);
    for (int i = 0; r >= 0 && i < batch; i++)
        reqs[i] = (struct eval_request){
            .tokens = tokens + (size_t)i * length, .n_tokens = length, .score_begin = length, .max_new = 1, .top_p = 1, .ignore_eos = true};
    if (r >= 0)
        r = measure(b, "prefill", length, batch, reqs, batch, (double)length * batch, err);
    free(reqs);
    free(tokens);
    return r;
}

/* SCORE_CONTEXTS questions with BENCH_CONTINUATIONS answers each, as a multiple choice task asks them. */
int bench_score(struct bench *b, struct err *err)
{
    enum { LENGTH = BENCH_CONTEXT + BENCH_CONTINUATION, N = SCORE_CONTEXTS * BENCH_CONTINUATIONS };
    struct eval_request reqs[N];
    int32_t *tokens = bench_random_tokens(b, (size_t)N * LENGTH);
    if (!tokens)
        return err_set(err, ERR_NOMEM, "no memory for %d sequences", N);
    for (int i = 0; i < N; i++) {
        const int32_t *context = tokens + (size_t)(i / BENCH_CONTINUATIONS) * BENCH_CONTINUATIONS * LENGTH;
        if (tokens + (size_t)i * LENGTH != context)
            memcpy(tokens + (size_t)i * LENGTH, context, BENCH_CONTEXT * sizeof(*tokens));
        reqs[i] =
            (struct eval_request){.tokens = tokens + (size_t)i * LENGTH, .n_tokens = LENGTH, .score_begin = BENCH_CONTEXT, .top_p = 1};
    }
    int r = measure(b, "score", LENGTH, N, reqs, N, (double)N * LENGTH, err);
    free(tokens);
    return r;
}

/* When the first and the latest token came, from the worker thread. */
struct pace {
    double first, last, cpu_first, cpu_last;
};

static void on_token(void *user)
{
    struct pace *p = user;
    p->last = bench_seconds();
    p->cpu_last = bench_cpu_seconds();
    if (p->first == 0) {
        p->first = p->last;
        p->cpu_first = p->cpu_last;
    }
}

/* One run: seconds, and seconds of processor time, from the first generated token of any sequence to the last. */
static int generate_once(struct bench *b, struct eval_request *reqs, struct pace *paces, int batch, double *ret_s, double *ret_cpu,
                         struct err *err)
{
    double ignored, routed;
    memset(paces, 0, (size_t)batch * sizeof(*paces));
    int r = run_once(b, reqs, batch, &ignored, &routed, err);
    const struct pace *first = paces, *last = paces;
    for (int j = 0; j < batch; j++) {
        first = paces[j].first > first->first ? &paces[j] : first;
        last = paces[j].last > last->last ? &paces[j] : last;
    }
    *ret_s = last->last - first->first;
    *ret_cpu = last->cpu_last - first->cpu_first;
    return r;
}

static int report_generate(struct bench *b, int batch, double s, double cpu, struct err *err)
{
    int length = b->o->generate;
    double made = (double)(length - 1) * batch, rate = 1e-9 * b->info->weight_bytes * (length - 1) / s;
    if (!b->o->json)
        printf("%-10s length %6d batch %4d  %10.4f s  %10.1f tokens/s  %8.4f s of CPU  weights read at %.1f GB/s\n", "generate", length,
               batch, s, made / s, cpu, rate);
    json_t *row = json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "workload", "generate", "length", length, "batch", batch, "seconds",
                            s, "cpu_seconds", cpu, "tokens", made, "tokens_per_s", made / s, "weights_gb_per_s", rate);
    return bench_add_row(b, row, err);
}

/* Tokens a second from the first generated token to the last, of all sequences together. */
int bench_generate(struct bench *b, int batch, struct err *err)
{
    struct eval_request *reqs = calloc(batch, sizeof(*reqs));
    struct pace *paces = calloc(batch, sizeof(*paces));
    int32_t *tokens = bench_random_tokens(b, (size_t)GENERATE_PROMPT * batch);
    double s[BENCH_MAX_REPEATS], cpu[BENCH_MAX_REPEATS];
    int r = reqs && paces && tokens ? 0 : err_set(err, ERR_NOMEM, "no memory for %d prompts", batch);
    for (int j = 0; r >= 0 && j < batch; j++)
        reqs[j] = (struct eval_request){.tokens = tokens + (size_t)j * GENERATE_PROMPT,
                                        .n_tokens = GENERATE_PROMPT,
                                        .score_begin = GENERATE_PROMPT,
                                        .max_new = b->o->generate,
                                        .top_p = 1,
                                        .ignore_eos = true,
                                        .on_token = on_token,
                                        .user = &paces[j]};
    for (int i = -1; r >= 0 && i < b->o->repeats; i++)
        r = generate_once(b, reqs, paces, batch, &s[i < 0 ? 0 : i], &cpu[i < 0 ? 0 : i], err);
    if (r >= 0)
        r = report_generate(b, batch, bench_median(s, b->o->repeats), bench_median(cpu, b->o->repeats), err);
    free(reqs);
    free(paces);
    free(tokens);
    return r;
}
