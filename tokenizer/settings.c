/* Reading the JSON files beside a tokenizer. */
#include "tokenizer/settings.h"
#include "common/json.h"
#include "common/mapfile.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)32 << 20)
#define MAX_MEMORY_BYTES ((size_t)128 << 20)
#define MAX_TOKENS 100000

static const char *const role_keys[ROLE_COUNT] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                  "pad_token", "cls_token", "mask_token"};

/* ---- files ---- */

/* An object, or NULL when the file is not there. */
static int read_object(const char *dir, const char *name, json_t **ret, struct err *err)
{
    char path[PATH_MAX];
    struct err e;
    *ret = NULL;
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        return err_set(err, ERR_INVALID, "the path of %s is too long", name);
    int r = json_parse_file(path, MAX_FILE_BYTES, ret, &e);
    if (r == ERR_NOT_FOUND)
        return 0;
    if (r < 0)
        return err_set(err, r == ERR_INVALID || r == ERR_TOO_LARGE ? ERR_CORRUPT : r, "%s", e.text);
    if (json_is_object(*ret))
        return 0;
    json_decref(*ret);
    *ret = NULL;
    return err_set(err, ERR_CORRUPT, "%s is not a JSON object", path);
}

static int bad(struct err *err, const char *file, const char *key, const char *wanted)
{
    return err_set(err, ERR_CORRUPT, "%s: %s must be %s", file, key, wanted);
}

/* ---- tokens ---- */

static int copy_token(struct settings *s, const json_t *text, struct added_token *t, struct err *err)
{
    t->len = json_string_length(text);
    t->content = arena_strndup(&s->memory, json_string_value(text), t->len);
    return t->content ? 0 : err_set(err, ERR_NOMEM, "no memory for special tokens");
}

/* AddedToken(**object): the flags default to false, normalized to the opposite of special. */
static int read_token_object(struct settings *s, const json_t *o, const char *file, struct added_token *ret, struct err *err)
{
    const json_t *content = json_object_get(o, "content");
    struct added_token t = {.id = -1};
    int r = 0;
    if (!json_is_string(content))
        return bad(err, file, "an added token's content", "a string");
    r = json_get_bool(o, "added token.", "special", &t.special, err);
    t.normalized = !t.special;
    if (r >= 0)
        r = json_get_bool(o, "added token.", "normalized", &t.normalized, err);
    if (r >= 0)
        r = json_get_bool(o, "added token.", "lstrip", &t.lstrip, err);
    if (r >= 0)
        r = json_get_bool(o, "added token.", "rstrip", &t.rstrip, err);
    if (r >= 0)
        r = json_get_bool(o, "added token.", "single_word", &t.single_word, err);
    if (r < 0)
        return bad(err, file, err ? err->param : "an added token's flag", "true or false");
    *ret = t;
    return copy_token(s, content, ret, err);
}

/* A role or an additional token: a string or an object. */
static int read_role(struct settings *s, const json_t *v, const char *file, const char *key, struct role *ret, struct err *err)
{
    *ret = (struct role){.token = {.id = -1, .special = true}};
    if (!v || json_is_null(v))
        return 0;
    if (json_is_string(v))
        return copy_token(s, v, &ret->token, err);
    if (!json_is_object(v))
        return bad(err, file, key, "a string or an object");
    ret->has_flags = true;
    int r = read_token_object(s, v, file, &ret->token, err);
    ret->token.special = true;
    return r;
}

static int read_roles(struct settings *s, const json_t *o, const char *file, struct err *err)
{
    int r = 0;
    for (int i = 0; i < ROLE_COUNT && r >= 0; i++)
        if (json_object_get(o, role_keys[i]))
            r = read_role(s, json_object_get(o, role_keys[i]), file, role_keys[i], &s->roles[i], err);
    const json_t *more = json_object_get(o, "additional_special_tokens");
    size_t n = json_array_size(more);
    if (r < 0 || n == 0)
        return r;
    s->additional = n <= MAX_TOKENS ? arena_alloc(&s->memory, n, sizeof(*s->additional)) : NULL;
    if (!s->additional)
        return err_set(err, ERR_CORRUPT, "%s: %zu additional_special_tokens; the limit is %d", file, n, MAX_TOKENS);
    for (size_t i = 0; i < n && r >= 0; i++) {
        struct role one;
        r = read_role(s, json_array_get(more, i), file, "additional_special_tokens", &one, err);
        s->additional[i] = one.token;
    }
    s->n_additional = n;
    return r;
}

static int by_id(const void *a, const void *b)
{
    const struct added_token *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static int parse_id(const char *text, int32_t *ret)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (!*text || *end || v < 0 || v >= VOCAB_MAX_IDS)
        return ERR_CORRUPT;
    *ret = (int32_t)v;
    return 0;
}

