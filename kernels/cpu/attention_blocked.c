/* Tasks, runs and key blocks of the fast forms of attention. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/ops.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum { LINE = 64, TASKS_PER_THREAD = 4 };

struct cpu_attention {
    const struct attention_kernel *kernel;
    void *work[CPU_MAX_THREADS];
    struct attention_task *task[CPU_MAX_THREADS];
};

struct call {
    struct cpu *c;
    struct attention_lists lists;
    struct attention_task common;
    int rows;        /* selected rows of a task */
    int group, part; /* query heads of a KV head, and at most how many of them a task takes */
};

static void list_items(struct attention_task *t, const struct call *a, const int *sel, int n, int head0, int heads)
{
    t->n_items = n * heads;
    for (int i = 0; i < t->n_items; i++) {
        int row = sel[i / heads];
        t->items[i] = (struct attention_item){row, head0 + i % heads, a->lists.visible[row]};
    }
}

/* Slots lie anywhere, so no hardware foresees them. */
static void prefetch_keys(const struct attention_task *t, const int *table, int n)
{
    int bytes = t->hs->hd * (int)dtype_size(t->type);
    for (int j = 0; j < n; j++) {
        const char *key = attention_key(t, table[j]), *value = attention_value(t, table[j]);
        for (int i = 0; i < bytes; i += LINE) {
            __builtin_prefetch(key + i, 0, 2);
            __builtin_prefetch(value + i, 0, 2);
        }
    }
}

/* Selected rows sel[0..n-1], all of one run. */
static void run_rows(const struct call *a, struct attention_task *t, void *work, const int *sel, int n)
{
    const struct attention_kernel *kernel = a->c->attention->kernel;
    const int *table = attention_table(&a->lists, *sel);
    int last = a->lists.visible[sel[n - 1]], tile = 0;
    kernel->begin(work, t);
    for (int j = 0; j < last; j += kernel->block_keys) {
        int n_keys = min_int(last - j, kernel->block_keys), next = j + n_keys;
        kernel->pack(work, t, table + j, n_keys);
        prefetch_keys(t, table + next, min_int(last - next, kernel->block_keys));
        while (t->items[min_int((tile + 1) * kernel->tile_items, t->n_items) - 1].visible <= j)
            tile++;
        kernel->run(work, t, tile, j);
    }
    kernel->finish(work, t);
}

static void run_task(void *arg, int i, int thread)
{
    const struct call *a = arg;
    struct attention_task *t = a->c->attention->task[thread];
    int parts = (a->group + a->part - 1) / a->part, per_chunk = a->common.hs->hk * parts;
    int count = a->lists.n_sel, chunks = (count + a->rows - 1) / a->rows, head0 = i % parts * a->part;
    /* Later rows see more keys: they go first, so that no long task is left to the end. */
    int first = (chunks - 1 - i / per_chunk) * a->rows;
    const int *sel = a->lists.sel + first, *end = sel + min_int(a->rows, count - first);
    t->hs = a->common.hs;
    t->qkv = a->common.qkv;
    t->kv = a->common.kv;
    t->out = a->common.out;
    t->type = a->common.type;
    t->scale = a->common.scale;
    t->kv_head = i % per_chunk / parts;
    if (a->c->attention->kernel->start)
        a->c->attention->kernel->start();
    while (sel < end) {
        int n = attention_same_run(&a->lists, sel, end);
        list_items(t, a, sel, n, t->kv_head * a->group + head0, min_int(a->part, a->group - head0));
        run_rows(a, t, a->c->attention->work[thread], sel, n);
        sel += n;
    }
}

static int attention_blocked(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                             const struct kern_step *s, int layer, const struct kern_place *p, float scale)
{
    int n = *i32_of(p->sel_n);
    if (!n)
        return 0;
    assert(hs->hd % 8 == 0 && hs->hd <= ATTENTION_MAX_HEAD && hs->h % hs->hk == 0 && scale > 0);
    struct call a = {.c = cpu_of(k), .lists = attention_lists(s, layer, p), .group = hs->h / hs->hk};
    a.common = (struct attention_task){
        .hs = hs, .qkv = act_of(qkv), .kv = act_of(hs->kv), .out = act_of(out), .type = k->act, .scale = scale * (float)M_LOG2E};
    a.part = min_int(a.group, ATTENTION_TASK_ITEMS);
    int heads = hs->hk * ((a.group + a.part - 1) / a.part), shares = (TASKS_PER_THREAD * a.c->n_threads + heads - 1) / heads;
    int most = min_int(ATTENTION_TASK_ITEMS / a.part, (n + shares - 1) / shares), chunks = (n + most - 1) / most;
    a.rows = (n + chunks - 1) / chunks;
    parallel_for(a.c->pool, (n + a.rows - 1) / a.rows * heads, run_task, &a);
    return 0;
}

static const struct attention_kernel *choose(enum cpu_level level, enum dtype act)
{
    if (level >= CPU_AMX && act == DTYPE_BF16)
        return &attention_amx;
    if (level >= CPU_AVX512BF16 && act == DTYPE_BF16)
        return &attention_avx512bf16;
    return level >= CPU_AVX512 ? &attention_avx512 : &attention_avx2;
}

int attention_blocked_new(struct cpu *c)
{
    if (!(c->attention = calloc(1, sizeof(*c->attention))))
        return ERR_NOMEM;
    c->attention->kernel = choose(c->level, c->base.act);
    for (int i = 0; i < c->n_threads; i++) {
        c->attention->work[i] = aligned_alloc(64, c->attention->kernel->work_bytes);
        c->attention->task[i] = malloc(sizeof(struct attention_task));
        if (!c->attention->work[i] || !c->attention->task[i])
            return ERR_NOMEM;
    }
    return 0;
}

void attention_blocked_free(struct cpu *c)
{
    if (!c->attention)
        return;
    for (int i = 0; i < c->n_threads; i++) {
        free(c->attention->work[i]);
        free(c->attention->task[i]);
    }
    free(c->attention);
}

void attention_blocked_init(struct kern_ops *o)
{
    o->attention = attention_blocked;
}
