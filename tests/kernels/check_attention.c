/* attention: queries over scattered keys, against a softmax in double, and bitwise over every way to arrange the same queries.
 *
 * A problem is some sequences of keys and values, and queries that each see the first so many keys of one sequence. An arrangement lays
 * the queries out as step rows: in runs of any length, sequences in any order, unselected rows between, keys in any slots, any layer. */
#include "tests/check/harness.h"
#include <math.h>

enum { LAYERS = 3 };

struct query {
    int seq, visible;
};

struct problem {
    struct kern_heads hs;
    int n_seqs, *n_keys, *first_key; /* keys of all sequences lie one after another */
    int total, n;                    /* keys, queries */
    struct query *queries;           /* [n], by sequence, visible ascending */
    char *kv, *q;                    /* host, act: [total, 2*hk*hd], [n, h*hd] */
    char *first;                     /* result of the first arrangement, act [n, h*hd] */
    float scale;
    char what[96];
};

static size_t kv_bytes(const struct check *c, const struct problem *p)
{
    return 2 * p->hs.hk * p->hs.hd * check_size(c, CHECK_ACT);
}
static size_t q_bytes(const struct check *c, const struct problem *p)
{
    return p->hs.h * p->hs.hd * check_size(c, CHECK_ACT);
}

/* out[hd], and sizes[hd]: the sum of the terms' absolute values. */
static void reference(struct check *c, const struct problem *p, int i, int head, double *out, double *sizes)
{
    int hd = p->hs.hd, hk = p->hs.hk, kv_head = head / (p->hs.h / hk), n = p->queries[i].visible;
    size_t key0 = p->first_key[p->queries[i].seq];
    double *score = malloc(sizeof(double) * n), max = -1e300, sum = 0;
    for (int j = 0; j < n; j++) {
        score[j] = 0;
        for (int e = 0; e < hd; e++)
            score[j] += check_get(c, CHECK_ACT, p->q, ((size_t)i * p->hs.h + head) * hd + e) *
                        check_get(c, CHECK_ACT, p->kv, ((key0 + j) * 2 * hk + kv_head) * hd + e);
        score[j] *= p->scale;
        max = score[j] > max ? score[j] : max;
    }
    memset(out, 0, sizeof(double) * hd);
    memset(sizes, 0, sizeof(double) * hd);
    for (int j = 0; j < n; j++) {
        score[j] = exp(score[j] - max);
        sum += score[j];
        for (int e = 0; e < hd; e++) {
            double v = check_get(c, CHECK_ACT, p->kv, ((key0 + j) * 2 * hk + hk + kv_head) * hd + e);
            out[e] += score[j] * v;
            sizes[e] += score[j] * fabs(v);
        }
    }
    for (int e = 0; e < hd; e++) {
        out[e] /= sum;
        sizes[e] /= sum;
    }
    free(score);
}

/* The tolerance: weights carry the error of scores (f32 sums of hd products of size up to 3 each, then exp); values are up to 3. CUDA,
 * AMX and AVX-512 BF16 round the weights to the compute dtype, as their products take them: half a unit of each term more (ulp is half a unit). */
static void compare(struct check *c, const struct problem *p, const char *got)
{
    const char *class = c->backend->numerics_class(c->k);
    bool rounded = !strcmp(c->backend->name, "cuda") || strstr(class, "amx") || strstr(class, "avx512bf16");
    double want[256], sizes[256], ulp = c->act == DTYPE_BF16 ? 0x1p-8 : c->act == DTYPE_F16 ? 0x1p-11 : 0;
    for (int i = 0; i < p->n; i++)
        for (int head = 0; head < p->hs.h; head++) {
            reference(c, p, i, head, want, sizes);
            for (int e = 0; e < p->hs.hd; e++) {
                double v = check_get(c, CHECK_ACT, got, ((size_t)i * p->hs.h + head) * p->hs.hd + e);
                double weights = rounded ? ulp * sizes[e] : 0;
                if (!(fabs(v - want[e]) <= 1e-5 + (2e-5 + ulp) * fabs(want[e]) + weights))
                    check_fail(c, p->what, "query %d of %d (sees %d), head %d, [%d] is %.9g, not %.9g", i, p->n, p->queries[i].visible,
                               head, e, v, want[e]);
            }
        }
}

static void shuffle(struct check *c, int *a, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int j = check_int(c, 0, i), t = a[i];
        a[i] = a[j];
        a[j] = t;
    }
}

static int *numbers(struct check *c, int n, bool shuffled)
{
    int *a = malloc(sizeof(int) * (n + 1));
    for (int i = 0; i < n; i++)
        a[i] = i;
    if (shuffled)
        shuffle(c, a, n);
    return a;
}

