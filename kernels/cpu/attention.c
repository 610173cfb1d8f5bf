/* Attention over scattered K and V: the plain form, which is the definition, with the online softmax of FlashAttention (arXiv 2205.14135, algorithm 1).
 *
 * A task is a few selected rows and the query heads of one KV head; the rows of one run walk the keys of their sequence in blocks of
 * ATTENTION_KEYS, aligned to the key's index, and each block is laid out in f32 (K transposed) once for all of them. A row takes from a block
 * the keys it sees. So what a row computes - blocks, order of keys, order of sums - follows from its own `visible` count alone. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/ops.h"
#include <assert.h>

enum { KEYS = ATTENTION_KEYS, ITEMS = 32, MAX_HEAD = ATTENTION_MAX_HEAD };

struct attention {
    const struct kern_heads *hs;
    void *out;
    const void *qkv, *kv;
    enum dtype type;
    struct attention_lists lists;
    float scale;               /* of scores, so that a weight is 2^(scale * score) */
    int rows, heads, n_chunks; /* of a task: selected rows, query heads that share a KV head, rows * heads <= ITEMS; row chunks */
};

/* A block of keys of one KV head, in f32. */
struct block {
    float k[MAX_HEAD][KEYS]; /* [hd][key]; missing keys are 0 */
    float v[KEYS][MAX_HEAD]; /* [key][hd] */
    bool bad[KEYS];          /* the key's V holds what is not finite */
};

/* One query head of one row, and its softmax so far. */
struct state {
    float max; /* of the scores before scaling */
    struct lanes sum;
    float q[MAX_HEAD], acc[MAX_HEAD]; /* padded with zeros to whole lanes */
};

static void load_block(struct block *b, const struct attention *a, const int *table, int n, int kv_head)
{
    size_t hk = a->hs->hk, hd = a->hs->hd;
    for (int j = 0; j < n; j++) {
        size_t at = (size_t)table[j] * 2 * hk * hd + kv_head * hd;
        const void *k = act_at(a->kv, a->type, at), *v = act_at(a->kv, a->type, at + hk * hd);
        int bad = 0;
        for (size_t i = 0; i < hd; i++)
            b->k[i][j] = act_get(k, a->type, i);
        for (size_t i = 0; i < hd; i++) {
            b->v[j][i] = act_get(v, a->type, i);
            bad |= b->v[j][i] - b->v[j][i] != 0;
        }
        b->bad[j] = bad;
    }
    for (size_t i = 0; i < hd; i++)
        for (int j = n; j < KEYS; j++)
            b->k[i][j] = 0;
}

/* score[j] = q . k_j, one chain a key. */
static void score_keys(float *score, const struct state *st, const struct block *b, int hd)
{
    for (int j = 0; j < KEYS; j += 2 * SUM_LANES) {
        struct lanes low = {0}, high = {0};
        for (int i = 0; i < hd; i++) {
            lanes_add_scaled(&low, lanes_load(&b->k[i][j], SUM_LANES), st->q[i]);
            lanes_add_scaled(&high, lanes_load(&b->k[i][j + SUM_LANES], SUM_LANES), st->q[i]);
        }
        memcpy(score + j, &low, sizeof(low));
        memcpy(score + j + SUM_LANES, &high, sizeof(high));
    }
}

/* A greater maximum: what was summed up shrinks by 2^((old - new) c). */
static void raise_max(struct state *st, float max, int hd, float c)
{
    float keep = st->max == -INFINITY ? 0 : portable_exp2((st->max - max) * c);
    lanes_scale(&st->sum, keep);
    for (int i = 0; i < hd; i++)
        st->acc[i] *= keep;
    st->max = max;
}

/* acc += sum_j weight[j] v_j, a chain over the n keys for each element. */
static void add_values(struct state *st, const struct block *b, const float *weight, int n, int hd)
{
    for (int i = 0; i < hd; i += SUM_LANES) {
        struct lanes acc = lanes_load(st->acc + i, SUM_LANES);
        for (int j = 0; j < n; j++)
            lanes_add_scaled(&acc, lanes_load(&b->v[j][i], SUM_LANES), weight[j]);
        memcpy(st->acc + i, &acc, sizeof(acc));
    }
}

