/* The model's own vocabulary: pieces by id and ids by piece. Ids may have holes. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "tokenizer/strmap.h"

#define VOCAB_MAX_IDS (1 << 22) /* largest id + 1 */
#define VOCAB_MAX_PIECE_BYTES 4096
#define VOCAB_TEXT_BYTES ((size_t)512 << 20)

struct piece {
    const char *s; /* NUL-terminated; NULL: a hole */
    uint32_t len;
};

struct vocab {
    struct piece *pieces; /* [n] */
    int32_t n;            /* largest id + 1 */
    int32_t cap;
    size_t count; /* pieces, holes not counted */
    struct strmap ids;
    struct arena text;
};

int vocab_init(struct vocab *v, size_t expected, struct err *err);
void vocab_done(struct vocab *v);
/* Copies the piece. A piece or an id given twice, or out of the limits above, is ERR_CORRUPT. */
int vocab_add(struct vocab *v, const char *s, size_t len, int64_t id, struct err *err);
int32_t vocab_id(const struct vocab *v, const char *s, size_t len); /* -1: no such piece */
