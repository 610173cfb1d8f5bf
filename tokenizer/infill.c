/* CodeLlamaTokenizer's encode_plus (version 4) and _encode_plus (5). Once they have filled a gap, both leave a normalizer of LLaMA's
 * behind, whatever was there before; here every text is encoded as the first one is. */
#include "tokenizer/infill.h"
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"

static int32_t id_of(const struct pipeline *p, const struct token_spec *t)
{
    const struct added_token *a = t->content ? added_tokens_find(&p->added, t->content, t->len) : NULL;
    return a ? a->id : t->content ? vocab_id(&p->vocab, t->content, t->len) : -1;
}

int infill_init(struct infill *f, const struct settings *s, const struct pipeline *p, struct err *err)
{
    struct pattern *space = NULL;
    *f = (struct infill){0};
    trie_init(&f->normalized);
    if (!class_rules_of(s->class, s->rules)->infills || !s->fill.content || !s->fill.len)
        return 0;
    f->mark = s->fill.content;
    f->mark_len = s->fill.len;
    f->prefix = id_of(p, &s->infill[0]);
    f->middle = id_of(p, &s->infill[1]);
    f->suffix = id_of(p, &s->infill[2]);
    f->usable = f->prefix >= 0 && f->middle >= 0 && f->suffix >= 0;
    int r = pattern_literal(" ", 1, &space, err);
    if (r >= 0)
        r = normalizer_add(&f->normalizer,
                           &(struct normalizer_step){.kind = NORMALIZER_REPLACE, .pattern = space, .text = SPACE, .text_len = 3}, err);
    return r < 0 || p->rules == TOKENIZER_RULES_4 ? r : pipeline_index_normalized(p, &f->normalizer, &f->normalized, err);
}

void infill_done(struct infill *f)
{
    normalizer_done(&f->normalizer);
    trie_done(&f->normalized);
    *f = (struct infill){0};
}

int infill_find(const struct infill *f, const char *text, size_t len, size_t *ret_at, struct err *err)
{
    const char *found = f->mark ? memmem(text, len, f->mark, f->mark_len) : NULL;
    if (!found)
        return 0;
    *ret_at = (size_t)(found - text);
    size_t behind = *ret_at + f->mark_len;
    if (behind < len && !f->usable)
        return err_set(err, ERR_INVALID, "the text holds %.40s, but the tokens for a gap are not there", f->mark);
    if (memmem(text + behind, len - behind, f->mark, f->mark_len))
        return err_set(err, ERR_INVALID, "the text holds %.40s more than once", f->mark);
    return 1;
}

static int push(int32_t id, struct id_sink *out)
{
    return id < 0 ? 0 : ids_push(out, id);
}

int infill_encode(const struct infill *f, const struct pipeline *p, const char *text, size_t len, size_t at, int32_t bos, int32_t eos,
                  struct id_sink *out)
{
    const struct trie *normalized = p->rules == TOKENIZER_RULES_4 ? &p->added.normalized : &f->normalized;
    size_t behind = at + f->mark_len;
    char *before = malloc(at + 2);
    if (!before)
        return ERR_NOMEM;
    before[0] = ' ';
    memcpy(before + 1, text, at);
    int r = push(bos, out);
    if (r >= 0)
        r = push(f->prefix, out);
    if (r >= 0)
        r = pipeline_encode_by(p, &f->normalizer, normalized, before, at + 1, out);
    if (r >= 0)
        r = push(f->suffix, out);
    if (r >= 0)
        r = pipeline_encode_by(p, &f->normalizer, normalized, text + behind, len - behind, out);
    if (r >= 0)
        r = push(f->middle, out);
    if (r >= 0)
        r = push(eos, out);
    free(before);
    return r;
}
