/* From keyword arguments (kwargs.h) to typed settings. */
#include "tokenizer/settings.h"
#include "common/readfile.h"
#include "tokenizer/python_json.h"
#include "tokenizer/settings_parts.h"
#include "tokenizer/tokenizer_class.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define MAX_TEMPLATE_BYTES ((size_t)32 << 20)
#define MAX_MEMORY_BYTES ((size_t)128 << 20)

bool knob_is_true(enum knob k, bool absent)
{
    return k == KNOB_ABSENT ? absent : k == KNOB_TRUE || k == KNOB_TRUTHY;
}

static enum knob knob_of(const json_t *kw, const char *key)
{
    const json_t *v = json_object_get(kw, key);
    if (!v || json_is_null(v))
        return v ? KNOB_NULL : KNOB_ABSENT;
    if (json_is_boolean(v))
        return json_is_true(v) ? KNOB_TRUE : KNOB_FALSE;
    return kwargs_truth(v) ? KNOB_TRUTHY : KNOB_FALSY;
}

/* *ret stays NULL where there is no such string. */
static int read_path(struct settings *s, const json_t *kw, const char *key, const char **ret, struct err *err)
{
    const json_t *v = json_object_get(kw, key);
    if (json_string_length(v) == 0)
        return 0;
    *ret = arena_strndup(&s->memory, json_string_value(v), json_string_length(v));
    return *ret ? 0 : err_set(err, ERR_NOMEM, "no memory for the path of %s", key);
}

static int read_kwargs(struct settings *s, const char *dir, json_t *kw, const json_t *json, struct err *err)
{
    s->legacy = knob_of(kw, "legacy");
    s->add_bos = knob_of(kw, "add_bos_token");
    s->add_eos = knob_of(kw, "add_eos_token");
    s->add_prefix_space = knob_of(kw, "add_prefix_space");
    s->from_slow = knob_of(kw, "from_slow");
    s->split_special = knob_of(kw, "split_special_tokens");
    s->no_tokenizer_file = knob_of(kw, "tokenizer_file") == KNOB_NULL;
    if (s->split_special != KNOB_ABSENT && s->split_special != KNOB_TRUE && s->split_special != KNOB_FALSE)
        return settings_bad(err, SETTINGS_CONFIG, "split_special_tokens", "true or false");
    int r = read_path(s, kw, "tokenizer_file", &s->tokenizer_file, err);
    if (r >= 0)
        r = read_path(s, kw, "vocab_file", &s->vocab_file, err);
    if (r >= 0)
        r = settings_read_tokens(s, kw, err);
    return r < 0 ? r : settings_read_added(s, dir, kw, json, err);
}

/* ---- other files ---- */

static int keep_template(struct settings *s, const char *text, size_t len, struct err *err)
{
    s->chat_template = arena_strndup(&s->memory, text, len);
    return s->chat_template ? 0 : err_set(err, ERR_NOMEM, "no memory for the chat template");
}

/* A string, or a list of named templates, of which "default" counts. */
static int read_chat_template(struct settings *s, const json_t *v, struct err *err)
{
    size_t i;
    json_t *named;
    json_array_foreach (v, i, named) {
        const char *name = json_string_value(json_object_get(named, "name"));
        if (name && strcmp(name, "default") == 0) {
            v = json_object_get(named, "template");
            break;
        }
    }
    return json_is_string(v) ? keep_template(s, json_string_value(v), json_string_length(v), err) : 0;
}

static int read_template_file(struct settings *s, const char *dir, struct err *err)
{
    char path[PATH_MAX];
    struct buf text;
    snprintf(path, sizeof(path), "%s/chat_template.jinja", dir);
    buf_init(&text, MAX_TEMPLATE_BYTES);
    int r = readfile(path, &text, err);
    if (r >= 0)
        r = keep_template(s, text.data, text.len, err);
    buf_done(&text);
    return r == ERR_NOT_FOUND ? 0 : r;
}

/* An id, or the first of a list. */
static int32_t generation_id(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    return id >= 0 && id < VOCAB_MAX_IDS ? (int32_t)id : -1;
}

static int read_generation(struct settings *s, const char *dir, struct err *err)
{
    json_t *o;
    int r = python_json_read(dir, "generation_config.json", &o, err);
    s->generation_bos = generation_id(o, "bos_token_id");
    s->generation_eos = generation_id(o, "eos_token_id");
    s->generation_pad = generation_id(o, "pad_token_id");
    json_decref(o);
    return r;
}

int settings_read(struct settings *s, const char *dir, enum tokenizer_rules rules, const json_t *json, struct log *log, struct err *err)
{
    json_t *config = NULL, *model = NULL, *kw = NULL;
    *s = (struct settings){.rules = rules, .has_json = json != NULL};
    arena_init(&s->memory, MAX_MEMORY_BYTES);
    int r = python_json_read(dir, "tokenizer_config.json", &config, err);
    if (r >= 0)
        r = python_json_read(dir, "config.json", &model, err);
    if (r >= 0)
        r = tokenizer_class_choose(config, model, json, rules, &s->class, err);
    if (r >= 0)
        r = kwargs_read(dir, config, rules, json != NULL, log, &kw, err);
    if (r >= 0)
        r = read_chat_template(s, json_object_get(kw, "chat_template"), err);
    if (r >= 0)
        r = read_kwargs(s, dir, kw, json, err);
    if (r >= 0)
        r = read_generation(s, dir, err);
    if (r >= 0)
        r = read_template_file(s, dir, err);
    json_decref(config);
    json_decref(model);
    json_decref(kw);
    if (r < 0)
        settings_done(s);
    return r;
}

void settings_done(struct settings *s)
{
    arena_done(&s->memory);
    *s = (struct settings){0};
}
