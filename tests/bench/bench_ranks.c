/* Times the parts of a step that N devices compute together (--tensor-parallel), each part alone: the products and the attention of one rank on a device
 * of its own, and the gathers of all ranks with nothing between them. What a step takes beside their sum is what putting them together costs.
 *
 *   bench_ranks DEVICE N ROWS LENGTH CONTEXT D F H HK HD LAYERS VOCAB
 *
 * ROWS rows of a step in sequences of LENGTH, each behind CONTEXT keys. Prints one line of JSON: seconds of a step in LAYERS layers, the best of several
 * runs. Weights are bf16 and random, of SETS layers in turn, so that no cache holds them. */
#include "common/thread.h"
#include "kernels/backend.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SETS = 3, RUNS = 4, RANKS_MAX = 16 };

struct shape {
    int n, rows, length, context, d, f, h, hk, hd, layers, vocab; /* n: ranks; the others of the whole model */
};

/* What a rank has of it. */
struct rank {
    struct kern_ctx *k;
    const struct shape *s;
    int h, hk, width;
    struct rows all;
    struct dev_f32 *x, *x_part, *logits, *cos, *sin;
    struct dev_act *xn, *qkv, *attn, *attn_part, *ffn, *ffn_part;
    struct kern_matrix *qkv_w[SETS], *o[SETS], *gate_up[SETS], *down[SETS], *head;
    struct kern_heads heads;
    struct kern_step step;
    struct kern_place place;
    double seconds; /* of the latest measurement */
};

static const struct backend *b;

static void must(int code, const char *what)
{
    if (code >= 0)
        return;
    fprintf(stderr, "%s failed: %s\n", what, err_name(code));
    exit(1);
}

static void *room(struct rank *r, size_t bytes)
{
    void *p = b->alloc(r->k, bytes), *zeros = calloc(1, bytes);
    must(p && zeros ? b->upload(r->k, p, zeros, bytes) : ERR_NOMEM, "alloc");
    free(zeros);
    return p;
}

/* n values of the compute dtype (bf16) from -2 to 2, of every size and none twice in a row: a device multiplies zeros at a higher clock. */
static void *values(struct rank *r, size_t n)
{
    uint16_t *host = malloc(n * sizeof(*host));
    void *p = b->alloc(r->k, n * sizeof(*host));
    uint64_t state = 1;
    for (size_t i = 0; host && i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
        float v = (float)(int32_t)(state >> 32) / (float)(1 << 30);
        uint32_t bits;
        memcpy(&bits, &v, sizeof(bits));
        host[i] = (uint16_t)(bits >> 16);
    }
    must(p && host ? b->upload(r->k, p, host, n * sizeof(*host)) : ERR_NOMEM, "alloc");
    free(host);
    return p;
}

static struct kern_matrix *matrix(struct rank *r, enum matrix_kind kind, int n, int cols)
{
    static uint64_t stream;
    const struct matrix_part part = {.type = DTYPE_BF16, .n = n, .random = {.stream = ++stream, .std = 0.02}}, parts[2] = {part, part};
    struct kern_matrix *w = NULL;
    struct err err = {0};
    must(r->k->ops->matrix_new(r->k, kind, parts, kind == MATRIX_GATE_UP ? 2 : 1, cols, &w, &err), err.text);
    return w;
}

static struct dev_i32 *ints(struct rank *r, int n, int (*value)(const struct shape *s, int i))
{
    int *host = malloc(sizeof(int) * (size_t)n);
    struct dev_i32 *dev = room(r, sizeof(int) * (size_t)n);
    for (int i = 0; host && i < n; i++)
        host[i] = value(r->s, i);
    must(host ? b->upload(r->k, DEV_BYTES(dev), host, sizeof(int) * (size_t)n) : ERR_NOMEM, "upload");
    free(host);
    return dev;
}

static int position(const struct shape *s, int i)
{
    return s->context + i % s->length;
}
static int run_of(const struct shape *s, int i)
{
    return i / s->length;
}
static int base_of(const struct shape *s, int i)
{
    return s->context;
}
static int itself(const struct shape *s, int i)
{
    return i;
}

