/* The engine's face: what it refuses and how it says so, cancelling, draining, prefix reuse counted in rows, non-finite logits; with one and with two
 * steps in flight on a device whose results come late (late_backend.h), and with one that fails.
 *   test_engine GOLDEN_DIR SCRATCH_DIR */
#include "engine/engine_private.h"
#include "tests/check.h"
#include "tests/engine/late_backend.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static const char *golden, *scratch;
static int steps_in_flight, queue_limit = 8, step_rows = 64;

static struct engine *open_model(const char *dir, bool cache, int max_len)
{
    struct engine_options o = {.model_dir = dir,
                               .dtype = "f32",
                               .n_threads = 2,
                               .max_model_len = max_len,
                               .max_batch_tokens = step_rows,
                               .prefix_cache = cache,
                               .steps_in_flight = steps_in_flight,
                               .bos_id = -1,
                               .eos_id = -1,
                               .max_queue = queue_limit};
    struct engine *e;
    struct err err;
    if (engine_open_on(&o, late_backend(), &e, &err) < 0) {
        fprintf(stderr, "%s: %s\n", dir, err.text);
        exit(1);
    }
    return e;
}

static struct engine *open_golden(const char *name, bool cache, int max_len)
{
    char dir[1024];
    snprintf(dir, sizeof(dir), "%s/%s", golden, name);
    return open_model(dir, cache, max_len);
}

static void expect_refusal(struct engine *e, struct eval_request q, const char *param, const char *value)
{
    struct engine_ticket *t;
    struct err err = {0};
    CHECK_INT(engine_submit(e, &q, 1, &t, &err), ERR_INVALID);
    CHECK_STR(err.param, param);
    if (!CHECK(strstr(err.text, value)))
        fprintf(stderr, "  \"%s\" does not say %s\n", err.text, value);
}

static void test_refusals(void)
{
    struct engine *e = open_golden("dtrnet-bilayer", true, 100);
    int32_t ids[200] = {1, 2, 3}, wild[] = {1, 320}, negative[] = {-1};
    struct eval_request ok = {.tokens = ids, .n_tokens = 3, .score_begin = 1, .top_p = 1}, q;
#define REFUSE(param, value, ...) (q = ok, __VA_ARGS__, expect_refusal(e, q, param, value))
    REFUSE("tokens", "no tokens", q.n_tokens = 0);
    REFUSE("tokens", "320", q.tokens = wild, q.n_tokens = 2);
    REFUSE("tokens", "-1", q.tokens = negative, q.n_tokens = 1);
    REFUSE("tokens", "102", q.n_tokens = 102);
    REFUSE("tokens", "100", q.n_tokens = 101, q.max_new = 1);
    REFUSE("max_new", "101", q.max_new = 101);
    REFUSE("max_new", "-2", q.max_new = -2);
    REFUSE("score_begin", "0", q.score_begin = 0);
    REFUSE("score_begin", "4", q.score_begin = 4);
    REFUSE("top_k", "21", q.top_k = 21);
    REFUSE("temperature", "-1", q.temperature = -1);
    REFUSE("temperature", "1.5", q.top_p = 1.5f);
    struct engine_ticket *t;
    struct err err;
    q = ok;
    q.n_tokens = 101; /* 100 positions: the limit itself */
    CHECK_INT(engine_submit(e, &q, 1, &t, &err), 0);
    CHECK(engine_wait(t, -1));
    CHECK_INT(engine_result(t, 0)->code, 0);
    engine_ticket_free(t);
    engine_drain(e);
    CHECK_INT(engine_submit(e, &ok, 1, &t, &err), ERR_DRAINING);
    engine_close(e);
}

