/* Bitwise invariance on random traffic: scores, alternatives, generated tokens, routing and its probabilities are the same bits whatever runs
 * beside it. The reference comes from an engine that computes one whole sequence at a time on one thread without a prefix cache; the same
 * requests then go, in random groups, lengths, orders and options, through engines that differ in batch size, threads, cache, steps in flight, and a
 * pool so small that it evicts. On the CPU a step's results arrive as late as they may (late_backend.h). In float32 the reference may come from
 * another device: DTRNET_TEST_REFERENCE_DEVICE=cpu beside DTRNET_TEST_DEVICE=cuda.
 *
 * $DTRNET_TEST_DEVICE: a real device for all of it, $DTRNET_TEST_DEVICES: how many of them there are (1), $DTRNET_TEST_REFERENCE_DEVICE: another one
 * for the reference. $DTRNET_TEST_CPU_LEVEL and $DTRNET_TEST_CUDA_LEVEL: the kernels. $DTRNET_TEST_ONLY: only the settings whose names hold this.
 *
 *   test_traffic MODEL_DIR DTYPE N_REQUESTS [SEED]     exits 1 at the first difference, naming the request */
#include "engine/engine_private.h"
#include "engine/model/share.h"
#include "tests/engine/late_backend.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_SEQUENCES 24
#define MAX_LEN 160
#define MAX_NEW 9
#define TOP 20
#define OPEN_GROUPS 12
#define MAX_GROUP 6

static uint64_t rng_state;

static uint32_t rnd(uint32_t n) /* splitmix64 */
{
    uint64_t z = rng_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 33) % n;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static const char *inference; /* of expert choice; NULL: the model's own */
static int eos = -1;          /* a token at which some generations end */

struct setting {
    const char *name;
    int threads, batch, in_flight;
    bool cache;
    int pool;            /* rows a layer; one sequence needs MAX_LEN + MAX_NEW; 0: the engine's choice */
    int states;          /* places for router states; 0: the engine's choice */
    const char *devices; /* NULL: one */
    bool loses;          /* the second device fails on the way */
    int ranks;           /* of a group of devices that compute together; 0: 1 */
    int draws;           /* tokens drawn at a time; 0: the engine's choice */
};

