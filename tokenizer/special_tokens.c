/* Which of the configured tokens a tokenizer is given, in which order and with which flags: the end of PreTrainedTokenizerFast's
 * constructor (version 4) and of TokenizersBackend's (version 5). */
#include "tokenizer/settings.h"
#include <stdlib.h>
#include <string.h>

/* ---- bags of tokens, in order, that know their contents ---- */

struct bag {
    struct token_spec *t; /* [n] */
    size_t n;
    struct strmap first, last; /* of a content */
    int32_t *before;           /* [n] the one before it of the same content; -1: none */
};

static void bag_done(struct bag *b)
{
    free(b->t);
    free(b->before);
    strmap_done(&b->first);
    strmap_done(&b->last);
    *b = (struct bag){0};
}

/* Room for every token that the settings hold, and some of them twice. */
static int bag_init(struct bag *b, const struct settings *s, struct err *err)
{
    size_t n = 2 * (ROLE_COUNT + s->extra.n + s->named.n + 8) + s->added.n;
    *b = (struct bag){.t = calloc(n, sizeof(*b->t)), .before = calloc(n, sizeof(*b->before))};
    if (b->t && b->before && strmap_init(&b->first, n) >= 0 && strmap_init(&b->last, n) >= 0)
        return 0;
    bag_done(b);
    return err_set(err, ERR_NOMEM, "no memory for special tokens");
}

/* Among the first n. */
static bool has_content_in(const struct bag *b, size_t n, const struct token_spec *t)
{
    int32_t i = strmap_get(&b->first, t->content, t->len);
    return i >= 0 && (size_t)i < n;
}

static bool has_content(const struct bag *b, const struct token_spec *t)
{
    return has_content_in(b, b->n, t);
}

/* The tables have room, so nothing can fail. */
static void push(struct bag *b, const struct token_spec *t)
{
    if (!t->content || !t->len)
        return;
    b->before[b->n] = strmap_get(&b->last, t->content, t->len);
    if (b->before[b->n] < 0)
        strmap_put(&b->first, t->content, t->len, (int32_t)b->n);
    strmap_put(&b->last, t->content, t->len, (int32_t)b->n);
    b->t[b->n++] = *t;
}

static void push_list(struct bag *b, const struct token_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        push(b, &l->t[i]);
}

static bool is_normalized(const struct token_spec *t)
{
    return t->normalized == NORMALIZED_UNLESS_SPECIAL ? !t->special : t->normalized == NORMALIZED;
}

/* Python's == of two tokens of one content: a string is never equal to a token with flags. */
static bool equal_flags(const struct token_spec *a, const struct token_spec *b)
{
    if (a->is_object != b->is_object)
        return false;
    return !a->is_object || (a->single_word == b->single_word && a->lstrip == b->lstrip && a->rstrip == b->rstrip &&
                             a->special == b->special && is_normalized(a) == is_normalized(b));
}

/* Among the first n. */
static bool has_equal(const struct bag *b, size_t n, const struct token_spec *t)
{
    for (int32_t i = strmap_get(&b->last, t->content, t->len); i >= 0; i = b->before[i])
        if ((size_t)i < n && equal_flags(&b->t[i], t))
            return true;
    return false;
}

static int add_all(const struct bag *b, struct added_tokens *a, const struct vocab *v, struct err *err)
{
    int r = 0;
    added_tokens_begin(a, v);
    for (size_t i = 0; i < b->n && r >= 0; i++) {
        const struct token_spec *t = &b->t[i];
        r = added_tokens_add(a,
                             &(struct added_token){.content = t->content,
                                                   .len = t->len,
                                                   .single_word = t->single_word,
                                                   .lstrip = t->lstrip,
                                                   .rstrip = t->rstrip,
                                                   .normalized = is_normalized(t),
                                                   .special = t->special},
                             v, err);
    }
    return r;
}

/* ---- version 4 ---- */

/* all_special_tokens_extended: roles, the list, and what has a name; each content once, but twice where the list says it twice. */
static void all_special_4(const struct settings *s, struct bag *ret)
{
    for (int i = 0; i < ROLE_COUNT; i++)
        if (s->roles[i].content && !has_content(ret, &s->roles[i]))
            push(ret, &s->roles[i]);
    size_t n = ret->n;
    for (size_t i = 0; i < s->extra.n; i++)
        if (s->extra.t[i].content && !has_content_in(ret, n, &s->extra.t[i]))
            push(ret, &s->extra.t[i]);
    for (int i = 0; i < 4; i++)
        if (s->infill[i].content && !has_content_in(ret, n, &s->infill[i]))
            push(ret, &s->infill[i]);
    for (size_t i = 0; i < s->named.n; i++)
        if (s->named.t[i].content && !has_content(ret, &s->named.t[i]))
            push(ret, &s->named.t[i]);
}

