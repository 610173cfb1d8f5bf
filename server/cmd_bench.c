/* dtrnet bench: fixed workloads on random tokens, straight into the engine: prefill by length and batch, scoring of continuations that
 * share contexts, generation. Times are medians over --repeats runs, each with an empty prefix cache. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/json.h"
#include "server/commands.h"
#include "server/server.h"

enum {
    MAX_LIST = 16, MAX_REPEATS = 99,
    SCORE_CONTEXTS = 32, SCORE_CONTEXT = 160, SCORE_CONTINUATIONS = 4, SCORE_CONTINUATION = 12,
    GENERATE_PROMPT = 32,
    PROBE_BYTES = 512 << 20,
};

struct bench {
    const struct options *o;
    struct engine *engine;
    const struct engine_info *info;
    json_t *report;
    uint64_t random;
};

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static double seconds(void) { return clock_seconds(CLOCK_MONOTONIC); }

/* Of all threads: what is left to compare on a machine that others use too. */
static double cpu_seconds(void) { return clock_seconds(CLOCK_PROCESS_CPUTIME_ID); }

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, n, sizeof(*v), by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Token ids that no other call has in the same order: xorshift64*. */
static int32_t *random_tokens(struct bench *b, size_t n)
{
    int32_t *t = malloc(n * sizeof(*t));
    for (size_t i = 0; t && i < n; i++) {
        b->random ^= b->random >> 12;
        b->random ^= b->random << 25;
        b->random ^= b->random >> 27;
        t[i] = (int32_t)((b->random * 0x2545f4914f6cdd1dull >> 33) % (uint64_t)b->info->config->vocab);
    }
    return t;
}

/* Runs the requests with an empty cache. *ret_s: seconds; *ret_routed: rows that attended, of rows times layers. */
static int run_once(struct bench *b, const struct eval_request *reqs, int n, double *ret_s, double *ret_routed, struct err *err)
{
    struct engine_ticket *t = NULL;
    double attended = 0, rows = 0;
    engine_cache_clear(b->engine);
    double begin = seconds();
    int r = engine_submit(b->engine, reqs, n, &t, err);
    if (r >= 0)
        engine_wait(t, -1);
    *ret_s = seconds() - begin;
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
    double s[MAX_REPEATS], cpu[MAX_REPEATS], routed = 0;
    int r = 0;
    for (int i = -1; i < b->o->repeats && r >= 0; i++) {   /* the first run warms up */
        double begin = cpu_seconds();
        r = run_once(b, reqs, n, &s[i < 0 ? 0 : i], &routed, err);
        cpu[i < 0 ? 0 : i] = cpu_seconds() - begin;
    }
    if (r < 0)
        return r;
    double mid = median(s, b->o->repeats), mid_cpu = median(cpu, b->o->repeats);
    if (!b->o->json)
        printf("%-10s length %6d batch %4d  %10.4f s  %10.1f tokens/s  %8.4f s of CPU  rows attended %.3f\n", workload, length, batch, mid, tokens / mid, mid_cpu,
               routed);
    json_t *row = json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "workload", workload, "length", length, "batch", batch, "tokens", tokens, "seconds", mid,
                            "best_seconds", s[0], "cpu_seconds", mid_cpu, "tokens_per_s", tokens / mid, "rows_attended", routed);
    if (!row || json_array_append_new(json_object_get(b->report, "workloads"), row))
        return err_set(err, ERR_NOMEM, "no memory for the report");
    return 0;
}

/* `batch` prompts of `length` tokens; of the head only the last row of each is computed, as for the first generated token. */
static int bench_prefill(struct bench *b, int length, int batch, struct err *err)
{
    struct eval_request *reqs = calloc(batch, sizeof(*reqs));
    int32_t *tokens = random_tokens(b, (size_t)length * batch);
    int r = reqs && tokens ? 0 : err_set(err, ERR_NOMEM, "no memory for %d prompts", batch);
    for (int i = 0; r >= 0 && i < batch; i++)
        reqs[i] = (struct eval_request){.tokens = tokens + (size_t)i * length, .n_tokens = length, .score_begin = length, .max_new = 1,
                                        .top_p = 1, .ignore_eos = true};
    if (r >= 0)
        r = measure(b, "prefill", length, batch, reqs, batch, (double)length * batch, err);
    free(reqs);
    free(tokens);
    return r;
}

