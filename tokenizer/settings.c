/* From keyword arguments (kwargs.h) to typed settings. */
#include "tokenizer/settings.h"
#include "common/json.h"
#include "tokenizer/kwargs.h"
#include "tokenizer/python_json.h"
#include "tokenizer/tokenizer_class.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEMPLATE_BYTES ((size_t)32 << 20)
#define MAX_MEMORY_BYTES ((size_t)128 << 20)
#define MAX_ADDED 100000
#define MAX_EXTRA 20000

static const char *const role_keys[ROLE_COUNT] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                  "pad_token", "cls_token", "mask_token"};

static int role_of(const char *key)
{
    for (int i = 0; i < ROLE_COUNT; i++)
        if (strcmp(role_keys[i], key) == 0)
            return i;
    return -1;
}

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

static int bad(struct err *err, const char *file, const char *key, const char *wanted)
{
    return err_set(err, ERR_CORRUPT, "%s: %s must be %s", file, key, wanted);
}

#define CONFIG "tokenizer_config.json"

/* ---- tokens ---- */

static int set_content(struct settings *s, struct token_spec *t, const char *text, size_t len, struct err *err)
{
    t->len = len;
    t->content = arena_strndup(&s->memory, text, len);
    return t->content ? 0 : err_set(err, ERR_NOMEM, "no memory for special tokens");
}

/* AddedToken(**object): flags are false, normalized the opposite of special. */
static int read_object(struct settings *s, const json_t *o, const char *file, struct token_spec *ret, struct err *err)
{
    static const char where[] = "added token.";
    const json_t *content = json_object_get(o, "content"), *normalized = json_object_get(o, "normalized");
    *ret = (struct token_spec){.id = -1, .is_object = true, .normalized = NORMALIZED_UNLESS_SPECIAL};
    if (!json_is_string(content))
        return bad(err, file, "an added token's content", "a string");
    int r = json_get_bool(o, where, "special", &ret->special, err);
    if (r >= 0)
        r = json_get_bool(o, where, "lstrip", &ret->lstrip, err);
    if (r >= 0)
        r = json_get_bool(o, where, "rstrip", &ret->rstrip, err);
    if (r >= 0)
        r = json_get_bool(o, where, "single_word", &ret->single_word, err);
    if (r < 0 || (normalized && !json_is_null(normalized) && !json_is_boolean(normalized)))
        return bad(err, file, r < 0 && err ? err->param : "an added token's flag", "true or false");
    if (normalized && json_is_boolean(normalized))
        ret->normalized = json_is_true(normalized) ? NORMALIZED : NOT_NORMALIZED;
    return set_content(s, ret, json_string_value(content), json_string_length(content), err);
}

static int read_token(struct settings *s, const json_t *v, const char *key, struct token_spec *ret, struct err *err)
{
    *ret = (struct token_spec){.id = -1, .special = true, .normalized = NORMALIZED_UNLESS_SPECIAL};
    if (!v || json_is_null(v))
        return 0;
    if (json_is_string(v))
        return set_content(s, ret, json_string_value(v), json_string_length(v), err);
    return json_is_object(v) ? read_object(s, v, CONFIG, ret, err) : bad(err, CONFIG, key, "a string or an object");
}

static int room(struct settings *s, struct token_list *l, const char *key, size_t n, size_t max, struct err *err)
{
    l->n = 0;
    l->t = n <= max ? arena_alloc(&s->memory, n + 1, sizeof(*l->t)) : NULL;
    return l->t ? 0 : err_set(err, ERR_CORRUPT, "%s: %s has %zu tokens; the limit is %zu", CONFIG, key, n, max);
}

/* A list, or the values of an object; null and what else is no container is an empty list. */
static int read_list(struct settings *s, const json_t *v, const char *key, struct token_list *ret, struct err *err)
{
    const char *name;
    json_t *item;
    size_t i;
    int r = room(s, ret, key, json_array_size(v) + json_object_size(v), MAX_EXTRA, err);
    json_array_foreach (v, i, item)
        if (r >= 0)
            r = read_token(s, item, key, &ret->t[ret->n++], err);
    json_object_foreach ((json_t *)v, name, item)
        if (r >= 0)
            r = read_token(s, item, name, &ret->t[ret->n++], err);
    return r;
}

/* ---- added_tokens_decoder, or what stands in for it ---- */

static int by_id(const void *a, const void *b)
{
    const struct token_spec *x = a, *y = b;
    return x->id != y->id ? (x->id > y->id) - (x->id < y->id) : (x->place > y->place) - (x->place < y->place);
}

/* A dictionary by id: of two tokens the later counts. */
static void settle(struct token_list *l)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->n; i++)
        l->t[i].place = i;
    if (l->n)
        qsort(l->t, l->n, sizeof(*l->t), by_id);
    for (size_t i = 0; i < l->n; i++) {
        kept -= kept && l->t[kept - 1].id == l->t[i].id;
        l->t[kept++] = l->t[i];
    }
    l->n = kept;
}

