/* Contexts of several devices in one process, each used from threads that did not open it: they give the bits that one context gives alone, and
 * calls reach the device of their context (the fake runtime refuses others). Devices that are not there are refused by number.
 * With one device all contexts are its own. Skipped without a device. */
#include "kernels/backend.h"
#include "tests/check.h"
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdlib.h>
#if defined(FAKE_CUDA)
#include "tests/kernels/fake_cuda.h"
#endif

enum { D = 64, N = 40, V = 100, H = 4, HK = 2, HD = 16, WIDTH = (H + 2 * HK) * HD, CONTEXTS = 2, ROUNDS = 3 };

static const struct backend *b;
static int n_devices;

/* What one context works on. Sizes are of the largest dtype. */
struct work {
    struct kern_ctx *k;
    int device;
    bool strays; /* before each call the thread turns to another device */
    struct kern_matrix *embed, *qkv, *gate_up, *down, *router;
    struct dev_f32 *x, *y, *norm, *hid, *cos, *logits, *prob, *gate, *target_lp, *top_lp, *lse;
    struct dev_act *xn, *attn, *kv;
    struct dev_i32 *ids, *pos, *run_of, *base, *reserved, *tables, *top_id;
    struct dev_u8 *route, *bad;
    struct dev_runs *runs;
    struct kern_place place;
    struct dev_bytes *all[64];
    int n_all;
    float *fetched; /* [N,V] alloc_host */
    float logits_host[N * V];
    float issued[N * V]; /* what came out before anything was recorded */
    int code;            /* of the latest run */
};

static struct dev_bytes *room(struct work *w, size_t bytes, const void *from)
{
    struct dev_bytes *p = b->alloc(w->k, bytes);
    CHECK(p != NULL);
    if (p && from)
        CHECK_INT(b->upload(w->k, p, from, bytes), 0);
    return w->all[w->n_all++] = p;
}

static float *floats(size_t n, unsigned seed)
{
    float *v = malloc(n * sizeof(*v));
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(seed >> 8) * 0x1p-24f - 0.5f;
    }
    return v;
}

static struct dev_f32 *random_f32(struct work *w, size_t n, unsigned seed)
{
    float *v = floats(n, seed);
    struct dev_f32 *p = dev_f32_in(room(w, n * sizeof(*v), v), 0);
    free(v);
    return p;
}

static struct dev_i32 *ints(struct work *w, int n, int first, int step)
{
    int *v = malloc((size_t)n * sizeof(*v));
    for (int i = 0; i < n; i++)
        v[i] = first + i * step;
    struct dev_i32 *p = dev_i32_in(room(w, (size_t)n * sizeof(*v), v), 0);
    free(v);
    return p;
}

static struct kern_matrix *matrix(struct work *w, enum matrix_kind kind, int n, int cols, unsigned seed)
{
    int n_parts = kind == MATRIX_GATE_UP ? 2 : 1;
    float *v = floats((size_t)n * (size_t)cols, seed);
    struct matrix_part parts[2] = {{v, DTYPE_F32, n, NULL, DTYPE_F32}, {v, DTYPE_F32, n, NULL, DTYPE_F32}};
    struct kern_matrix *m = NULL;
    struct err err = {0};
    if (!CHECK_INT(w->k->ops->matrix_new(w->k, kind, parts, n_parts, cols, &m, &err), 0))
        fprintf(stderr, "  %s\n", err.text);
    free(v);
    return m;
}

