/* Tokens by name: the roles, the lists, and what a class adds. */
#include "common/json.h"
#include "tokenizer/settings_parts.h"
#include <string.h>

#define MAX_EXTRA 20000

const char *const settings_role_keys[ROLE_COUNT] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                    "pad_token", "cls_token", "mask_token"};

static int role_of(const char *key)
{
    for (int i = 0; i < ROLE_COUNT; i++)
        if (strcmp(settings_role_keys[i], key) == 0)
            return i;
    return -1;
}

int settings_bad(struct err *err, const char *file, const char *key, const char *wanted)
{
    return err_set(err, ERR_CORRUPT, "%s: %s must be %s", file, key, wanted);
}

int settings_set_content(struct settings *s, struct token_spec *t, const char *text, size_t len, struct err *err)
{
    t->len = len;
    t->content = arena_strndup(&s->memory, text, len);
    return t->content ? 0 : err_set(err, ERR_NOMEM, "no memory for special tokens");
}

int settings_read_object(struct settings *s, const json_t *o, const char *file, struct token_spec *ret, struct err *err)
{
    static const char where[] = "added token.";
    const json_t *content = json_object_get(o, "content"), *normalized = json_object_get(o, "normalized");
    *ret = (struct token_spec){.id = -1, .is_object = true, .normalized = NORMALIZED_UNLESS_SPECIAL};
    if (!json_is_string(content))
        return settings_bad(err, file, "an added token's content", "a string");
    int r = json_get_bool(o, where, "special", &ret->special, err);
    if (r >= 0)
        r = json_get_bool(o, where, "lstrip", &ret->lstrip, err);
    if (r >= 0)
        r = json_get_bool(o, where, "rstrip", &ret->rstrip, err);
    if (r >= 0)
        r = json_get_bool(o, where, "single_word", &ret->single_word, err);
    if (r < 0 || (normalized && !json_is_null(normalized) && !json_is_boolean(normalized)))
        return settings_bad(err, file, r < 0 && err ? err->param : "an added token's flag", "true or false");
    if (normalized && json_is_boolean(normalized))
        ret->normalized = json_is_true(normalized) ? NORMALIZED : NOT_NORMALIZED;
    return settings_set_content(s, ret, json_string_value(content), json_string_length(content), err);
}

static int read_token(struct settings *s, const json_t *v, const char *key, struct token_spec *ret, struct err *err)
{
    *ret = (struct token_spec){.id = -1, .special = true, .normalized = NORMALIZED_UNLESS_SPECIAL};
    if (!v || json_is_null(v))
        return 0;
    if (json_is_string(v))
        return settings_set_content(s, ret, json_string_value(v), json_string_length(v), err);
    return json_is_object(v) ? settings_read_object(s, v, SETTINGS_CONFIG, ret, err)
                             : settings_bad(err, SETTINGS_CONFIG, key, "a string or an object");
}

int settings_room(struct settings *s, struct token_list *l, const char *key, size_t n, size_t max, struct err *err)
{
    l->n = 0;
    l->t = n <= max ? arena_alloc(&s->memory, n + 1, sizeof(*l->t)) : NULL;
    return l->t ? 0 : err_set(err, ERR_CORRUPT, "%s: %s has %zu tokens; the limit is %zu", SETTINGS_CONFIG, key, n, max);
}

/* A list, or the values of an object; null and what else is no container is an empty list. */
static int read_list(struct settings *s, const json_t *v, const char *key, struct token_list *ret, struct err *err)
{
    const char *name;
    json_t *item;
    size_t i;
    int r = settings_room(s, ret, key, json_array_size(v) + json_object_size(v), MAX_EXTRA, err);
    json_array_foreach (v, i, item)
        if (r >= 0)
            r = read_token(s, item, key, &ret->t[ret->n++], err);
    json_object_foreach ((json_t *)v, name, item)
        if (r >= 0)
            r = read_token(s, item, name, &ret->t[ret->n++], err);
    return r;
}

static int read_role(struct settings *s, const json_t *kw, int role, struct err *err)
{
    const char *otherwise = class_rules_of(s->class, s->rules)->roles[role];
    struct token_spec *t = &s->roles[role];
    const json_t *v = json_object_get(kw, settings_role_keys[role]);
    s->given[role] = v != NULL;
    if (v)
        return read_token(s, v, settings_role_keys[role], t, err);
    *t = (struct token_spec){.id = -1, .special = true, .normalized = NORMALIZED_UNLESS_SPECIAL};
    return otherwise && *otherwise ? settings_set_content(s, t, otherwise, strlen(otherwise), err) : 0;
}