static int room_for_added(struct settings *s, const char *file, size_t n, struct err *err)
{
    s->n_added = 0;
    s->added = n <= MAX_TOKENS ? arena_alloc(&s->memory, n + 1, sizeof(*s->added)) : NULL;
    return s->added ? 0 : err_set(err, ERR_CORRUPT, "%s: %zu added tokens; the limit is %d", file, n, MAX_TOKENS);
}

static bool is_role(const struct settings *s, const struct added_token *t)
{
    for (int i = 0; i < ROLE_COUNT; i++) {
        const struct added_token *r = &s->roles[i].token;
        if (r->content && r->len == t->len && memcmp(r->content, t->content, t->len) == 0)
            return true;
    }
    for (size_t i = 0; i < s->n_additional; i++)
        if (s->additional[i].len == t->len && memcmp(s->additional[i].content, t->content, t->len) == 0)
            return true;
    return false;
}

/* added_tokens_decoder: {"id": {content, flags}}. */
static int read_added(struct settings *s, json_t *o, struct err *err)
{
    const char *key, *file = "tokenizer_config.json";
    json_t *v;
    int r = json_is_object(o) ? room_for_added(s, file, json_object_size(o), err) : bad(err, file, "added_tokens_decoder", "an object");
    if (r < 0)
        return r;
    json_object_foreach (o, key, v) {
        struct added_token *t = &s->added[s->n_added];
        r = json_is_object(v) ? read_token_object(s, v, file, t, err) : bad(err, file, "added_tokens_decoder's members", "objects");
        if (r >= 0 && parse_id(key, &t->id) < 0)
            r = bad(err, file, "added_tokens_decoder's keys", "token ids");
        if (r < 0)
            return r;
        s->n_added++;
    }
    qsort(s->added, s->n_added, sizeof(*s->added), by_id);
    return 0;
}

/* added_tokens.json: {"content": id}; read only where the configuration has no added_tokens_decoder. */
static int read_added_file(struct settings *s, const char *dir, struct err *err)
{
    const char *key, *file = "added_tokens.json";
    json_t *o, *v;
    int r = read_object(dir, file, &o, err);
    if (r < 0 || !o)
        return r;
    r = room_for_added(s, file, json_object_size(o), err);
    if (r >= 0) {
        json_object_foreach (o, key, v) {
            struct added_token *t = &s->added[s->n_added++];
            *t = (struct added_token){.len = strlen(key), .id = (int32_t)json_integer_value(v)};
            t->content = arena_strndup(&s->memory, key, t->len);
            if (!t->content || !json_is_integer(v))
                r = bad(err, file, key, "a token id");
            if (r < 0)
                break;
            t->special = is_role(s, t);
            t->normalized = !t->special;
        }
    }
    json_decref(o);
    if (r >= 0)
        qsort(s->added, s->n_added, sizeof(*s->added), by_id);
    return r;
}

/* ---- the rest of tokenizer_config.json ---- */

static int read_tristate(const json_t *o, const char *key, enum tristate *ret, struct err *err)
{
    const json_t *v = json_object_get(o, key);
    if (v && !json_is_boolean(v) && !json_is_null(v))
        return bad(err, "tokenizer_config.json", key, "true or false");
    *ret = !v || json_is_null(v) ? UNSET : json_is_true(v) ? YES : NO;
    return 0;
}

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

