/* Attention on AMX for bf16 (attention_bf16.h).
 *
 * The tile unit runs beside the vector units, though it shares a port with them. So a block is walked in turns: while one tile of items
 * has its weights made, the tile before is multiplied by V and the tile after by K, a tile product between a few items. */
#include "kernels/cpu/amx.h"
#include "kernels/cpu/attention_bf16.h"

/* ---- products on the tile unit ---- */

/* Two products are under way at a time, in tiles of their own: while one is stored, the other is computed. */
#define TILE_SET(name, C0, C1, A)                                                                 \
    static inline __attribute__((always_inline)) void name##_begin(const struct product *p)       \
    {                                                                                             \
        if (p->add) {                                                                             \
            _tile_loadd(C0, p->c, p->ldc);                                                        \
            _tile_loadd(C1, p->c + 64, p->ldc);                                                   \
        } else {                                                                                  \
            _tile_zero(C0);                                                                       \
            _tile_zero(C1);                                                                       \
        }                                                                                         \
    }                                                                                             \
    static inline __attribute__((always_inline)) void name##_step(const struct product *p, int s) \
    {                                                                                             \
        const char *b = p->b + s * p->b_next;                                                     \
        _tile_loadd(A, p->a + s * p->a_next, p->lda);                                             \
        _tile_loadd(6, b, 64);                                                                    \
        _tile_dpbf16ps(C0, A, 6);                                                                 \
        _tile_loadd(7, b + p->b_gap, 64);                                                         \
        _tile_dpbf16ps(C1, A, 7);                                                                 \
    }                                                                                             \
    static inline __attribute__((always_inline)) void name##_end(const struct product *p)         \
    {                                                                                             \
        _tile_stored(C0, p->c, p->ldc);                                                           \
        _tile_stored(C1, p->c + 64, p->ldc);                                                      \
    }
TILE_SET(even, 0, 1, 4)
TILE_SET(odd, 2, 3, 5)

/* ---- a block of keys ---- */

struct turn {
    struct product p[1 + MAX_PRODUCTS]; /* p[0]: the one that the turn before left to be stored */
    int n, before;                      /* products p[1..n]; products so far, of this turn too when it is over */
    int tile, items;                    /* whose scores are there */
};

static inline void store_last(const struct turn *a, int i)
{
    if (a->before % 2)
        even_end(&a->p[i]);
    else
        odd_end(&a->p[i]);
}

/* Runs the products with the items between them. A product is stored when the next one is under way. */
static void run_turn(struct work *w, const struct attention_task *t, struct turn *a, int key0)
{
    int total = 0, due = 0, item = a->tile * ITEMS;
    bool whole = a->items && sees_all(t, a->tile, key0);
    for (int i = 1; i <= a->n; i++)
        total += a->p[i].steps;
    for (int i = 1; i <= a->n; i++, a->before++) {
        const struct product *p = &a->p[i];
        bool odd = a->before % 2;
        for (int s = 0; s < p->steps; s++) {
            __asm__ volatile("" : : : "memory"); /* tile loads are not seen to read what was stored */
            if (s == 0 && odd)
                odd_begin(p);
            else if (s == 0)
                even_begin(p);
            if (odd)
                odd_step(p, s);
            else
                even_step(p, s);
            if (s == 0 && a->before)
                store_last(a, i - 1);
            for (due += a->items; due >= total; due -= total)
                soften_item(w, t, item++, key0, whole);
        }
    }
    a->p[0] = a->p[a->n];
}

/* One tile after another goes through three turns: its queries meet K, its scores become weights, its weights meet V. */
static void run(void *work, const struct attention_task *t, int first, int key0)
{
    struct work *w = work;
    struct turn a;
    if (w->bad_values)
        refuse_bad_values(w, t, first, key0);
    int tiles = (t->n_items + ITEMS - 1) / ITEMS;
    a.before = 0;
    for (int i = first; i < tiles + 2; i++) {
        a.tile = i - 1;
        a.items = i > first && i - 1 < tiles ? tile_rows(t, i - 1) : 0;
        a.n = i - 2 >= first ? list_values(w, t, i - 2, key0, a.p + 1) : 0;
        if (i < tiles)
            a.n += list_scores(w, t, i, key0, a.p + 1 + a.n);
        if (a.n) {
            run_turn(w, t, &a, key0);
            continue;
        }
        store_last(&a, 0); /* of a single tile: nothing is left to run beside it */
        a.before = 0;
        for (int j = 0; j < a.items; j++)
            soften_item(w, t, a.tile * ITEMS + j, key0, sees_all(t, a.tile, key0));
    }
    store_last(&a, 0);
}

const struct attention_kernel attention_amx = {
    .start = amx_begin,
    .run = run,
    ATTENTION_BF16,
};
