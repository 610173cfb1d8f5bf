/* Text -> added tokens and what lies between -> normalized -> normalized added tokens and what lies between -> words -> ids. */
#include "tokenizer/pipeline.h"
#include <string.h>

int pipeline_init(struct pipeline *p, struct err *err)
{
    *p = (struct pipeline){0};
    int r = added_tokens_init(&p->added, err);
    return r < 0 ? r : vocab_init(&p->vocab, 0, err);
}

void pipeline_done(struct pipeline *p)
{
    bpe_done(&p->bpe);
    vocab_done(&p->vocab);
    added_tokens_done(&p->added);
    normalizer_done(&p->normalizer);
    pretokenizer_done(&p->pretokenizer);
    decoder_done(&p->decoder);
}

/* ---- added tokens' patterns ---- */

static int add_pattern(struct pipeline *p, size_t index, struct buf scratch[2], struct err *err)
{
    const struct added_token *t = &p->added.tokens[index];
    const char *text = t->content;
    size_t len = t->len;
    if (!t->normalized)
        return token_matcher_add(&p->added.raw, text, len, (int32_t)index, err);
    int r = normalizer_run(&p->normalizer, t->content, t->len, scratch, &text, &len);
    if (r < 0)
        return err_set(err, r, "added token \"%.40s\" cannot be normalized", t->content);
    return token_matcher_add(&p->added.normalized, text, len, (int32_t)index, err);
}

int pipeline_finish(struct pipeline *p, struct err *err)
{
    struct buf scratch[2];
    int r = 0;
    buf_init(&scratch[0], SIZE_MAX / 4);
    buf_init(&scratch[1], SIZE_MAX / 4);
    for (int special = 1; special >= 0; special--) /* of equal patterns the special token's counts */
        for (size_t i = 0; i < p->added.n && r >= 0; i++)
            if (p->added.tokens[i].special == special)
                r = add_pattern(p, i, scratch, err);
    buf_done(&scratch[0]);
    buf_done(&scratch[1]);
    return r;
}

/* ---- encoding ---- */

struct encoder {
    const struct pipeline *p;
    struct id_sink *out;
    struct buf scratch[2];
};

static int emit_word(void *arg, const char *word, size_t len)
{
    struct encoder *e = arg;
    return bpe_encode(&e->p->bpe, word, len, e->out);
}

typedef int (*plain_fn)(struct encoder *e, const char *text, size_t len, bool first);

/* Tokens of `m` become ids, what lies between goes to `plain`. */
static int split_tokens(struct encoder *e, const struct token_matcher *m, const char *text, size_t len, bool first, plain_fn plain)
{
    struct token_scan scan = {0};
    struct token_match match;
    size_t done = 0;
    int r = 0;
    while (r >= 0 && added_tokens_next(&e->p->added, m, text, len, &scan, &match)) {
        if (done < match.start)
            r = plain(e, text + done, match.start - done, first && done == 0);
        if (r >= 0)
            r = ids_push(e->out, e->p->added.tokens[match.index].id);
        done = match.end;
    }
    return r >= 0 && done < len ? plain(e, text + done, len - done, first && done == 0) : r;
}

static int encode_normalized(struct encoder *e, const char *text, size_t len, bool first)
{
    return pretokenizer_run(&e->p->pretokenizer, text, len, first, emit_word, e);
}

static int encode_raw(struct encoder *e, const char *text, size_t len, bool first)
{
    int r = normalizer_run(&e->p->normalizer, text, len, e->scratch, &text, &len);
    return r < 0 ? r : split_tokens(e, &e->p->added.normalized, text, len, first, encode_normalized);
}

int pipeline_encode(const struct pipeline *p, const char *text, size_t len, struct id_sink *out)
{
    struct encoder e = {.p = p, .out = out};
    buf_init(&e.scratch[0], SIZE_MAX / 4);
    buf_init(&e.scratch[1], SIZE_MAX / 4);
    int r = split_tokens(&e, &p->added.raw, text, len, true, encode_raw);
    buf_done(&e.scratch[0]);
    buf_done(&e.scratch[1]);
    return r;
}
