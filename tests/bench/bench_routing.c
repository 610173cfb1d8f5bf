/* What routing saves: a dense and a routed checkpoint of the same shape prefill the same number of tokens in turn, with the time of each op
 * summed by kind.
 *
 *   bench_routing DENSE_DIR ROUTED_DIR LENGTH THREADS ROUNDS [ROWS]      ROWS: of a step; 0: the default
 *
 * Prints one JSON object: medians over the rounds. The engine is opened on a wrapped backend, so the ops are those that it issues. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include "engine/engine_private.h"
#include "kernels/backend.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ROUNDS = 32, MODELS = 2 };
enum kind { ATTENTION, QKV, ROUTER, MATMUL, ALL, KINDS };
static const char *const kind_names[KINDS] = {"attention", "qkv", "router", "other_matmuls", "all"};

/* ---- ops with a clock ---- */

static struct timed {
    struct kern_ctx *k;
    const struct kern_ops *real;
    struct kern_ops ops;
    double seconds[KINDS];
} timed[MODELS];
static int n_timed;
static const struct backend *real_backend;
static struct backend wrapped;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct timed *timed_of(const struct kern_ctx *k)
{
    return &timed[timed[0].k != k];
}

/* matmul gives q, k and v, or parts of them; matmul_bypass the values of the linear path. */
static enum kind kind_of(const char *op)
{
    return !strcmp(op, "attention")                                      ? ATTENTION
           : !strncmp(op, "route_", 6) || !strcmp(op, "matmul_accurate") ? ROUTER
           : !strcmp(op, "matmul") || !strcmp(op, "matmul_bypass")       ? QKV
           : !strncmp(op, "matmul", 6)                                   ? MATMUL
                                                                         : ALL;
}