static void make_lists(struct work *w)
{
    const struct kern_run run = {.row0 = 0, .n = N, .append = 1, .table_cap = N};
    w->runs = dev_runs_in(room(w, sizeof(run), &run), 0);
    w->ids = ints(w, N, 0, 2);
    w->pos = ints(w, N, 0, 1);
    w->run_of = ints(w, N, 0, 0);
    w->base = ints(w, 1, 0, 0);
    w->reserved = ints(w, N, 0, 1);
    w->tables = ints(w, N, 0, 1);
    w->top_id = ints(w, N, 0, 0);
    w->route = dev_u8_in(room(w, N, NULL), 0);
    w->bad = dev_u8_in(room(w, N, NULL), 0);
    w->place = (struct kern_place){ints(w, N, 0, 0), ints(w, 1, 0, 0), ints(w, N, 0, 0), ints(w, 1, 0, 0),
                                   ints(w, 2, 0, 0), ints(w, N, 0, 0), ints(w, N, 0, 0)};
}

/* The weights of another context, which are there. */
static void copy_matrices(struct work *w, const struct work *from)
{
    struct kern_matrix *const src[] = {from->embed, from->qkv, from->gate_up, from->down, from->router};
    struct kern_matrix **const dst[] = {&w->embed, &w->qkv, &w->gate_up, &w->down, &w->router};
    CHECK_INT(b->sync(from->k, NULL), 0);
    for (size_t i = 0; i < sizeof(src) / sizeof(*src); i++)
        CHECK_INT(w->k->ops->matrix_copy(w->k, from->k, src[i], dst[i]), 0);
}

static void make_matrices(struct work *w)
{
    w->embed = matrix(w, MATRIX_EMBED, V, D, 1);
    w->qkv = matrix(w, MATRIX_LINEAR, WIDTH, D, 2);
    w->gate_up = matrix(w, MATRIX_GATE_UP, D, D, 3);
    w->down = matrix(w, MATRIX_LINEAR, D, D, 4);
    w->router = matrix(w, MATRIX_ACCURATE, D, D, 5);
}

/* from: whose weights are copied; NULL: they are made. */
static bool make(struct work *w, int device, const char *level, const struct work *from)
{
    struct backend_config c = {.dtype = DTYPE_BF16, .n_threads = 1, .cuda_level = level, .device_index = device};
    struct err err = {0};
    *w = (struct work){.device = device};
    int r = b->open(&c, &w->k, &err);
    if (r < 0) {
        if (!CHECK_INT(r, ERR_UNSUPPORTED)) /* the device has no such level */
            fprintf(stderr, "  %s\n", err.text);
        return false;
    }
    make_lists(w);
    if (from)
        copy_matrices(w, from);
    else
        make_matrices(w);
    w->norm = random_f32(w, 2 * D, 6);
    w->cos = random_f32(w, N * HD / 2, 7);
    struct dev_f32 **const sums[] = {&w->x, &w->y, &w->hid, &w->prob, &w->gate, &w->target_lp, &w->top_lp, &w->lse};
    for (size_t i = 0; i < sizeof(sums) / sizeof(*sums); i++)
        *sums[i] = random_f32(w, N * D, 8);
    w->logits = random_f32(w, N * V, 9);
    w->xn = dev_act_in(room(w, sizeof(float) * N * WIDTH, NULL), 0);
    w->attn = dev_act_in(room(w, sizeof(float) * N * WIDTH, NULL), 0);
    w->kv = dev_act_in(room(w, sizeof(float) * N * WIDTH, NULL), 0);
    w->fetched = b->alloc_host(w->k, sizeof(w->logits_host));
    return CHECK(w->fetched != NULL);
}

static void done(struct work *w)
{
    struct kern_matrix *matrices[] = {w->embed, w->qkv, w->gate_up, w->down, w->router};
    for (size_t i = 0; i < sizeof(matrices) / sizeof(*matrices); i++)
        w->k->ops->matrix_free(w->k, matrices[i]);
    for (int i = 0; i < w->n_all; i++)
        b->free(w->k, w->all[i]);
    b->free_host(w->k, w->fetched);
    b->close(w->k);
}

/* The result of a call that must find its device by itself. */
#define TRY(call) ((r = (stray(w), (call))) < 0)

static void stray(const struct work *w)
{
    if (w->strays)
        cudaSetDevice((w->device + 1) % n_devices);
}

