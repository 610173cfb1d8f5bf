/* See fake_engine.h. */
#include "tests/unit/fake_engine.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct fake_engine_plan fake_engine_plan;
const char *const engine_lanes[ENGINE_LANES] = {"alone", "shared", "bulk"};
const int engine_start_edges[ENGINE_STARTS - 1] = {1, 2, 3, 4, 6, 8, 16, 32, 64, 256, 1024};

static const struct model_config config = {.hidden = 8,
                                           .ffn = 8,
                                           .n_layers = FAKE_LAYERS,
                                           .n_heads = 1,
                                           .n_kv_heads = 1,
                                           .head_dim = 8,
                                           .vocab = FAKE_VOCAB,
                                           .max_position_embeddings = FAKE_LEN,
                                           .bos_id = FAKE_BOS,
                                           .eos_id = FAKE_EOS,
                                           .eos_ids = {FAKE_EOS},
                                           .n_eos = 1};
static const struct layer_plan plan[FAKE_LAYERS] = {
    {.router = ROUTER_MLP, .kv = KV_ATTENDING}, {0}, {.router = ROUTER_MLP, .kv = KV_ATTENDING}};
const struct engine_info fake_engine_info = {.config = &config,
                                             .plan = plan,
                                             .device = "fake",
                                             .dtype = "f32",
                                             .numerics_class = "fake",
                                             .max_model_len = FAKE_LEN,
                                             .max_batch_tokens = 8,
                                             .n_threads = 1,
                                             .n_devices = 1,
                                             .bos_id = FAKE_BOS,
                                             .eos_id = FAKE_EOS,
                                             .kv_rows_total = 1000,
                                             .kv_row_bytes = 64};

struct answer {
    struct eval_result r;
    float *logprobs, *top_logprobs, *new_logprobs, *new_top_logprobs;
    int32_t *top_ids, *new_tokens, *new_top_ids;
    int routed[FAKE_LAYERS];
    uint8_t *routing;
    float *probs;
    const struct eval_request *req;
    int n_made; /* tokens that the plan allows */
    atomic_int n_shown;
    atomic_bool stopped;
    int n_seen; /* what engine_tokens said last */
    bool ready, done;
};
struct engine_ticket {
    int n, n_open;
    struct answer *answers;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* n_open, n_seen and done of all tickets, and `latest` */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct engine_ticket *latest;

float fake_logprob(int32_t before, int32_t id)
{
    return id == (before + 1) % FAKE_VOCAB ? -0.25f : -1.0f - (float)((before * 31 + id * 7) % 97) / 16;
}

/* The successor is the best; then come the ids after it, in order and not by score, which is enough here. */
static void fill_top(int32_t before, int k1, int32_t *ids, float *logprobs)
{
    for (int i = 0; i < k1; i++) {
        ids[i] = (before + 1 + i) % FAKE_VOCAB;
        logprobs[i] = fake_logprob(before, ids[i]);
    }
}

static bool allocate(const struct eval_request *q, struct answer *a, size_t k1)
{
    size_t n = (size_t)(q->n_tokens - q->score_begin) + 1, m = (size_t)q->max_new + 1;
    a->logprobs = calloc(n, sizeof(float));
    a->top_ids = calloc(n * k1, sizeof(int32_t));
    a->top_logprobs = calloc(n * k1, sizeof(float));
    a->new_tokens = calloc(m, sizeof(int32_t));
    a->new_logprobs = calloc(m, sizeof(float));
    a->new_top_ids = calloc(m * k1, sizeof(int32_t));
    a->new_top_logprobs = calloc(m * k1, sizeof(float));
    a->routing = calloc(FAKE_LAYERS, (size_t)q->n_tokens + m);
    a->probs = calloc(2 * FAKE_LAYERS, ((size_t)q->n_tokens + m) * sizeof(float));
    return a->logprobs && a->top_ids && a->top_logprobs && a->new_tokens && a->new_logprobs && a->new_top_ids && a->new_top_logprobs &&
           a->routing && a->probs;
}

static void score(const struct eval_request *q, struct answer *a, int k1)
{
    int n = q->n_tokens - q->score_begin;
    for (int i = 0; i < n; i++) {
        int32_t before = q->tokens[q->score_begin + i - 1];
        a->logprobs[i] = fake_logprob(before, q->tokens[q->score_begin + i]);
        fill_top(before, k1, a->top_ids + i * k1, a->top_logprobs + i * k1);
    }
    a->r.n_scored = n;
    a->r.logprobs = a->logprobs;
    a->r.top_ids = a->top_ids;
    a->r.top_logprobs = a->top_logprobs;
}

static void generate(const struct eval_request *q, struct answer *a, int k1)
{
    int32_t before = q->tokens[q->n_tokens - 1];
    a->r.finish = FINISH_LENGTH;
    for (int i = 0; i < q->max_new && a->r.finish == FINISH_LENGTH; i++) {
        int32_t id = (before + 1) % FAKE_VOCAB;
        fill_top(before, k1, a->new_top_ids + i * k1, a->new_top_logprobs + i * k1);
        a->new_tokens[i] = id;
        a->new_logprobs[i] = fake_logprob(before, id);
        a->n_made++;
        if (id == FAKE_EOS && !q->ignore_eos)
            a->r.finish = FINISH_EOS;
        before = id;
    }
    a->r.new_tokens = a->new_tokens;
    a->r.new_logprobs = a->new_logprobs;
    a->r.new_top_ids = a->new_top_ids;
    a->r.new_top_logprobs = a->new_top_logprobs;
}

/* As the engine does it: on_done before the ticket is seen to be done. */
static void end(struct engine_ticket *t, struct answer *a)
{
    a->r.n_new = atomic_load(&a->n_shown);
    a->r.rows_computed += a->r.n_new ? a->r.n_new - 1 : 0;
    if (a->req->on_done)
        a->req->on_done(a->req->user);
    pthread_mutex_lock(&lock);
    a->done = true;
    t->n_open--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

bool fake_engine_step(struct engine_ticket *t)
{
    int open = 0, n = t->n; /* with the last end the ticket may be gone */
    for (int i = 0; i < n; i++) {
        struct answer *a = &t->answers[i];
        if (a->done)
            continue;
        if (a->n_made > 0) {
            atomic_fetch_add_explicit(&a->n_shown, 1, memory_order_release);
            if (a->req->on_token)
                a->req->on_token(a->req->user);
        }
        if (atomic_load(&a->n_shown) < a->n_made && atomic_load(&a->stopped))
            a->r.finish = FINISH_STOP;
        if (a->r.finish == FINISH_STOP || atomic_load(&a->n_shown) == a->n_made)
            end(t, a);
        else
            open++;
    }
    return open > 0;
}

void fake_engine_seen(struct engine_ticket *t)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < t->n;)
        if (t->answers[i].n_seen < atomic_load(&t->answers[i].n_shown))
            pthread_cond_wait(&changed, &lock);
        else
            i++;
    pthread_mutex_unlock(&lock);
}

