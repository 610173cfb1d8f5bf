/* The stack of free slots. */
#include "engine/memory/slots.h"
#include "common/err.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

int slots_init(struct slots *s, int n)
{
    *s = (struct slots){.free = malloc((n ? (size_t)n : 1) * sizeof(int)), .n = n, .n_free = n};
    if (!s->free) {
        *s = (struct slots){0};
        return ERR_NOMEM;
    }
    for (int i = 0; i < n; i++)
        s->free[i] = n - 1 - i; /* the top of the stack is slot 0 */
    return 0;
}

void slots_done(struct slots *s)
{
    free(s->free);
    memset(s, 0, sizeof(*s));
}

void slots_take(struct slots *s, int n, int *ret)
{
    assert(n <= s->n_free);
    const int *top = s->free + (s->n_free -= n);
    int taken = s->n - s->n_free;
    s->most = taken > s->most ? taken : s->most;
    for (int i = 0; i < n; i++)
        ret[i] = top[n - 1 - i];
}

void slots_give(struct slots *s, const int *slots, int n)
{
    assert(n <= s->n - s->n_free);
    int *top = s->free + s->n_free;
    for (int i = 0; i < n; i++)
        top[i] = slots[n - 1 - i];
    s->n_free += n;
}
