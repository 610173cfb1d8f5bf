/* A model computed by several ranks gives the bits of one device: scores, alternatives, decisions, what routers compared, and generated tokens, for every
 * checkpoint of the directories, in f32 and bf16, by 2, 4 and 6 ranks where these divide it; else they are refused by name. When a rank fails, at
 * each of its calls in turn, nobody waits for ever: another group answers with the same bits, and without one all requests end.
 *
 *   test_ranks DIR... */
#include "engine/engine_private.h"
#include "engine/model/share.h"
#include "tests/check.h"
#include "tests/engine/late_backend.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5, LEN = 70, NEW = 6, TOP = 3 };

static int32_t tokens[N][LEN];
static struct eval_request reqs[N];
static int n_equal, n_refused;

/* Two that share a beginning, one that is short, two that go on. */
static void make_requests(int vocab)
{
    uint32_t x = 1;
    for (int i = 0; i < N; i++) {
        int n = i == 2 ? 3 : LEN - 7 * i;
        for (int t = 0; t < n; t++) {
            x = x * 1664525u + 1013904223u;
            tokens[i][t] = i == 1 && t < 40 ? tokens[0][t] : (int32_t)(x >> 8) % vocab;
        }
        reqs[i] = (struct eval_request){.tokens = tokens[i],
                                        .n_tokens = n,
                                        .score_begin = 1,
                                        .top_k = TOP,
                                        .max_new = i > 2 ? NEW : 0,
                                        .temperature = i == 4 ? 0.8f : 0,
                                        .top_p = 1,
                                        .seed = 5,
                                        .ignore_eos = true,
                                        .want_routing = true,
                                        .want_probs = true};
    }
}

static struct engine *open_ranks(const char *dir, const char *dtype, int n, struct err *err)
{
    const struct engine_options o = {.model_dir = dir,
                                     .device = "cpu",
                                     .dtype = dtype,
                                     .tensor_parallel = n,
                                     .n_threads = 2,
                                     .max_model_len = 128,
                                     .max_batch_tokens = 48,
                                     .kv_cache_bytes = (size_t)16 << 20,
                                     .expert_choice = strstr(dir, "expert") ? "threshold" : NULL,
                                     .prefix_cache = true,
                                     .bos_id = -1,
                                     .eos_id = -1};
    struct engine *e = NULL;
    return engine_open(&o, &e, err) < 0 ? NULL : e;
}

static struct engine_ticket *run(struct engine *e)
{
    struct engine_ticket *t = NULL;
    struct err err;
    if (!CHECK_INT(engine_submit(e, reqs, N, &t, &err), 0)) {
        fprintf(stderr, "  %s\n", err.text);
        exit(1);
    }
    engine_wait(t, -1);
    return t;
}

static bool same(const struct eval_result *a, const struct eval_result *b, size_t layers)
{
    size_t n = (size_t)a->n_scored, rows = (size_t)a->n_rows, fresh = (size_t)a->n_new;
    return !a->code && !b->code && a->n_scored == b->n_scored && a->n_rows == b->n_rows && a->n_new == b->n_new &&
           !memcmp(a->logprobs, b->logprobs, n * 4) && !memcmp(a->top_ids, b->top_ids, n * TOP * 4) &&
           !memcmp(a->top_logprobs, b->top_logprobs, n * TOP * 4) && !memcmp(a->routing, b->routing, layers * (size_t)a->n_routing) &&
           !memcmp(a->probs, b->probs, rows * layers * 4) && !memcmp(a->skip_probs, b->skip_probs, rows * layers * 4) &&
           !memcmp(a->new_tokens, b->new_tokens, fresh * 4) && !memcmp(a->new_logprobs, b->new_logprobs, fresh * 4);
}

static void check_ranks(const char *dir, const char *dtype, int n, const struct engine_info *info, struct engine_ticket *want)
{
    struct err err = {0}, why = {0};
    struct engine *e = open_ranks(dir, dtype, n, &err);
    if (share_check(n, info->config, &why) < 0) {
        CHECK(!e && strstr(err.text, "tensor_parallel") != NULL);
        CHECK_STR(err.text, why.text);
        n_refused++;
        return;
    }
    if (!CHECK(e != NULL)) {
        fprintf(stderr, "  %s by %d ranks: %s\n", dir, n, err.text);
        return;
    }
    struct engine_ticket *got = run(e);
    for (int i = 0; i < N; i++)
        if (CHECK(same(engine_result(got, i), engine_result(want, i), (size_t)info->config->n_layers)))
            n_equal++;
        else
            fprintf(stderr, "  request %d of %s in %s by %d ranks\n", i, dir, dtype, n);
    engine_ticket_free(got);
    engine_close(e);
}

