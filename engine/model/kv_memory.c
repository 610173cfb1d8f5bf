/* Allocates KV rows, block tables and router states. */
#include "engine/model/kv_memory.h"
#include <string.h>

int kv_memory_open(struct kv_memory *m, struct kern_ctx *k, const struct kv_memory_sizes *s, struct err *err)
{
    const struct backend *be = k->backend;
    size_t states = (size_t)s->n_state_slots * s->state_slot_bytes;
    *m = (struct kv_memory){.k = k};
    m->kv = dev_act_in(be->alloc(k, (size_t)s->n_slots * s->row_bytes), 0);
    m->tables = dev_i32_in(be->alloc(k, (size_t)s->n_table_entries * sizeof(int)), 0);
    m->states = states ? dev_f32_in(be->alloc(k, states), 0) : NULL;
    if (m->kv && m->tables && (m->states || !states))
        return 0;
    kv_memory_close(m);
    return err_set(err, ERR_NOMEM, "no memory for a KV cache of %d rows of %zu bytes and %d router states of %zu bytes", s->n_slots,
                   s->row_bytes, s->n_state_slots, s->state_slot_bytes);
}

void kv_memory_close(struct kv_memory *m)
{
    if (!m->k)
        return;
    m->k->backend->free(m->k, DEV_BYTES(m->kv));
    m->k->backend->free(m->k, DEV_BYTES(m->tables));
    m->k->backend->free(m->k, DEV_BYTES(m->states));
    memset(m, 0, sizeof(*m));
}
