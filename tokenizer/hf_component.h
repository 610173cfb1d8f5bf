/* What the readers of tokenizer.json's components share; private to hf_*.c. Errors name the part and the key. */
#pragma once
#include "tokenizer/hf_json.h"

struct hf_target { /* where the rows of a table put what they read */
    void *to;
    const struct hf_overrides *overrides;
    bool nested;      /* inside a Sequence */
    const char *part; /* "normalizer", for errors */
    int depth;
};

struct hf_row {
    const char *type; /* NULL ends a table */
    const char *const *keys;
    int (*read)(const struct hf_target *t, const json_t *o, struct err *err);
};

extern const char *const hf_type_only[]; /* the keys of a component without any of its own */

/* `list_key` holds the items of a Sequence. A component that is not there, or null, is none. */
int hf_read_component(const struct hf_row *rows, const struct hf_target *t, const json_t *o, const char *list_key, struct err *err);

int hf_missing(const struct hf_target *t, const char *key, const char *wanted, struct err *err); /* ERR_CORRUPT */
int hf_get_bool(const struct hf_target *t, const json_t *o, const char *key, bool *ret, struct err *err);
/* Borrowed from `o`. */
int hf_get_text(const struct hf_target *t, const json_t *o, const char *key, const char **ret, size_t *ret_len, struct err *err);
/* A string that is one character. */
int hf_get_char(const struct hf_target *t, const json_t *o, const char *key, char ret[5], struct err *err);
/* {"String": "..."} or {"Regex": "..."}; the caller frees it. */
int hf_get_pattern(const struct hf_target *t, const json_t *o, struct pattern **ret, struct err *err);
/* Metaspace's prepend_scheme, or add_prefix_space, its older spelling. */
int hf_get_scheme(const struct hf_target *t, const json_t *o, enum prepend_scheme *ret, struct err *err);
