/* Memory for K and V: row slots (one slot = K and V of one token in one layer) and the slot tables that list a
 * sequence's slots layer by layer. Owns the memory and who has which slot; what a slot means is the prefix tree's
 * and the scheduler's business. Used by the worker thread only. */
#pragma once
#include "kernels/backend.h"

struct kv_extent {
    int64_t off, n;
};

struct kv_cache {
    struct kern_ctx *k;
    struct dev_act *kv;     /* n_slots rows of row_bytes */
    struct dev_i32 *tables; /* [n_table_entries] */
    size_t row_bytes;
    int n_slots;
    int *free_slots; /* [n_slots] stack */
    int n_free;
    struct kv_extent *holes; /* free extents of `tables`, ascending, never adjacent */
    int n_holes, cap_holes;
    int64_t n_table_entries;
};

/* On error nothing is left behind. */
int kv_cache_open(struct kv_cache *c, struct kern_ctx *k, int n_slots, size_t row_bytes, int64_t n_table_entries, struct err *err);
void kv_cache_close(struct kv_cache *c); /* copes with a zeroed struct */

/* Takes n <= n_free slots (the caller's duty); slots given back last are taken first. */
void kv_cache_take(struct kv_cache *c, int n, int *ret_slots);
void kv_cache_give(struct kv_cache *c, const int *slots, int n);

/* An extent of n table entries; -1 when none is free. */
int64_t kv_tables_take(struct kv_cache *c, int64_t n);
void kv_tables_give(struct kv_cache *c, int64_t off, int64_t n);
