/* Slots are handed out once and come back; extents of the slot tables never overlap and join again. */
#include "engine/memory/kv_cache.h"
#include "tests/check.h"
#include <stdlib.h>

static void test_slots(struct kv_cache *c)
{
    int a[10], b[6];
    char seen[16] = {0};
    kv_cache_take(c, 10, a);
    kv_cache_take(c, 6, b);
    CHECK_INT(c->n_free, 0);
    for (int i = 0; i < 10; i++)
        seen[a[i]]++;
    for (int i = 0; i < 6; i++)
        seen[b[i]]++;
    for (int i = 0; i < 16; i++)
        CHECK_INT(seen[i], 1);
    kv_cache_give(c, a, 10);
    kv_cache_take(c, 3, b);
    CHECK_INT(b[0], a[0]); /* given back last, taken first */
    CHECK_INT(c->n_free, 7);
}

static void test_extents(struct kv_cache *c)
{
    int64_t off[100];
    CHECK_INT(kv_tables_take(c, 1001), -1);
    for (int i = 0; i < 100; i++)
        off[i] = kv_tables_take(c, 10);
    CHECK_INT(off[99], 990);
    CHECK_INT(kv_tables_take(c, 1), -1);
    for (int i = 0; i < 100; i += 2) /* fifty holes, more than the list starts with */
        kv_tables_give(c, off[i], 10);
    CHECK_INT(c->n_holes, 50);
    CHECK_INT(kv_tables_take(c, 11), -1);
    CHECK_INT(kv_tables_take(c, 10), 0);
    kv_tables_give(c, 0, 10);
    for (int i = 1; i < 100; i += 2)
        kv_tables_give(c, off[i], 10);
    CHECK_INT(c->n_holes, 1);
    CHECK_INT(kv_tables_take(c, 1000), 0);
}

int main(void)
{
    const struct backend *cpu;
    struct backend_config config = {.dtype = DTYPE_F32, .n_threads = 1};
    struct kern_ctx *k;
    struct kv_cache c;
    struct err err;
    if (!CHECK_INT(backend_find("cpu", &cpu, &err), 0) || !CHECK_INT(cpu->open(&config, &k, &err), 0))
        return check_result();
    if (CHECK_INT(kv_cache_open(&c, k, 16, 64, 1000, &err), 0)) {
        test_slots(&c);
        test_extents(&c);
        kv_cache_close(&c);
        kv_cache_close(&c);
    }
    cpu->close(k);
    return check_result();
}
