/* One walk for normalizers, pre-tokenizers, decoders and post-processors: a Sequence goes item by item, anything else by its row. */
#include "tokenizer/hf_component.h"
#include "common/json.h"
#include "common/utf8.h"
#include <string.h>

#define MAX_NESTING 4 /* Sequence in Sequence */

int hf_missing(const struct hf_target *t, const char *key, const char *wanted, struct err *err)
{
    return err_set(err, ERR_CORRUPT, "tokenizer.json: %s: %s must be %s", t->part, key, wanted);
}

static int read_sequence(const struct hf_row *rows, const struct hf_target *t, const json_t *o, const char *list_key, struct err *err)
{
    const char *const keys[] = {"type", list_key, NULL};
    const json_t *list = json_object_get(o, list_key);
    struct hf_target inner = *t;
    inner.nested = true;
    inner.depth++;
    int r = hf_only_keys(o, t->part, keys, err);
    if (r >= 0 && (!json_is_array(list) || inner.depth > MAX_NESTING))
        r = hf_missing(t, list_key, "an array, nested at most 4 deep", err);
    for (size_t i = 0; i < json_array_size(list) && r >= 0; i++)
        r = hf_read_component(rows, &inner, json_array_get(list, i), list_key, err);
    return r;
}

int hf_read_component(const struct hf_row *rows, const struct hf_target *t, const json_t *o, const char *list_key, struct err *err)
{
    if (!o || json_is_null(o))
        return 0;
    if (strcmp(hf_type(o), "Sequence") == 0)
        return read_sequence(rows, t, o, list_key, err);
    for (; rows->type; rows++)
        if (strcmp(rows->type, hf_type(o)) == 0) {
            int r = hf_only_keys(o, rows->type, rows->keys, err);
            return r < 0 ? r : rows->read(t, o, err);
        }
    return err_set(err, ERR_UNSUPPORTED, "tokenizer.json: %s type \"%.40s\" is not supported", t->part, hf_type(o));
}

/* ---- fields ---- */

int hf_get_bool(const struct hf_target *t, const json_t *o, const char *key, bool *ret, struct err *err)
{
    return json_get_bool(o, "", key, ret, NULL) < 0 ? hf_missing(t, key, "true or false", err) : 0;
}

int hf_get_text(const struct hf_target *t, const json_t *o, const char *key, const char **ret, size_t *ret_len, struct err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v))
        return hf_missing(t, key, "a string", err);
    *ret = json_string_value(v);
    *ret_len = json_string_length(v);
    return 0;
}

int hf_get_char(const struct hf_target *t, const json_t *o, const char *key, char ret[5], struct err *err)
{
    const char *s = "";
    size_t len = 0;
    int r = hf_get_text(t, o, key, &s, &len, err);
    if (r < 0)
        return r;
    if (len == 0 || utf8_decode(s, len, NULL) != len)
        return hf_missing(t, key, "one character", err);
    memcpy(ret, s, len + 1);
    return 0;
}

int hf_get_pattern(const struct hf_target *t, const json_t *o, struct pattern **ret, struct err *err)
{
    static const char *const keys[] = {"String", "Regex", NULL};
    const json_t *p = json_object_get(o, "pattern");
    const json_t *literal = json_object_get(p, "String"), *regex = json_object_get(p, "Regex");
    if (json_object_size(p) != 1)
        return hf_missing(t, "pattern", "an object with one member, String or Regex", err);
    if (json_is_string(literal))
        return pattern_literal(json_string_value(literal), json_string_length(literal), ret, err);
    if (json_is_string(regex))
        return pattern_regex(json_string_value(regex), json_string_length(regex), ret, err);
    int r = hf_only_keys(p, "pattern", keys, err);
    return r < 0 ? r : hf_missing(t, "pattern", "a string", err);
}

const char *const hf_type_only[] = {"type", NULL};

int hf_get_scheme(const struct hf_target *t, const json_t *o, enum prepend_scheme *ret, struct err *err)
{
    static const char *const names[] = {"never", "first", "always"};
    const char *name = json_string_value(json_object_get(o, "prepend_scheme"));
    bool prefix = true;
    int r = hf_get_bool(t, o, "add_prefix_space", &prefix, err);
    *ret = prefix ? PREPEND_ALWAYS : PREPEND_NEVER;
    if (r < 0 || !json_object_get(o, "prepend_scheme"))
        return r;
    for (size_t i = 0; name && i < 3; i++)
        if (strcmp(names[i], name) == 0) {
            *ret = (enum prepend_scheme)i;
            return prefix || *ret == PREPEND_NEVER ? 0 : hf_missing(t, "prepend_scheme", "never where add_prefix_space is false", err);
        }
    return hf_missing(t, "prepend_scheme", "never, first or always", err);
}