/* SCORE_CONTEXTS questions with SCORE_CONTINUATIONS answers each, as a multiple choice task asks them. */
static int bench_score(struct bench *b, struct err *err)
{
    enum { LENGTH = SCORE_CONTEXT + SCORE_CONTINUATION, N = SCORE_CONTEXTS * SCORE_CONTINUATIONS };
    struct eval_request reqs[N];
    int32_t *tokens = random_tokens(b, (size_t)N * LENGTH);
    if (!tokens)
        return err_set(err, ERR_NOMEM, "no memory for %d sequences", N);
    for (int i = 0; i < N; i++) {
        const int32_t *context = tokens + (size_t)(i / SCORE_CONTINUATIONS) * SCORE_CONTINUATIONS * LENGTH;
        if (tokens + (size_t)i * LENGTH != context)
            memcpy(tokens + (size_t)i * LENGTH, context, SCORE_CONTEXT * sizeof(*tokens));
        reqs[i] = (struct eval_request){.tokens = tokens + (size_t)i * LENGTH, .n_tokens = LENGTH, .score_begin = SCORE_CONTEXT, .top_p = 1};
    }
    int r = measure(b, "score", LENGTH, N, reqs, N, (double)N * LENGTH, err);
    free(tokens);
    return r;
}

/* When the first and the latest token came, from the worker thread. */
struct pace {
    double first, last, cpu_first, cpu_last;
};

static bool on_token(void *user, const struct eval_token *t)
{
    struct pace *p = user;
    p->last = seconds();
    p->cpu_last = cpu_seconds();
    if (p->first == 0) {
        p->first = p->last;
        p->cpu_first = p->cpu_last;
    }
    return false;
}

/* Tokens a second from the first generated token to the last, of all sequences together. */
static int bench_generate(struct bench *b, int batch, struct err *err)
{
    struct eval_request *reqs = calloc(batch, sizeof(*reqs));
    struct pace *paces = calloc(batch, sizeof(*paces));
    int32_t *tokens = random_tokens(b, (size_t)GENERATE_PROMPT * batch);
    double s[MAX_REPEATS], cpu[MAX_REPEATS], ignored, routed;
    int r = reqs && paces && tokens ? 0 : err_set(err, ERR_NOMEM, "no memory for %d prompts", batch);
    for (int i = -1; r >= 0 && i < b->o->repeats; i++) {
        for (int j = 0; j < batch; j++) {
            paces[j] = (struct pace){0};
            reqs[j] = (struct eval_request){.tokens = tokens + (size_t)j * GENERATE_PROMPT, .n_tokens = GENERATE_PROMPT,
                                            .score_begin = GENERATE_PROMPT, .max_new = b->o->generate, .top_p = 1, .ignore_eos = true,
                                            .on_token = on_token, .user = &paces[j]};
        }
        r = run_once(b, reqs, batch, &ignored, &routed, err);
        const struct pace *first = paces, *last = paces;
        for (int j = 0; j < batch; j++) {
            first = paces[j].first > first->first ? &paces[j] : first;
            last = paces[j].last > last->last ? &paces[j] : last;
        }
        s[i < 0 ? 0 : i] = last->last - first->first;
        cpu[i < 0 ? 0 : i] = last->cpu_last - first->cpu_first;
    }
    if (r >= 0) {
        double mid = median(s, b->o->repeats), mid_cpu = median(cpu, b->o->repeats), tokens_made = (double)(b->o->generate - 1) * batch;
        if (!b->o->json)
            printf("%-10s length %6d batch %4d  %10.4f s  %10.1f tokens/s  %8.4f s of CPU  weights read at %.1f GB/s\n", "generate", b->o->generate, batch, mid,
                   tokens_made / mid, mid_cpu, 1e-9 * b->info->weight_bytes * (b->o->generate - 1) / mid);
        json_t *row = json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "workload", "generate", "length", b->o->generate, "batch", batch, "seconds", mid,
                                "cpu_seconds", mid_cpu, "tokens", tokens_made, "tokens_per_s", tokens_made / mid, "weights_gb_per_s", 1e-9 * b->info->weight_bytes * (b->o->generate - 1) / mid);
        if (!row || json_array_append_new(json_object_get(b->report, "workloads"), row))
            r = err_set(err, ERR_NOMEM, "no memory for the report");
    }
    free(reqs);
    free(paces);
    free(tokens);
    return r;
}

/* ---- what the machine can read ---- */

