/* Row slots as a stack, slot tables as first-fit extents. */
#include "engine/memory/kv_cache.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

int kv_cache_open(struct kv_cache *c, struct kern_ctx *k, int n_slots, size_t row_bytes, int64_t n_table_entries, struct err *err)
{
    *c = (struct kv_cache){.k = k, .row_bytes = row_bytes, .n_slots = n_slots, .n_table_entries = n_table_entries, .cap_holes = 16};
    c->kv = dev_act_in(k->backend->alloc(k, (size_t)n_slots * row_bytes), 0);
    c->tables = dev_i32_in(k->backend->alloc(k, (size_t)n_table_entries * sizeof(int)), 0);
    c->free_slots = malloc((size_t)n_slots * sizeof(int));
    c->holes = malloc((size_t)c->cap_holes * sizeof(*c->holes));
    if (!c->kv || !c->tables || !c->free_slots || !c->holes) {
        kv_cache_close(c);
        return err_set(err, ERR_NOMEM, "no memory for a KV cache of %d rows of %zu bytes", n_slots, row_bytes);
    }
    for (int i = 0; i < n_slots; i++)
        c->free_slots[i] = n_slots - 1 - i; /* the top of the stack is slot 0 */
    c->n_free = n_slots;
    c->holes[0] = (struct kv_extent){0, n_table_entries};
    c->n_holes = 1;
    return 0;
}

void kv_cache_close(struct kv_cache *c)
{
    if (!c->k)
        return;
    c->k->backend->free(c->k, DEV_BYTES(c->kv));
    c->k->backend->free(c->k, DEV_BYTES(c->tables));
    free(c->free_slots);
    free(c->holes);
    memset(c, 0, sizeof(*c));
}

void kv_cache_take(struct kv_cache *c, int n, int *ret_slots)
{
    assert(n <= c->n_free);
    const int *top = c->free_slots + (c->n_free -= n);
    for (int i = 0; i < n; i++)
        ret_slots[i] = top[n - 1 - i];
}

void kv_cache_give(struct kv_cache *c, const int *slots, int n)
{
    assert(n <= c->n_slots - c->n_free);
    int *top = c->free_slots + c->n_free;
    for (int i = 0; i < n; i++)
        top[i] = slots[n - 1 - i];
    c->n_free += n;
}

int64_t kv_tables_take(struct kv_cache *c, int64_t n)
{
    for (int i = 0; i < c->n_holes; i++) {
        struct kv_extent *h = &c->holes[i];
        if (h->n < n)
            continue;
        int64_t off = h->off;
        h->off += n;
        h->n -= n;
        if (!h->n)
            memmove(h, h + 1, (size_t)(--c->n_holes - i) * sizeof(*h));
        return off;
    }
    return -1;
}

/* A hole can only be missing from the list for want of memory; the entries are then lost until close, never handed out twice. */
static struct kv_extent *insert_hole(struct kv_cache *c, int at)
{
    if (c->n_holes == c->cap_holes) {
        struct kv_extent *grown = realloc(c->holes, 2 * (size_t)c->cap_holes * sizeof(*grown));
        if (!grown)
            return NULL;
        c->holes = grown;
        c->cap_holes *= 2;
    }
    memmove(c->holes + at + 1, c->holes + at, (size_t)(c->n_holes++ - at) * sizeof(*c->holes));
    return c->holes + at;
}

void kv_tables_give(struct kv_cache *c, int64_t off, int64_t n)
{
    int i = 0;
    while (i < c->n_holes && c->holes[i].off < off)
        i++;
    bool joins_prev = i > 0 && c->holes[i - 1].off + c->holes[i - 1].n == off;
    bool joins_next = i < c->n_holes && off + n == c->holes[i].off;
    if (joins_prev && joins_next) {
        c->holes[i - 1].n += n + c->holes[i].n;
        memmove(c->holes + i, c->holes + i + 1, (size_t)(--c->n_holes - i) * sizeof(*c->holes));
    } else if (joins_prev) {
        c->holes[i - 1].n += n;
    } else if (joins_next) {
        c->holes[i].off = off;
        c->holes[i].n += n;
    } else {
        struct kv_extent *h = insert_hole(c, i);
        if (h)
            *h = (struct kv_extent){off, n};
    }
}