static int parse_id(const char *text, int32_t *ret)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || v < 0 || v >= VOCAB_MAX_IDS)
        return ERR_CORRUPT;
    *ret = (int32_t)v;
    return 0;
}

static int read_decoder(struct settings *s, json_t *o, struct err *err)
{
    const char *key;
    json_t *v;
    int r = json_is_object(o) ? room(s, &s->added, "added_tokens_decoder", json_object_size(o), MAX_ADDED, err)
                              : bad(err, CONFIG, "added_tokens_decoder", "an object");
    json_object_foreach (o, key, v) {
        struct token_spec *t = &s->added.t[s->added.n];
        if (r >= 0)
            r = json_is_object(v) ? read_object(s, v, CONFIG, t, err) : bad(err, CONFIG, "added_tokens_decoder's members", "objects");
        if (r >= 0 && parse_id(key, &t->id) < 0)
            r = bad(err, CONFIG, "added_tokens_decoder's keys", "token ids");
        if (r < 0)
            return r;
        s->added.n++;
    }
    return r;
}

/* str() of the roles and the listed tokens that the files give, as they are while added_tokens.json is read. */
static int index_special(const struct settings *s, const json_t *kw, struct strmap *ret, struct err *err)
{
    const json_t *list = json_object_get(kw, s->rules == TOKENIZER_RULES_4 ? "additional_special_tokens" : "extra_special_tokens");
    int r = strmap_init(ret, ROLE_COUNT + json_array_size(list));
    for (size_t i = 0; i < ROLE_COUNT + json_array_size(list) && r >= 0; i++) {
        const char *text = kwargs_text(i < ROLE_COUNT ? json_object_get(kw, role_keys[i]) : json_array_get(list, i - ROLE_COUNT));
        r = text ? strmap_put(ret, text, strlen(text), (int32_t)i) : 0;
    }
    return r < 0 ? err_set(err, ERR_NOMEM, "no memory for special tokens") : 0;
}

static int read_added_entry(struct settings *s, const char *content, const json_t *id, const struct strmap *special, struct err *err)
{
    struct token_spec *t = &s->added.t[s->added.n];
    *t = (struct token_spec){.is_object = true, .id = (int32_t)json_integer_value(id)};
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= VOCAB_MAX_IDS)
        return bad(err, "added_tokens.json", content, "a token id");
    int r = set_content(s, t, content, strlen(content), err);
    t->special = r >= 0 && strmap_get(special, t->content, t->len) >= 0;
    t->normalized = t->special ? NOT_NORMALIZED : NORMALIZED;
    s->added.n++;
    return r;
}

/* added_tokens.json: {"content": id}. */
static int read_added_file(struct settings *s, const json_t *o, const json_t *kw, struct err *err)
{
    struct strmap special = {0};
    const char *key;
    json_t *v;
    int r = index_special(s, kw, &special, err);
    json_object_foreach ((json_t *)o, key, v)
        if (r >= 0)
            r = read_added_entry(s, key, v, &special, err);
    strmap_done(&special);
    return r;
}

/* tokenizer.json's added tokens, which are there already; but they go through the configuration's hands once more. */
static int read_json_added(struct settings *s, const json_t *tokens, struct err *err)
{
    size_t i;
    json_t *o;
    json_array_foreach (tokens, i, o) {
        struct token_spec *t = &s->added.t[s->added.n];
        json_int_t id = json_integer_value(json_object_get(o, "id"));
        int r = read_object(s, o, "tokenizer.json", t, err);
        if (r < 0)
            return r;
        if (!json_is_integer(json_object_get(o, "id")) || id < 0 || id >= VOCAB_MAX_IDS)
            return bad(err, "tokenizer.json", "an added token's id", "a token id");
        t->id = (int32_t)id;
        s->added.n++;
    }
    return 0;
}

/* How many of the first tokens are added_tokens.json's goes to *ret_n_file. */
static int read_added(struct settings *s, const char *dir, const json_t *kw, const json_t *json, size_t *ret_n_file, struct err *err)
{
    json_t *file = NULL, *decoder = json_object_get(kw, "added_tokens_decoder");
    const json_t *tokens = json_object_get(json, "added_tokens");
    *ret_n_file = 0;
    if (decoder)
        return read_decoder(s, decoder, err);
    int r = python_json_read(dir, "added_tokens.json", &file, err);
    if (r >= 0)
        r = room(s, &s->added, "added_tokens.json", json_object_size(file) + json_array_size(tokens), MAX_ADDED, err);
    if (r >= 0)
        r = read_added_file(s, file, kw, err);
    *ret_n_file = s->added.n;
    if (r >= 0)
        r = read_json_added(s, tokens, err);
    json_decref(file);
    return r;
}

static const struct token_spec *last_with(const struct token_list *l, size_t first, const char *content, size_t len)
{
    for (size_t k = l->n; k > first && content; k--)
        if (l->t[k - 1].len == len && memcmp(l->t[k - 1].content, content, len) == 0)
            return &l->t[k - 1];
    return NULL;
}

