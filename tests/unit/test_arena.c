#include "common/arena.h"
#include "common/budget.h"
#include "tests/check.h"
#include <stdint.h>

/* A thousand requests hold a thousand of these. */
static void test_little_holds_little(void)
{
    struct arena a;
    struct charge c = {0};
    arena_init(&a, 1 << 20);
    a.charge = &c;
    CHECK(arena_alloc(&a, 1000, 1));
    CHECK(c.taken < 5000);
    for (int i = 0; i < 200; i++)
        CHECK(arena_alloc(&a, 1000, 1));
    CHECK(c.taken < 300000);
    arena_done(&a);
    CHECK_INT(c.taken, 0);
}

int main(void)
{
    test_little_holds_little();
    struct arena a;
    arena_init(&a, 1 << 20);
    unsigned char *last = NULL;
    for (size_t i = 0; i < 2000; i++) {
        size_t n = i * 37 % 301;
        unsigned char *p = arena_alloc(&a, n, 1);
        if (!CHECK(p) || !CHECK_INT((uintptr_t)p % 16, 0) || !CHECK(p != last))
            break;
        for (size_t k = 0; k < n; k++)
            CHECK_INT(p[k], 0);
        memset(p, 0xff, n);
        last = p;
    }
    CHECK_STR(arena_strndup(&a, "hello", 4), "hell");
    CHECK_STR(arena_strndup(&a, "", 0), "");
    size_t used = a.used_bytes;
    CHECK(arena_alloc(&a, SIZE_MAX, 2) == NULL);
    CHECK(arena_alloc(&a, SIZE_MAX, 1) == NULL);
    CHECK(arena_strndup(&a, "", SIZE_MAX) == NULL);
    CHECK(arena_alloc(&a, (1 << 20) - used + 1, 1) == NULL);
    CHECK_INT(a.used_bytes, used);
    CHECK(arena_alloc(&a, (1 << 20) - used, 1) != NULL);
    CHECK(arena_alloc(&a, 1, 1) == NULL);
    arena_done(&a);
    CHECK(arena_alloc(&a, 1, 1) != NULL);
    arena_done(&a);
    arena_done(&a);
    return check_result();
}