/* Step rows of an arrangement; at most two a query (an unselected one before each). */
struct arrangement {
    int n, n_runs, layer, n_sel;
    int other;  /* a layer with the same lists and other slots */
    int *query; /* [n] or -1: not selected */
    int *run_of, *visible, *sel, *run_start;
    struct kern_run *runs;
    int *tables;
};

/* Cuts a sequence's queries into runs after each with a chance of cut in 100, and puts unselected rows between with a chance of gap. */
static void lay_sequence(struct check *c, const struct problem *p, struct arrangement *a, int seq, int cut, int gap)
{
    bool open = false;
    for (int i = 0; i < p->n; i++) {
        if (p->queries[i].seq != seq)
            continue;
        if (!open) {
            a->run_start[a->n_runs] = a->n_sel;
            a->runs[a->n_runs++] = (struct kern_run){.row0 = a->n,
                                                     .append = check_int(c, 0, 1),
                                                     .table_cap = p->n_keys[seq] + 3,
                                                     .table_off = (int64_t)LAYERS * (p->first_key[seq] + 3 * seq)};
        }
        open = check_int(c, 0, 99) >= cut;
        for (int twice = check_int(c, 0, 99) >= gap; twice < 2; twice++) {
            bool selected = twice == 1;
            a->query[a->n] = selected ? i : -1;
            a->run_of[a->n] = a->n_runs - 1;
            a->visible[a->n] = selected ? p->queries[i].visible : 1 << 30;
            if (selected)
                a->sel[a->n_sel++] = a->n;
            a->runs[a->n_runs - 1].n++;
            a->n++;
        }
    }
}

static void arrange(struct check *c, const struct problem *p, struct arrangement *a, const int *slot_of, int cut, int gap)
{
    int rows = 2 * p->n + 1, *order = numbers(c, p->n_seqs, true);
    *a = (struct arrangement){.layer = check_int(c, 0, LAYERS - 1),
                              .query = calloc(rows, 4),
                              .run_of = calloc(rows, 4),
                              .visible = calloc(rows, 4),
                              .sel = calloc(rows, 4),
                              .run_start = calloc(rows + 1, 4),
                              .runs = calloc(rows, sizeof(*a->runs)),
                              .tables = calloc(LAYERS * (p->total + 3 * p->n_seqs) + 1, 4)};
    for (int i = 0; i < LAYERS * (p->total + 3 * p->n_seqs); i++)
        a->tables[i] = -(1 << 28); /* following it is not survived */
    a->other = (a->layer + 1) % LAYERS;
    for (int s = 0; s < p->n_seqs; s++)
        for (int j = 0; j < p->n_keys[s]; j++) {
            int *table = a->tables + (size_t)LAYERS * (p->first_key[s] + 3 * s), cap = p->n_keys[s] + 3;
            table[a->layer * cap + j] = slot_of[p->first_key[s] + j];
            table[a->other * cap + j] = slot_of[p->total - 1 - p->first_key[s] - j];
        }
    for (int s = 0; s < p->n_seqs; s++)
        lay_sequence(c, p, a, order[s], cut, gap);
    a->run_start[a->n_runs] = a->n_sel;
    free(order);
}

static void arrangement_done(struct arrangement *a)
{
    void *all[] = {a->query, a->run_of, a->visible, a->sel, a->run_start, a->runs, a->tables};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free(all[i]);
}

struct call {
    struct check *c;
    struct kern_heads hs;
    void *out, *qkv;
    struct kern_step s;
    int layer;
    struct kern_place place;
    float scale;
};

static void call(void *arg)
{
    struct call *a = arg;
    struct err err;
    check_code(a->c, "attention", a->c->k->ops->attention(a->c->k, &a->hs, a->out, a->qkv, &a->s, a->layer, &a->place, a->scale));
    a->c->backend->sync(a->c->k, &err);
}

/* What was told for the layer, once more behind another one with the same lists. */
static void check_again(const struct problem *p, const struct arrangement *a, struct call args, const void *before, const void *told,
                        size_t bytes)
{
    struct check *c = args.c;
    char *out = malloc(bytes + 1);
    args.place.again = true;
    for (int i = 0; i < 2; i++) {
        check_code(c, "upload", c->backend->upload(c->k, args.out, before, bytes));
        args.layer = i ? a->layer : a->other;
        call(&args);
    }
    check_down(c, "attention", out, args.out, bytes);
    if (memcmp(told, out, bytes))
        check_fail(c, p->what, "other bits where the lists are those of the layer before");
    free(out);
}