struct reader {
    pthread_t thread;
    const uint64_t *p;
    size_t n;
    uint64_t sum;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    uint64_t s[8] = {0};
    for (size_t i = 0; i + 8 <= r->n; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += r->p[i + j];
    for (int j = 0; j < 8; j++)
        r->sum += s[j];
    return NULL;
}

/* GB/s with the engine's number of threads, the best of several passes over memory that no cache holds; 0 if it cannot be told. */
static double probe_read(int threads)
{
    struct reader *r = calloc(threads, sizeof(*r));
    size_t words = PROBE_BYTES / sizeof(uint64_t) / threads;
    uint64_t *p = malloc(words * threads * sizeof(*p));
    double best = 0;
    if (!r || !p)
        threads = 0;
    else
        memset(p, 1, words * threads * sizeof(*p));
    for (int pass = 0; pass < 5 && threads; pass++) {
        int started = 0;
        double begin = seconds();
        for (; started < threads; started++) {
            r[started] = (struct reader){.p = p + words * started, .n = words};
            if (pthread_create(&r[started].thread, NULL, read_all, &r[started]))
                break;
        }
        for (int i = 0; i < started; i++)
            pthread_join(r[i].thread, NULL);
        double rate = 1e-9 * words * started * sizeof(*p) / (seconds() - begin);
        best = rate > best ? rate : best;
    }
    free(r);
    free(p);
    return best;
}

/* ---- the command ---- */

/* "512,2048" to numbers. */
static int read_list(const char *name, const char *text, int max, int ret[MAX_LIST], int *ret_n, struct err *err)
{
    *ret_n = 0;
    for (const char *p = text; *p; p += *p == ',') {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || v < 1 || v > max || *ret_n == MAX_LIST)
            return err_field(err, ERR_INVALID, name, "%s must be at most %d numbers in 1..%d with commas between, not \"%.60s\"", name, MAX_LIST, max, text);
        ret[(*ret_n)++] = (int)v;
        p = end;
    }
    return 0;
}

/* Memory that the process holds now, 0 if it cannot be told. */
static size_t resident_bytes(void)
{
    size_t size, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%zu %zu", &size, &pages) != 2)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int add_totals(struct bench *b, double read_rate, struct err *err)
{
    size_t resident = resident_bytes();
    const struct engine_info *i = b->info;
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:f}", "version", DTRNET_VERSION, "device", i->device, "dtype", i->dtype,
                          "numerics", i->numerics_class, "threads", i->n_threads, "max_batch_tokens", i->max_batch_tokens, "weight_bytes",
                          (json_int_t)i->weight_bytes, "kv_row_bytes", (json_int_t)i->kv_row_bytes, "kv_rows_total", (json_int_t)i->kv_rows_total,
                          "resident_bytes", (json_int_t)resident, "read_gb_per_s", read_rate);
    int r = j && !json_object_update(b->report, j) ? 0 : err_set(err, ERR_NOMEM, "no memory for the report");
    json_decref(j);
    if (r >= 0 && b->o->json && (json_dumpf(b->report, stdout, JSON_INDENT(1)) || putchar('\n') == EOF))
        r = err_set(err, ERR_IO, "cannot write the report");
    else if (r >= 0 && !b->o->json)
        printf("weights %.1f MB, KV row %zu bytes, resident %.1f MB, memory read by %d threads %.1f GB/s\n", 1e-6 * i->weight_bytes,
               i->kv_row_bytes, 1e-6 * resident, i->n_threads, read_rate);
    return r;
}

static int run(struct server *s, struct err *err)
{
    struct bench b = {.o = s->options, .engine = s->engine, .info = s->info, .random = 88172645463325252ull};
    int lengths[MAX_LIST], batches[MAX_LIST], n_lengths, n_batches;
    int r = read_list("lengths", b.o->lengths, b.info->max_model_len, lengths, &n_lengths, err);
    if (r >= 0)
        r = read_list("batches", b.o->batches, 4096, batches, &n_batches, err);
    if (r >= 0 && !(b.report = json_pack("{s:[]}", "workloads")))
        r = err_set(err, ERR_NOMEM, "no memory for the report");
    double rate = strstr(b.o->workloads, "generate") && !strcmp(b.info->device, "cpu") ? probe_read(b.info->n_threads) : 0;
    for (int i = 0; r >= 0 && strstr(b.o->workloads, "prefill") && i < n_lengths; i++)
        for (int j = 0; r >= 0 && j < n_batches; j++)
            r = bench_prefill(&b, lengths[i], batches[j], err);
    if (r >= 0 && strstr(b.o->workloads, "score"))
        r = bench_score(&b, err);
    for (int j = 0; r >= 0 && strstr(b.o->workloads, "generate") && j < n_batches; j++)
        r = bench_generate(&b, batches[j], err);
    if (r >= 0)
        r = add_totals(&b, rate, err);
    json_decref(b.report);
    return r;
}

static int bench(struct options *o, struct arena *arena, struct log *log, struct err *err)
{
    struct server *s = NULL;
    int r = server_open(o, log, &s, err);
    if (r >= 0)
        r = run(s, err);
    server_close(s);
    return r;
}

int cmd_bench(int argc, char **argv)
{
    return command_run(COMMAND_BENCH, "time fixed workloads on random tokens", argc, argv, bench);
}