static struct engine *open_engine(const char *dir, const char *dtype, const struct setting *s, const struct engine_info *like)
{
    struct engine_options o = {.model_dir = dir,
                               .dtype = dtype,
                               .cpu_level = getenv("DTRNET_TEST_CPU_LEVEL"),
                               .cuda_level = getenv("DTRNET_TEST_CUDA_LEVEL"),
                               .matmul_precision = getenv("DTRNET_TEST_PRECISION"),
                               .n_threads = s->threads,
                               .max_model_len = MAX_LEN + MAX_NEW,
                               .max_batch_tokens = s->batch,
                               .prefix_cache = s->cache,
                               .steps_in_flight = s->in_flight,
                               .state_slots = s->states,
                               .draw_rows = s->draws,
                               .expert_choice = inference,
                               .bos_id = -1,
                               .eos_id = eos};
    if (s->pool)
        o.kv_cache_bytes = (size_t)s->pool * (size_t)like->config->n_layers * (like->kv_row_bytes + sizeof(int));
    struct engine *e;
    struct err err;
    /* The CPU as a late device unless another is named; the reference may be computed on another one still. */
    const char *device = getenv("DTRNET_TEST_DEVICE"), *of_reference = like ? NULL : getenv("DTRNET_TEST_REFERENCE_DEVICE");
    device = of_reference ? of_reference : device;
    o.device = device;
    o.device_list = s->devices;
    o.tensor_parallel = s->ranks;
    if ((device ? engine_open(&o, &e, &err) : engine_open_on(&o, late_backend(), &e, &err)) < 0)
        die("open", err.text);
    return e;
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */
struct reference {
    int32_t tokens[MAX_LEN];
    int n;
    float lp[MAX_LEN];
    int32_t top_id[MAX_LEN][TOP];
    float top_lp[MAX_LEN][TOP];
    uint8_t *routing;          /* [n_layers][n - 1] */
    float *probs, *skip_probs; /* [n - 1][n_layers] */
    struct continuation {
        bool known;
        int n_new;
        enum finish_reason finish;
        int32_t tokens[MAX_NEW];
        float lp[MAX_NEW];
    } after[MAX_LEN + 1][2]; /* by prompt length; greedy, sampled */
};

static struct reference refs[N_SEQUENCES];
static int top_max; /* the smaller of TOP and the vocabulary */

/* Sequences share prefixes of random length, so that the tree splits. */
static void make_tokens(int vocab)
{
    for (int i = 0; i < N_SEQUENCES; i++) {
        struct reference *r = &refs[i];
        r->n = 2 + (int)rnd(MAX_LEN - 1);
        for (int t = 0; t < r->n; t++)
            r->tokens[t] = (int32_t)rnd((uint32_t)vocab);
        if (i && rnd(4)) {
            const struct reference *from = &refs[rnd((uint32_t)i)];
            int shared = 1 + (int)rnd((uint32_t)(from->n < r->n ? from->n : r->n));
            memcpy(r->tokens, from->tokens, (size_t)shared * sizeof(int32_t));
        }
    }
}

static const struct eval_result *run_alone(struct engine *e, const struct eval_request *q, struct engine_ticket **t)
{
    struct err err;
    if (engine_submit(e, q, 1, t, &err) < 0)
        die("submit", err.text);
    engine_wait(*t, -1);
    if (engine_result(*t, 0)->code < 0)
        die("reference", engine_result(*t, 0)->err.text);
    return engine_result(*t, 0);
}

static float *copy_floats(const float *from, size_t n)
{
    float *to = malloc(n * sizeof(*to));
    return memcpy(to, from, n * sizeof(*to));
}

static void make_reference(struct engine *e, struct reference *r)
{
    struct engine_ticket *t;
    struct eval_request q = {
        .tokens = r->tokens, .n_tokens = r->n, .score_begin = 1, .top_k = top_max, .top_p = 1, .want_routing = true, .want_probs = true};
    const struct eval_result *res = run_alone(e, &q, &t);
    size_t bytes = (size_t)engine_info(e)->config->n_layers * (size_t)(r->n - 1);
    r->routing = malloc(bytes);
    memcpy(r->routing, res->routing, bytes);
    r->probs = copy_floats(res->probs, bytes);
    r->skip_probs = copy_floats(res->skip_probs, bytes);
    for (int i = 1; i < r->n; i++) {
        r->lp[i] = res->logprobs[i - 1];
        memcpy(r->top_id[i], res->top_ids + (i - 1) * top_max, (size_t)top_max * 4);
        memcpy(r->top_lp[i], res->top_logprobs + (i - 1) * top_max, (size_t)top_max * 4);
    }
    engine_ticket_free(t);
}

static void free_reference(struct reference *r)
{
    free(r->routing);
    free(r->probs);
    free(r->skip_probs);
}

static void sampling(struct eval_request *q, bool sampled, int seed)
{
    q->top_p = sampled ? 0.9f : 1;
    q->temperature = sampled ? 0.8f : 0;
    q->sample_top_k = sampled ? 50 : 0;
    q->seed = (uint64_t)seed;
}

static const struct continuation *continuation_of(struct engine *ref, int seq, int n, bool sampled)
{
    struct continuation *c = &refs[seq].after[n][sampled];
    if (c->known)
        return c;
    struct eval_request q = {.tokens = refs[seq].tokens, .n_tokens = n, .score_begin = n, .max_new = MAX_NEW};
    struct engine_ticket *t;
    sampling(&q, sampled, seq);
    const struct eval_result *res = run_alone(ref, &q, &t);
    c->known = true;
    c->n_new = res->n_new;
    c->finish = res->finish;
    memcpy(c->tokens, res->new_tokens, (size_t)c->n_new * 4);
    memcpy(c->lp, res->new_logprobs, (size_t)c->n_new * 4);
    engine_ticket_free(t);
    return c;
}

/* A token that greedy generations come to, but not as their first: what most of some sequences have as their third. */
static int32_t choose_eos(struct engine *e)
{
    int32_t third[N_SEQUENCES];
    int best = 0, most = 0;
    for (int i = 0; i < N_SEQUENCES; i++)
        third[i] = continuation_of(e, i, refs[i].n, false)->tokens[2];
    for (int i = 0; i < N_SEQUENCES; i++) {
        int n = 0;
        for (int j = 0; j < N_SEQUENCES; j++)
            n += third[j] == third[i];
        if (n > most) {
            most = n;
            best = i;
        }
        refs[i].after[refs[i].n][0].known = false;
    }
    return third[best];
}

/* ---- traffic ------------------------------------------------------------------------------------------------------- */
struct group {
    struct engine_ticket *ticket;
    struct eval_request reqs[MAX_GROUP];
    int seq[MAX_GROUP], n;
};

static uint64_t n_checked, n_cancelled, n_cached_rows, n_eos;

static void fail(const struct group *g, int i, const char *what, int at, double got, double want)
{
    const struct eval_request *q = &g->reqs[i];
    fprintf(stderr, "sequence %d, %d tokens, score_begin %d, top_k %d, max_new %d: %s %d is %.9g, alone it was %.9g\n", g->seq[i],
            q->n_tokens, q->score_begin, q->top_k, q->max_new, what, at, got, want);
    exit(1);
}

static void check_scores(const struct group *g, int i, const struct eval_result *res)
{
    const struct eval_request *q = &g->reqs[i];
    const struct reference *r = &refs[g->seq[i]];
    int k1 = q->top_k > 1 ? q->top_k : 1;
    for (int p = q->score_begin; p < q->n_tokens; p++) {
        int at = p - q->score_begin;
        if (memcmp(&res->logprobs[at], &r->lp[p], 4))
            fail(g, i, "logprob of token", p, (double)res->logprobs[at], (double)r->lp[p]);
        for (int j = 0; j < k1; j++)
            if (res->top_ids[at * k1 + j] != r->top_id[p][j] || memcmp(&res->top_logprobs[at * k1 + j], &r->top_lp[p][j], 4))
                fail(g, i, "alternative of token", p, (double)res->top_logprobs[at * k1 + j], (double)r->top_lp[p][j]);
    }
}

static void check_routing(const struct group *g, int i, const struct eval_result *res, int n_layers)
{
    const struct reference *r = &refs[g->seq[i]];
    int n = res->n_routing < r->n - 1 ? res->n_routing : r->n - 1;
    n = n < g->reqs[i].n_tokens ? n : g->reqs[i].n_tokens; /* past the prompt, generated tokens differ from the reference's */
    for (int l = 0; l < n_layers && n > 0; l++)
        if (memcmp(res->routing + (size_t)l * (size_t)res->n_routing, r->routing + (size_t)l * (size_t)(r->n - 1), (size_t)n))
            fail(g, i, "routing of layer", l, 1, 0);
}

static void check_probs(const struct group *g, int i, const struct eval_result *res, int n_layers)
{
    const struct reference *r = &refs[g->seq[i]];
    int n = res->n_rows < r->n - 1 ? res->n_rows : r->n - 1;
    n = n < g->reqs[i].n_tokens ? n : g->reqs[i].n_tokens;
    for (int at = 0; at < n * n_layers; at++) {
        if (memcmp(&res->probs[at], &r->probs[at], sizeof(float)))
            fail(g, i, "probability", at, (double)res->probs[at], (double)r->probs[at]);
        if (memcmp(&res->skip_probs[at], &r->skip_probs[at], sizeof(float)))
            fail(g, i, "probability of execution", at, (double)res->skip_probs[at], (double)r->skip_probs[at]);
    }
}

static void check_group(struct group *g, struct engine *ref, int n_layers)
{
    for (int i = 0; i < g->n; i++) {
        const struct eval_result *res = engine_result(g->ticket, i);
        const struct eval_request *q = &g->reqs[i];
        if (res->code == ERR_CANCELLED) {
            n_cancelled++;
            continue;
        }
        if (res->code < 0)
            die("request", res->err.text);
        check_scores(g, i, res);
        if (q->want_routing)
            check_routing(g, i, res, n_layers);
        if (q->want_probs)
            check_probs(g, i, res, n_layers);
        if (q->max_new) {
            const struct continuation *c = continuation_of(ref, g->seq[i], q->n_tokens, q->temperature > 0);
            int n = c->n_new < q->max_new ? c->n_new : q->max_new;
            if (res->n_new != n)
                fail(g, i, "count of generated tokens", 0, res->n_new, n);
            if (res->finish != (n == c->n_new ? c->finish : FINISH_LENGTH))
                fail(g, i, "end of the generation", 0, res->finish, c->finish);
            n_eos += res->finish == FINISH_EOS;
            if (res->n_rows != q->n_tokens + n - 1 || res->rows_computed + res->rows_cached < res->n_rows)
                fail(g, i, "count of rows", 0, res->n_rows, q->n_tokens + n - 1);
            for (int j = 0; j < n; j++)
                if (res->new_tokens[j] != c->tokens[j] || memcmp(&res->new_logprobs[j], &c->lp[j], 4))
                    fail(g, i, "generated token", j, res->new_tokens[j], c->tokens[j]);
        }
        n_cached_rows += (uint64_t)res->rows_cached;
        n_checked++;
    }
    engine_ticket_free(g->ticket);
    g->ticket = NULL;
}

/* One that begins as `seq` does, if a few tries find one. */
static int relative_of(int seq)
{
    int other = (int)rnd(N_SEQUENCES);
    for (int tries = 0; tries < 8 && refs[other].tokens[0] != refs[seq].tokens[0]; tries++)
        other = (int)rnd(N_SEQUENCES);
    return other;
}

/* Half of them are of relatives, as the continuations of a context. */
static void make_group(struct group *g)
{
    bool family = rnd(2);
    g->n = 1 + (int)rnd(MAX_GROUP);
    for (int i = 0; i < g->n; i++) {
        int seq = g->seq[i] = i && family ? relative_of(g->seq[0]) : (int)rnd(N_SEQUENCES);
        const struct reference *r = &refs[seq];
        int n = 1 + (int)rnd((uint32_t)r->n);
        static const int tops[] = {0, 1, 1, 5, TOP};
        g->reqs[i] = (struct eval_request){.tokens = r->tokens,
                                           .n_tokens = n,
                                           .score_begin = rnd(3)   ? 1 + (int)rnd((uint32_t)n)
                                                          : rnd(2) ? 1
                                                                   : n,
                                           .top_k = tops[rnd(5)],
                                           .max_new = rnd(2) ? 0 : 1 + (int)rnd(MAX_NEW),
                                           .want_routing = !rnd(4),
                                           .want_probs = !rnd(6)};
        if (g->reqs[i].top_k > top_max)
            g->reqs[i].top_k = top_max;
        sampling(&g->reqs[i], !rnd(3), seq);
    }
}

/* Where steps have room for it, the cache is cleared often: who finds its prefix joins nobody. */
static void run_traffic(struct engine *e, struct engine *ref, int n_requests)
{
    uint32_t clear_every = engine_info(e)->max_batch_tokens >= 300 ? 4 : 40;
    struct group groups[OPEN_GROUPS] = {0};
    int n_layers = engine_info(e)->config->n_layers;
    uint64_t until = n_checked + (uint64_t)n_requests;
    while (n_checked < until) {
        struct group *g = &groups[rnd(OPEN_GROUPS)];
        if (g->ticket) {
            if (!rnd(16))
                engine_cancel(g->ticket);
            engine_wait(g->ticket, -1);
            check_group(g, ref, n_layers);
        }
        struct err err;
        make_group(g);
        if (engine_submit(e, g->reqs, g->n, &g->ticket, &err) < 0)
            die("submit", err.text);
        if (!rnd(clear_every))
            engine_cache_clear(e);
    }
    for (int i = 0; i < OPEN_GROUPS; i++) {
        if (groups[i].ticket) {
            engine_wait(groups[i].ticket, -1);
            check_group(&groups[i], ref, n_layers);
        }
    }
}

/* Nothing may be left behind: with the tree cleared, no slot is held or promised. */
static void check_empty(struct engine *e)
{
    struct engine_stats st;
    engine_cache_clear(e);
    engine_stats(e, &st);
    if (st.kv_rows_held || st.kv_rows_reserved || st.tree_nodes)
        die("after the traffic", "the cleared cache still holds rows");
}

/* Is there what the setting needs? */
static bool can_run(const struct setting *s, const struct model_config *c)
{
    struct err err;
    const char *there = getenv("DTRNET_TEST_DEVICES"), *at = s->devices;
    if (at &&
        getenv(
            "DTRNET_TEST_DEVICE")) { /* as many devices as $DTRNET_TEST_DEVICES says, one without it, and none that fails when it is told to */
        int n = 1 + (int)strlen(at) / 2;
        if (s->loses || n > (there ? atoi(there) : 1))
            return false;
    }
    const char *only = getenv("DTRNET_TEST_ONLY");
    return (!only || strstr(s->name, only)) && (!s->ranks || share_check(s->ranks, c, &err) >= 0);
}

/* What is wrong unless each device did something, or is the one that failed; else NULL. */
static const char *devices_wrong(struct engine *e, const struct setting *s)
{
    int lost = 0;
    for (int i = 0; i < engine_info(e)->n_devices; i++) {
        struct engine_stats st;
        engine_device_stats(e, i, &st);
        lost += engine_device_health(e, i, NULL) < 0;
        if (!st.steps && !s->loses)
            return "one has done nothing";
    }
    return lost != s->loses || engine_health(e, NULL) < 0 ? "one was lost, or none where one was to be" : NULL;
}

int main(int argc, char **argv)
{
    static const struct setting alone = {"one at a time", 1, 512, 1, false, 0, 0};
    static const struct setting engines[] = {
        {"cache on, one thread, steps of 40, two in flight", 1, 40, 2, true, 4096, 0},
        {"cache on, two threads, steps of 19, evicting, two in flight, drawing one by one", 2, 19, 2, true, MAX_LEN + MAX_NEW + 90, 6, NULL,
         false, 0, 1},
        {"cache on, two threads, steps of 300, two in flight", 2, 300, 2, true, 4096, 0},
        {"cache off, two threads, steps of 70, two in flight", 2, 70, 2, false, 1024, 20},
        {"cache on, two threads, steps of 512, evicting", 2, 512, 1, true, 700, 40},
        {"three devices, steps of 40, two in flight, evicting", 3, 40, 2, true, 700, 40, "0,1,2"},
        {"two devices, one of which fails, steps of 24, two in flight", 2, 24, 2, true, 4096, 0, "0,1", true},
        {"two ranks, steps of 40, two in flight, drawing three at a time", 2, 40, 2, true, 4096, 0, "0,1", false, 2, 3},
        {"four ranks, steps of 70, evicting", 4, 70, 1, true, 700, 40, "0,1,2,3", false, 4},
        {"two replicas of two ranks, one of which fails, steps of 40, evicting", 2, 40, 1, true, 700, 40, "3,1,0,2", true, 2}};
    enum { N_ENGINES = sizeof(engines) / sizeof(engines[0]) };
    if (argc < 4)
        die("usage", "test_traffic MODEL_DIR DTYPE N_REQUESTS [SEED|- [exact|threshold]]");
    int n_requests = atoi(argv[3]);
    rng_state = argc > 4 && strcmp(argv[4], "-") ? strtoull(argv[4], NULL, 10) : (uint64_t)time(NULL);
    inference = argc > 5 ? argv[5] : NULL;
    printf("seed %" PRIu64 "\n", rng_state);
    struct engine *ref = open_engine(argv[1], argv[2], &alone, NULL);
    int vocab = engine_info(ref)->config->vocab;
    top_max = vocab < TOP ? vocab : TOP;
    make_tokens(vocab);
    eos = choose_eos(ref);
    engine_close(ref);
    ref = open_engine(argv[1], argv[2], &alone, NULL);
    for (int i = 0; i < N_SEQUENCES; i++)
        make_reference(ref, &refs[i]);
    uint64_t overlapped = 0, followed = 0, joined = 0;
    bool follows = false;
    int n_settings = 0;
    for (size_t i = 0; i < N_ENGINES; i++)
        n_settings += can_run(&engines[i], engine_info(ref)->config);
    if (!n_settings)
        die("settings", "none of them can run, or none is named so");
    int share = n_requests / n_settings;
    for (size_t i = 0; i < N_ENGINES; i++) {
        if (!can_run(&engines[i], engine_info(ref)->config))
            continue;
        uint64_t before = n_checked, cached = n_cached_rows;
        struct engine *e = open_engine(argv[1], argv[2], &engines[i], engine_info(ref));
        if (engines[i].loses)
            late_fail_device_at(1, 1 + (int)rnd((uint32_t)share + 1));
        run_traffic(e, ref, share);
        const char *wrong = n_requests >= 100 ? devices_wrong(e, &engines[i]) : NULL; /* else there may be too few for all */
        for (int more = 0; wrong && more < 20; more++) { /* what a slow machine submits finds all devices idle, and one may do it all */
            run_traffic(e, ref, share);
            wrong = devices_wrong(e, &engines[i]);
        }
        if (wrong)
            die("devices", wrong);
        struct engine_stats st;
        engine_stats(e, &st);
        late_fail_at(0);
        printf("%s: %" PRIu64 " requests equal, %" PRIu64 " rows from the cache, %" PRIu64 " run again, %" PRIu64
               " tokens evicted, %" PRIu64 " of %" PRIu64 " steps overlapped, %" PRIu64 " rows followed, %" PRIu64 " dropped, %" PRIu64
               " joined, %" PRIu64 " preempted\n",
               engines[i].name, n_checked - before, n_cached_rows - cached, st.rows_rescored, st.evicted_tokens, st.steps_overlapped,
               st.steps, st.rows_followed, st.rows_dropped, st.sequences_joined, st.preemptions);
        if (st.steps_overlapped && engines[i].in_flight == 1)
            die("steps in flight", "two where one was asked for");
        overlapped += st.steps_overlapped;
        followed += st.rows_followed;
        joined += st.sequences_joined;
        follows |= engines[i].in_flight > 1 && !engines[i].ranks;
        if (st.rows_followed && (engines[i].in_flight == 1 || engines[i].ranks))
            die("following", "rows that followed where none can");
        check_empty(e);
        engine_close(e);
    }
    printf("%" PRIu64 " cancelled, %" PRIu64 " ended at token %d\n", n_cancelled, n_eos, eos);
    if (!overlapped && !getenv("DTRNET_TEST_ONLY"))
        die("steps in flight", "never two");
    if (follows && !followed && n_requests >= 100 && strcmp(inference ? inference : "", "exact"))
        die("following", "no row followed another");
    bool branches = !engine_info(ref)->state_slots_total && strcmp(inference ? inference : "", "exact");
    if (branches && joined < (uint64_t)n_requests / 100 && n_requests >= 100 && !getenv("DTRNET_TEST_ONLY"))
        die("joining", "hardly a sequence ran in one step with its prefix");
    engine_close(ref);
    for (int i = 0; i < N_SEQUENCES; i++)
        free_reference(&refs[i]);
    return 0;
}