/* Runs an arrangement; ret[i]: the result of query i. */
static void run(struct check *c, const struct problem *p, const struct arrangement *a, const int *slot_of, char *ret)
{
    size_t kv = kv_bytes(c, p), q = q_bytes(c, p), width = q + kv;
    char *pool = calloc(p->total + 1, kv), *qkv = calloc(a->n + 1, width), *before = malloc((a->n + 1) * q), *out = malloc((a->n + 1) * q);
    for (int j = 0; j < p->total; j++)
        memcpy(pool + slot_of[j] * kv, p->kv + j * kv, kv);
    memset(before, 0x11, (a->n + 1) * q);
    for (int r = 0; r < a->n; r++)
        if (a->query[r] >= 0)
            memcpy(qkv + r * width, p->q + a->query[r] * q, q);
    void *dev[] = {check_up(c, pool, p->total * kv),
                   check_up(c, qkv, a->n * width),
                   check_up(c, before, a->n * q),
                   check_up(c, a->run_of, 4 * a->n),
                   check_up(c, a->runs, sizeof(*a->runs) * a->n_runs),
                   check_up(c, a->tables, 4 * LAYERS * (p->total + 3 * p->n_seqs)),
                   check_up(c, a->sel, 4 * a->n_sel),
                   check_up(c, &a->n_sel, 4),
                   check_up(c, a->run_start, 4 * (a->n_runs + 1)),
                   check_up(c, a->visible, 4 * a->n)};
    struct call args = {.c = c,
                        .hs = p->hs,
                        .out = dev[2],
                        .qkv = dev[1],
                        .layer = a->layer,
                        .scale = p->scale,
                        .s = {.all = {NULL, NULL, a->n}, .run_of = dev[3], .runs = dev[4], .n_runs = a->n_runs, .tables = dev[5]},
                        .place = {.sel = dev[6], .sel_n = dev[7], .run_start = dev[8], .visible = dev[9]}};
    args.hs.kv = dev[0];
    if (c->bench) {
        double s = check_seconds(c, call, &args), flops = 0;
        for (int i = 0; i < p->n; i++)
            flops += 4.0 * p->hs.h * p->hs.hd * p->queries[i].visible;
        printf("%-15s %-34s %5d rows %10.2f us %26.1f GFLOP/s\n", c->op, p->what, p->n, s * 1e6, flops / s * 1e-9);
    } else {
        call(&args);
    }
    check_down(c, "attention", out, dev[2], a->n * q);
    if (!c->bench && c->k->ops->place_layers)
        check_again(p, a, args, before, out, a->n * q);
    for (int r = 0; r < a->n; r++)
        if (a->query[r] >= 0)
            memcpy(ret + a->query[r] * q, out + r * q, q);
        else if (memcmp(out + r * q, before + r * q, q))
            check_fail(c, p->what, "row %d is not selected, but was written", r);
    for (size_t i = 0; i < sizeof(dev) / sizeof(*dev); i++)
        check_drop(c, dev[i]);
    free(pool);
    free(qkv);
    free(before);
    free(out);
}

static void try_arrangement(struct check *c, struct problem *p, int cut, int gap, bool is_first)
{
    struct arrangement a;
    size_t q = q_bytes(c, p);
    int *slot_of = numbers(c, p->total, !c->bench);
    char *got = malloc((p->n + 1) * q);
    arrange(c, p, &a, slot_of, cut, gap);
    run(c, p, &a, slot_of, got);
    c->cases++;
    if (is_first)
        memcpy(p->first, got, p->n * q);
    for (int i = 0; i < p->n; i++)
        if (memcmp(p->first + i * q, got + i * q, q)) {
            check_fail(c, p->what, "query %d of %d (sees %d) has other bits in another arrangement", i, p->n, p->queries[i].visible);
            break;
        }
    arrangement_done(&a);
    free(slot_of);
    free(got);
}

