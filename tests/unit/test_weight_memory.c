/* Blocks of weights: matrices never overlap and are aligned, a block lives as long as one of its matrices, in whatever order they go. Watched by
 * AddressSanitizer, this also shows that nothing is freed early or never. */
#include "kernels/cpu/weight_memory.h"
#include "tests/check.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20, MATRICES = 40 };

struct matrix {
    struct weight_block *block;
    unsigned char *p;
    size_t bytes;
};

/* Small ones, ones that share blocks, and one of its own. */
static const size_t sizes[] = {0, 1, 64, 5000, 300 << 10, 3 * MIB + 64, MIB, 7 * MIB + 1, 80 * MIB, 2 * MIB, 20 * MIB};

static void mark(const struct matrix *m, int i)
{
    if (!m->bytes)
        return;
    m->p[0] = m->p[m->bytes - 1] = (unsigned char)(i + 1);
}

static bool is_marked(const struct matrix *m, int i)
{
    return !m->bytes || (m->p[0] == i + 1 && m->p[m->bytes - 1] == i + 1);
}

static void take_all(struct weight_block **current, struct matrix *m, int n)
{
    for (int i = 0; i < n; i++) {
        m[i].bytes = sizes[i % (int)(sizeof(sizes) / sizeof(*sizes))];
        m[i].p = weight_memory_take(current, m[i].bytes, &m[i].block);
        CHECK(m[i].p != NULL && m[i].block != NULL);
        CHECK((uintptr_t)m[i].p % 64 == 0);
        mark(&m[i], i);
    }
}

/* `stride` has no factor in common with MATRICES: another order for each. The context goes first, in the middle, or last. */
static void test_order(int stride, int context_at)
{
    struct weight_block *current = NULL;
    struct matrix m[MATRICES];
    take_all(&current, m, MATRICES);
    for (int k = 0, i = 0; k < MATRICES; k++, i = (i + stride) % MATRICES) {
        if (k == context_at)
            weight_memory_drop(current);
        CHECK(is_marked(&m[i], i));
        weight_memory_drop(m[i].block);
    }
    if (context_at >= MATRICES)
        weight_memory_drop(current);
}

/* Matrices of a model lie one behind the other. */
static void test_neighbours(void)
{
    struct weight_block *current = NULL;
    struct matrix m[3];
    for (int i = 0; i < 3; i++)
        m[i].p = weight_memory_take(&current, 3 * MIB + 10, &m[i].block);
    CHECK(m[1].p == m[0].p + 3 * MIB + 64 && m[2].p == m[1].p + 3 * MIB + 64);
    CHECK(m[0].block == m[2].block);
    for (int i = 0; i < 3; i++)
        weight_memory_drop(m[i].block);
    weight_memory_drop(current);
}

static void test_refused(void)
{
    struct weight_block *current = NULL, *block = NULL;
    CHECK(weight_memory_take(&current, SIZE_MAX - 10, &block) == NULL);
    weight_memory_drop(current);
    weight_memory_drop(NULL);
}

int main(void)
{
    test_order(1, 0);
    test_order(7, 20);
    test_order(MATRICES - 1, MATRICES);
    test_neighbours();
    test_refused();
    return check_result();
}
