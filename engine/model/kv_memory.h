/* Device memory for K and V: row slots (one slot = K and V of one token in one layer), and the block tables that list a sequence's slots layer by
 * layer. Who has which slot and which part of the tables is decided on the host (engine/memory). */
#pragma once
#include "kernels/backend.h"

struct kv_memory {
    struct kern_ctx *k;
    struct dev_act *kv;     /* [n_slots] rows of row_bytes */
    struct dev_i32 *tables; /* [n_table_entries] */
    size_t row_bytes;
    int n_slots;
    int64_t n_table_entries;
};

/* On error nothing is left behind. */
int kv_memory_open(struct kv_memory *m, struct kern_ctx *k, int n_slots, size_t row_bytes, int64_t n_table_entries, struct err *err);
void kv_memory_close(struct kv_memory *m); /* copes with a zeroed struct */