struct engine_ticket *fake_engine_next(void)
{
    pthread_mutex_lock(&lock);
    while (!latest)
        pthread_cond_wait(&changed, &lock);
    struct engine_ticket *t = latest;
    latest = NULL;
    pthread_mutex_unlock(&lock);
    return t;
}

/* What engine.h asks of its caller. */
static bool check_request(const struct eval_request *q)
{
    bool ok = q->n_tokens >= 1 && q->score_begin >= 1 && q->score_begin <= q->n_tokens && q->top_k >= 0 && q->top_k <= ENGINE_TOP_K_MAX &&
              q->max_new >= 0 && q->n_tokens - 1 + q->max_new <= FAKE_LEN && q->temperature >= 0 && q->top_p >= 0 && q->top_p <= 1 &&
              q->sample_top_k >= 0;
    for (int i = 0; i < q->n_tokens; i++)
        ok &= q->tokens[i] >= 0 && q->tokens[i] < FAKE_VOCAB;
    return ok;
}

int engine_submit(struct engine *e, const struct eval_request *reqs, int n, struct engine_ticket **ret, struct err *err)
{
    if (fake_engine_plan.busy_at && --fake_engine_plan.busy_at == 0)
        return err_set(err, ERR_BUSY, "busy as planned");
    if (fake_engine_plan.submit_code)
        return err_set(err, fake_engine_plan.submit_code, "refused as planned");
    struct engine_ticket *t = calloc(1, sizeof(*t));
    if (t)
        t->answers = calloc((size_t)n, sizeof(*t->answers));
    for (int i = 0; t && t->answers && i < n; i++, t->n = i) {
        struct answer *a = &t->answers[i];
        int k1 = reqs[i].top_k > 1 ? reqs[i].top_k : 1, rows = reqs[i].n_tokens - 1;
        if (!check_request(&reqs[i]))
            abort();
        if (!allocate(&reqs[i], a, (size_t)k1)) {
            t->n = i + 1;
            break;
        }
        score(&reqs[i], a, k1);
        generate(&reqs[i], a, k1);
        a->r.n_rows = rows;
        a->r.rows_computed = rows;
        a->r.rows_routed = a->r.rows_executed = a->routed;
        a->req = &reqs[i];
        t->n_open++;
        a->routed[1] = rows;
        a->r.routing = a->routing;
        a->r.n_routing = reqs[i].want_routing ? rows + a->n_made : 0;
        a->r.probs = a->r.skip_probs = reqs[i].want_probs ? a->probs : NULL;
        a->ready = true;
        if (i == n - 1 && fake_engine_plan.request_code)
            a->r.code = err_set(&a->r.err, fake_engine_plan.request_code, "failed as planned");
    }
    if (!t || !t->answers || !t->answers[n - 1].ready) {
        for (int i = 0; t && t->answers && i < n; i++)
            t->answers[i].ready = false; /* nothing is told of it */
        engine_ticket_free(t);
        return err_set(err, ERR_NOMEM, "no memory for %d requests", n);
    }
    if (!fake_engine_plan.held)
        while (fake_engine_step(t))
            ;
    pthread_mutex_lock(&lock);
    latest = fake_engine_plan.held ? t : NULL;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    *ret = t;
    return 0;
}

