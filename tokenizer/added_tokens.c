/* The list of added tokens, the tries that find them, and the rules of what a match takes along. */
#include "tokenizer/added_tokens.h"
#include "common/utf8.h"
#include "tokenizer/unicode.h"
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS 100000
#define MAX_TEXT_BYTES ((size_t)64 << 20)

/* ---- the list ---- */

int added_tokens_init(struct added_tokens *a, struct err *err)
{
    *a = (struct added_tokens){.max_id = -1};
    arena_init(&a->text, MAX_TEXT_BYTES);
    token_matcher_init(&a->raw);
    token_matcher_init(&a->normalized);
    return strmap_init(&a->by_content, 64) < 0 ? err_set(err, ERR_NOMEM, "no memory for added tokens") : 0;
}

void added_tokens_done(struct added_tokens *a)
{
    free(a->tokens);
    strmap_done(&a->by_content);
    arena_done(&a->text);
    token_matcher_done(&a->raw);
    token_matcher_done(&a->normalized);
    *a = (struct added_tokens){.max_id = -1};
}

const struct added_token *added_tokens_find(const struct added_tokens *a, const char *content, size_t len)
{
    int32_t i = strmap_get(&a->by_content, content, len);
    return i < 0 ? NULL : &a->tokens[i];
}

static int32_t free_id(const struct added_tokens *a, const struct vocab *v)
{
    return a->max_id >= (int64_t)v->count ? a->max_id + 1 : (int32_t)v->count;
}

static int append(struct added_tokens *a, const struct added_token *t)
{
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 16;
        struct added_token *tokens = realloc(a->tokens, cap * sizeof(*tokens));
        if (!tokens)
            return ERR_NOMEM;
        a->tokens = tokens;
        a->cap = cap;
    }
    char *copy = arena_strndup(&a->text, t->content, t->len);
    if (!copy || strmap_put(&a->by_content, copy, t->len, (int32_t)a->n) < 0)
        return ERR_NOMEM;
    a->tokens[a->n] = *t;
    a->tokens[a->n++].content = copy;
    return 0;
}

int added_tokens_add(struct added_tokens *a, const struct added_token *t, const struct vocab *v, struct err *err)
{
    if (t->len == 0)
        return 0;
    int32_t known = strmap_get(&a->by_content, t->content, t->len);
    if (known >= 0) {
        struct added_token *old = &a->tokens[known];
        old->special |= t->special;
        old->single_word = t->single_word;
        old->lstrip = t->lstrip;
        old->rstrip = t->rstrip;
        return 0;
    }
    struct added_token token = *t;
    token.id = vocab_id(v, t->content, t->len);
    if (token.id < 0)
        token.id = free_id(a, v);
    if (a->n >= MAX_TOKENS || token.id >= VOCAB_MAX_IDS || t->len > VOCAB_MAX_PIECE_BYTES)
        return err_set(err, ERR_CORRUPT, "added token \"%.40s\": more than %d tokens, %d ids or %d bytes", t->content, MAX_TOKENS,
                       VOCAB_MAX_IDS, VOCAB_MAX_PIECE_BYTES);
    if (append(a, &token) < 0)
        return err_set(err, ERR_NOMEM, "no memory for added token \"%.40s\"", t->content);
    if (token.id > a->max_id)
        a->max_id = token.id;
    return 0;
}

/* ---- tries ---- */

void token_matcher_init(struct token_matcher *m)
{
    *m = (struct token_matcher){0};
    memset(m->roots, 0xff, sizeof(m->roots));
}

void token_matcher_done(struct token_matcher *m)
{
    free(m->nodes);
    token_matcher_init(m);
}

static int32_t new_node(struct token_matcher *m, unsigned char byte, int32_t next)
{
    if (m->n == m->cap) {
        size_t cap = m->cap ? m->cap * 2 : 64;
        struct trie_node *nodes = realloc(m->nodes, cap * sizeof(*nodes));
        if (!nodes)
            return -1;
        m->nodes = nodes;
        m->cap = cap;
    }
    m->nodes[m->n] = (struct trie_node){.first_child = -1, .next = next, .token = -1, .byte = byte};
    return (int32_t)m->n++;
}