static void test_queue_and_cancel(void)
{
    enum { MORE = 8 };
    struct engine *e = open_golden("dense-gqa-tied", true, 4000);
    int32_t ids[3000];
    struct eval_request many[9];
    struct engine_ticket *t[3] = {0}, *more[MORE] = {0};
    struct err err;
    for (int i = 0; i < 3000; i++)
        ids[i] = i % 320;
    for (int i = 0; i < 9; i++)
        many[i] = (struct eval_request){.tokens = ids + i, .n_tokens = 2900, .score_begin = 1, .top_p = 1};
    late_hold(true); /* a few steps, and the worker sleeps */
    CHECK_INT(engine_submit(e, many, 8, &t[0], &err), 0);
    bool refused = false;
    for (int i = 0; i < MORE && !refused; i++) /* the first may have left the queue by then */
        refused = engine_submit(e, many, 8, &more[i], &err) == ERR_BUSY;
    CHECK(refused);
    CHECK(!engine_wait(t[0], 0));
    engine_cancel(t[0]);
    late_hold(false);
    CHECK(engine_wait(t[0], -1));
    for (int i = 0; i < MORE; i++)
        engine_ticket_free(more[i]);
    for (int i = 0; i < 8; i++) /* queued, running or in flight */
        CHECK_INT(engine_result(t[0], i)->code, ERR_CANCELLED);
    engine_ticket_free(t[0]);
    CHECK_INT(engine_submit(e, many, 1, &t[1], &err), 0);
    engine_ticket_free(t[1]); /* frees what still runs */
    struct engine_stats st;
    engine_cache_clear(e);
    engine_stats(e, &st);
    CHECK_INT(st.kv_rows_held, 0);
    CHECK_INT(st.queued + st.running, 0);
    engine_close(e);
}

static void hold_device(void *user)
{
    late_hold(true);
}

/* A short request that comes while a long one runs, and others wait, takes the step under way and steps of its own: it does not wait for long ones. The
 * device is held while steps are counted, so that none passes meanwhile. */
static void test_short_beside_long(void)
{
    enum { LONG = 20000, LONGS = 3, SHORT = 20, MOST = 6 /* a long one takes 313 */ };
    struct engine *e = open_golden("dtrnet-bilayer", true, LONG);
    static int32_t ids[LONG];
    struct eval_request slow[LONGS];
    struct eval_request quick = {.tokens = ids + 7, .n_tokens = SHORT, .score_begin = 1, .top_p = 1, .on_done = hold_device};
    struct engine_ticket *t[2];
    struct engine_stats before, after;
    struct err err;
    for (int i = 0; i < LONG; i++)
        ids[i] = i * 31 % 317;
    for (int i = 0; i < LONGS; i++)
        slow[i] = (struct eval_request){.tokens = ids + i, .n_tokens = LONG - i, .score_begin = LONG - i, .max_new = 1, .top_p = 1};
    CHECK_INT(engine_submit(e, slow, LONGS, &t[0], &err), 0);
    do
        engine_stats(e, &before);
    while (before.steps < 2);
    late_hold(true);
    engine_stats(e, &before);
    CHECK_INT(engine_submit(e, &quick, 1, &t[1], &err), 0);
    late_hold(false);
    CHECK(engine_wait(t[1], -1));
    engine_stats(e, &after);
    if (!CHECK(after.steps - before.steps <= MOST))
        fprintf(stderr, "  the short request took %d steps\n", (int)(after.steps - before.steps));
    CHECK(!engine_wait(t[0], 0));
    late_hold(false);
    engine_ticket_free(t[1]);
    engine_ticket_free(t[0]);
    engine_close(e);
}

/* Rows that four continuations of one context cost. */
static int cost_of_siblings(bool cache, uint64_t *ret_held, uint64_t *ret_routed)
{
    struct engine *e = open_golden("dtrnet-bilayer", cache, 512);
    int32_t ids[4][410];
    struct eval_request q[4];
    struct engine_ticket *t;
    struct err err;
    for (int i = 0; i < 4; i++) {
        for (int p = 0; p < 410; p++)
            ids[i][p] = (p * 31 + (p < 400 ? 0 : i * 17 + 1)) % 320;
        q[i] = (struct eval_request){.tokens = ids[i], .n_tokens = 410, .score_begin = 400, .top_k = 1, .top_p = 1};
    }
    int rows = 0;
    CHECK_INT(engine_submit(e, q, 4, &t, &err), 0);
    CHECK(engine_wait(t, -1));
    for (int i = 0; i < 4; i++)
        rows += engine_result(t, i)->rows_computed;
    engine_ticket_free(t);
    struct engine_stats st;
    engine_stats(e, &st);
    *ret_held = st.kv_rows_held;
    *ret_routed = 0;
    for (int l = 0; l < 8; l++)
        *ret_routed += st.rows_routed[l];
    engine_close(e);
    return rows;
}

static void test_reuse(void)
{
    uint64_t held, routed;
    int alone = cost_of_siblings(false, &held, &routed), shared = cost_of_siblings(true, &held, &routed);
    CHECK_INT(alone, 4 * 409);
    CHECK_INT(shared, 409 + 3 * (9 + 1)); /* each sibling: its own rows, and the last context row once more for its first score */
    CHECK_INT(held, routed);
}

