/* Tables by id, made once at load. */
#include "tokenizer/token_text.h"
#include "common/utf8.h"
#include "tokenizer/normalizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_BYTES ((size_t)2 << 30)

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for the vocabulary's spellings");
}

static int32_t table_size(const struct pipeline *p)
{
    return p->added.max_id >= p->vocab.n ? p->added.max_id + 1 : p->vocab.n;
}

static int allocate(struct token_text *t, int32_t n, struct err *err)
{
    size_t count = (size_t)n + 1;
    *t = (struct token_text){.n = n};
    arena_init(&t->memory, MEMORY_BYTES);
    t->pieces = arena_alloc(&t->memory, count, sizeof(*t->pieces));
    t->decoded = arena_alloc(&t->memory, count, sizeof(*t->decoded));
    t->bytes = arena_alloc(&t->memory, count, sizeof(*t->bytes));
    t->first = arena_alloc(&t->memory, count, sizeof(*t->first));
    t->strings = arena_alloc(&t->memory, count, sizeof(*t->strings));
    t->special = arena_alloc(&t->memory, count, sizeof(*t->special));
    return t->pieces && t->decoded && t->bytes && t->first && t->strings && t->special ? 0 : no_memory(err);
}

/* Pieces are borrowed from the pipeline. */
static void fill_pieces(struct token_text *t, const struct pipeline *p)
{
    for (int32_t id = 0; id < t->n; id++)
        t->pieces[id] = id < p->vocab.n && p->vocab.pieces[id].s ? p->vocab.pieces[id] : (struct piece){"", 0};
    for (size_t i = 0; i < p->added.n; i++) {
        const struct added_token *a = &p->added.tokens[i];
        t->pieces[a->id] = (struct piece){a->content, (uint32_t)a->len};
        t->special[a->id] = a->ever_special;
    }
    memcpy(t->decoded, t->pieces, (size_t)t->n * sizeof(*t->decoded));
}

/* Version 5's library decodes a token that was ever looked for in normalized text by what it was normalized to, and asks whether that is a
 * special token. */
static int fill_decoded(struct token_text *t, const struct pipeline *p, struct err *err)
{
    struct buf scratch[2];
    int r = 0;
    buf_init(&scratch[0], SIZE_MAX / 4);
    buf_init(&scratch[1], SIZE_MAX / 4);
    for (size_t i = 0; i < p->added.n && r >= 0 && p->rules == TOKENIZER_RULES_5; i++) {
        const struct added_token *a = &p->added.tokens[i];
        struct stretch s = stretch_of(a->content, a->len, true);
        if (!a->ever_normalized)
            continue;
        r = normalizer_run(&p->normalizer, &s, scratch);
        char *copy = r < 0 ? NULL : arena_strndup(&t->memory, s.s, s.len);
        if (!copy) {
            r = ERR_NOMEM;
            break;
        }
        const struct added_token *spelled = added_tokens_find(&p->added, copy, s.len);
        t->decoded[a->id] = (struct piece){copy, (uint32_t)s.len};
        t->special[a->id] = spelled && spelled->ever_special;
    }
    buf_done(&scratch[0]);
    buf_done(&scratch[1]);
    return r < 0 ? no_memory(err) : 0;
}

static int fill_bytes(struct token_text *t, const struct pipeline *p, bool *ret_cuts, struct err *err)
{
    struct buf b;
    int r = 0;
    buf_init(&b, SIZE_MAX / 4);
    for (int32_t id = 0; id < t->n && r >= 0; id++) {
        const struct piece *piece = &t->decoded[id];
        buf_clear(&b);
        r = decoder_token_bytes(&p->decoder, piece->s, piece->len, &b);
        char *copy = r < 0 ? NULL : arena_strndup(&t->memory, b.data, b.len);
        if (!copy) {
            r = ERR_NOMEM;
            break;
        }
        size_t cut = decoder_first_cut(&p->decoder, piece->s, piece->len, b.data, b.len);
        cut = cut < b.len ? cut : b.len;
        t->bytes[id] = (struct piece){copy, (uint32_t)b.len};
        t->first[id] = (struct piece){copy + cut, (uint32_t)(b.len - cut)};
        *ret_cuts |= cut > 0;
    }
    buf_done(&b);
    return r < 0 ? no_memory(err) : 0;
}

