/* How answers write tokens: each id's spelling as a JSON string, escaped once when the model is loaded, and what the offsets of a text need
 * to know of its bytes. */
#pragma once
#include "common/buf.h"
#include "common/err.h"
#include "tokenizer/tokenizer.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spelling {
    uint32_t at, len;    /* in the table's bytes: quoted and escaped */
    uint32_t chars : 31; /* code points that begin in the token's bytes */
    uint32_t inside : 1; /* its bytes begin inside one */
};

struct spellings {
    struct spelling *inner; /* [n] of tokens inside a text */
    struct spelling *first; /* [n] of a text's first token */
    int32_t n;              /* ids from n on have none */
    struct buf bytes;
};

/* Of the ids below `vocab` that the tokenizer has (NULL: none). *ret is for spellings_done in any case. ERR_NOMEM, ERR_TOO_LARGE. */
int spellings_init(struct spellings *ret, const struct tokenizer *t, int32_t vocab, struct err *err);
void spellings_done(struct spellings *s); /* copes with a zeroed struct */

/* NULL: the tokenizer does not have the id. */
static inline const struct spelling *spellings_get(const struct spellings *s, int32_t id, bool first)
{
    return id < s->n ? (first ? s->first : s->inner) + id : NULL;
}

static inline const char *spellings_bytes(const struct spellings *s, const struct spelling *one)
{
    return s->bytes.data + one->at;
}