/* A checkpoint whose final norm blows up: finite weights, infinite logits. */
static void test_non_finite(void)
{
    char from[1200], to[1200], cmd[6000];
    snprintf(from, sizeof(from), "%s/dense-gqa-tied", golden);
    snprintf(to, sizeof(to), "%s/overflow", scratch);
    snprintf(cmd, sizeof(cmd), "rm -rf '%s' && cp -r '%s' '%s' && chmod -R u+w '%s'", to, from, to, to);
    if (!CHECK_INT(system(cmd), 0))
        return;
    snprintf(cmd, sizeof(cmd), "%s/model.safetensors", to);
    FILE *f = fopen(cmd, "r+b");
    static char head[65536];
    size_t got = fread(head, 1, sizeof(head) - 1, f);
    uint64_t header_len;
    memcpy(&header_len, head, 8);
    head[got] = 0;
    const char *at = strstr(head + 8, "\"model.norm.weight\"");
    long off = 0;
    if (!CHECK(at && sscanf(strstr(at, "data_offsets") + 14, " [%ld", &off) == 1))
        return;
    float huge = 3e38f;
    for (int i = 0; i < 96; i++) {
        fseek(f, (long)header_len + 8 + off + 4 * i, SEEK_SET);
        fwrite(&huge, 4, 1, f);
    }
    fclose(f);
    struct engine *e = open_model(to, true, 64);
    int32_t ids[] = {1, 2, 3};
    struct eval_request q = {.tokens = ids, .n_tokens = 3, .score_begin = 1, .top_p = 1};
    struct engine_ticket *t;
    struct err err;
    CHECK_INT(engine_submit(e, &q, 1, &t, &err), 0);
    CHECK(engine_wait(t, -1));
    CHECK_INT(engine_result(t, 0)->code, ERR_NUMERIC);
    CHECK(strstr(engine_result(t, 0)->err.text, "position 0"));
    engine_ticket_free(t);
    CHECK_INT(engine_health(e, &err), 0); /* the request failed, not the engine */
    engine_close(e);
}

/* Request i, of tokens that no other i begins with. */
static struct eval_request request(int32_t ids[100], int i, int n_tokens, int max_new)
{
    for (int p = 0; p < n_tokens; p++)
        ids[p] = (p * 29 + i * 40) % 320;
    return (struct eval_request){.tokens = ids, .n_tokens = n_tokens, .score_begin = 1, .max_new = max_new, .top_p = 1, .ignore_eos = true};
}

/* Steps that n sequences take from an empty cache, and how many of them were launched while another was in flight. */
static struct engine_stats steps_of(struct engine *e, const int *n_tokens, const int *max_new, int n)
{
    int32_t ids[8][100];
    struct eval_request q[8];
    struct engine_ticket *t;
    struct engine_stats before, after;
    struct err err;
    engine_cache_clear(e);
    engine_stats(e, &before);
    for (int i = 0; i < n; i++)
        q[i] = request(ids[i], i, n_tokens[i], max_new[i]);
    CHECK_INT(engine_submit(e, q, n, &t, &err), 0);
    CHECK(engine_wait(t, -1));
    for (int i = 0; i < n; i++)
        CHECK_INT(engine_result(t, i)->code, 0);
    engine_ticket_free(t);
    engine_stats(e, &after);
    return (struct engine_stats){.steps = after.steps - before.steps, .steps_overlapped = after.steps_overlapped - before.steps_overlapped};
}

/* Steps of 64 rows. Prompts enough for several steps overlap; less than half a step is launched behind another only if that one brings nothing back, or
 * if all that it brings back follows. */
static void test_steps_in_flight(void)
{
    static const int score[8] = {0}, generate[8] = {20, 20, 20, 20, 20, 20, 20, 20},
                     long_prompts[8] = {100, 100, 100, 100, 100, 100, 100, 100}, short_prompts[8] = {8, 8, 8, 8, 8, 8, 8, 8},
                     full_and_rest[] = {33, 33, 21}, mixed[] = {8, 91, 21}, one_generates[] = {20, 0, 0};
    struct engine *e = open_golden("dense-gqa-tied", true, 120);
    struct engine_stats st = steps_of(e, long_prompts, score, 8);
    CHECK(steps_in_flight == 2 ? st.steps_overlapped > st.steps / 2 : !st.steps_overlapped);
    st = steps_of(e, full_and_rest, score, 3);
    CHECK_INT(st.steps, 2);
    CHECK_INT(st.steps_overlapped, steps_in_flight - 1);
    st = steps_of(e, short_prompts, generate, 8);
    CHECK_INT(st.steps, 20);
    CHECK_INT(st.steps_overlapped, steps_in_flight == 2 ? 19 : 0); /* each row follows */
    st = steps_of(e, mixed, one_generates, 3);                     /* the third waits for the first two */
    CHECK_INT(st.steps, 20);
    CHECK_INT(st.steps_overlapped, steps_in_flight == 2 ? 18 : 0);
    engine_close(e);
}

