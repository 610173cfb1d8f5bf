/* What the fast forms of attention share: tasks, runs and key blocks (attention_blocked.c); a level adds the arithmetic.
 *
 * A task is one KV head and some selected rows. Items are the (row, query head of the group) pairs of a run, row by row, cut into
 * tiles. Each block of keys is laid out once and used by all tiles of the run. Blocks are aligned to the key's index in its sequence,
 * and an item takes from a block the keys that it sees, so its bits follow from its own keys alone. */
#pragma once
#include "kernels/cpu/cpu.h"

/* ATTENTION_KEYS: of a block, in float32. */
enum { ATTENTION_TASK_ITEMS = 1024, ATTENTION_MAX_HEAD = 256, ATTENTION_KEYS = 64 };

struct attention_item {
    int row, head, visible; /* head: of all query heads */
};

/* Who attends, and where the keys are. */
struct attention_lists {
    const int *sel, *visible, *run_of, *tables;
    const struct kern_run *runs;
    int n_sel, layer;
};

static inline struct attention_lists attention_lists(const struct kern_step *s, int layer, const struct kern_place *p)
{
    return (struct attention_lists){.sel = i32_of(p->sel),
                                    .visible = i32_of(p->visible),
                                    .run_of = i32_of(s->run_of),
                                    .tables = i32_of(s->tables),
                                    .runs = runs_of(s->runs),
                                    .n_sel = *i32_of(p->sel_n),
                                    .layer = layer};
}

/* The slots of the keys of a row's sequence. */
static inline const int *attention_table(const struct attention_lists *l, int row)
{
    const struct kern_run *run = &l->runs[l->run_of[row]];
    return l->tables + run->table_off + (int64_t)l->layer * run->table_cap;
}

/* How many of the rows from *sel on, up to `end`, are of one run. */
static inline int attention_same_run(const struct attention_lists *l, const int *sel, const int *end)
{
    int n = 1, run = l->run_of[*sel];
    while (sel + n < end && l->run_of[sel[n]] == run)
        n++;
    return n;
}

struct attention_task {
    const struct kern_heads *hs;
    const void *qkv, *kv;
    void *out;
    enum dtype type;                                   /* of qkv, out and the pool */
    float scale;                                       /* of scores, so that a weight is 2^(scale * score) */
    struct attention_item items[ATTENTION_TASK_ITEMS]; /* of the run at hand */
    int n_items, kv_head;
};

/* `work` is a thread's own memory, 64-byte aligned, uninitialised. */
struct attention_kernel {
    size_t work_bytes;
    int block_keys, tile_items;
    void (*start)(void); /* once a task; NULL: nothing */
    void (*begin)(void *work, const struct attention_task *t);
    /* The next block: `n` keys, in slots table[0..n-1]. */
    void (*pack)(void *work, const struct attention_task *t, const int *table, int n);
    /* All tiles of items from `first_tile` on against the block, which begins at key0: the last item of each sees a key of it. */
    void (*run)(void *work, const struct attention_task *t, int first_tile, int key0);
    void (*finish)(void *work, const struct attention_task *t);
};

extern const struct attention_kernel attention_amx, attention_avx512bf16, attention_avx512, attention_avx2;

/* Overrides the slot; attention_blocked_new allocates the work memory (ERR_NOMEM), free copes with half-built. */
void attention_blocked_init(struct kern_ops *o);
int attention_blocked_new(struct cpu *c);
void attention_blocked_free(struct cpu *c);

static inline const void *attention_query(const struct attention_task *t, const struct attention_item *i)
{
    size_t width = (size_t)(t->hs->h + 2 * t->hs->hk) * t->hs->hd;
    return act_at(t->qkv, t->type, i->row * width + (size_t)i->head * t->hs->hd);
}

static inline void *attention_out(const struct attention_task *t, const struct attention_item *i)
{
    return act_at_mut(t->out, t->type, ((size_t)i->row * t->hs->h + i->head) * t->hs->hd);
}

static inline const void *attention_key(const struct attention_task *t, int slot)
{
    return act_at(t->kv, t->type, ((size_t)slot * 2 * t->hs->hk + t->kv_head) * t->hs->hd);
}

static inline const void *attention_value(const struct attention_task *t, int slot)
{
    return act_at(t->kv, t->type, (((size_t)slot * 2 + 1) * t->hs->hk + t->kv_head) * t->hs->hd);
}