static int32_t child_of(const struct token_matcher *m, int32_t node, unsigned char byte)
{
    int32_t c = m->nodes[node].first_child;
    while (c >= 0 && m->nodes[c].byte != byte)
        c = m->nodes[c].next;
    return c;
}

int token_matcher_add(struct token_matcher *m, const char *pattern, size_t len, int32_t index, struct err *err)
{
    int32_t node = -1;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)pattern[i];
        int32_t next = i == 0 ? m->roots[byte] : child_of(m, node, byte);
        if (next < 0) {
            next = new_node(m, byte, i == 0 ? -1 : m->nodes[node].first_child);
            if (next < 0)
                return err_set(err, ERR_NOMEM, "no memory for added tokens");
            *(i == 0 ? &m->roots[byte] : &m->nodes[node].first_child) = next;
        }
        node = next;
    }
    if (node >= 0 && m->nodes[node].token < 0)
        m->nodes[node].token = index;
    return 0;
}

/* The longest token at text[at]; its end, or 0. */
static size_t longest_at(const struct token_matcher *m, const char *text, size_t len, size_t at, int32_t *ret_index)
{
    size_t end = 0;
    int32_t node = m->roots[(unsigned char)text[at]];
    for (size_t i = at + 1; node >= 0; node = child_of(m, node, (unsigned char)text[i++])) {
        if (m->nodes[node].token >= 0) {
            *ret_index = m->nodes[node].token;
            end = i;
        }
        if (i == len)
            break;
    }
    return end;
}

/* ---- what a match takes along ---- */

/* The character that ends at text[end] (end > 0). */
static uint32_t char_before(const char *text, size_t end, size_t *ret_len)
{
    size_t start = end - 1;
    uint32_t cp = 0;
    while (start > 0 && end - start < 4 && ((unsigned char)text[start] & 0xc0) == 0x80)
        start--;
    *ret_len = utf8_decode(text + start, end - start, &cp);
    if (*ret_len == 0)
        *ret_len = 1;
    return cp;
}

static bool touches_word(const char *text, size_t len, size_t start, size_t end)
{
    size_t n;
    uint32_t cp = 0;
    if (start > 0 && unicode_is_word(char_before(text, start, &n)))
        return true;
    return end < len && utf8_decode(text + end, len - end, &cp) > 0 && unicode_is_word(cp);
}

static size_t spaces_from(const char *text, size_t len, size_t at)
{
    uint32_t cp;
    for (size_t n; at < len && (n = utf8_decode(text + at, len - at, &cp)) > 0 && unicode_is_space(cp);)
        at += n;
    return at;
}

static size_t spaces_back(const char *text, size_t low, size_t at)
{
    size_t n;
    while (at > low && unicode_is_space(char_before(text, at, &n)) && at - low >= n)
        at -= n;
    return at;
}

bool added_tokens_next(const struct added_tokens *a, const struct token_matcher *m, const char *text, size_t len, struct token_scan *scan,
                       struct token_match *ret)
{
    while (m->n > 0 && scan->at < len) {
        int32_t index;
        size_t start = scan->at, end;
        if (m->roots[(unsigned char)text[start]] < 0 || (end = longest_at(m, text, len, start, &index)) == 0) {
            scan->at++;
            continue;
        }
        const struct added_token *t = &a->tokens[index];
        scan->at = end;
        if (t->single_word && touches_word(text, len, start, end))
            continue;
        if (t->lstrip)
            start = spaces_back(text, scan->covered, start);
        if (t->rstrip)
            end = spaces_from(text, len, end);
        scan->covered = end;
        *ret = (struct token_match){start, end, index};
        return true;
    }
    return false;
}