/* Folds the first n keys of the block into the state. c: of scores, so that a weight is 2^(c (score - max)). */
static void fold(struct state *st, const struct block *b, int n, int hd, float c)
{
    float score[KEYS], weight[KEYS], max = st->max;
    score_keys(score, st, b, hd);
    for (int j = 0; j < n; j++)
        max = score[j] > max ? score[j] : max;
    if (max > st->max)
        raise_max(st, max, hd, c);
    float base = -st->max * c;
    for (int j = 0; j < KEYS; j++)
        weight[j] = portable_exp2(portable_fma(score[j], c, base));
    for (int j = n; j < KEYS; j++)
        weight[j] = 0;
    for (int j = 0; j < KEYS; j += SUM_LANES)
        lanes_add(&st->sum, lanes_load(weight + j, SUM_LANES));
    for (int j = 0; j < n; j++)
        if (b->bad[j])
            lanes_scale(&st->sum, NAN);
    add_values(st, b, weight, n, hd);
}

static void begin(struct state *st, const struct attention *a, int r, int head)
{
    int hd = a->hs->hd;
    const void *q = act_at(a->qkv, a->type, ((size_t)r * (a->hs->h + 2 * a->hs->hk) + head) * hd);
    st->max = -INFINITY;
    st->sum = (struct lanes){0};
    for (int i = 0; i < hd; i++)
        st->q[i] = act_get(q, a->type, i);
    memset(st->acc, 0, sizeof(st->acc));
}

static void finish(const struct state *st, const struct attention *a, int r, int head)
{
    int hd = a->hs->hd;
    float inverse = 1.0f / lanes_sum(&st->sum);
    void *out = act_at_mut(a->out, a->type, ((size_t)r * a->hs->h + head) * hd);
    for (int i = 0; i < hd; i++)
        act_put(out, a->type, i, st->acc[i] * inverse + 0.0f); /* no -0 */
}

/* Rows sel[0..n_rows-1], all of one run, for the query heads head0 .. head0+n_heads-1, which share a KV head. */
static void run_tile(const struct attention *a, const int *sel, int n_rows, int head0, int n_heads)
{
    struct state st[ITEMS];
    struct block b;
    const int *table = attention_table(&a->lists, *sel);
    int last = a->lists.visible[sel[n_rows - 1]], kv_head = head0 / (a->hs->h / a->hs->hk);
    for (int i = 0; i < n_rows * n_heads; i++)
        begin(&st[i], a, sel[i / n_heads], head0 + i % n_heads);
    for (int j = 0; j < last; j += KEYS) {
        load_block(&b, a, table + j, min_int(last - j, KEYS), kv_head);
        for (int i = 0; i < n_rows * n_heads; i++) {
            int n = a->lists.visible[sel[i / n_heads]] - j;
            if (n > 0)
                fold(&st[i], &b, min_int(n, KEYS), a->hs->hd, a->scale);
        }
    }
    for (int i = 0; i < n_rows * n_heads; i++)
        finish(&st[i], a, sel[i / n_heads], head0 + i % n_heads);
}

static void run_task(void *arg, int task, int thread)
{
    const struct attention *a = arg;
    int group = a->hs->h / a->hs->hk, n_blocks = (group + a->heads - 1) / a->heads;
    int kv_head = task % (a->hs->hk * n_blocks) / n_blocks, head0 = task % n_blocks * a->heads;
    /* Later rows see more keys: they go first, so that no long task is left to the end. */
    int chunk = a->n_chunks - 1 - task / (a->hs->hk * n_blocks);
    const int *sel = a->lists.sel + chunk * a->rows, *end = a->lists.sel + min_int((chunk + 1) * a->rows, a->lists.n_sel);
    while (sel < end) {
        int n = attention_same_run(&a->lists, sel, end);
        run_tile(a, sel, n, kv_head * group + head0, min_int(a->heads, group - head0));
        sel += n;
    }
}

static int attention_c(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                       const struct kern_step *s, int layer, const struct kern_place *p, float scale)
{
    int n = *i32_of(p->sel_n), group = hs->h / hs->hk, threads = cpu_of(k)->n_threads;
    if (!n)
        return 0;
    assert(hs->hd <= MAX_HEAD && hs->h % hs->hk == 0);
    struct attention a = {.hs = hs,
                          .out = act_of(out),
                          .qkv = act_of(qkv),
                          .kv = act_of(hs->kv),
                          .type = k->act,
                          .lists = attention_lists(s, layer, p),
                          .scale = scale * (float)M_LOG2E,
                          .heads = min_int(group, ITEMS)};
    a.rows = min_int(ITEMS / a.heads, (n + threads - 1) / threads);
    a.n_chunks = (n + a.rows - 1) / a.rows;
    parallel_for(cpu_of(k)->pool, a.n_chunks * hs->hk * ((group + a.heads - 1) / a.heads), run_task, &a);
    return 0;
}

void CPU_NAME(attention_init)(struct kern_ops *o)
{
    o->attention = attention_c;
}