static void check_model(const char *dir, const char *dtype)
{
    static const int counts[] = {2, 4, 6};
    struct err err;
    struct engine *one = open_ranks(dir, dtype, 1, &err);
    if (!one) /* some are there to be refused */
        return;
    make_requests(engine_info(one)->config->vocab);
    struct engine_ticket *want = run(one);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        check_ranks(dir, dtype, counts[i], engine_info(one), want);
    engine_ticket_free(want);
    engine_close(one);
}

/* ---- a rank fails ------------------------------------------------------------------------------------------------------- */
static struct engine *open_late(const char *dir, const char *devices)
{
    const struct engine_options o = {.model_dir = dir,
                                     .dtype = "f32",
                                     .device_list = devices,
                                     .tensor_parallel = 2,
                                     .n_threads = 2,
                                     .max_model_len = 128,
                                     .max_batch_tokens = 48,
                                     .steps_in_flight = 2,
                                     .kv_cache_bytes = (size_t)16 << 20,
                                     .prefix_cache = true,
                                     .bos_id = -1,
                                     .eos_id = -1};
    struct engine *e = NULL;
    struct err err;
    if (!CHECK_INT(engine_open_on(&o, late_backend(), &e, &err), 0))
        exit(1);
    return e;
}

/* Returns false when the device makes fewer calls. */
static bool fail_rank(const char *dir, const char *devices, int device, int call, struct engine_ticket *want)
{
    struct engine *e = open_late(dir, devices);
    const struct engine_info *info = engine_info(e);
    bool alone = info->n_devices == 1;
    late_fail_device_at(device, call);
    struct engine_ticket *got = run(e);
    bool reached = alone ? engine_health(e, NULL) < 0 : engine_device_health(e, 1, NULL) < 0;
    for (int i = 0; i < N; i++) {
        const struct eval_result *r = engine_result(got, i);
        bool ended = alone && reached && r->code == ERR_DEVICE;
        if (!CHECK(ended || same(r, engine_result(want, i), (size_t)info->config->n_layers)))
            fprintf(stderr, "  request %d of %s, call %d of device %d failing: code %d\n", i, dir, call, device, r->code);
    }
    CHECK(alone || engine_health(e, NULL) == 0);
    engine_ticket_free(got);
    engine_close(e);
    late_fail_at(0);
    return reached;
}

static void check_failures_of(const char *golden)
{
    char dir[1024];
    struct err err;
    snprintf(dir, sizeof(dir), "%s/dtrnet-bilayer", golden);
    struct engine *one = open_ranks(dir, "f32", 1, &err);
    if (!CHECK(one != NULL))
        return;
    make_requests(engine_info(one)->config->vocab);
    struct engine_ticket *want = run(one);
    for (int device = 2; device < 4; device++) {
        int call = 1;
        while (call < 1000 && fail_rank(dir, "0,1,2,3", device, call, want))
            call++;
        CHECK(call > 10 && call < 1000);
    }
    for (int device = 0; device < 2; device++)
        for (int call = 1; call < 1000 && fail_rank(dir, "0,1", device, call, want); call += 3)
            ;
    engine_ticket_free(want);
    engine_close(one);
}

int main(int argc, char **argv)
{
    check_failures_of(argv[1]);
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        for (struct dirent *f; d && (f = readdir(d));) {
            char dir[1024];
            snprintf(dir, sizeof(dir), "%s/%s", argv[i], f->d_name);
            if (f->d_name[0] == '.' || strstr(dir, "deep92")) /* test_traffic has the deep one */
                continue;
            check_model(dir, "f32");
            check_model(dir, "bf16");
        }
        closedir(d);
    }
    printf("%d requests equal, %d counts of ranks refused\n", n_equal, n_refused);
    CHECK(n_equal > 500 && n_refused > 20);
    return check_result();
}