/* The time of a whole op goes to its kind; the ops that it calls itself are the backend's. */
#define OP(name, kind, bits, args, ...)              \
    static int name##_timed(__VA_ARGS__)             \
    {                                                \
        struct timed *t = timed_of(k);               \
        double begin = now();                        \
        k->ops = t->real;                            \
        int r = k->ops->name args;                   \
        k->ops = &t->ops;                            \
        t->seconds[kind_of(#name)] += now() - begin; \
        return r;                                    \
    }
#include "kernels/op_list.h"

static int open_timed(const struct backend_config *c, struct kern_ctx **ret, struct err *err)
{
    int r = real_backend->open(c, ret, err);
    if (r < 0)
        return r;
    struct timed *t = &timed[n_timed++];
    *t = (struct timed){.k = *ret, .real = (*ret)->ops, .ops = *(*ret)->ops};
#define OP(name, kind, bits, args, ...) t->ops.name = name##_timed;
#include "kernels/op_list.h"
    (*ret)->ops = &t->ops;
    return 0;
}

static const struct backend *timed_backend(void)
{
    struct err err;
    if (backend_find("cpu", &real_backend, &err) < 0)
        return NULL;
    wrapped = *real_backend;
    wrapped.open = open_timed;
    return &wrapped;
}

/* ---- rounds ---- */

struct contender {
    struct engine *e;
    struct timed *t;
    double seconds[MAX_ROUNDS][KINDS];
    double attended, executed; /* shares of rows, of layers with a router */
    int routed_layers;
    uint64_t kv_rows, rows; /* rows held after a prompt, and rows that attended */
};

static void stop(const struct err *err)
{
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void open_model(struct contender *c, const char *dir, int length, int threads, int step_rows)
{
    struct err err;
    struct engine_options o = {.model_dir = dir,
                               .dtype = "bf16",
                               .n_threads = threads,
                               .bos_id = -1,
                               .eos_id = -1,
                               .prefix_cache = true,
                               .max_batch_tokens = step_rows,
                               .max_model_len = length + 1};
    c->t = &timed[n_timed];
    if (engine_open_on(&o, timed_backend(), &c->e, &err) < 0)
        stop(&err);
    const struct model_config *m = engine_info(c->e)->config;
    for (int l = 0; l < m->n_layers; l++)
        c->routed_layers += layer_is_routed(&engine_info(c->e)->plan[l]);
}

static void take_counts(struct contender *c, const struct eval_result *res)
{
    const struct engine_info *f = engine_info(c->e);
    struct engine_stats st;
    engine_stats(c->e, &st);
    c->kv_rows = st.kv_rows_held;
    c->rows = 0;
    c->attended = c->executed = 0;
    for (int l = 0; l < f->config->n_layers; l++) {
        c->rows += (uint64_t)res->rows_routed[l];
        if (layer_is_routed(&f->plan[l])) {
            c->attended += (double)res->rows_routed[l] / res->n_rows / c->routed_layers;
            c->executed += (double)res->rows_executed[l] / res->n_rows / c->routed_layers;
        }
    }
}

static void run(struct contender *c, const int32_t *tokens, int length, double *ret_seconds)
{
    struct eval_request q = {.tokens = tokens, .n_tokens = length, .score_begin = length, .max_new = 1, .top_p = 1, .ignore_eos = true};
    struct engine_ticket *t;
    struct err err;
    engine_cache_clear(c->e);
    memset(c->t->seconds, 0, sizeof(c->t->seconds));
    double begin = now();
    if (engine_submit(c->e, &q, 1, &t, &err) < 0)
        stop(&err);
    engine_wait(t, -1);
    c->t->seconds[ALL] = now() - begin;
    if (engine_result(t, 0)->code < 0)
        stop(&engine_result(t, 0)->err);
    take_counts(c, engine_result(t, 0));
    engine_ticket_free(t);
    memcpy(ret_seconds, c->t->seconds, sizeof(c->t->seconds));
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static json_t *report(const struct contender *c, int rounds)
{
    json_t *j = json_object();
    for (int kind = 0; kind < KINDS; kind++) {
        double v[MAX_ROUNDS];
        for (int i = 0; i < rounds; i++)
            v[i] = c->seconds[i][kind];
        qsort(v, (size_t)rounds, sizeof(*v), by_value);
        json_object_set_new(j, kind_names[kind], json_real(rounds % 2 ? v[rounds / 2] : (v[rounds / 2 - 1] + v[rounds / 2]) / 2));
    }
    json_object_set_new(j, "routed_layers", json_integer(c->routed_layers));
    json_object_set_new(j, "attended", json_real(c->attended));
    json_object_set_new(j, "executed", json_real(c->executed));
    json_object_set_new(j, "kv_rows", json_integer((json_int_t)c->kv_rows));
    json_object_set_new(j, "rows_that_attended", json_integer((json_int_t)c->rows));
    json_object_set_new(j, "kv_row_bytes", json_integer((json_int_t)engine_info(c->e)->kv_row_bytes));
    return j;
}

int main(int argc, char **argv)
{
    static struct contender c[MODELS];
    int length = argc > 3 ? atoi(argv[3]) : 0, threads = argc > 4 ? atoi(argv[4]) : 0, rounds = argc > 5 ? atoi(argv[5]) : 0;
    if (length < 2 || threads < 1 || rounds < 1 || rounds > MAX_ROUNDS)
        return fprintf(stderr, "bench_routing: see the head of the source\n"), 2;
    for (int i = 0; i < MODELS; i++)
        open_model(&c[i], argv[1 + i], length, threads, argc > 6 ? atoi(argv[6]) : 0);
    int32_t *tokens = malloc(sizeof(*tokens) * (size_t)length);
    for (int r = -1; r < rounds; r++) { /* the first warms up */
        for (int i = 0; i < length; i++)
            tokens[i] = rand() % engine_info(c[0].e)->config->vocab;
        for (int i = 0; i < MODELS; i++)
            run(&c[i], tokens, r < 0 && length > 512 ? 512 : length, c[i].seconds[r < 0 ? 0 : r]);
    }
    json_t *j = json_pack("{s:i, s:i, s:i, s:i, s:o, s:o}", "length", length, "threads", threads, "rounds", rounds, "step_rows",
                          engine_info(c[0].e)->max_batch_tokens, "dense", report(&c[0], rounds), "routed", report(&c[1], rounds));
    json_dumpf(j, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(j);
    free(tokens);
    for (int i = 0; i < MODELS; i++)
        engine_close(c[i].e);
    return 0;
}
