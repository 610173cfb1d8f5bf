/* Text -> added tokens and what lies between -> normalized -> normalized added tokens and what lies between -> words -> ids. */
#include "tokenizer/pipeline.h"
#include <string.h>

int pipeline_init(struct pipeline *p, enum tokenizer_rules rules, struct err *err)
{
    *p = (struct pipeline){.rules = rules};
    int r = added_tokens_init(&p->added, rules, err);
    return r < 0 ? r : vocab_init(&p->vocab, 0, err);
}

void pipeline_done(struct pipeline *p)
{
    bpe_done(&p->bpe);
    unigram_done(&p->unigram);
    vocab_done(&p->vocab);
    added_tokens_done(&p->added);
    normalizer_done(&p->normalizer);
    pretokenizer_done(&p->pretokenizer);
    decoder_done(&p->decoder);
}

/* ---- added tokens' patterns ---- */

static int add_pattern(const struct pipeline *p, int32_t index, const struct normalizer *n, struct trie *to, struct buf scratch[2],
                       struct err *err)
{
    const struct added_token *t = &p->added.tokens[index];
    struct stretch pattern = stretch_of(t->content, t->len, true);
    int32_t known = -1;
    int r = n ? normalizer_run(n, &pattern, scratch) : 0;
    if (r < 0)
        return err_set(err, r, "added token \"%.40s\" cannot be normalized", t->content);
    if (pattern.len == 0)
        return err_set(err, ERR_UNSUPPORTED, "added token \"%.40s\" is normalized to nothing, which would be found everywhere", t->content);
    r = trie_add(to, pattern.s, pattern.len, index, &known);
    if (r < 0)
        return err_set(err, r, "no memory for added tokens");
    if (p->rules == TOKENIZER_RULES_5 && known >= 0)
        return err_set(err, ERR_UNSUPPORTED, "added tokens \"%.40s\" and \"%.40s\" are normalized alike, which transformers 5 cannot load",
                       t->content, p->added.tokens[known].content);
    return 0;
}

/* The tokens that are looked for in normalized text, or in the raw one (n is NULL). Version 4's library looks for every listing, special
 * ones first; version 5's for each token as it was given last. */
static int add_patterns(const struct pipeline *p, const struct normalizer *n, struct trie *to, struct err *err)
{
    const struct added_tokens *a = &p->added;
    struct buf scratch[2];
    int r = 0;
    buf_init(&scratch[0], SIZE_MAX / 4);
    buf_init(&scratch[1], SIZE_MAX / 4);
    for (size_t i = 0; i < a->n && r >= 0 && p->rules == TOKENIZER_RULES_5; i++)
        if (a->tokens[i].normalized == (n != NULL))
            r = add_pattern(p, (int32_t)i, n, to, scratch, err);
    for (int special = 1; special >= 0 && p->rules == TOKENIZER_RULES_4; special--)
        for (size_t i = 0; i < a->n_listings && r >= 0; i++)
            if (a->listings[i].special == special && a->listings[i].normalized == (n != NULL))
                r = add_pattern(p, a->listings[i].token, n, to, scratch, err);
    buf_done(&scratch[0]);
    buf_done(&scratch[1]);
    return r;
}

int pipeline_index_normalized(const struct pipeline *p, const struct normalizer *n, struct trie *ret, struct err *err)
{
    return add_patterns(p, n, ret, err);
}

/* What the library does by a character's place in the given text, which is not followed here. */
static int check_origins(const struct pipeline *p, struct err *err)
{
    if (pretokenizer_asks_origin(&p->pretokenizer) && normalizer_blurs_origin(&p->normalizer))
        return err_set(
            err, ERR_UNSUPPORTED,
            "a Metaspace with prepend_scheme \"first\" behind a step that cuts is not supported together with a Unicode normal form");
    if (pretokenizer_changes_pieces(&p->pretokenizer) && normalizer_inserts(&p->normalizer)) /* the library then spells a piece twice */
        return err_set(err, ERR_UNSUPPORTED,
                       "normalizer: a Replace that inserts text is not supported together with a pre_tokenizer that changes what it cut");
    return 0;
}

int pipeline_finish(struct pipeline *p, struct err *err)
{
    int r = check_origins(p, err);
    if (r >= 0)
        r = add_patterns(p, NULL, &p->added.raw, err);
    return r < 0 ? r : add_patterns(p, &p->normalizer, &p->added.normalized, err);
}

/* ---- encoding ---- */

struct encoder {
    const struct pipeline *p;
    const struct normalizer *normalizer;
    const struct trie *normalized; /* added tokens */
    struct id_sink *out;
    struct buf scratch[2];
};

static int emit_word(void *arg, const char *word, size_t len)
{
    struct encoder *e = arg;
    return e->p->is_unigram ? unigram_encode(&e->p->unigram, word, len, e->out) : bpe_encode(&e->p->bpe, word, len, e->out);
}

typedef int (*plain_fn)(struct encoder *e, struct stretch *t);

static int put_plain(struct encoder *e, const struct stretch *t, size_t start, size_t end, plain_fn plain)
{
    struct stretch part = stretch_cut(t, start, end);
    return start < end ? plain(e, &part) : 0;
}

/* Tokens of `m` become ids, what lies between goes to `plain`. */
static int split_tokens(struct encoder *e, const struct trie *m, const struct stretch *t, plain_fn plain)
{
    struct token_scan scan = {0};
    struct token_match match;
    size_t done = 0;
    int r = 0;
    while (r >= 0 && added_tokens_next(&e->p->added, m, t->s, t->len, &scan, &match)) {
        r = put_plain(e, t, done, match.start, plain);
        if (r >= 0)
            r = ids_push(e->out, e->p->added.tokens[match.index].id);
        done = match.end;
    }
    return r < 0 ? r : put_plain(e, t, done, t->len, plain);
}

static int encode_normalized(struct encoder *e, struct stretch *t)
{
    return pretokenizer_run(&e->p->pretokenizer, t, emit_word, e);
}

static int encode_raw(struct encoder *e, struct stretch *t)
{
    int r = normalizer_run(e->normalizer, t, e->scratch);
    return r < 0 ? r : split_tokens(e, e->normalized, t, encode_normalized);
}

int pipeline_encode_by(const struct pipeline *p, const struct normalizer *n, const struct trie *normalized, const char *text, size_t len,
                       struct id_sink *out)
{
    struct encoder e = {.p = p, .normalizer = n, .normalized = normalized, .out = out};
    struct stretch whole = stretch_of(text, len, true);
    buf_init(&e.scratch[0], SIZE_MAX / 4);
    buf_init(&e.scratch[1], SIZE_MAX / 4);
    int r = split_tokens(&e, &p->added.raw, &whole, encode_raw);
    buf_done(&e.scratch[0]);
    buf_done(&e.scratch[1]);
    return r;
}

int pipeline_encode(const struct pipeline *p, const char *text, size_t len, struct id_sink *out)
{
    return pipeline_encode_by(p, &p->normalizer, &p->added.normalized, text, len, out);
}
