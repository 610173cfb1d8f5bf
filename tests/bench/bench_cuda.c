/* Times the CUDA backend's ops on the shapes of a model's prefill, and sums them up as a dense layer and one whose attention takes one row in ten.
 *
 *   bench_cuda [ROWS [LENGTH [DTYPE]]]   rows of a step, and of a sequence; bf16, f16 or f32; prints one line an op: microseconds, TFLOP/s or GB/s.
 *                                        DTRNET_TEST_CUDA_LEVEL: the kernels; DTRNET_TEST_PRECISION high: --matmul-precision
 *
 * Inputs are random; a time is the best of several runs of many calls each. */
#include "kernels/backend.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct shape {
    const char *name;
    int d, f, h, hk, hd;
};

static const struct shape shapes[] = {{"360m", 960, 2560, 15, 5, 64}, {"1.3b", 2048, 5632, 32, 32, 64}, {"hd128", 2048, 5632, 16, 16, 128}};

static struct kern_ctx *k;
static const struct backend *b;

static void must(int code, const char *what)
{
    struct err err = {0};
    if (code >= 0 && b->sync(k, &err) >= 0)
        return;
    fprintf(stderr, "%s failed: %s\n", what, code < 0 ? err_name(code) : err.text);
    exit(1);
}

static void *room(size_t bytes)
{
    void *p = b->alloc(k, bytes);
    must(p ? 0 : ERR_NOMEM, "alloc");
    return p;
}

/* Random elements of type t, about normal. */
static void *random_array(size_t n, enum dtype t)
{
    size_t size = dtype_size(t), chunk = 1 << 20;
    char *host = malloc(chunk * size);
    struct dev_bytes *dev = room(n * size);
    for (size_t i = 0; i < chunk; i++) {
        float v = (float)(rand() % 2001 + rand() % 2001 - 2000) / 1000;
        dtype_from_f32(host + i * size, t, &v, 1);
    }
    for (size_t i = 0; i < n; i += chunk)
        must(b->upload(k, dev_bytes_in(dev, i * size), host, (n - i < chunk ? n - i : chunk) * size), "upload");
    free(host);
    return dev;
}