/* The device fails at each call in turn: every request ends, with a result or with the reason, the engine says so and closes. */
/* The pool that an engine takes by itself has room for 64 sequences of full length at once, beside what is kept for small requests: they generate
 * together, not one part after the other. */
static void test_full_house(void)
{
    enum { N = 64, PROMPT = 4, NEW = 36 };
    queue_limit = N;
    step_rows = 8 * N;
    struct engine *e = open_golden("dtrnet-bilayer", false, PROMPT + NEW);
    queue_limit = 8;
    step_rows = 64;
    struct eval_request q[N];
    int32_t ids[N][PROMPT];
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < PROMPT; j++)
            ids[i][j] = 3 + i + j;
        q[i] = (struct eval_request){
            .tokens = ids[i], .n_tokens = PROMPT, .score_begin = PROMPT, .max_new = NEW, .top_p = 1, .ignore_eos = true};
    }
    struct engine_ticket *t;
    struct engine_stats st;
    struct err err;
    CHECK_INT(engine_submit(e, q, N, &t, &err), 0);
    CHECK(engine_wait(t, -1));
    for (int i = 0; i < N; i++)
        CHECK_INT(engine_result(t, i)->n_new, NEW);
    engine_ticket_free(t);
    engine_stats(e, &st);
    printf("%d steps of %d sequences\n", (int)st.steps, N);
    CHECK_INT(st.steps, NEW);
    engine_close(e);
}

static void test_device_failure(void)
{
    bool failed = true;
    int calls = 0;
    for (; failed && calls < 500; calls++) {
        struct engine *e = open_golden("dtrnet-bilayer", true, 120);
        struct engine_ticket *t, *refused;
        struct eval_request q[8];
        struct err err;
        int32_t ids[8][100];
        late_fail_at(calls + 1);
        for (int i = 0; i < 8; i++)
            q[i] = request(ids[i], i, 60, 3);
        CHECK_INT(engine_submit(e, q, 8, &t, &err), 0);
        CHECK(engine_wait(t, -1));
        failed = engine_health(e, &err) < 0;
        int lost = 0;
        for (int i = 0; i < 8; i++) {
            const struct eval_result *res = engine_result(t, i);
            lost += res->code < 0;
            CHECK(res->code == 0 || (failed && res->code == ERR_DEVICE && res->err.text[0]));
        }
        CHECK(!failed || (lost && err.code == ERR_DEVICE && err.text[0]));
        engine_ticket_free(t);
        CHECK_INT(engine_submit(e, q, 1, &refused, &err), failed ? ERR_DEVICE : 0);
        if (!failed)
            engine_ticket_free(refused);
        struct engine_stats st;
        engine_stats(e, &st);
        CHECK_INT(st.queued + st.running, 0);
        late_fail_at(0);
        engine_close(e);
    }
    CHECK(!failed && calls > 20);
}

static void test_bad_options(void)
{
    char dir[1024];
    snprintf(dir, sizeof(dir), "%s/dtrnet-bilayer", golden);
    struct engine_options o = {
        .model_dir = dir, .device = "cpu", .dtype = "f32", .bos_id = -1, .eos_id = -1, .max_model_len = 512, .kv_cache_bytes = 4096};
    struct engine *e;
    struct err err = {0};
    CHECK_INT(engine_open(&o, &e, &err), ERR_INVALID);
    CHECK_STR(err.param, "kv_cache_bytes");
    o.kv_cache_bytes = 0;
    o.dtype = "int3";
    CHECK_INT(engine_open(&o, &e, &err), ERR_INVALID);
    CHECK(strstr(err.text, "int3"));
    o.dtype = "f32";
    o.model_dir = "/nonexistent";
    CHECK(engine_open(&o, &e, &err) < 0);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    golden = argv[1];
    scratch = argv[2];
    for (steps_in_flight = 1; steps_in_flight <= 2; steps_in_flight++) {
        test_refusals();
        test_queue_and_cancel();
        test_short_beside_long();
        test_reuse();
        test_non_finite();
        test_steps_in_flight();
        test_full_house();
        test_device_failure();
    }
    test_bad_options();
    return check_result();
}