static const char *const infill_keys[] = {"prefix_token", "middle_token", "suffix_token", "eot_token", "fill_token"};
static const char *const infill_defaults[] = {"\xe2\x96\x81<PRE>", "\xe2\x96\x81<MID>", "\xe2\x96\x81<SUF>", "\xe2\x96\x81<EOT>",
                                              "<FILL_ME>"};

static int read_infill(struct settings *s, const json_t *kw, struct err *err)
{
    int r = 0;
    for (int i = 0; i < 5 && r >= 0; i++) {
        struct token_spec *t = i < 4 ? &s->infill[i] : &s->fill;
        const json_t *v = json_object_get(kw, infill_keys[i]);
        r = read_token(s, v, infill_keys[i], t, err);
        if (r >= 0 && !v)
            r = settings_set_content(s, t, infill_defaults[i], strlen(infill_defaults[i]), err);
    }
    return r;
}

/* Version 5: the constructor's own parameters and other arguments whose names end in "_token", under the names given elsewhere.
 * NULL: no memory. */
static json_t *named_for_5(const struct settings *s, const json_t *kw)
{
    json_t *named = json_object(), *v, *explicit = json_object_get(kw, "model_specific_special_tokens");
    const char *key;
    int r = named ? 0 : -1;
    for (int i = 0; i < 5 && class_rules_of(s->class, s->rules)->infills && r >= 0; i++) {
        const json_t *own = json_object_get(kw, infill_keys[i]);
        if (!json_is_null(own))
            r = json_object_set_new(named, infill_keys[i], own ? json_incref((json_t *)own) : json_string(infill_defaults[i]));
    }
    json_object_foreach ((json_t *)kw, key, v) {
        size_t n = strlen(key);
        if (r >= 0 && n >= 6 && strcmp(key + n - 6, "_token") == 0 && role_of(key) < 0 && kwargs_is_token(v))
            r = json_object_set(named, key, v);
    }
    if (r >= 0 && json_is_object(explicit))
        r = json_object_update(named, explicit);
    if (r >= 0)
        return named;
    json_decref(named);
    return NULL;
}

static int read_named(struct settings *s, const json_t *kw, struct err *err)
{
    const json_t *extra = json_object_get(kw, "extra_special_tokens");
    json_t *named = s->rules == TOKENIZER_RULES_5 ? named_for_5(s, kw)
                    : json_is_object(extra)       ? json_incref((json_t *)extra)
                                                  : json_object();
    if (!named)
        return err_set(err, ERR_NOMEM, "no memory for special tokens");
    int r = read_list(s, named, "extra_special_tokens", &s->named, err);
    s->named_roles = arena_alloc(&s->memory, s->named.n + 1, sizeof(*s->named_roles));
    if (r >= 0 && !s->named_roles)
        r = err_set(err, ERR_NOMEM, "no memory for special tokens");
    const char *key;
    json_t *v;
    size_t i = 0;
    if (r >= 0)
        json_object_foreach (named, key, v)
            s->named_roles[i++] = role_of(key);
    json_decref(named);
    return r;
}

int settings_read_tokens(struct settings *s, const json_t *kw, struct err *err)
{
    const json_t *extra = json_object_get(kw, "extra_special_tokens"), *additional = json_object_get(kw, "additional_special_tokens");
    const json_t *list = s->rules == TOKENIZER_RULES_4 ? additional : extra ? extra : additional;
    int r = 0;
    if (s->rules == TOKENIZER_RULES_4 && json_is_array(extra) && !json_array_size(additional))
        list = extra; /* version 4 cannot load such a list, which version 5 writes for what 4 calls additional_special_tokens */
    for (int i = 0; i < ROLE_COUNT && r >= 0; i++)
        r = read_role(s, kw, i, err);
    if (r >= 0)
        r = read_list(s, json_is_array(list) ? list : NULL, "additional_special_tokens", &s->extra, err);
    if (r >= 0)
        r = read_named(s, kw, err);
    s->extra_given = extra != NULL;
    if (r >= 0 && class_rules_of(s->class, s->rules)->infills)
        r = read_infill(s, kw, err);
    return r;
}