static struct kern_step step_of(const struct work *w)
{
    return (struct kern_step){.all = {.n_max = N}, .pos = w->pos, .run_of = w->run_of, .runs = w->runs, .n_runs = 1, .tables = w->tables};
}

static int decide(void *arg)
{
    struct work *w = arg;
    struct kern_ctx *k = w->k;
    const struct kern_step s = step_of(w);
    const struct route_out to = {w->route, w->gate, w->prob, DECISION_LINEAR, DECISION_ATTEND};
    const struct route_mlp mlp = {w->router, w->norm, w->norm, D, w->hid};
    int r = 0;
    if (TRY(k->ops->route_mlp(k, &to, &mlp, w->x, s.all)) || TRY(k->ops->place(k, &s, 0, w->route, true, w->base, w->reserved, &w->place)))
        return r;
    return 0;
}

static int project(void *arg)
{
    struct work *w = arg;
    struct kern_ctx *k = w->k;
    const struct rows all = {.n_max = N};
    int r = 0;
    if (TRY(k->ops->rmsnorm(k, w->xn, NULL, w->x, w->norm, all, D, 1e-5f)) ||
        TRY(k->ops->matmul(k, w->attn, 0, WIDTH, w->xn, D, w->qkv, all)))
        return r;
    return 1; /* no code: beside returns 0 */
}

/* Something like a layer and a head. */
static int issue(void *arg)
{
    struct work *w = arg;
    struct kern_ctx *k = w->k;
    const struct kern_ops *o = k->ops;
    const struct rows all = {.n_max = N}, some = {w->place.sel, w->place.sel_n, N};
    const struct kern_step s = step_of(w);
    const struct kern_heads hs = {H, HK, HD, w->kv};
    const struct kern_scores scores = {w->ids, w->target_lp, 1, w->top_id, w->top_lp, w->bad, w->lse};
    int r = 0;
    if (TRY(o->embed(k, w->x, w->embed, w->ids, NULL, all)) || TRY(o->beside(k, decide, project, w)) ||
        TRY(o->rope_store(k, &hs, w->attn, w->cos, w->cos, &s, w->place.slot, some)) ||
        TRY(o->attention(k, &hs, w->xn, w->attn, &s, 0, &w->place, 0.25f)) ||
        TRY(o->matmul_residual(k, w->x, w->xn, D, w->down, w->gate, some)) ||
        TRY(o->rmsnorm(k, w->xn, NULL, w->x, w->norm, all, D, 1e-5f)) || TRY(o->matmul_swiglu(k, w->attn, w->xn, w->gate_up, all)) ||
        TRY(o->matmul_residual(k, w->x, w->attn, D, w->down, NULL, all)) || TRY(o->gather_rows(k, w->y, w->x, D, all)) ||
        TRY(o->rmsnorm(k, w->xn, NULL, w->y, w->norm, all, D, 1e-5f)) || TRY(o->matmul_f32(k, w->logits, w->xn, w->embed, all)) ||
        TRY(o->logprobs(k, &scores, 0, w->logits, V, N, V)))
        return r;
    return 0;
}

static int read_back(struct work *w)
{
    struct backend_memory m;
    struct err err;
    int r = 0;
    if (TRY(b->stamp(w->k, 0)) || TRY(b->fetch(w->k, w->fetched, DEV_BYTES(w->logits), sizeof(w->logits_host))) || TRY(b->mark(w->k, 0)) ||
        TRY(b->stamp(w->k, 1)) || TRY(b->wait(w->k, 0, &err)) ||
        TRY(b->download(w->k, w->logits_host, DEV_BYTES(w->logits), sizeof(w->logits_host))) || TRY(b->sync(w->k, &err)) ||
        TRY(b->memory(w->k, &m)))
        return r;
    stray(w);
    if (memcmp(w->fetched, w->logits_host, sizeof(w->logits_host)) || b->stamp_seconds(w->k, 0, 1) < 0)
        return ERR_INTERNAL;
    stray(w);
    struct dev_bytes *extra = b->alloc(w->k, 64);
    stray(w);
    b->free(w->k, extra);
    return extra ? 0 : ERR_NOMEM;
}

