/* Byte pair encoding: merge table, symbols of a word, and the two ways to merge (see bpe_merge.c for the merging). */
#include "tokenizer/bpe.h"
#include "common/utf8.h"
#include "tokenizer/bpe_merge.h"
#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581, how SentencePiece spells a space */
#define SPACE_LEN 3
#define STACK_SYMBOLS 128

/* ---- the merge table ---- */

static size_t slot_of(const struct bpe *b, uint64_t pair)
{
    uint64_t h = pair * 0x9e3779b97f4a7c15u; /* the high half depends on both ids */
    return (size_t)(h >> 32 ^ h >> 52) & b->mask;
}

static struct bpe_merge *find_slot(const struct bpe *b, uint64_t pair)
{
    for (size_t i = slot_of(b, pair);; i = (i + 1) & b->mask)
        if (b->merges[i].pair == pair || b->merges[i].pair == BPE_NO_PAIR)
            return &b->merges[i];
}

const struct bpe_merge *bpe_find_merge(const struct bpe *b, int32_t left, int32_t right)
{
    const struct bpe_merge *m = find_slot(b, (uint64_t)(uint32_t)left << 32 | (uint32_t)right);
    return m->pair == BPE_NO_PAIR ? NULL : m;
}

static int allocate(struct bpe *b, size_t n)
{
    size_t cap = 64;
    while (cap / 2 < n)
        cap *= 2;
    struct bpe_merge *table = malloc(cap * sizeof(*table));
    if (!table)
        return ERR_NOMEM;
    for (size_t i = 0; i < cap; i++)
        table[i].pair = BPE_NO_PAIR;
    b->merges = table;
    b->mask = cap - 1;
    return 0;
}

int bpe_add_merge(struct bpe *b, const char *left, size_t left_len, const char *right, size_t right_len, struct err *err)
{
    char joined[2 * VOCAB_MAX_PIECE_BYTES];
    int32_t l = vocab_id(b->vocab, left, left_len), r = vocab_id(b->vocab, right, right_len), id = -1;
    if (l >= 0 && r >= 0) { /* pieces, so both are within the limit */
        memcpy(joined, left, left_len);
        memcpy(joined + left_len, right, right_len);
        id = vocab_id(b->vocab, joined, left_len + right_len);
    }
    if (id < 0)
        return err_set(err, ERR_CORRUPT, "merge %zu (\"%.40s\", \"%.40s\"): %s is not in the vocabulary", b->n_merges, left, right,
                       l < 0   ? "the left part"
                       : r < 0 ? "the right part"
                               : "the result");
    assert((b->n_merges + 1) * 2 <= b->mask + 1); /* bpe_init was told of it */
    uint64_t pair = (uint64_t)(uint32_t)l << 32 | (uint32_t)r;
    *find_slot(b, pair) = (struct bpe_merge){.pair = pair, .rank = (int32_t)b->n_merges++, .id = id};
    return 0;
}

/* ---- life ---- */

static int fill_tables(struct bpe *b)
{
    const struct vocab *v = b->vocab;
    b->char_ids = malloc(0x10000 * sizeof(*b->char_ids));
    if (!b->char_ids)
        return ERR_NOMEM;
    memset(b->char_ids, 0xff, 0x10000 * sizeof(*b->char_ids));
    for (int32_t id = 0; id < v->n; id++) {
        const struct piece *p = &v->pieces[id];
        uint32_t cp;
        if (p->s && p->len > 0 && utf8_decode(p->s, p->len, &cp) == p->len && cp < 0x10000)
            b->char_ids[cp] = id;
    }
    for (int i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof(name), "<0x%02X>", (unsigned)i);
        b->byte_ids[i] = vocab_id(v, name, 6);
    }
    return 0;
}

int bpe_init(struct bpe *b, const struct vocab *vocab, const struct bpe_options *options, size_t n, struct err *err)
{
    *b = (struct bpe){.vocab = vocab, .options = *options};
    if (allocate(b, n) < 0 || fill_tables(b) < 0) {
        bpe_done(b);
        return err_set(err, ERR_NOMEM, "no memory for %zu merges", n);
    }
    return 0;
}

void bpe_done(struct bpe *b)
{
    free(b->merges);
    free(b->char_ids);
    free(b->whole);
    *b = (struct bpe){0};
}

/* Does a space mark stand behind a character that is none? */
static bool has_border(const struct piece *p)
{
    const char *at = p->s, *end = p->s + p->len;
    while ((at = memmem(at, (size_t)(end - at), SPACE, SPACE_LEN)) != NULL) {
        if (at > p->s && (at - p->s < SPACE_LEN || memcmp(at - SPACE_LEN, SPACE, SPACE_LEN) != 0))
            return true;
        at += SPACE_LEN;
    }
    return false;
}

static bool can_split(const struct bpe *b)
{
    if (b->options.ignore_merges || b->char_ids[0x2581] < 0)
        return false;
    for (size_t i = 0; i <= b->mask; i++)
        if (b->merges[i].pair != BPE_NO_PAIR && has_border(&b->vocab->pieces[b->merges[i].id]))
            return false;
    return true;
}