static int add_4(const struct settings *s, struct added_tokens *a, const struct vocab *v, struct err *err)
{
    struct bag special = {0}, add = {0};
    int r = bag_init(&special, s, err);
    if (r >= 0)
        r = bag_init(&add, s, err);
    if (r >= 0) {
        all_special_4(s, &special);
        push_list(&add, &s->added);
        size_t n = add.n;
        for (size_t i = 0; i < special.n; i++) {
            const struct token_spec *t = &special.t[i];
            if (t->is_object ? !has_equal(&add, n, t) : !has_content_in(&add, n, t) && !added_tokens_find(a, t->content, t->len))
                push(&add, t);
        }
        for (size_t i = 0; i < add.n; i++)
            add.t[i].special |= has_content(&special, &add.t[i]);
        r = add_all(&add, a, v, err);
    }
    bag_done(&special);
    bag_done(&add);
    return r;
}

/* ---- version 5 ---- */

/* Roles, and what has a name. */
static void all_named_5(const struct settings *s, struct bag *ret)
{
    for (int i = 0; i < ROLE_COUNT; i++)
        push(ret, &s->roles[i]);
    for (size_t i = 0; i < s->named.n; i++)
        if (s->named_roles[i] < 0)
            push(ret, &s->named.t[i]);
}

static void all_extra_5(const struct settings *s, struct bag *ret)
{
    push_list(ret, &s->extra);
    for (int i = 0; i < 4 && !s->extra_given; i++)
        push(ret, &s->infill[i]);
    if (!s->extra_given)
        push(ret, &s->fill);
}

/* Those of `from` that are not there already; the first n of `add` are the configuration's added tokens. */
static void choose_5(const struct bag *from, size_t n, const struct added_tokens *a, struct bag *add)
{
    for (size_t i = 0; i < from->n; i++) {
        const struct token_spec *t = &from->t[i];
        if (!has_content_in(add, n, t) && !added_tokens_find(a, t->content, t->len) && !has_equal(add, add->n, t))
            push(add, t);
    }
}

/* Special tokens once more: Qwen2Tokenizer without flags, CohereTokenizer (_post_init) with them. */
static int add_again_5(const struct settings *s, const struct bag *named, const struct bag *extra, struct added_tokens *a,
                       const struct vocab *v, struct err *err)
{
    struct bag all;
    int r = bag_init(&all, s, err);
    for (size_t i = 0; i < named->n + extra->n && r >= 0; i++) {
        struct token_spec t = i < named->n ? named->t[i] : extra->t[i - named->n];
        if (!class_rules_of(s->class, s->rules)->flags_own || !t.is_object)
            t = (struct token_spec){.content = t.content, .len = t.len, .normalized = NOT_NORMALIZED};
        t.special = true;
        push(&all, &t);
    }
    if (r >= 0)
        r = add_all(&all, a, v, err);
    bag_done(&all);
    return r;
}

static int add_5(const struct settings *s, struct added_tokens *a, const struct vocab *v, struct err *err)
{
    const struct class_rules *rules = class_rules_of(s->class, s->rules);
    struct bag named = {0}, extra = {0}, add = {0};
    int r = bag_init(&named, s, err);
    if (r >= 0)
        r = bag_init(&extra, s, err);
    if (r >= 0)
        r = bag_init(&add, s, err);
    if (r >= 0) {
        all_named_5(s, &named);
        all_extra_5(s, &extra);
        push_list(&add, &s->added);
        size_t n = add.n;
        choose_5(&named, n, a, &add);
        choose_5(&extra, n, a, &add);
        for (size_t i = 0; i < add.n; i++)
            add.t[i].special |= !add.t[i].is_object || has_content(&named, &add.t[i]);
        r = add_all(&add, a, v, err);
    }
    if (r >= 0 && (rules->flags_named || rules->flags_own))
        r = add_again_5(s, &named, &extra, a, v, err);
    bag_done(&named);
    bag_done(&extra);
    bag_done(&add);
    return r;
}

/* A named token whose name is a role's takes the role. */
static void rename_roles(struct settings *s)
{
    for (size_t i = 0; i < s->named.n; i++)
        if (s->named_roles[i] >= 0)
            s->roles[s->named_roles[i]] = s->named.t[i];
}

int settings_add_tokens(struct settings *s, const char *pad, struct added_tokens *a, const struct vocab *v, struct err *err)
{
    struct token_spec *role = &s->roles[ROLE_PAD];
    if (pad && !s->given[ROLE_PAD] && !class_rules_of(s->class, s->rules)->roles[ROLE_PAD] && !role->content)
        *role = (struct token_spec){.content = pad, .len = strlen(pad), .id = -1, .special = true, .normalized = NORMALIZED_UNLESS_SPECIAL};
    rename_roles(s);
    return s->rules == TOKENIZER_RULES_5 ? add_5(s, a, v, err) : add_4(s, a, v, err);
}
