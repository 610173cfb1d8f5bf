/* Growing a struct token_ids under a limit. */
#pragma once
#include "tokenizer/tokenizer.h"

struct id_sink {
    struct token_ids *ids;
    size_t max_ids; /* of ids->n */
};

/* 0, ERR_NOMEM, or ERR_TOO_LARGE when the limit is reached. */
int ids_push(struct id_sink *out, int32_t id);
