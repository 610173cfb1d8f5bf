/* The model's scores, or its ids, become a list of merges: every way to cut a piece into two pieces, in an order that each reader
 * has of its own. */
#include "common/utf8.h"
#include "tokenizer/spm_parts.h"
#include <stdlib.h>

struct merge {
    float score;
    int32_t piece, left, right;
    uint32_t left_chars, right_chars, left_len;
    const char *text; /* the piece */
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

uint32_t spm_count_chars(const char *s, size_t len)
{
    uint32_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xc0) != 0x80;
    return n;
}

/* normal: only pieces of type NORMAL take part (NULL: all). */
static bool takes_part(const struct spm_facts *normal, int32_t id)
{
    return id >= 0 && (!normal || normal->types[id] == SPM_NORMAL);
}

static int add_cuts(struct merge_list *l, const struct vocab *v, int32_t id, float score, const struct spm_facts *normal)
{
    const struct piece *p = &v->pieces[id];
    uint32_t chars = spm_count_chars(p->s, p->len), at = 1;
    int r = 0;
    for (size_t i = utf8_decode(p->s, p->len, NULL); i < p->len && r >= 0; i += utf8_decode(p->s + i, p->len - i, NULL), at++) {
        int32_t left = vocab_id(v, p->s, i), right = takes_part(normal, left) ? vocab_id(v, p->s + i, p->len - i) : -1;
        if (takes_part(normal, right))
            r = append(l, &(struct merge){score, id, left, right, at, chars - at, (uint32_t)i, p->s});
    }
    return r;
}

#define COMPARE(x, y) (((x) > (y)) - ((x) < (y)))

int spm_by_score(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    int c = COMPARE(y->score, x->score);
    c = c ? c : COMPARE(y->left_chars, x->left_chars);
    c = c ? c : COMPARE(y->right_chars, x->right_chars);
    c = c ? c : COMPARE(x->piece, y->piece);
    c = c ? c : COMPARE(x->left, y->left);
    return c ? c : COMPARE(x->right, y->right);
}

int spm_by_piece(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    int c = COMPARE(x->piece, y->piece);
    return c ? c : COMPARE(x->left_chars, y->left_chars);
}

int spm_by_score_and_piece(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    int c = COMPARE(y->score, x->score);
    return c ? c : spm_by_piece(a, b);
}

static int add_merges(struct pipeline *p, struct merge_list *l, int (*order)(const void *, const void *), struct err *err)
{
    int r = 0;
    if (l->n)
        qsort(l->m, l->n, sizeof(*l->m), order);
    for (size_t i = 0; i < l->n && r >= 0; i++) {
        const struct piece *piece = &p->vocab.pieces[l->m[i].piece];
        r = bpe_add_merge(&p->bpe, piece->s, l->m[i].left_len, piece->s + l->m[i].left_len, piece->len - l->m[i].left_len, err);
    }
    return r < 0 ? r : bpe_finish(&p->bpe, err);
}

static float score_of(const struct spm_source *m, const struct spm_reading *how, int32_t id)
{
    return how->zero_named && id < SPM_N_NAMED ? 0 : spm_score(m->spm, id);
}

int spm_load_bpe(struct pipeline *p, const struct spm_source *m, const struct spm_reading *how, struct err *err)
{
    struct merge_list l = {0};
    const struct spm_facts *normal = how->normal_only ? &m->facts : NULL;
    int r = 0;
    for (int32_t id = 0; id < p->vocab.n && r >= 0; id++)
        if (takes_part(normal, id))
            r = add_cuts(&l, &p->vocab, id, score_of(m, how, id), normal);
    if (r < 0)
        err_set(err, r, "no memory for the merges of tokenizer.model");
    else
        r = bpe_init(&p->bpe, &p->vocab, &how->bpe, l.n, err);
    if (r >= 0)
        r = add_merges(p, &l, how->order, err);
    free(l.m);
    return r;
}

int spm_load_unigram(struct pipeline *p, const struct spm_source *m, const struct spm_reading *how, struct err *err)
{
    double *scores = calloc((size_t)p->vocab.n + 1, sizeof(*scores));
    if (!scores)
        return err_set(err, ERR_NOMEM, "no memory for the scores of tokenizer.model");
    for (int32_t id = 0; id < p->vocab.n; id++)
        scores[id] = score_of(m, how, id);
    p->is_unigram = true;
    if (how->unigram_unk < 0 || how->unigram_unk >= p->vocab.n) {
        free(scores);
        return err_set(err, ERR_CORRUPT, "tokenizer.model: trainer_spec.unk_id is %d, of %d pieces", (int)how->unigram_unk,
                       (int)p->vocab.n);
    }
    return unigram_init(&p->unigram, &p->vocab, scores, how->unigram_unk, how->bpe.byte_fallback, err);
}