static struct kern_matrix *matrix(enum matrix_kind kind, int n, int cols)
{
    size_t size = (size_t)n * (size_t)cols;
    uint16_t *w = malloc(size * 2);
    for (size_t i = 0; i < size; i++)
        w[i] = f32_to_bf16((float)(rand() % 2001 - 1000) / 30000);
    struct matrix_part parts[2] = {{w, DTYPE_BF16, n, NULL, DTYPE_F32}, {w, DTYPE_BF16, n, NULL, DTYPE_F32}};
    struct kern_matrix *m = NULL;
    struct err err;
    if (k->ops->matrix_new(k, kind, parts, kind == MATRIX_GATE_UP ? 2 : 1, cols, &m, &err) < 0)
        must(ERR_DEVICE, err.text);
    free(w);
    return m;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct run {
    const struct shape *s;
    struct rows all;
    struct dev_f32 *x, *norm, *router, *router_out, *decided, *prob, *cos, *sin, *gate;
    struct dev_act *xn, *qkv, *attn, *ffn;
    struct kern_matrix *w_qkv, *w_qk, *w_v, *w_o, *w_gu, *w_down, *w_router;
    struct kern_heads heads;
    struct kern_step step;
    struct kern_place place, place_some;
    struct dev_i32 *base, *reserved;
    struct dev_u8 *route, *one_in_ten; /* decisions: as the router's op writes them, and as the others read them */
    struct rows some;                  /* one row in ten */
    int n;
};

/* Best time of a call in seconds. */
static double seconds(int (*op)(struct run *r), struct run *r)
{
    double best = 1e9;
    int calls = 20;
    must(op(r), "op");
    for (int i = 0; i < 5; i++) {
        double t = now();
        for (int j = 0; j < calls; j++)
            if (op(r) < 0)
                must(ERR_DEVICE, "op");
        must(0, "op");
        t = (now() - t) / calls;
        best = t < best ? t : best;
    }
    return best;
}

static int width(const struct run *r)
{
    return (r->s->h + 2 * r->s->hk) * r->s->hd;
}
static int op_norm(struct run *r)
{
    return k->ops->rmsnorm(k, r->xn, NULL, r->x, r->norm, r->all, r->s->d, 1e-5f);
}
static int op_qkv(struct run *r)
{
    return k->ops->matmul(k, r->qkv, 0, width(r), r->xn, r->s->d, r->w_qkv, r->all);
}
static int op_rope(struct run *r)
{
    return k->ops->rope_store(k, &r->heads, r->qkv, r->cos, r->sin, &r->step, r->place.slot, r->all);
}
static int op_attention(struct run *r)
{
    return k->ops->attention(k, &r->heads, r->attn, r->qkv, &r->step, 0, &r->place, 0.125f);
}
static int op_place(struct run *r)
{
    return k->ops->place(k, &r->step, 0, NULL, false, r->base, r->reserved, &r->place);
}
static int op_o(struct run *r)
{
    return k->ops->matmul_residual(k, r->x, r->attn, r->s->h * r->s->hd, r->w_o, r->gate, r->all);
}
static int op_gu(struct run *r)
{
    return k->ops->matmul_swiglu(k, r->ffn, r->xn, r->w_gu, r->all);
}
static int op_down(struct run *r)
{
    return k->ops->matmul_residual(k, r->x, r->ffn, r->s->f, r->w_down, NULL, r->all);
}
static int op_accurate(struct run *r)
{
    return k->ops->matmul_accurate(k, r->router, r->x, r->w_router, r->all);
}
static int op_router(struct run *r)
{
    const struct route_out to = {r->route, r->decided, r->prob, DECISION_LINEAR, DECISION_ATTEND};
    const struct route_mlp p = {r->w_router, r->router_out, r->norm, r->s->d / 2, r->router};
    return k->ops->route_mlp(k, &to, &p, r->x, r->all);
}
static int op_values(struct run *r)
{
    return k->ops->matmul_bypass(k, &r->heads, r->attn, r->qkv, r->xn, r->w_v, r->s->d, r->all);
}
static int op_qk_some(struct run *r)
{
    return k->ops->matmul(k, r->qkv, 0, width(r), r->xn, r->s->d, r->w_qk, r->some);
}
static int op_rope_some(struct run *r)
{
    return k->ops->rope_store(k, &r->heads, r->qkv, r->cos, r->sin, &r->step, r->place_some.slot, r->some);
}
static int op_attention_some(struct run *r)
{
    return k->ops->attention(k, &r->heads, r->attn, r->qkv, &r->step, 0, &r->place_some, 0.125f);
}
static int op_place_some(struct run *r)
{
    return k->ops->place(k, &r->step, 0, r->one_in_ten, false, r->base, r->reserved, &r->place_some);
}

static void report(const char *name, struct run *r, int (*op)(struct run *), double flops, double bytes, double *sum)
{
    double s = seconds(op, r);
    printf("%-5s %6d rows %-12s %9.1f us", r->s->name, r->n, name, s * 1e6);
    if (flops > 0)
        printf(" %8.1f TFLOP/s", flops / s * 1e-12);
    if (bytes > 0)
        printf(" %8.0f GB/s", bytes / s * 1e-9);
    printf("\n");
    if (sum)
        *sum += s;
}

static struct dev_i32 *ints(int n, int (*value)(int i, int arg), int arg)
{
    int *host = malloc(sizeof(int) * (size_t)n);
    struct dev_i32 *dev = room(sizeof(int) * (size_t)n);
    for (int i = 0; i < n; i++)
        host[i] = value(i, arg);
    must(b->upload(k, DEV_BYTES(dev), host, sizeof(int) * (size_t)n), "upload");
    free(host);
    return dev;
}

static int same(int i, int arg)
{
    return i + arg;
}
static int in_run(int i, int length)
{
    return i / length;
}
static int in_sequence(int i, int length)
{
    return i % length;
}
static int none(int i, int arg)
{
    return 0;
}

static struct kern_place place_room(int n, int runs)
{
    size_t list = (size_t)n * sizeof(int);
    return (struct kern_place){room(list), room(sizeof(int)), room(list), room(sizeof(int)), room((size_t)(runs + 1) * sizeof(int)),
                               room(list), room(list)};
}

static void make_step(struct run *r, int length)
{
    int n = r->n, runs = (n + length - 1) / length;
    struct kern_run *host = calloc((size_t)runs, sizeof(*host));
    struct dev_runs *dev = room((size_t)runs * sizeof(*host));
    for (int i = 0; i < runs; i++)
        host[i] = (struct kern_run){i * length, (i + 1) * length < n ? length : n - i * length, 1, length, (int64_t)i * length};
    must(b->upload(k, DEV_BYTES(dev), host, (size_t)runs * sizeof(*host)), "upload");
    free(host);
    r->all = (struct rows){NULL, NULL, n};
    r->step = (struct kern_step){r->all, ints(n, in_sequence, length),           ints(n, in_run, length), dev,
                                 runs,   room((size_t)runs * (size_t)length * 4)};
    r->place = place_room(n, runs);
    r->place_some = place_room(n, runs);
    r->base = ints(runs, none, 0);
    r->reserved = ints(n, same, 0);
    unsigned char *decisions = malloc((size_t)n);
    for (int i = 0; i < n; i++)
        decisions[i] = i % 10 == 9 ? DECISION_ATTEND : DECISION_LINEAR;
    r->route = room((size_t)n);
    r->one_in_ten = room((size_t)n);
    must(b->upload(k, DEV_BYTES(r->one_in_ten), decisions, (size_t)n), "upload");
    free(decisions);
    r->some = (struct rows){r->place_some.sel, r->place_some.sel_n, n};
    must(op_place(r), "place");
    must(op_place_some(r), "place");
}

static void make_arrays(struct run *r, int length)
{
    const struct shape *s = r->s;
    size_t rows = (size_t)r->n;
    r->x = random_array(rows * (size_t)s->d, DTYPE_F32);
    r->norm = random_array((size_t)s->d, DTYPE_F32);
    r->gate = random_array(rows, DTYPE_F32);
    r->cos = random_array((size_t)length * (size_t)s->hd / 2, DTYPE_F32);
    r->sin = random_array((size_t)length * (size_t)s->hd / 2, DTYPE_F32);
    r->router = room(rows * (size_t)s->d / 2 * 4);
    r->router_out = random_array((size_t)s->d, DTYPE_F32);
    r->decided = room(rows * 4);
    r->prob = room(rows * 4);
    r->xn = random_array(rows * (size_t)s->d, k->act);
    r->qkv = random_array(rows * (size_t)width(r), k->act);
    r->attn = random_array(rows * (size_t)(s->h * s->hd), k->act);
    r->ffn = random_array(rows * (size_t)s->f, k->act);
    r->heads.kv = random_array(rows * (size_t)(2 * s->hk * s->hd), k->act);
    r->w_qkv = matrix(MATRIX_LINEAR, width(r), s->d);
    r->w_qk = matrix(MATRIX_LINEAR, (s->h + s->hk) * s->hd, s->d);
    r->w_v = matrix(MATRIX_LINEAR, s->hk * s->hd, s->d);
    r->w_o = matrix(MATRIX_LINEAR, s->d, s->h * s->hd);
    r->w_gu = matrix(MATRIX_GATE_UP, s->f, s->d);
    r->w_down = matrix(MATRIX_LINEAR, s->d, s->f);
    r->w_router = matrix(MATRIX_ACCURATE, s->d / 2, s->d);
}

static void place_done(const struct kern_place *p)
{
    struct dev_i32 *all[] = {p->sel, p->sel_n, p->exec, p->exec_n, p->run_start, p->visible, p->slot};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        b->free(k, DEV_BYTES(all[i]));
}

static void done(struct run *r)
{
    struct dev_bytes *all[] = {DEV_BYTES(r->x),         DEV_BYTES(r->norm),        DEV_BYTES(r->gate),       DEV_BYTES(r->cos),
                               DEV_BYTES(r->sin),       DEV_BYTES(r->router),      DEV_BYTES(r->router_out), DEV_BYTES(r->decided),
                               DEV_BYTES(r->prob),      DEV_BYTES(r->xn),          DEV_BYTES(r->qkv),        DEV_BYTES(r->attn),
                               DEV_BYTES(r->ffn),       DEV_BYTES(r->heads.kv),    DEV_BYTES(r->step.pos),   DEV_BYTES(r->step.run_of),
                               DEV_BYTES(r->step.runs), DEV_BYTES(r->step.tables), DEV_BYTES(r->base),       DEV_BYTES(r->reserved),
                               DEV_BYTES(r->route),     DEV_BYTES(r->one_in_ten)};
    struct kern_matrix *matrices[] = {r->w_qkv, r->w_qk, r->w_v, r->w_o, r->w_gu, r->w_down, r->w_router};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        b->free(k, all[i]);
    for (size_t i = 0; i < sizeof(matrices) / sizeof(*matrices); i++)
        k->ops->matrix_free(k, matrices[i]);
    place_done(&r->place);
    place_done(&r->place_some);
}

static void bench_dense(struct run *r, int length)
{
    const struct shape *s = r->s;
    double sum = 0, n = r->n, flops = 2 * n, q = s->h * s->hd, kv = s->hk * s->hd, d = s->d, f = s->f, act = (double)dtype_size(k->act),
           pairs = 0;
    for (int i = 0; i < r->n; i++)
        pairs += i % length + 1;
    report("place", r, op_place, 0, 0, &sum);
    report("rmsnorm", r, op_norm, 0, n * d * (4 + act), &sum);
    report("qkv", r, op_qkv, flops * d * (q + 2 * kv), 0, &sum);
    report("rope_store", r, op_rope, 0, n * act * 2 * (q + 2 * kv), &sum);
    report("attention", r, op_attention, 4 * pairs * q, 0, &sum);
    report("o", r, op_o, flops * d * q, 0, &sum);
    report("rmsnorm", r, op_norm, 0, n * d * (4 + act), &sum);
    report("gate_up", r, op_gu, flops * 2 * d * f, 0, &sum);
    report("down", r, op_down, flops * d * f, 0, &sum);
    printf("%-5s %6d rows %-12s %9.1f us, length %d\n", s->name, r->n, "= a layer", sum * 1e6, length);
}

/* What a routed layer does before its output projection; the rest is as above. */
static void bench_routed(struct run *r, int length)
{
    const struct shape *s = r->s;
    double sum = 0, n = r->n, flops = 2 * n, q = s->h * s->hd, kv = s->hk * s->hd, d = s->d, act = (double)dtype_size(k->act), pairs = 0;
    for (int i = 9; i < r->n; i += 10)
        pairs += i % length / 10 + 1;
    report("accurate", r, op_accurate, flops * d * d / 2, 0, NULL);
    report("router", r, op_router, flops * d * d / 2, 0, &sum);
    report("place 10 %", r, op_place_some, 0, 0, &sum);
    report("rmsnorm", r, op_norm, 0, n * d * (4 + act), &sum);
    report("qk 10 %", r, op_qk_some, flops / 10 * d * (q + kv), 0, &sum);
    report("v, bypass", r, op_values, flops * d * kv, 0, &sum);
    report("rope 10 %", r, op_rope_some, 0, n / 10 * act * 2 * (q + 2 * kv), &sum);
    must(op_rope_some(r), "rope_store");
    report("attend 10 %", r, op_attention_some, 4 * pairs * q, 0, &sum);
    printf("%-5s %6d rows %-12s %9.1f us, length %d\n", s->name, r->n, "= to o", sum * 1e6, length);
}

static void bench(const struct shape *s, int n, int length)
{
    struct run r = {.s = s, .n = n, .heads = {s->h, s->hk, s->hd, NULL}};
    make_step(&r, length);
    make_arrays(&r, length);
    bench_dense(&r, length);
    bench_routed(&r, length);
    done(&r);
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 16384, length = argc > 2 ? atoi(argv[2]) : 2048;
    const char *dtype = argc > 3 ? argv[3] : "bf16", *precision = getenv("DTRNET_TEST_PRECISION");
    struct backend_config c = {.dtype = !strcmp(dtype, "f32")   ? DTYPE_F32
                                        : !strcmp(dtype, "f16") ? DTYPE_F16
                                                                : DTYPE_BF16,
                               .precision = precision && !strcmp(precision, "high") ? MATMUL_HIGH : MATMUL_HIGHEST,
                               .n_threads = 1,
                               .cuda_level = getenv("DTRNET_TEST_CUDA_LEVEL")};
    struct err err;
    if (backend_find("cuda", &b, &err) < 0 || b->open(&c, &k, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 77;
    }
    printf("%s\n", b->numerics_class(k));
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        bench(&shapes[i], n, length);
    b->close(k);
    return 0;
}