/* A role whose content is an added token's is that token, flags and all; of several the last. Version 4 knows the last one of
 * added_tokens.json by another token's content, and the others not at all. */
static void map_roles(struct settings *s, const json_t *kw, size_t n_file)
{
    const char *slip = json_string_value(json_object_get(kw, KWARGS_LAST_LISTED));
    bool slips = s->rules == TOKENIZER_RULES_4 && n_file > 0;
    slip = slip ? slip : "None";
    for (int i = 0; i < ROLE_COUNT; i++) {
        struct token_spec *role = &s->roles[i];
        const struct token_spec *token = s->given[i] ? last_with(&s->added, slips ? n_file : 0, role->content, role->len) : NULL;
        if (!token && slips && s->given[i] && role->content && strcmp(role->content, slip) == 0)
            token = &s->added.t[n_file - 1];
        if (token)
            *role = *token;
    }
}

/* ---- roles ---- */

static int read_role(struct settings *s, const json_t *kw, int role, struct err *err)
{
    const char *otherwise = class_rules_of(s->class, s->rules)->roles[role];
    struct token_spec *t = &s->roles[role];
    const json_t *v = json_object_get(kw, role_keys[role]);
    s->given[role] = v != NULL;
    if (v)
        return read_token(s, v, role_keys[role], t, err);
    *t = (struct token_spec){.id = -1, .special = true, .normalized = NORMALIZED_UNLESS_SPECIAL};
    return otherwise && *otherwise ? set_content(s, t, otherwise, strlen(otherwise), err) : 0;
}

/* Qwen2TokenizerFast: AddedToken(string, lstrip=False, rstrip=False, special=True, normalized=False). */
static void make_objects(struct settings *s)
{
    for (int i = 0; i < ROLE_COUNT; i++)
        if (s->roles[i].content && !s->roles[i].is_object && class_rules_of(s->class, s->rules)->roles[i]) {
            s->roles[i].is_object = true;
            s->roles[i].normalized = NOT_NORMALIZED;
        }
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
            r = set_content(s, t, infill_defaults[i], strlen(infill_defaults[i]), err);
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

static int read_tokens(struct settings *s, const json_t *kw, struct err *err)
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

static const char *path_in(struct settings *s, const json_t *kw, const char *key)
{
    const json_t *v = json_object_get(kw, key);
    return json_string_length(v) ? arena_strndup(&s->memory, json_string_value(v), json_string_length(v)) : NULL;
}

static int read_kwargs(struct settings *s, const char *dir, json_t *kw, const json_t *json, struct err *err)
{
    size_t n_file = 0;
    s->legacy = knob_of(kw, "legacy");
    s->add_bos = knob_of(kw, "add_bos_token");
    s->add_eos = knob_of(kw, "add_eos_token");
    s->add_prefix_space = knob_of(kw, "add_prefix_space");
    s->from_slow = knob_of(kw, "from_slow");
    s->no_tokenizer_file = knob_of(kw, "tokenizer_file") == KNOB_NULL;
    s->tokenizer_file = path_in(s, kw, "tokenizer_file");
    s->vocab_file = path_in(s, kw, "vocab_file");
    s->split_special = knob_of(kw, "split_special_tokens");
    if (s->split_special != KNOB_ABSENT && s->split_special != KNOB_TRUE && s->split_special != KNOB_FALSE)
        return bad(err, CONFIG, "split_special_tokens", "true or false");
    int r = read_tokens(s, kw, err);
    if (r >= 0)
        r = read_added(s, dir, kw, json, &n_file, err);
    if (r < 0)
        return r;
    map_roles(s, kw, n_file);
    settle(&s->added);
    if (class_rules_of(s->class, s->rules)->roles_are_objects)
        make_objects(s);
    return 0;
}

/* ---- other files ---- */

/* A string, or a list of named templates, of which "default" counts. */
static void read_chat_template(struct settings *s, const json_t *v)
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
    if (json_is_string(v))
        s->chat_template = arena_strndup(&s->memory, json_string_value(v), json_string_length(v));
}

static int read_template_file(struct settings *s, const char *dir, struct err *err)
{
    char path[PATH_MAX], chunk[4096];
    struct buf text;
    size_t n;
    snprintf(path, sizeof(path), "%s/chat_template.jinja", dir);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    buf_init(&text, MAX_TEMPLATE_BYTES);
    int r = 0;
    while (r >= 0 && (n = fread(chunk, 1, sizeof(chunk), f)) > 0)
        r = buf_append(&text, chunk, n);
    fclose(f);
    if (r >= 0)
        s->chat_template = arena_strndup(&s->memory, text.data, text.len);
    buf_done(&text);
    return r < 0 ? err_set(err, ERR_CORRUPT, "%s is larger than %zu bytes", path, MAX_TEMPLATE_BYTES) : 0;
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
    if (r >= 0) {
        read_chat_template(s, json_object_get(kw, "chat_template"));
        r = read_kwargs(s, dir, kw, json, err);
    }
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
