/* Follows PreTrainedTokenizerBase._from_pretrained (tokenization_utils_base.py) of both versions, on JSON values. */
#include "tokenizer/kwargs.h"
#include "tokenizer/key_rows.h"
#include "tokenizer/python_json.h"
#include <string.h>

#define NAMED "model_specific_special_tokens"

bool kwargs_truth(const json_t *v)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_NULL:
    case JSON_FALSE: return false;
    case JSON_TRUE: return true;
    case JSON_STRING: return json_string_length(v) > 0;
    case JSON_ARRAY: return json_array_size(v) > 0;
    case JSON_OBJECT: return json_object_size(v) > 0;
    default: return json_number_value(v) != 0;
    }
}

static bool is_added_token(const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "__type"));
    return type && strcmp(type, "AddedToken") == 0;
}

bool kwargs_is_token(const json_t *v)
{
    return json_is_string(v) || is_added_token(v);
}

static bool is_role(const char *key)
{
    static const char *const roles[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(roles[i], key) == 0)
            return true;
    return false;
}

static bool ends_in_token(const char *key)
{
    size_t n = strlen(key);
    return n >= 6 && strcmp(key + n - 6, "_token") == 0;
}

const char *kwargs_text(const json_t *v)
{
    return json_string_value(json_is_true(json_object_get(v, "__made")) ? json_object_get(v, "content") : v);
}

/* ---- version 5's renaming ---- */

static int merge_named(json_t *kw, json_t *named)
{
    json_t *mine = json_object_get(kw, NAMED);
    return json_is_object(mine) ? json_object_update(mine, named) : json_object_set(kw, NAMED, named);
}

/* Strings under keys that end in "_token", and a dictionary of extra tokens, are tokens with names. */
static int move_named(json_t *kw)
{
    const char *key;
    void *next;
    json_t *v, *named = json_object(), *extra = json_object_get(kw, "extra_special_tokens");
    int r = named ? 0 : -1;
    json_object_foreach_safe(kw, next, key, v)
    {
        if (r < 0 || is_role(key) || !ends_in_token(key) || !json_is_string(v))
            continue;
        r = json_object_set(named, key, v);
        json_object_del(kw, key);
    }
    if (r >= 0 && json_is_object(extra)) {
        r = json_object_update(named, extra);
        json_object_del(kw, "extra_special_tokens");
    }
    if (r >= 0 && json_object_size(named) > 0)
        r = json_object_set(kw, NAMED, named);
    json_decref(named);
    return r;
}

static int rename_for_5(json_t *kw, bool has_json)
{
    if (has_json) {
        json_object_del(kw, "add_bos_token");
        json_object_del(kw, "add_eos_token");
    }
    json_t *additional = json_object_get(kw, "additional_special_tokens");
    if (additional && !kwargs_truth(json_object_get(kw, "extra_special_tokens"))) {
        if (json_object_set(kw, "extra_special_tokens", additional) < 0)
            return -1;
        json_object_del(kw, "additional_special_tokens");
    }
    return move_named(kw);
}

/* ---- special_tokens_map.json ---- */

/* AddedToken(**o, special=True); NULL: no memory. */
static json_t *as_special_token(const json_t *o)
{
    json_t *token = json_copy((json_t *)o);
    if (json_object_set_new(token, "__type", json_string("AddedToken")) >= 0 && json_object_set_new(token, "special", json_true()) >= 0 &&
        json_object_set_new(token, "__made", json_true()) >= 0)
        return token;
    json_decref(token);
    return NULL;
}

static bool holds(const json_t *list, const json_t *v)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_array_get(list, i), v))
            return true;
    return false;
}

/* What the list had before, and what is new in `more`; NULL: no memory. */
static json_t *merged_list(const json_t *before, const json_t *more)
{
    json_t *list = json_is_array(before) ? json_copy((json_t *)before) : json_array();
    int r = list ? 0 : -1;
    for (size_t i = 0; i < json_array_size(more) && r >= 0; i++) {
        const json_t *v = json_array_get(more, i);
        json_t *token = json_is_object(v) ? as_special_token(v) : json_incref((json_t *)v);
        if (!token || !holds(list, token))
            r = json_array_append(list, token);
        json_decref(token);
    }
    if (r >= 0)
        return list;
    json_decref(list);
    return NULL;
}

static int overlay(json_t *kw, const json_t *map, enum tokenizer_rules rules)
{
    const char *key, *list = rules == TOKENIZER_RULES_5 ? "extra_special_tokens" : "additional_special_tokens";
    json_t *v;
    int r = 0;
    json_object_foreach ((json_t *)map, key, v) {
        json_t *value = NULL;
        if (json_is_object(v) && !(rules == TOKENIZER_RULES_5 && strcmp(key, list) == 0))
            value = as_special_token(v);
        else if (json_is_array(v) && strcmp(key, list) == 0)
            value = merged_list(json_object_get(kw, list), v);
        else
            value = json_incref(v);
        r = value ? json_object_set_new(kw, key, value) : -1;
        if (r < 0)
            return r;
    }
    const json_t *listed = json_object_get(map, list), *last = json_array_get(listed, json_array_size(listed) - 1);
    const char *content = json_string_value(json_is_object(last) ? json_object_get(last, "content") : last);
    if (content && json_object_set_new(kw, KWARGS_LAST_LISTED, json_string(content)) < 0)
        return -1;
    json_t *extra = json_object_get(kw, "extra_special_tokens");
    if (rules == TOKENIZER_RULES_5 && json_is_object(extra)) {
        r = merge_named(kw, extra);
        json_object_del(kw, "extra_special_tokens");
    }
    return r;
}

int kwargs_read(const char *dir, const json_t *config, enum tokenizer_rules rules, bool has_json, struct log *log, json_t **ret,
                struct err *err)
{
    json_t *map = NULL, *kw = config ? json_copy((json_t *)config) : json_object();
    int r = kw ? 0 : err_set(err, ERR_NOMEM, "no memory for the tokenizer's settings");
    if (r >= 0 && config)
        r = key_rows_check(config, "tokenizer_config.json", rules, log, err);
    if (r >= 0 && rules == TOKENIZER_RULES_5 && rename_for_5(kw, has_json) < 0)
        r = err_set(err, ERR_NOMEM, "no memory for the tokenizer's settings");
    if (r >= 0 && !json_object_get(kw, "added_tokens_decoder"))
        r = python_json_read(dir, "special_tokens_map.json", &map, err);
    if (r >= 0 && map)
        r = key_rows_check(map, "special_tokens_map.json", rules, log, err);
    if (r >= 0 && map && overlay(kw, map, rules) < 0)
        r = err_set(err, ERR_NOMEM, "no memory for the tokenizer's settings");
    json_decref(map);
    if (r < 0)
        json_decref(kw);
    else
        *ret = kw;
    return r;
}