static bool begins(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* By tokenizer_class, else by config.json's model_type. */
static enum tokenizer_class class_of(const char *name, const char *model_type, bool spm)
{
    if (name)
        return begins(name, "LlamaTokenizer") || begins(name, "CodeLlamaTokenizer") ? TOKENIZER_LLAMA
               : begins(name, "GPT2Tokenizer")                                      ? TOKENIZER_GPT2
               : begins(name, "Qwen2Tokenizer")                                     ? TOKENIZER_QWEN2
                                                                                    : TOKENIZER_PRETRAINED;
    if (spm || (model_type && (begins(model_type, "llama") || begins(model_type, "mistral"))))
        return TOKENIZER_LLAMA;
    return model_type && begins(model_type, "qwen")   ? TOKENIZER_QWEN2
           : model_type && begins(model_type, "gpt2") ? TOKENIZER_GPT2
                                                      : TOKENIZER_PRETRAINED;
}

static int default_role(struct settings *s, int role, const char *content)
{
    struct added_token *t = &s->roles[role].token;
    *t = (struct added_token){.content = content, .len = strlen(content), .id = -1, .special = true};
    return 0;
}

/* The defaults of the classes' constructors. */
static void default_roles(struct settings *s)
{
    if (s->class == TOKENIZER_LLAMA) {
        default_role(s, ROLE_UNK, "<unk>");
        default_role(s, ROLE_BOS, "<s>");
        default_role(s, ROLE_EOS, "</s>");
    } else if (s->class == TOKENIZER_GPT2 || s->class == TOKENIZER_QWEN2) {
        default_role(s, ROLE_UNK, "<|endoftext|>");
        default_role(s, ROLE_EOS, "<|endoftext|>");
        default_role(s, s->class == TOKENIZER_GPT2 ? ROLE_BOS : ROLE_PAD, "<|endoftext|>");
    }
}

static int read_config(struct settings *s, json_t *config, const char *dir, struct err *err)
{
    json_t *special_map = NULL, *decoder = json_object_get(config, "added_tokens_decoder");
    int r = read_tristate(config, "legacy", &s->legacy, err);
    if (r >= 0)
        r = read_tristate(config, "add_bos_token", &s->add_bos, err);
    if (r >= 0)
        r = read_tristate(config, "add_eos_token", &s->add_eos, err);
    if (r >= 0)
        r = read_tristate(config, "add_prefix_space", &s->add_prefix_space, err);
    if (r >= 0)
        r = read_roles(s, config, "tokenizer_config.json", err);
    s->null_prefix_space = json_is_null(json_object_get(config, "add_prefix_space"));
    if (r >= 0 && decoder)
        return read_added(s, decoder, err);
    if (r >= 0)
        r = read_object(dir, "special_tokens_map.json", &special_map, err);
    if (r >= 0 && special_map)
        r = read_roles(s, special_map, "special_tokens_map.json", err);
    json_decref(special_map);
    return r < 0 ? r : read_added_file(s, dir, err);
}

/* ---- other files ---- */

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
    int r = read_object(dir, "generation_config.json", &o, err);
    s->generation_bos = generation_id(o, "bos_token_id");
    s->generation_eos = generation_id(o, "eos_token_id");
    s->generation_pad = generation_id(o, "pad_token_id");
    json_decref(o);
    return r;
}

static int read_template_file(struct settings *s, const char *dir, struct err *err)
{
    char path[PATH_MAX];
    struct mapfile m;
    snprintf(path, sizeof(path), "%s/chat_template.jinja", dir);
    if (mapfile_open(&m, path, NULL) < 0)
        return 0;
    bool fits = m.len <= MAX_FILE_BYTES;
    if (fits)
        s->chat_template = arena_strndup(&s->memory, m.data ? (const char *)m.data : "", m.len);
    mapfile_close(&m);
    return fits ? 0 : err_set(err, ERR_CORRUPT, "%s is larger than %zu bytes", path, MAX_FILE_BYTES);
}

int settings_read(struct settings *s, const char *dir, bool spm, struct err *err)
{
    json_t *config = NULL, *model = NULL;
    *s = (struct settings){.legacy = UNSET, .add_bos = UNSET, .add_eos = UNSET, .add_prefix_space = UNSET};
    arena_init(&s->memory, MAX_MEMORY_BYTES);
    int r = read_object(dir, "tokenizer_config.json", &config, err);
    if (r >= 0)
        r = read_object(dir, "config.json", &model, err);
    if (r >= 0) {
        s->class = class_of(json_string_value(json_object_get(config, "tokenizer_class")),
                            json_string_value(json_object_get(model, "model_type")), spm);
        default_roles(s);
        read_chat_template(s, json_object_get(config, "chat_template"));
        r = read_config(s, config, dir, err);
    }
    if (r >= 0)
        r = read_generation(s, dir, err);
    if (r >= 0)
        r = read_template_file(s, dir, err);
    json_decref(config);
    json_decref(model);
    if (r < 0)
        settings_done(s);
    return r;
}

void settings_done(struct settings *s)
{
    arena_done(&s->memory);
    *s = (struct settings){0};
}

int settings_add_tokens(const struct settings *s, struct added_tokens *a, const struct vocab *v, struct err *err)
{
    int r = 0;
    for (size_t i = 0; i < s->n_added && r >= 0; i++) {
        struct added_token t = s->added[i];
        t.special |= is_role(s, &t);
        r = added_tokens_add(a, &t, v, err);
    }
    for (int i = 0; i < ROLE_COUNT && r >= 0; i++) {
        const struct role *role = &s->roles[i];
        const struct added_token *known = role->token.content ? added_tokens_find(a, role->token.content, role->token.len) : NULL;
        struct added_token t = known && !role->has_flags ? *known : role->token;
        t.special = true;
        if (t.content)
            r = added_tokens_add(a, &t, v, err);
    }
    for (size_t i = 0; i < s->n_additional && r >= 0; i++)
        if (!added_tokens_find(a, s->additional[i].content, s->additional[i].len))
            r = added_tokens_add(a, &s->additional[i], v, err);
    return r;
}
