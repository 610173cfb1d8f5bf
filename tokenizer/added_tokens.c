/* The list of added tokens, the search for them, and the rules of what a match takes along. */
#include "tokenizer/added_tokens.h"
#include "common/utf8.h"
#include "tokenizer/unicode.h"
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS 100000
#define MAX_TEXT_BYTES ((size_t)64 << 20)

/* ---- the list ---- */

int added_tokens_init(struct added_tokens *a, enum tokenizer_rules rules, struct err *err)
{
    *a = (struct added_tokens){.rules = rules, .max_id = -1};
    arena_init(&a->text, MAX_TEXT_BYTES);
    trie_init(&a->raw);
    trie_init(&a->normalized);
    return strmap_init(&a->by_content, 64) < 0 ? err_set(err, ERR_NOMEM, "no memory for added tokens") : 0;
}

void added_tokens_done(struct added_tokens *a)
{
    free(a->tokens);
    free(a->listings);
    strmap_done(&a->by_content);
    arena_done(&a->text);
    trie_done(&a->raw);
    trie_done(&a->normalized);
    *a = (struct added_tokens){.max_id = -1};
}

const struct added_token *added_tokens_find(const struct added_tokens *a, const char *content, size_t len)
{
    int32_t i = strmap_get(&a->by_content, content, len);
    return i < 0 ? NULL : &a->tokens[i];
}

static uint32_t flag_bit(const struct added_token *t)
{
    return 1u << (t->single_word | t->lstrip << 1 | t->rstrip << 2 | t->normalized << 3 | t->special << 4);
}

void added_tokens_begin(struct added_tokens *a, const struct vocab *v)
{
    for (size_t i = 0; i < a->n; i++)
        a->tokens[i].seen = flag_bit(&a->tokens[i]);
    a->next_id = a->max_id >= 0 && (a->max_id >= (int64_t)v->count || v->count == 0) ? a->max_id + 1 : (int32_t)v->count;
}

/* Room for one more element of `size` bytes. */
static void *grown(void *list, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return list;
    size_t more = *cap ? *cap * 2 : 16;
    void *moved = realloc(list, more * size);
    if (moved)
        *cap = more;
    return moved;
}

static int append(struct added_tokens *a, const struct added_token *t)
{
    struct added_token *tokens = grown(a->tokens, a->n, &a->cap, sizeof(*tokens));
    if (!tokens)
        return ERR_NOMEM;
    a->tokens = tokens;
    char *copy = arena_strndup(&a->text, t->content, t->len);
    if (!copy || strmap_put(&a->by_content, copy, t->len, (int32_t)a->n) < 0)
        return ERR_NOMEM;
    a->tokens[a->n] = *t;
    a->tokens[a->n++].content = copy;
    return 0;
}

/* Special tokens are listed once, by their first flags; others each time that they are given with new flags. */
static int list(struct added_tokens *a, int32_t index, bool special, bool normalized)
{
    struct added_listing *listings = grown(a->listings, a->n_listings, &a->cap_listings, sizeof(*listings));
    if (!listings)
        return ERR_NOMEM;
    a->listings = listings;
    a->listings[a->n_listings++] = (struct added_listing){index, special, normalized};
    return 0;
}

static int add_new(struct added_tokens *a, const struct added_token *t, const struct vocab *v, struct err *err)
{
    struct added_token token = *t;
    token.ever_special = token.ever_normalized = false;
    token.seen = 0;
    token.id = vocab_id(v, t->content, t->len);
    if (token.id < 0)
        token.id = a->next_id++;
    if (a->n >= MAX_TOKENS || token.id >= VOCAB_MAX_IDS || t->len > VOCAB_MAX_PIECE_BYTES)
        return err_set(err, ERR_CORRUPT, "added token \"%.40s\": more than %d tokens, %d ids or %d bytes", t->content, MAX_TOKENS,
                       VOCAB_MAX_IDS, VOCAB_MAX_PIECE_BYTES);
    if (append(a, &token) < 0)
        return err_set(err, ERR_NOMEM, "no memory for added token \"%.40s\"", t->content);
    if (token.id > a->max_id)
        a->max_id = token.id;
    return (int)a->n - 1;
}

int added_tokens_add(struct added_tokens *a, const struct added_token *t, const struct vocab *v, struct err *err)
{
    if (t->len == 0)
        return 0;
    int32_t index = strmap_get(&a->by_content, t->content, t->len);
    if (index < 0) {
        int r = add_new(a, t, v, err);
        if (r < 0)
            return r;
        index = r;
    }
    struct added_token *mine = &a->tokens[index];
    if (mine->seen & flag_bit(t))
        return 0;
    mine->seen = flag_bit(t) | (a->rules == TOKENIZER_RULES_4 ? mine->seen : 0);
    bool becomes_special = t->special && !mine->ever_special;
    mine->ever_special |= t->special;
    mine->ever_normalized |= t->normalized;
    mine->single_word = t->single_word;
    mine->lstrip = t->lstrip;
    mine->rstrip = t->rstrip;
    mine->normalized = t->normalized;
    mine->special = t->special;
    if ((becomes_special || !mine->ever_special) && list(a, index, becomes_special, t->normalized) < 0)
        return err_set(err, ERR_NOMEM, "no memory for added token \"%.40s\"", t->content);
    return 0;
}

/* ---- searching ---- */

/* The longest token at text[at]; its end, or 0. */
static size_t longest_at(const struct trie *m, const char *text, size_t len, size_t at, int32_t *ret_index)
{
    struct trie_walk walk = {at, TRIE_START};
    size_t end = 0;
    for (int32_t index; (index = trie_next(m, text, len, &walk)) >= 0; end = walk.at)
        *ret_index = index;
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

bool added_tokens_next(const struct added_tokens *a, const struct trie *m, const char *text, size_t len, struct token_scan *scan,
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
        if ((t->ever_special && a->skip_special) || (t->single_word && touches_word(text, len, start, end)))
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
