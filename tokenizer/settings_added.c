/* Tokens by id: added_tokens_decoder, or what stands in for it. */
#include "tokenizer/python_json.h"
#include "tokenizer/settings_parts.h"
#include <stdlib.h>
#include <string.h>

#define MAX_ADDED 100000

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
    int r = json_is_object(o) ? settings_room(s, &s->added, "added_tokens_decoder", json_object_size(o), MAX_ADDED, err)
                              : settings_bad(err, SETTINGS_CONFIG, "added_tokens_decoder", "an object");
    json_object_foreach (o, key, v) {
        struct token_spec *t = &s->added.t[s->added.n];
        if (r >= 0)
            r = json_is_object(v) ? settings_read_object(s, v, SETTINGS_CONFIG, t, err)
                                  : settings_bad(err, SETTINGS_CONFIG, "added_tokens_decoder's members", "objects");
        if (r >= 0 && parse_id(key, &t->id) < 0)
            r = settings_bad(err, SETTINGS_CONFIG, "added_tokens_decoder's keys", "token ids");
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
        const char *text = kwargs_text(i < ROLE_COUNT ? json_object_get(kw, settings_role_keys[i]) : json_array_get(list, i - ROLE_COUNT));
        r = text ? strmap_put(ret, text, strlen(text), (int32_t)i) : 0;
    }
    return r < 0 ? err_set(err, ERR_NOMEM, "no memory for special tokens") : 0;
}

static int read_added_entry(struct settings *s, const char *content, const json_t *id, const struct strmap *special, struct err *err)
{
    struct token_spec *t = &s->added.t[s->added.n];
    *t = (struct token_spec){.is_object = true, .id = (int32_t)json_integer_value(id)};
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= VOCAB_MAX_IDS)
        return settings_bad(err, "added_tokens.json", content, "a token id");
    int r = settings_set_content(s, t, content, strlen(content), err);
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
        int r = settings_read_object(s, o, "tokenizer.json", t, err);
        if (r < 0)
            return r;
        if (!json_is_integer(json_object_get(o, "id")) || id < 0 || id >= VOCAB_MAX_IDS)
            return settings_bad(err, "tokenizer.json", "an added token's id", "a token id");
        t->id = (int32_t)id;
        s->added.n++;
    }
    return 0;
}

/* How many of the first tokens are added_tokens.json's goes to *ret_n_file. */
static int read_lists(struct settings *s, const char *dir, const json_t *kw, const json_t *json, size_t *ret_n_file, struct err *err)
{
    json_t *file = NULL, *decoder = json_object_get(kw, "added_tokens_decoder");
    const json_t *tokens = json_object_get(json, "added_tokens");
    *ret_n_file = 0;
    if (decoder)
        return read_decoder(s, decoder, err);
    int r = python_json_read(dir, "added_tokens.json", &file, err);
    if (r >= 0)
        r = settings_room(s, &s->added, "added_tokens.json", json_object_size(file) + json_array_size(tokens), MAX_ADDED, err);
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

/* Qwen2TokenizerFast: AddedToken(string, lstrip=False, rstrip=False, special=True, normalized=False). */
static void make_objects(struct settings *s)
{
    for (int i = 0; i < ROLE_COUNT; i++)
        if (s->roles[i].content && !s->roles[i].is_object && class_rules_of(s->class, s->rules)->roles[i]) {
            s->roles[i].is_object = true;
            s->roles[i].normalized = NOT_NORMALIZED;
        }
}

int settings_read_added(struct settings *s, const char *dir, const json_t *kw, const json_t *json, struct err *err)
{
    size_t n_file = 0;
    int r = read_lists(s, dir, kw, json, &n_file, err);
    if (r < 0)
        return r;
    map_roles(s, kw, n_file);
    settle(&s->added);
    if (class_rules_of(s->class, s->rules)->roles_are_objects)
        make_objects(s);
    return 0;
}
