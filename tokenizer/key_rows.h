/* Every key of tokenizer_config.json and special_tokens_map.json that transformers 4.57 or 5.24 gives a meaning, or writes. The same
 * table stands in docs/tokenizers.md. */
#pragma once
#include "common/log.h"
#include "tokenizer/settings.h"

enum key_effect {
    KEY_READ,   /* acted on */
    KEY_INERT,  /* known, and without effect on ids */
    KEY_REFUSED /* an error by name, unless it is null, false or empty */
};

struct key_row {
    const char *key;
    enum key_effect effect;
    const char *why; /* KEY_REFUSED: what it would do */
};

/* Goes through the keys of `o`, an object of the named file. ERR_UNSUPPORTED naming a refused key. A key that is in no row is one that
 * both versions pass on and never read; the log names it. Under rules 5 such a key is read if it ends in "_token". */
int key_rows_check(const json_t *o, const char *file, enum tokenizer_rules rules, struct log *log, struct err *err);