static int encode_word(const struct bpe *b, const char *word, size_t len, struct id_sink *out);

int bpe_finish(struct bpe *b, struct err *err)
{
    const struct vocab *v = b->vocab;
    struct token_ids one = {0};
    int r = 0;
    unsigned char *whole = calloc((size_t)v->n + 1, 1);
    if (!whole)
        return err_set(err, ERR_NOMEM, "no memory for %d pieces", (int)v->n);
    for (int32_t id = 0; id < v->n && r >= 0; id++) {
        const struct piece *p = &v->pieces[id];
        one.n = 0;
        if (!p->s || p->len == 0)
            continue;
        r = b->options.ignore_merges ? 0 : encode_word(b, p->s, p->len, &(struct id_sink){&one, 2});
        whole[id] = b->options.ignore_merges || (r >= 0 && one.n == 1 && one.ids[0] == id);
        if (r == ERR_TOO_LARGE || r == ERR_UNSUPPORTED)
            r = 0;
    }
    token_ids_done(&one);
    b->whole = whole;
    b->splits_at_space = can_split(b);
    return r < 0 ? err_set(err, r, "no memory for the vocabulary") : 0;
}

/* ---- a word ---- */

static int32_t char_id(const struct bpe *b, const char *s, size_t len, uint32_t cp)
{
    return cp < 0x10000 ? b->char_ids[cp] : vocab_id(b->vocab, s, len);
}

static bool has_byte_ids(const struct bpe *b, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (b->byte_ids[(unsigned char)s[i]] < 0)
            return false;
    return b->options.byte_fallback;
}

/* The symbols of a word into sym[len]; 0 or ERR_UNSUPPORTED. A pending unk is put down late, behind byte symbols that
 * follow it: that is what the library does. */
static int symbols_of(const struct bpe *b, const char *word, size_t len, int32_t *sym, size_t *ret_n)
{
    size_t n = 0, step;
    bool pending = false;
    for (size_t i = 0; i < len; i += step) {
        uint32_t cp = 0;
        step = utf8_decode(word + i, len - i, &cp);
        if (step == 0)
            step = 1, cp = 0xfffd; /* not reached: callers pass valid UTF-8 */
        int32_t id = char_id(b, word + i, step, cp);
        if (id >= 0) {
            if (pending)
                sym[n++] = b->options.unk;
            pending = false;
            sym[n++] = id;
        } else if (has_byte_ids(b, word + i, step)) {
            for (size_t k = 0; k < step; k++)
                sym[n++] = b->byte_ids[(unsigned char)word[i + k]];
        } else if (b->options.unk == BPE_UNK_MISSING) {
            return ERR_UNSUPPORTED;
        } else if (b->options.unk >= 0) {
            if (pending && !b->options.fuse_unk)
                sym[n++] = b->options.unk;
            pending = true;
        }
    }
    if (pending)
        sym[n++] = b->options.unk;
    *ret_n = n;
    return 0;
}

static int encode_word(const struct bpe *b, const char *word, size_t len, struct id_sink *out)
{
    int32_t stack[STACK_SYMBOLS], *sym = stack;
    if (len > STACK_SYMBOLS) {
        sym = malloc(len * sizeof(*sym));
        if (!sym)
            return ERR_NOMEM;
    }
    size_t n = 0;
    int r = symbols_of(b, word, len, sym, &n);
    if (r >= 0)
        r = n <= BPE_FEW ? bpe_merge_few(b, sym, &n) : bpe_merge_many(b, sym, &n);
    for (size_t i = 0; i < n && r >= 0; i++)
        r = ids_push(out, sym[i]);
    if (sym != stack)
        free(sym);
    return r;
}

static int encode_known(const struct bpe *b, const char *word, size_t len, struct id_sink *out)
{
    int32_t id = vocab_id(b->vocab, word, len);
    return id >= 0 && b->whole[id] ? ids_push(out, id) : encode_word(b, word, len, out);
}

/* Bytes up to the next space mark that stands behind another character. */
static size_t word_length(const char *s, size_t len)
{
    size_t i = 0;
    while (len - i >= SPACE_LEN && memcmp(s + i, SPACE, SPACE_LEN) == 0)
        i += SPACE_LEN;
    while (i < len) {
        const char *next = memchr(s + i, SPACE[0], len - i);
        if (!next)
            return len;
        i = (size_t)(next - s);
        if (len - i >= SPACE_LEN && memcmp(next, SPACE, SPACE_LEN) == 0)
            return i;
        i++;
    }
    return len;
}

int bpe_encode(const struct bpe *b, const char *word, size_t len, struct id_sink *out)
{
    int r = 0;
    for (size_t n = len; len > 0 && r >= 0; word += n, len -= n) {
        n = b->splits_at_space ? word_length(word, len) : len;
        r = encode_known(b, word, n, out);
    }
    return r;
}