/* Keys before the step's own all lie in slot 0: where they lie does not matter. */
static void make_step(struct rank *r)
{
    const struct shape *s = r->s;
    int n = s->rows, n_runs = n / s->length, cap = s->context + s->length;
    size_t list = (size_t)n * sizeof(int);
    struct kern_run *host = calloc((size_t)n_runs, sizeof(*host));
    struct dev_runs *runs = room(r, (size_t)n_runs * sizeof(*host));
    for (int i = 0; host && i < n_runs; i++)
        host[i] = (struct kern_run){i * s->length, s->length, 1, cap, (int64_t)i * cap};
    must(host ? b->upload(r->k, DEV_BYTES(runs), host, (size_t)n_runs * sizeof(*host)) : ERR_NOMEM, "upload");
    free(host);
    r->all = (struct rows){.n_max = n};
    r->step = (struct kern_step){r->all, ints(r, n, position), ints(r, n, run_of), runs, n_runs, room(r, (size_t)n_runs * (size_t)cap * 4)};
    r->place = (struct kern_place){
        room(r, list), room(r, sizeof(int)), room(r, list), room(r, sizeof(int)), room(r, (size_t)(n_runs + 1) * sizeof(int)),
        room(r, list), room(r, list)};
    must(r->k->ops->place(r->k, &r->step, 0, NULL, false, ints(r, n_runs, base_of), ints(r, n, itself), &r->place), "place");
}

static void make_weights(struct rank *r)
{
    const struct shape *s = r->s;
    for (int i = 0; i < SETS; i++) {
        r->qkv_w[i] = matrix(r, MATRIX_LINEAR, r->width, s->d);
        r->o[i] = matrix(r, MATRIX_LINEAR, s->d / s->n, s->h * s->hd);
        r->gate_up[i] = matrix(r, MATRIX_GATE_UP, s->f / s->n, s->d);
        r->down[i] = matrix(r, MATRIX_LINEAR, s->d / s->n, s->f);
    }
    r->head = matrix(r, MATRIX_LINEAR, s->vocab, s->d);
}

static void make_arrays(struct rank *r)
{
    const struct shape *s = r->s;
    size_t n = (size_t)s->rows, table = (size_t)(s->context + s->length) * (size_t)s->hd / 2 * 4;
    r->x = room(r, n * (size_t)s->d * 4);
    r->x_part = room(r, n * (size_t)(s->d / s->n) * 4);
    r->logits = room(r, (size_t)(s->rows / s->length) * (size_t)s->vocab * 4);
    r->cos = room(r, table);
    r->sin = room(r, table);
    r->xn = values(r, n * (size_t)s->d);
    r->qkv = values(r, n * (size_t)r->width);
    r->attn = values(r, n * (size_t)(s->h * s->hd));
    r->attn_part = values(r, n * (size_t)(r->h * s->hd));
    r->ffn = values(r, n * (size_t)s->f);
    r->ffn_part = values(r, n * (size_t)(s->f / s->n));
    r->heads = (struct kern_heads){r->h, r->hk, s->hd, values(r, n * (size_t)(2 * r->hk * s->hd))};
}

/* ---- the parts -------------------------------------------------------------------------------------------------------- */
static int products(struct rank *r)
{
    const struct kern_ops *o = r->k->ops;
    const struct shape *s = r->s;
    int code = 0;
    for (int l = 0; l < s->layers && code >= 0; l++) {
        int i = l % SETS;
        code = o->matmul(r->k, r->qkv, 0, r->width, r->xn, s->d, r->qkv_w[i], r->all);
        if (code >= 0)
            code = o->matmul_residual(r->k, r->x_part, r->attn, s->h * s->hd, r->o[i], NULL, r->all);
        if (code >= 0)
            code = o->matmul_swiglu(r->k, r->ffn_part, r->xn, r->gate_up[i], r->all);
        if (code >= 0)
            code = o->matmul_residual(r->k, r->x_part, r->ffn, s->f, r->down[i], NULL, r->all);
    }
    return code < 0 ? code : o->matmul_f32(r->k, r->logits, r->xn, r->head, (struct rows){.n_max = s->rows / s->length});
}

static int attention(struct rank *r)
{
    int code = 0;
    for (int l = 0; l < r->s->layers && code >= 0; l++)
        code = r->k->ops->attention(r->k, &r->heads, r->attn_part, r->qkv, &r->step, 0, &r->place, 0.1f);
    return code;
}