/* A value that is not finite, in the last key of the last sequence: queries that see it give NaN, the others keep their bits. */
static void try_bad_value(struct check *c, struct problem *p)
{
    struct arrangement a;
    size_t q = q_bytes(c, p), hd = p->hs.hd, head = hd * check_size(c, CHECK_ACT);
    int *slot_of = numbers(c, p->total, true), last = p->n_seqs - 1, group = p->hs.h / p->hs.hk;
    char *got = malloc((p->n + 1) * q), *value = p->kv + p->total * kv_bytes(c, p) - head, *before = malloc(head);
    memcpy(before, value, head);
    memset(value + check_int(c, 0, (int)hd - 1) * check_size(c, CHECK_ACT), 0xff, check_size(c, CHECK_ACT));
    arrange(c, p, &a, slot_of, 0, 0);
    run(c, p, &a, slot_of, got);
    c->cases++;
    for (int i = 0; i < p->n; i++) {
        bool sees = p->queries[i].seq == last && p->queries[i].visible == p->n_keys[last];
        size_t kept = sees ? q - group * head : q;
        if (memcmp(p->first + i * q, got + i * q, kept))
            check_fail(c, p->what, "query %d of %d (sees %d) is changed by a value that it does not see", i, p->n, p->queries[i].visible);
        double sum = 0;
        for (size_t e = kept; e < q; e += check_size(c, CHECK_ACT))
            sum += check_get(c, CHECK_ACT, got, (i * q + e) / check_size(c, CHECK_ACT));
        if (sees && !isnan(sum))
            check_fail(c, p->what, "query %d of %d (sees %d) does not show that a value is NaN", i, p->n, p->queries[i].visible);
    }
    memcpy(value, before, head);
    arrangement_done(&a);
    free(slot_of);
    free(got);
    free(before);
}

static void make(struct check *c, struct problem *p, int n_seqs, int max_keys, int max_queries)
{
    p->n_seqs = n_seqs;
    p->n_keys = calloc(n_seqs + 1, sizeof(int));
    p->first_key = calloc(n_seqs + 1, sizeof(int));
    p->queries = calloc((size_t)n_seqs * max_queries + 1, sizeof(*p->queries));
    for (int s = 0; s < n_seqs; s++) {
        int keys = p->n_keys[s] = c->bench ? max_keys : check_int(c, 1, max_keys), skip = keys - max_queries;
        p->first_key[s] = p->total;
        p->total += keys;
        for (int v = skip > 0 ? skip + 1 : 1; v <= keys; v++)
            if (c->bench || check_int(c, 0, 2))
                p->queries[p->n++] = (struct query){s, v};
    }
    p->kv = check_fill(c, CHECK_ACT, (size_t)p->total * 2 * p->hs.hk * p->hs.hd, -3, 3);
    p->q = check_fill(c, CHECK_ACT, (size_t)p->n * p->hs.h * p->hs.hd, -3, 3);
    p->first = calloc(p->n + 1, q_bytes(c, p));
}

static void one(struct check *c, int h, int hk, int hd, int n_seqs, int max_keys, int max_queries)
{
    struct problem p = {.hs = {.h = h, .hk = hk, .hd = hd}, .scale = 1 / sqrtf((float)hd)};
    make(c, &p, n_seqs, max_keys, max_queries);
    snprintf(p.what, sizeof(p.what), "%d/%d x %d, %d x %d keys", h, hk, hd, n_seqs, max_keys);
    try_arrangement(c, &p, 0, 0, true);
    if (!c->bench) {
        compare(c, &p, p.first);
        check_digest(c, p.first, p.n * q_bytes(c, &p));
        try_arrangement(c, &p, 100, 0, false); /* every query a run of its own */
        try_arrangement(c, &p, 30, 40, false);
        try_arrangement(c, &p, 10, 20, false);
        uint64_t rng = c->rng;
        if (p.total && !strcmp(c->backend->name, "cpu"))
            try_bad_value(c, &p);
        c->rng = rng; /* the next cases are the same everywhere */
    }
    void *all[] = {p.n_keys, p.first_key, p.queries, p.kv, p.q, p.first};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free(all[i]);
}

void check_attention(struct check *c)
{
    static const int heads[][3] = {{1, 1, 8},  {4, 2, 16},  {6, 2, 24},  {4, 1, 64},  {6, 6, 40}, {4, 2, 72}, {2, 2, 96},
                                   {3, 1, 96}, {3, 1, 128}, {4, 1, 128}, {2, 1, 256}, {40, 1, 8}, {15, 5, 64}};
    if (c->bench) {
        one(c, 6, 2, 64, 1, 512, 512);
        one(c, 15, 5, 64, 1, 512, 512);
        one(c, 15, 5, 64, 1, 8192, 512);
        one(c, 15, 5, 64, 8, 600, 1);
        return;
    }
    for (size_t i = 0; i < sizeof(heads) / sizeof(*heads); i++) {
        one(c, heads[i][0], heads[i][1], heads[i][2], 0, 1, 1);
        one(c, heads[i][0], heads[i][1], heads[i][2], 1, 1, 1);
        one(c, heads[i][0], heads[i][1], heads[i][2], 4, 9, 9);
        one(c, heads[i][0], heads[i][1], heads[i][2], 3, 70, 33);
        one(c, heads[i][0], heads[i][1], heads[i][2], 2, 300, 10);
        one(c, heads[i][0], heads[i][1], heads[i][2], 2, 400, 200); /* rows that share a tile see different blocks */
    }
}
