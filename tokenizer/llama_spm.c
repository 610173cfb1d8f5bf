/* A SentencePiece BPE model under LLaMA's conventions (transformers, convert_slow_tokenizer.py: LlamaConverter and
 * generate_merges). The model's scores become a list of merges: every way to cut a piece into two pieces, the higher score
 * first, then the longer left part, then the longer right part, then the order of ids. */
#include "common/mapfile.h"
#include "common/utf8.h"
#include "tokenizer/pipeline.h"
#include "tokenizer/spm.h"
#include "tokenizer/spm_check.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"
#define N_NAMED 3 /* the converter takes the first three pieces by name, with score 0 */

struct merge {
    float score;
    int32_t piece, left, right;
    uint32_t left_chars, right_chars, left_len;
};

struct merge_list {
    struct merge *m;
    size_t n, cap;
};

static int append(struct merge_list *l, const struct merge *m)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 65536;
        struct merge *grown = realloc(l->m, cap * sizeof(*grown));
        if (!grown)
            return ERR_NOMEM;
        l->m = grown;
        l->cap = cap;
    }
    l->m[l->n++] = *m;
    return 0;
}

static uint32_t count_chars(const char *s, size_t len)
{
    uint32_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xc0) != 0x80;
    return n;
}

static int add_cuts(struct merge_list *l, const struct vocab *v, int32_t id, float score)
{
    const struct piece *p = &v->pieces[id];
    uint32_t chars = count_chars(p->s, p->len), at = 1;
    int r = 0;
    for (size_t i = utf8_decode(p->s, p->len, NULL); i < p->len && r >= 0; i += utf8_decode(p->s + i, p->len - i, NULL), at++) {
        int32_t left = vocab_id(v, p->s, i), right = left < 0 ? -1 : vocab_id(v, p->s + i, p->len - i);
        if (right >= 0)
            r = append(l, &(struct merge){score, id, left, right, at, chars - at, (uint32_t)i});
    }
    return r;
}

#define COMPARE(x, y) (((x) > (y)) - ((x) < (y)))

static int by_rank(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    int c = COMPARE(y->score, x->score);
    c = c ? c : COMPARE(y->left_chars, x->left_chars);
    c = c ? c : COMPARE(y->right_chars, x->right_chars);
    c = c ? c : COMPARE(x->piece, y->piece);
    c = c ? c : COMPARE(x->left, y->left);
    return c ? c : COMPARE(x->right, y->right);
}

static int load_merges(struct pipeline *p, const struct spm *spm, const struct spm_facts *facts, struct err *err)
{
    struct merge_list l = {0};
    struct bpe_options options = {.unk = facts->unk_id, .fuse_unk = true, .byte_fallback = true};
    int r = 0;
    for (int32_t id = 0; id < p->vocab.n && r >= 0; id++)
        r = add_cuts(&l, &p->vocab, id, id < N_NAMED ? 0 : spm_score(spm, id));
    if (r < 0)
        err_set(err, r, "no memory for the merges of tokenizer.model");
    else
        r = bpe_init(&p->bpe, &p->vocab, &options, l.n, err);
    if (r >= 0 && l.n)
        qsort(l.m, l.n, sizeof(*l.m), by_rank);
    for (size_t i = 0; i < l.n && r >= 0; i++) {
        const struct piece *piece = &p->vocab.pieces[l.m[i].piece];
        r = bpe_add_merge(&p->bpe, piece->s, l.m[i].left_len, piece->s + l.m[i].left_len, piece->len - l.m[i].left_len, err);
    }
    free(l.m);
    return r < 0 ? r : bpe_finish(&p->bpe, err);
}

/* Control and user-defined pieces are found in the text; the former are special. */
static int load_pieces(struct pipeline *p, const struct spm *spm, const struct spm_facts *facts, struct err *err)
{
    int r = spm_size(spm) == (int)facts->n_pieces ? 0 : err_set(err, ERR_CORRUPT, "tokenizer.model: pieces were lost");
    for (int id = 0; id < (int)facts->n_pieces && r >= 0; id++) {
        size_t len;
        const char *s = spm_piece(spm, id, &len);
        r = vocab_add(&p->vocab, s, len, id, err);
    }
    for (int id = 0; id < (int)facts->n_pieces && r >= 0; id++) {
        const struct piece *piece = &p->vocab.pieces[id];
        struct added_token t = {.content = piece->s, .len = piece->len, .special = facts->types[id] == SPM_CONTROL};
        if (facts->types[id] == SPM_CONTROL || facts->types[id] == SPM_USER_DEFINED)
            r = added_tokens_add(&p->added, &t, &p->vocab, err);
    }
    return r;
}