static void *run_main(void *arg)
{
    struct work *w = arg;
    w->strays = true;
    w->code = issue(w);
    if (w->code >= 0)
        w->code = read_back(w);
    memcpy(w->issued, w->logits_host, sizeof(w->issued));
    w->strays = false;                                 /* while ops are recorded a thread keeps to its device */
    for (int i = 0; i < ROUNDS && w->code >= 0; i++) { /* issued, recorded, replayed */
        w->code = w->k->ops->replay(w->k, "layer", 5, issue, w);
        if (w->code >= 0)
            w->code = read_back(w);
        if (w->code >= 0 && memcmp(w->logits_host, w->issued, sizeof(w->issued)))
            w->code = ERR_INTERNAL;
    }
    return NULL;
}

/* Every context at once, each in a thread of its own; then what they gave. */
static void run_together(struct work *w, const float *want)
{
    pthread_t threads[CONTEXTS];
    for (int i = 0; i < CONTEXTS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, run_main, &w[i]), 0);
    for (int i = 0; i < CONTEXTS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < CONTEXTS; i++)
        if (CHECK_INT(w[i].code, 0))
            CHECK(!memcmp(w[i].logits_host, want, sizeof(w[i].logits_host)));
}

static void check_level(const char *level)
{
    static struct work alone, w[CONTEXTS];
    if (!make(&alone, 0, level, NULL))
        return;
    run_main(&alone);
    CHECK_INT(alone.code, 0);
    int n = 0;
    while (n < CONTEXTS && make(&w[n], n % n_devices, level, n ? &alone : NULL))
        n++;
    if (CHECK_INT(n, CONTEXTS)) {
        run_together(w, alone.logits_host);
        run_together(w, alone.logits_host);
        run_main(&w[0]); /* and in the thread that opened the other one last */
        CHECK_INT(w[0].code, 0);
    }
    for (int i = 0; i < n; i++)
        done(&w[i]);
    done(&alone);
}

/* Returns how many devices there are. */
static int check_numbers(void)
{
    struct backend_config c = {.dtype = DTYPE_F32, .n_threads = 1};
    struct kern_ctx *k = NULL;
    struct err err = {0};
    int n = 0, r;
    while ((r = b->open(&c, &k, &err)) >= 0) {
        b->close(k);
        c.device_index = ++n;
    }
    char count[32];
    snprintf(count, sizeof(count), "device %d: %d w", n, n); /* "was" or "were" */
    CHECK_INT(r, ERR_INVALID);
    CHECK_STR(err.param, "device");
    CHECK(strstr(err.text, count) != NULL);
    c.device_index = -1;
    CHECK_INT(b->open(&c, &k, &err), ERR_INVALID);
    return n;
}

int main(void)
{
    struct err err = {0};
    if (backend_find("cuda", &b, &err) < 0) {
        printf("skipped: %s\n", err.text);
        return CHECK_SKIP;
    }
    n_devices = check_numbers();
    if (!CHECK(n_devices > 0))
        return check_result();
    static const char *const levels[] = {"wgmma", "mma", "simt"};
    for (size_t i = 0; i < sizeof(levels) / sizeof(*levels); i++)
        check_level(levels[i]);
#if defined(FAKE_CUDA)
    CHECK_INT(fake_cuda_refused(), 0);
    for (int i = 0; i < n_devices; i++)
        CHECK(fake_cuda_launches(i) > 0);
#endif
    printf("%d device%s, %d contexts\n", n_devices, n_devices == 1 ? "" : "s", CONTEXTS);
    return check_result();
}
