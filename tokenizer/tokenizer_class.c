/* AutoTokenizer.from_pretrained of both versions (models/auto/tokenization_auto.py), for files that need no remote code. */
#include "tokenizer/tokenizer_class.h"
#include <string.h>

static int refuse(const char *name, bool known, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "tokenizer_class \"%.80s\" is not supported: %s", name,
                   known ? "its own rules are not implemented" : "transformers has no such class");
}

static bool names_llama(const char *name)
{
    return strcmp(name, "LlamaTokenizer") == 0 || strcmp(name, "LlamaTokenizerFast") == 0;
}

/* Without "Fast" at the end. */
static bool same_class(const char *a, const char *b)
{
    bool known;
    const struct class_row *x = class_row_find(a, &known), *y = class_row_find(b, &known);
    return x && x == y;
}

/* A string of the file is "ByteLevel"; version 5 looks for it in the file's text. */
static bool mentions_byte_level(const json_t *v)
{
    const char *key;
    json_t *member;
    size_t i;
    json_object_foreach ((json_t *)v, key, member)
        if (strcmp(key, "ByteLevel") == 0 || mentions_byte_level(member))
            return true;
    json_array_foreach (v, i, member)
        if (mentions_byte_level(member))
            return true;
    return json_is_string(v) && strcmp(json_string_value(v), "ByteLevel") == 0;
}

/* A class by its name. What version 5 has no class for, its TokenizersBackend reads by the file alone; unless it comes with remote
 * code of its own, which neither runs. */
static int by_name(const char *name, bool remote_code, enum tokenizer_rules rules, const struct class_row **ret, struct err *err)
{
    bool known;
    *ret = class_row_find(name, &known);
    if (!*ret && !known && !remote_code && rules == TOKENIZER_RULES_5)
        *ret = class_row_plain();
    return *ret ? 0 : refuse(name, known, err);
}

static int by_type(const char *type, const struct model_type_row *row, const char *class, const struct class_row **ret, struct err *err)
{
    bool known;
    if (!row)
        return err_set(err, ERR_UNSUPPORTED,
                       "config.json's model_type \"%.60s\" says nothing about the tokenizer's class; tokenizer_config.json "
                       "must name it as tokenizer_class",
                       type);
    *ret = class ? class_row_find(class, &known) : class_row_plain();
    return 0;
}

/* Version 5 mistrusts some files: those that say Llama and are byte-level, and those of model types that it knows better. */
static int choose_5(const char *name, const struct model_type_row *row, const json_t *json, bool remote_code, const struct class_row **ret,
                    struct err *err)
{
    *ret = class_row_plain();
    if (!remote_code && names_llama(name) && !(row && row->overrides) && mentions_byte_level(json))
        return 0;
    if (!remote_code && row && row->class5 && !same_class(row->class5, name)) {
        if (strcmp(row->class5, "TokenizersBackend") == 0)
            return 0;
        return by_name(row->overrides ? row->class5 : name, remote_code, TOKENIZER_RULES_5, ret, err);
    }
    return by_name(name, remote_code, TOKENIZER_RULES_5, ret, err);
}

int tokenizer_class_choose(const json_t *config, const json_t *model, const json_t *json, enum tokenizer_rules rules,
                           const struct class_row **ret, struct err *err)
{
    const char *name = json_string_value(json_object_get(config, "tokenizer_class"));
    const char *type = json_string_value(json_object_get(model, "model_type"));
    const struct model_type_row *row = type && *type ? model_type_find(type) : NULL;
    bool remote_code = json_object_get(config, "auto_map") != NULL, known;
    if (!name || (rules == TOKENIZER_RULES_5 && !*name))
        name = json_string_value(json_object_get(model, "tokenizer_class"));
    if (name && *name)
        return rules == TOKENIZER_RULES_5 ? choose_5(name, row, json, remote_code, ret, err) : by_name(name, remote_code, rules, ret, err);
    if (type && *type)
        return by_type(type, row, row ? (rules == TOKENIZER_RULES_5 ? row->class5 : row->class4) : NULL, ret, err);
    *ret = !json && rules == TOKENIZER_RULES_4 ? class_row_find("LlamaTokenizer", &known) : class_row_plain();
    return 0;
}