bool engine_full(struct engine *e)
{
    return false;
}

size_t engine_request_bytes(const struct engine *e, const struct eval_request *q)
{
    return sizeof(struct answer) + 12 * (size_t)(q->n_tokens + q->max_new) * (size_t)(1 + q->top_k);
}

bool engine_wait(struct engine_ticket *t, int timeout_ms)
{
    pthread_mutex_lock(&lock);
    while (t->n_open && timeout_ms < 0)
        pthread_cond_wait(&changed, &lock);
    bool done = !t->n_open;
    pthread_mutex_unlock(&lock);
    return done;
}

int engine_tokens(const struct engine_ticket *t, int i)
{
    struct answer *a = &t->answers[i];
    int n = atomic_load_explicit(&a->n_shown, memory_order_acquire);
    pthread_mutex_lock(&lock);
    a->n_seen = n;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return n;
}

void engine_stop(struct engine_ticket *t, int i)
{
    atomic_store(&t->answers[i].stopped, true);
}

const struct eval_result *engine_result(const struct engine_ticket *t, int i)
{
    return &t->answers[i].r;
}

/* The worker is another thread, which must not step any more. */
void engine_cancel(struct engine_ticket *t)
{
    for (int i = 0; i < t->n; i++) {
        struct answer *a = &t->answers[i];
        if (a->done || !a->ready)
            continue;
        a->r.code = err_set(&a->r.err, ERR_CANCELLED, "cancelled");
        end(t, a);
    }
}

void engine_ticket_free(struct engine_ticket *t)
{
    if (t)
        engine_cancel(t);
    pthread_mutex_lock(&lock);
    latest = latest == t ? NULL : latest;
    pthread_mutex_unlock(&lock);
    for (int i = 0; t && i < t->n; i++) {
        struct answer *a = &t->answers[i];
        void *all[] = {a->logprobs,    a->top_logprobs, a->new_logprobs, a->new_top_logprobs, a->top_ids, a->new_tokens,
                       a->new_top_ids, a->routing,      a->probs};
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++)
            free(all[k]);
    }
    if (t)
        free(t->answers);
    free(t);
}

int engine_open(const struct engine_options *o, struct engine **ret, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "the double has no checkpoint");
}

void engine_close(struct engine *e) {}

int engine_model_hash(const struct engine *e, bool wait, const char **ret, struct err *err)
{
    *ret = "00";
    return 1;
}

const struct engine_info *engine_info(const struct engine *e)
{
    return &fake_engine_info;
}

void engine_stats(struct engine *e, struct engine_stats *ret)
{
    *ret = (struct engine_stats){.requests_done = 5,
                                 .rows_computed = 70,
                                 .rows_routed = {7, 70, 3},
                                 .kv_rows_held = 80,
                                 .kv_rows_most = 90,
                                 .queued = 2,
                                 .attention_s = 1.5,
                                 .memory_free_bytes = 4096};
}

void engine_device_stats(struct engine *e, int i, struct engine_stats *ret)
{
    engine_stats(e, ret);
}

int engine_device_health(struct engine *e, int i, struct err *err)
{
    return engine_health(e, err);
}

int engine_health(struct engine *e, struct err *err)
{
    return fake_engine_plan.health_code ? err_set(err, fake_engine_plan.health_code, "lost as planned") : 0;
}

void engine_drain(struct engine *e) {}

void engine_cache_clear(struct engine *e) {}
