/* Allocates the KV rows and the block tables. */
#include "engine/model/kv_memory.h"
#include <string.h>

int kv_memory_open(struct kv_memory *m, struct kern_ctx *k, int n_slots, size_t row_bytes, int64_t n_table_entries, struct err *err)
{
    *m = (struct kv_memory){.k = k, .row_bytes = row_bytes, .n_slots = n_slots, .n_table_entries = n_table_entries};
    m->kv = dev_act_in(k->backend->alloc(k, (size_t)n_slots * row_bytes), 0);
    m->tables = dev_i32_in(k->backend->alloc(k, (size_t)n_table_entries * sizeof(int)), 0);
    if (m->kv && m->tables)
        return 0;
    kv_memory_close(m);
    return err_set(err, ERR_NOMEM, "no memory for a KV cache of %d rows of %zu bytes", n_slots, row_bytes);
}

void kv_memory_close(struct kv_memory *m)
{
    if (!m->k)
        return;
    m->k->backend->free(m->k, DEV_BYTES(m->kv));
    m->k->backend->free(m->k, DEV_BYTES(m->tables));
    memset(m, 0, sizeof(*m));
}
