/* Growing a struct token_ids under a limit. */
#include "tokenizer/ids.h"
#include <stdlib.h>

int ids_push(struct id_sink *out, int32_t id)
{
    struct token_ids *t = out->ids;
    if (t->n >= out->max_ids)
        return ERR_TOO_LARGE;
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        int32_t *ids = realloc(t->ids, cap * sizeof(*ids));
        if (!ids)
            return ERR_NOMEM;
        t->ids = ids;
        t->cap = cap;
    }
    t->ids[t->n++] = id;
    return 0;
}

void token_ids_done(struct token_ids *t)
{
    free(t->ids);
    *t = (struct token_ids){0};
}
