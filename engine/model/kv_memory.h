/* Device memory of what sequences leave behind: rows of K and V (one slot = K and V of one token in one layer), the block tables that list a
 * sequence's slots layer by layer, and router states (one slot = the states of all recurrent routers after one prefix). Who has which slot and which
 * part of the tables is decided on the host (engine/memory). */
#pragma once
#include "kernels/backend.h"

struct kv_memory {
    struct kern_ctx *k;
    struct dev_act *kv;     /* [n_slots] rows of row_bytes */
    struct dev_i32 *tables; /* [n_table_entries] */
    struct dev_f32 *states; /* [n_state_slots, n_routers, state_floats]; NULL: routers have none */
};

struct kv_memory_sizes {
    int n_slots;
    size_t row_bytes;
    int64_t n_table_entries;
    int n_state_slots;
    size_t state_slot_bytes; /* of all recurrent routers; 0: there are none */
};

/* On error nothing is left behind. */
int kv_memory_open(struct kv_memory *m, struct kern_ctx *k, const struct kv_memory_sizes *sizes, struct err *err);
void kv_memory_close(struct kv_memory *m); /* copes with a zeroed struct */