static int replace_spaces(struct pipeline *p, bool prefix, struct err *err)
{
    struct pattern *space = NULL;
    int r = prefix
                ? normalizer_add(&p->normalizer, &(struct normalizer_step){.kind = NORMALIZER_PREPEND, .text = SPACE, .text_len = 3}, err)
                : 0;
    if (r >= 0)
        r = pattern_literal(" ", 1, &space, err);
    return r < 0
               ? r
               : normalizer_add(&p->normalizer,
                                &(struct normalizer_step){.kind = NORMALIZER_REPLACE, .text = SPACE, .text_len = 3, .pattern = space}, err);
}

static int load_decoder(struct pipeline *p, bool prefix, struct err *err)
{
    struct pattern *mark = NULL;
    int r = pattern_literal(SPACE, 3, &mark, err);
    if (r >= 0)
        r = decoder_add(&p->decoder, &(struct decoder_step){.kind = DECODER_REPLACE, .pattern = mark, .text = " ", .text_len = 1}, err);
    if (r >= 0)
        r = decoder_add(&p->decoder, &(struct decoder_step){.kind = DECODER_BYTE_FALLBACK}, err);
    if (r >= 0)
        r = decoder_add(&p->decoder, &(struct decoder_step){.kind = DECODER_FUSE}, err);
    if (r >= 0 && prefix)
        r = decoder_add(&p->decoder, &(struct decoder_step){.kind = DECODER_STRIP, .mark = " ", .start = 1}, err);
    return r;
}

/* legacy (the default): a prefix for every stretch between special tokens; else one for the text's first alone. */
static int load_conventions(struct pipeline *p, const struct settings *s, struct err *err)
{
    bool prefix = s->add_prefix_space == YES || (s->add_prefix_space == UNSET && !s->null_prefix_space);
    struct pretokenizer_step meta = {.kind = PRETOKENIZER_METASPACE, .mark = SPACE, .prepend = prefix ? PREPEND_FIRST : PREPEND_NEVER};
    int r = s->legacy == NO ? pretokenizer_add(&p->pretokenizer, &meta, err) : replace_spaces(p, prefix, err);
    return r < 0 ? r : load_decoder(p, prefix, err);
}

static const char *const type_names[] = {[SPM_UNIGRAM] = "unigram", [SPM_BPE] = "bpe", [SPM_WORD] = "word", [SPM_CHAR] = "char"};

int llama_spm_fill(struct pipeline *p, const unsigned char *data, size_t len, const struct settings *s, struct err *err)
{
    struct spm_facts facts = {0};
    struct spm *spm = NULL;
    struct buf model;
    buf_init(&model, 2 * SPM_MAX_FILE_BYTES);
    int r = spm_check(data, len, &model, &facts, err);
    if (r >= 0 && facts.model_type != SPM_BPE)
        r = err_set(err, ERR_UNSUPPORTED, "tokenizer.model: model type %s is not supported", type_names[facts.model_type]);
    if (r >= 0)
        r = spm_open(model.data, model.len, &spm, err);
    if (r >= 0)
        r = load_pieces(p, spm, &facts, err);
    if (r >= 0)
        r = load_merges(p, spm, &facts, err);
    if (r >= 0)
        r = load_conventions(p, s, err);
    spm_close(spm);
    free(facts.types);
    buf_done(&model);
    return r;
}

int llama_spm_load(struct pipeline *p, const char *path, const struct settings *s, struct err *err)
{
    struct mapfile file;
    int r = mapfile_open(&file, path, err);
    if (r >= 0)
        r = llama_spm_fill(p, file.data, file.len, s, err);
    mapfile_close(&file);
    return r;
}
