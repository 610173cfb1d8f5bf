/* What we need on top of jansson: typed field readers with a range and a name for the error, and
 * shortest round-trip floats.
 *
 * Readers: `obj` is a JSON object, `key` the member, `where` a prefix for the field's name in errors
 * ("" or e.g. "requests[3]."). An absent or null member leaves *ret as it was and returns 0; so the
 * caller sets defaults first. A wrong type or a value out of range gives ERR_INVALID with the field,
 * the limit and the value. */
#pragma once
#include "common/buf.h"
#include "common/err.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Parses one JSON value that fills `text` entirely. NUL bytes inside strings, invalid UTF-8,
 * duplicate keys and nesting deeper than 64 are errors. Integers beyond int64 become reals. ERR_NOMEM is told from bad JSON.
 * Ownership of *ret passes to the caller. */
int json_parse(const char *text, size_t len, const char *what, json_t **ret, struct err *err);
/* The same, but string values (not keys) may hold \u0000: who reads them must ask for their length. */
int json_parse_with_nul(const char *text, size_t len, const char *what, json_t **ret, struct err *err);
/* The same from a regular file of at most max_bytes. */
int json_parse_file(const char *path, size_t max_bytes, json_t **ret, struct err *err);
/* Bytes that parsing the text takes at most, about; a text that is no JSON takes less. */
size_t json_estimate(const char *text, size_t len);
/* Bytes that the value holds which this thread parsed last; before anything of it is freed. */
size_t json_parsed_bytes(void);

int json_get_int(const json_t *obj, const char *where, const char *key, int64_t min, int64_t max, int64_t *ret, struct err *err);
int json_get_double(const json_t *obj, const char *where, const char *key, double min, double max, double *ret,
                    struct err *err); /* accepts integers; refuses non-finite */
int json_get_bool(const json_t *obj, const char *where, const char *key, bool *ret, struct err *err);
int json_get_string(const json_t *obj, const char *where, const char *key, const char **ret, size_t *ret_len,
                    struct err *err); /* borrowed from obj; with ret_len NULL a string that holds NUL is refused */
/* An array of integers in [min, max], at most max_n of them. *ret is malloc'ed (NULL when absent). */
int json_get_ids(const json_t *obj, const char *where, const char *key, int64_t min, int64_t max, size_t max_n, int32_t **ret,
                 size_t *ret_n, struct err *err);

/* "a string", "an object", ...; "missing" for NULL. */
const char *json_type_name(const json_t *v);

/* Shortest decimal that strtof / strtod reads back to the same value ("-1.5", "1e-07"); a valid JSON number.
 * Non-finite values are the caller's bug (assert). `out` has room for 32 bytes; returns the length. */
int json_format_float(char *out, float v);
int json_format_double(char *out, double v);

/* Writers for responses: append to a buf (errors as buf_append). Strings must be valid UTF-8; what is not
 * is replaced by U+FFFD. */
int json_put_string(struct buf *b, const char *s, size_t len); /* quoted and escaped */
int json_put_float(struct buf *b, float v);                    /* non-finite becomes null */
int json_put_double(struct buf *b, double v);