static int gathers(struct rank *r)
{
    const struct shape *s = r->s;
    size_t act = dtype_size(r->k->act), x = (size_t)(s->d / s->n) * 4;
    int code = 0;
    for (int l = 0; l < s->layers && code >= 0; l++) {
        code = b->all_gather(r->k, DEV_BYTES(r->attn), DEV_BYTES(r->attn_part), (size_t)(r->h * s->hd) * act, s->rows);
        if (code >= 0)
            code = b->all_gather(r->k, DEV_BYTES(r->x), DEV_BYTES(r->x_part), x, s->rows);
        if (code >= 0)
            code = b->all_gather(r->k, DEV_BYTES(r->ffn), DEV_BYTES(r->ffn_part), (size_t)(s->f / s->n) * act, s->rows);
        if (code >= 0)
            code = b->all_gather(r->k, DEV_BYTES(r->x), DEV_BYTES(r->x_part), x, s->rows);
    }
    return code < 0 ? code : b->await_gathers(r->k, 0);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best time of a step's part, after one to warm up. */
static void measure(struct rank *r, int (*part)(struct rank *r), const char *what)
{
    r->seconds = 1e9;
    for (int i = 0; i <= RUNS; i++) {
        double begin = now();
        must(part(r), what);
        must(b->sync(r->k, NULL), what);
        double t = now() - begin;
        r->seconds = i && t < r->seconds ? t : r->seconds;
    }
}

static void measure_gathers(void *arg, int i)
{
    measure((struct rank *)arg + i, gathers, "gathers");
}

/* ---- ranks ------------------------------------------------------------------------------------------------------------ */
static void open_rank(struct rank *r, const struct shape *s, int i, bool whole)
{
    struct backend_config c = {.dtype = DTYPE_BF16, .device_index = i, .n_threads = 1};
    struct err err = {0};
    must(b->open(&c, &r->k, &err), err.text);
    r->s = s;
    r->h = s->h / s->n;
    r->hk = s->hk > s->n ? s->hk / s->n : 1;
    r->width = (r->h + 2 * r->hk) * s->hd;
    make_arrays(r);
    if (whole) { /* products and attention are the first rank's alone */
        make_step(r);
        make_weights(r);
    }
    must(b->sync(r->k, NULL), "opening");
}

static void run(const struct shape *s)
{
    static struct rank ranks[RANKS_MAX];
    struct kern_ctx *contexts[RANKS_MAX];
    struct err err = {0};
    for (int i = 0; i < s->n; i++) {
        open_rank(&ranks[i], s, i, !i);
        contexts[i] = ranks[i].k;
    }
    measure(&ranks[0], products, "products");
    double of_products = ranks[0].seconds;
    measure(&ranks[0], attention, "attention");
    double of_attention = ranks[0].seconds, of_gathers = 0;
    if (s->n > 1) {
        must(b->group_open(contexts, s->n, &err), err.text);
        thread_each(s->n, measure_gathers, ranks);
        of_gathers = ranks[0].seconds;
        b->group_close(contexts, s->n);
    }
    printf("{\"ranks\": %d, \"rows\": %d, \"products\": %.6f, \"attention\": %.6f, \"gathers\": %.6f}\n", s->n, s->rows, of_products,
           of_attention, of_gathers);
}

int main(int argc, char **argv)
{
    struct shape s;
    int *const fields[] = {&s.n, &s.rows, &s.length, &s.context, &s.d, &s.f, &s.h, &s.hk, &s.hd, &s.layers, &s.vocab};
    struct err err;
    if (argc != 13) {
        fprintf(stderr, "bench_ranks DEVICE N ROWS LENGTH CONTEXT D F H HK HD LAYERS VOCAB\n");
        return 2;
    }
    for (int i = 0; i < 11; i++)
        *fields[i] = atoi(argv[i + 2]);
    if (s.n < 1 || s.n > RANKS_MAX || s.length < 1 || s.rows % s.length || s.d % s.n || s.f % s.n || s.h % s.n) {
        fprintf(stderr, "N must divide D, F and H, and LENGTH the ROWS\n");
        return 2;
    }
    if (s.n > 1)
        backend_expect_group();
    if (backend_find(argv[1], &b, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 77;
    }
    run(&s);
    return 0; /* the process's end gives everything back */
}