/* ---- spellings ---- */

/* Which of two ids with the same bytes is spelled plainly: one that lost its prefix, then one whose piece is its bytes
 * and no stand-in for a byte, then the lower. */
static bool wins(const struct token_text *t, const struct piece *bytes, int32_t a, int32_t b)
{
    bool cut_a = bytes[a].len != t->bytes[a].len, cut_b = bytes[b].len != t->bytes[b].len;
    if (cut_a != cut_b)
        return cut_a;
    bool stand_in_a = t->pieces[a].len > bytes[a].len + 3, stand_in_b = t->pieces[b].len > bytes[b].len + 3;
    return stand_in_a != stand_in_b ? stand_in_b : a < b;
}

static int claim(const struct token_text *t, const struct piece *bytes, struct strmap *owners)
{
    if (strmap_init(owners, (size_t)t->n) < 0)
        return ERR_NOMEM;
    for (int32_t id = 0; id < t->n; id++) {
        const struct piece *b = &bytes[id];
        int32_t other = strmap_get(owners, b->s, b->len);
        if (b->len == 0 || memchr(b->s, 0, b->len) || utf8_valid_prefix(b->s, b->len) != b->len ||
            (other >= 0 && !wins(t, bytes, id, other)))
            continue;
        if (strmap_put(owners, b->s, b->len, id) < 0)
            return ERR_NOMEM;
    }
    return 0;
}

/* "bytes:\xe2\x80", or "token_id:N" where that is taken or there are no bytes. */
static int spell(struct token_text *t, struct strmap *owners, const struct piece *bytes, int32_t id, struct piece *ret)
{
    char name[32];
    size_t len = bytes->len ? 6 + 4 * (size_t)bytes->len : 0;
    char *s = len ? arena_alloc(&t->memory, len + 1, 1) : NULL;
    if (len && !s)
        return ERR_NOMEM;
    for (size_t i = 0; i < bytes->len; i++)
        sprintf(s + 6 + 4 * i, "\\x%02x", (unsigned)(unsigned char)bytes->s[i]);
    if (len)
        memcpy(s, "bytes:", 6);
    if (len == 0 || strmap_get(owners, s, len) >= 0) {
        len = (size_t)snprintf(name, sizeof(name), "token_id:%d", (int)id);
        s = arena_strndup(&t->memory, name, len);
    }
    if (!s || strmap_put(owners, s, len, id) < 0)
        return ERR_NOMEM;
    *ret = (struct piece){s, (uint32_t)len};
    return 0;
}

static int fill_strings(struct token_text *t, const struct piece *bytes, struct piece *strings, struct err *err)
{
    struct strmap owners = {0};
    int r = claim(t, bytes, &owners);
    for (int32_t id = 0; id < t->n && r >= 0; id++) {
        if (bytes[id].len && strmap_get(&owners, bytes[id].s, bytes[id].len) == id)
            strings[id] = bytes[id];
        else
            r = spell(t, &owners, &bytes[id], id, &strings[id]);
    }
    strmap_done(&owners);
    return r < 0 ? no_memory(err) : 0;
}

int token_text_init(struct token_text *t, const struct pipeline *p, struct err *err)
{
    bool cuts = false;
    int r = allocate(t, table_size(p), err);
    if (r >= 0) {
        fill_pieces(t, p);
        r = fill_decoded(t, p, err);
    }
    if (r >= 0)
        r = fill_bytes(t, p, &cuts, err);
    if (r >= 0)
        r = fill_strings(t, t->bytes, t->strings, err);
    t->first_strings = t->strings;
    if (r >= 0 && cuts) {
        t->first_strings = arena_alloc(&t->memory, (size_t)t->n + 1, sizeof(*t->first_strings));
        r = t->first_strings ? fill_strings(t, t->first, t->first_strings, err) : no_memory(err);
    }
    if (r < 0)
        token_text_done(t);
    return r;
}

void token_text_done(struct token_text *t)
{
    arena_done(&t->memory);
    *t = (struct token_text){0};
}
