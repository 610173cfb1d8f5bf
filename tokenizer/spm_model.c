/* The model's scores, or its ids, become a list of merges: every way to cut a piece into two pieces, in an order that each reader
 * has of its own. */
#include "tokenizer/spm_model.h"
#include "common/mapfile.h"
#include "common/utf8.h"
#include "tokenizer/frame.h"
#include "tokenizer/hf_json.h"
#include "tokenizer/spm.h"
#include "tokenizer/spm_check.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define N_NAMED 3 /* LlamaConverter takes the first three pieces by name, with score 0 */

struct model {
    struct spm *spm;
    struct spm_facts facts;
};

/* ---- merges ---- */

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

static uint32_t count_chars(const char *s, size_t len)
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
    uint32_t chars = count_chars(p->s, p->len), at = 1;
    int r = 0;
    for (size_t i = utf8_decode(p->s, p->len, NULL); i < p->len && r >= 0; i += utf8_decode(p->s + i, p->len - i, NULL), at++) {
        int32_t left = vocab_id(v, p->s, i), right = takes_part(normal, left) ? vocab_id(v, p->s + i, p->len - i) : -1;
        if (takes_part(normal, right))
            r = append(l, &(struct merge){score, id, left, right, at, chars - at, (uint32_t)i, p->s});
    }
    return r;
}

#define COMPARE(x, y) (((x) > (y)) - ((x) < (y)))

/* LlamaConverter: the higher score, the longer left part, the longer right part, then the order of ids. */
static int by_score(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    int c = COMPARE(y->score, x->score);
    c = c ? c : COMPARE(y->left_chars, x->left_chars);
    c = c ? c : COMPARE(y->right_chars, x->right_chars);
    c = c ? c : COMPARE(x->piece, y->piece);
    c = c ? c : COMPARE(x->left, y->left);
    return c ? c : COMPARE(x->right, y->right);
}

/* generate_merges without scores: the lower id, then the shorter left part. */
static int by_piece(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    int c = COMPARE(x->piece, y->piece);
    return c ? c : COMPARE(x->left_chars, y->left_chars);
}

/* build_tokenizer_from_spm_proto: the higher score, the lower id, then the left part that comes first in the alphabet, which of one
 * piece's beginnings is the shorter. */
static int by_score_and_piece(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    int c = COMPARE(y->score, x->score);
    return c ? c : by_piece(a, b);
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

/* How one of the three readers makes a model of the pieces. */
struct reading {
    struct bpe_options bpe;
    int32_t unigram_unk;
    bool zero_named;  /* the first three pieces score 0 */
    bool normal_only; /* only pieces of type NORMAL merge */
    int (*order)(const void *, const void *);
};

static float score_of(const struct model *m, const struct reading *how, int32_t id)
{
    return how->zero_named && id < N_NAMED ? 0 : spm_score(m->spm, id);
}

static int load_bpe(struct pipeline *p, const struct model *m, const struct reading *how, struct err *err)
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

static int load_unigram(struct pipeline *p, const struct model *m, const struct reading *how, struct err *err)
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

/* ---- pieces ---- */

/* The token that added_tokens_decoder has for an id; they are sorted. */
static const struct token_spec *configured(const struct settings *s, int32_t id)
{
    size_t low = 0, high = s->added.n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (s->added.t[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->added.n && s->added.t[low].id == id ? &s->added.t[low] : NULL;
}

static int index_pieces(const struct model *m, struct strmap *ret)
{
    int n = (int)m->facts.n_pieces, r = strmap_init(ret, (size_t)n);
    for (int id = 0; id < n && r >= 0; id++) {
        size_t len;
        const char *piece = spm_piece(m->spm, id, &len);
        r = strmap_put(ret, piece, len, id);
    }
    return r < 0 ? r : 0;
}

/* Which pieces take the name that added_tokens_decoder gives to their id. */
enum rename { RENAME_NONE, RENAME_FIRST_THREE, RENAME_ALL /* unless a piece without such a name has it */ };

static const struct token_spec *new_name(const struct settings *s, enum rename rename, const struct strmap *pieces, int32_t id)
{
    const struct token_spec *name = rename == RENAME_ALL || (rename == RENAME_FIRST_THREE && id < N_NAMED) ? configured(s, id) : NULL;
    int32_t owner = name && rename == RENAME_ALL ? strmap_get(pieces, name->content, name->len) : -1;
    return owner >= 0 && !configured(s, owner) ? NULL : name;
}

static int load_pieces(struct pipeline *p, const struct model *m, const struct settings *s, enum rename rename, struct err *err)
{
    struct strmap pieces = {0};
    int n = (int)m->facts.n_pieces;
    int r = spm_size(m->spm) == n ? 0 : err_set(err, ERR_CORRUPT, "tokenizer.model: pieces were lost");
    if (r >= 0 && rename == RENAME_ALL && index_pieces(m, &pieces) < 0)
        r = err_set(err, ERR_NOMEM, "no memory for tokenizer.model");
    for (int id = 0; id < n && r >= 0; id++) {
        size_t len;
        const char *piece = spm_piece(m->spm, id, &len);
        const struct token_spec *name = new_name(s, rename, &pieces, id);
        r = vocab_add(&p->vocab, name ? name->content : piece, name ? name->len : len, id, err);
    }
    strmap_done(&pieces);
    return r;
}

/* Version 4: control and user-defined pieces are found in the text; the former are special. */
static int add_symbols(struct pipeline *p, const struct model *m, struct err *err)
{
    int r = 0;
    added_tokens_begin(&p->added, &p->vocab);
    for (int id = 0; id < (int)m->facts.n_pieces && r >= 0; id++) {
        struct added_token t = {.special = m->facts.types[id] == SPM_CONTROL};
        size_t len;
        t.content = spm_piece(m->spm, id, &len);
        t.len = len;
        if (t.special || m->facts.types[id] == SPM_USER_DEFINED)
            r = added_tokens_add(&p->added, &t, &p->vocab, err);
    }
    return r;
}

/* Version 5: they are extra special tokens, unless the configuration has such a list. */
static int extra_symbols(const struct model *m, struct settings *s, bool user_defined, struct err *err)
{
    size_t n = m->facts.n_pieces;
    if (s->extra_given)
        return 0;
    s->extra = (struct token_list){.t = arena_alloc(&s->memory, n + 1, sizeof(*s->extra.t))};
    for (int id = 0; id < (int)n && s->extra.t; id++) {
        struct token_spec t = {.id = -1, .is_object = true, .special = m->facts.types[id] == SPM_CONTROL, .normalized = NOT_NORMALIZED};
        const char *piece = spm_piece(m->spm, id, &t.len);
        if (!t.special && !(user_defined && m->facts.types[id] == SPM_USER_DEFINED))
            continue;
        t.content = arena_strndup(&s->memory, piece, t.len);
        s->extra.t[s->extra.n++] = t;
        if (!t.content)
            s->extra.t = NULL;
    }
    return s->extra.t ? 0 : err_set(err, ERR_NOMEM, "no memory for special tokens");
}

/* ---- version 4 ---- */

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for tokenizer.model");
}

/* legacy (the default): a prefix for every stretch between special tokens; else one for the text's first alone. */
static json_t *frame_4(const struct settings *s)
{
    /* The class passes its own None on when it makes the slow tokenizer itself, which it does where there is a tokenizer.json. */
    bool code = class_rules_of(s->class, s->rules)->infills; /* whose slow tokenizer knows neither setting */
    bool prefix = code || knob_is_true(s->add_prefix_space, !s->has_json);
    bool legacy = code || knob_is_true(s->legacy == KNOB_NULL ? KNOB_ABSENT : s->legacy, true);
    json_t *decoder = frame_mark_decoder(true, true, prefix), *steps[2];
    size_t n = 0;
    if (!legacy)
        return json_pack("{s:o, s:o}", "pre_tokenizer", frame_metaspace(prefix ? "first" : "never"), "decoder", decoder);
    if (prefix)
        steps[n++] = json_pack("{s:s, s:s}", "type", "Prepend", "prepend", FRAME_SPACE);
    steps[n++] = frame_replace("String", " ", FRAME_SPACE);
    return json_pack("{s:o, s:o}", "normalizer", frame_sequence("normalizers", steps, n), "decoder", decoder);
}

static int fill_frame(struct pipeline *p, json_t *frame, struct err *err)
{
    static const struct hf_overrides none = {0};
    int r = frame ? hf_components_fill(p, frame, &none, err) : no_memory(err);
    json_decref(frame);
    return r;
}

static int32_t id_or_missing(const struct pipeline *p, const struct spm_name *name)
{
    int32_t id = vocab_id(&p->vocab, name->s, name->len);
    return id < 0 ? BPE_UNK_MISSING : id;
}

/* A copy of a token has its `normalized` settled. */
static void settle_normalized(struct token_spec *t, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (t[i].is_object && t[i].normalized == NORMALIZED_UNLESS_SPECIAL)
            t[i].normalized = t[i].special ? NOT_NORMALIZED : NORMALIZED;
}

/* The slow tokenizer hands copies of its arguments on. LlamaTokenizer makes tokens of these roles' strings, CodeLlamaTokenizer of all
 * but the last one's. */
static void pass_through_slow(struct settings *s)
{
    static const int roles[] = {ROLE_BOS, ROLE_EOS, ROLE_UNK, ROLE_PAD};
    for (int i = 0; i < (class_rules_of(s->class, s->rules)->infills ? 3 : 4); i++) {
        struct token_spec *t = &s->roles[roles[i]];
        if (t->content && !t->is_object) {
            t->is_object = true;
            t->normalized = NOT_NORMALIZED;
        }
    }
    settle_normalized(s->roles, ROLE_COUNT);
    settle_normalized(s->extra.t, s->extra.n);
    settle_normalized(s->named.t, s->named.n);
    settle_normalized(s->infill, 4);
}

static int fill_4(struct pipeline *p, const struct model *m, struct settings *s, struct err *err)
{
    int r = load_pieces(p, m, s, s->has_json ? RENAME_NONE : RENAME_FIRST_THREE, err);
    struct reading how = {.bpe = {.unk = r < 0 ? -1 : id_or_missing(p, &m->facts.unk_piece), .fuse_unk = true, .byte_fallback = true},
                          .zero_named = true,
                          .order = by_score};
    if (r >= 0)
        r = m->facts.model_type == SPM_BPE ? load_bpe(p, m, &how, err) : load_unigram(p, m, &how, err);
    if (r >= 0)
        r = add_symbols(p, m, err);
    pass_through_slow(s);
    return r < 0 ? r : fill_frame(p, frame_4(s), err);
}

/* ---- version 5 ---- */

/* A class with a frame of its own. */
static int fill_5_class(struct pipeline *p, const struct model *m, struct settings *s, struct err *err)
{
    json_t *frame = class_rules_of(s->class, s->rules)->frame(s);
    struct reading how = {.order = by_piece};
    int r = frame ? load_pieces(p, m, s, RENAME_NONE, err) : no_memory(err);
    if (r >= 0)
        r = hf_bpe_options(&p->vocab, json_object_get(frame, "model"), &how.bpe, err);
    if (r >= 0)
        r = load_bpe(p, m, &how, err);
    if (r >= 0)
        r = extra_symbols(m, s, true, err);
    return r < 0 ? (json_decref(frame), r) : fill_frame(p, frame, err);
}

static int by_length(const void *a, const void *b)
{
    const struct piece *const *x = a, *const *y = b;
    uint32_t m = count_chars((*x)->s, (*x)->len), n = count_chars((*y)->s, (*y)->len);
    return m != n ? (m < n) - (m > n) : (*x > *y) - (*x < *y);
}

/* An expression for any of the user-defined pieces, the longest first. */
static int symbols_regex(const struct pipeline *p, const struct model *m, struct buf *out)
{
    const struct piece **found = calloc(m->facts.n_pieces + 1, sizeof(*found));
    size_t n = 0;
    int r = found ? 0 : ERR_NOMEM;
    for (size_t id = 0; id < m->facts.n_pieces && r >= 0; id++)
        if (m->facts.types[id] == SPM_USER_DEFINED)
            found[n++] = &p->vocab.pieces[id];
    if (n)
        qsort(found, n, sizeof(*found), by_length);
    for (size_t i = 0; i < n && r >= 0; i++) {
        r = i ? buf_puts(out, "|") : 0;
        for (const char *c = found[i]->s; *c && r >= 0; c++) {
            bool plain = (unsigned char)*c >= 0x80 || *c < ' ' || *c == 0x7f || strchr("_", *c) || (*c >= '0' && *c <= '9') ||
                         ((*c | 32) >= 'a' && (*c | 32) <= 'z');
            r = plain ? buf_append(out, c, 1) : buf_append(out, (char[]){'\\', *c}, 2);
        }
    }
    free(found);
    return r;
}

static bool has_symbols(const struct spm_facts *f)
{
    return memchr(f->types, SPM_USER_DEFINED, f->n_pieces) != NULL;
}

/* What normalizer_spec says, in SentencePiece's order; the map itself is added before. */
static json_t *normalizer_5(const struct spm_facts *f, bool legacy)
{
    json_t *steps[4];
    size_t n = 0;
    if (f->remove_extra_spaces) {
        steps[n++] = frame_replace("Regex", "\\A +| +\\z", "");
        steps[n++] = frame_replace("Regex", " {2,}", " ");
    }
    if (f->escape_spaces)
        steps[n++] = frame_replace("String", " ", FRAME_SPACE);
    if (f->dummy_prefix && legacy)
        steps[n++] = frame_replace("Regex", "\\A" FRAME_SPACE, FRAME_SPACE FRAME_SPACE);
    return frame_sequence("normalizers", steps, n);
}

static json_t *pre_tokenizer_5(const struct spm_facts *f, bool legacy, const char *symbols)
{
    json_t *steps[2];
    size_t n = 0;
    if (f->dummy_prefix)
        steps[n++] = frame_metaspace(legacy ? "always" : "first");
    if (*symbols)
        steps[n++] = frame_split("Regex", symbols, "Isolated");
    return frame_sequence("pretokenizers", steps, n);
}

static int fill_components_5(struct pipeline *p, const struct model *m, const struct settings *s, struct err *err)
{
    const struct spm_facts *f = &m->facts;
    bool legacy = knob_is_true(s->legacy, true), bytes = f->byte_fallback;
    struct charsmap *map = NULL;
    struct buf symbols;
    buf_init(&symbols, SIZE_MAX / 4);
    int r = symbols_regex(p, m, &symbols) < 0 ? no_memory(err) : 0;
    if (r >= 0 && f->charsmap)
        r = charsmap_new(f->charsmap, f->charsmap_len, &map, err);
    if (r >= 0 && map)
        r = normalizer_add(&p->normalizer, &(struct normalizer_step){.kind = NORMALIZER_PRECOMPILED, .charsmap = map}, err);
    if (r >= 0)
        r = fill_frame(p,
                       json_pack("{s:o, s:o, s:o}", "normalizer", normalizer_5(f, legacy), "pre_tokenizer",
                                 pre_tokenizer_5(f, legacy, symbols.data), "decoder",
                                 frame_mark_decoder(bytes, f->dummy_prefix || bytes, f->dummy_prefix)),
                       err);
    buf_done(&symbols);
    return r;
}

/* Roles that no file mentions are the model's own, and added tokens are looked for in the raw text. */
static int settle_5(const struct spm_facts *f, struct settings *s, struct err *err)
{
    static const int roles[] = {ROLE_UNK, ROLE_BOS, ROLE_EOS};
    const int64_t ids[] = {f->named_unk, f->named_bos, f->named_eos};
    const struct spm_name *names[] = {&f->unk_piece, &f->bos_piece, &f->eos_piece};
    static const struct spm_name defaults[] = {{"<unk>", 5}, {"<s>", 3}, {"</s>", 4}};
    for (int i = 0; i < 3; i++) {
        const struct spm_name *name = names[i]->len ? names[i] : &defaults[i];
        if (s->given[roles[i]] || ids[i] < 0)
            continue;
        s->roles[roles[i]] = (struct token_spec){.content = arena_strndup(&s->memory, name->s, name->len),
                                                 .len = name->len,
                                                 .id = -1,
                                                 .special = true,
                                                 .normalized = NORMALIZED_UNLESS_SPECIAL};
        if (!s->roles[roles[i]].content)
            return no_memory(err);
    }
    for (size_t i = 0; f->dummy_prefix && i < s->added.n; i++)
        s->added.t[i].normalized = NOT_NORMALIZED;
    return 0;
}

static int fill_5(struct pipeline *p, const struct model *m, struct settings *s, struct err *err)
{
    bool unigram = m->facts.model_type == SPM_UNIGRAM;
    int r = load_pieces(p, m, s, unigram ? RENAME_NONE : RENAME_ALL, err);
    struct reading how = {.bpe = {.unk = r < 0 ? -1 : id_or_missing(p, &m->facts.unk_piece),
                                  .fuse_unk = true,
                                  .byte_fallback = m->facts.byte_fallback,
                                  .ignore_merges = has_symbols(&m->facts)},
                          .unigram_unk = (int32_t)m->facts.named_unk,
                          .normal_only = true,
                          .order = by_score_and_piece};
    if (r >= 0)
        r = unigram ? load_unigram(p, m, &how, err) : load_bpe(p, m, &how, err);
    if (r >= 0)
        r = extra_symbols(m, s, false, err);
    if (r >= 0)
        r = settle_5(&m->facts, s, err);
    return r < 0 ? r : fill_components_5(p, m, s, err);
}

/* ---- the file ---- */

static const char *const type_names[] = {[SPM_UNIGRAM] = "unigram", [SPM_BPE] = "bpe", [SPM_WORD] = "word", [SPM_CHAR] = "char"};

static int fill(struct pipeline *p, const struct model *m, struct settings *s, struct err *err)
{
    const struct class_rules *rules = class_rules_of(s->class, s->rules);
    if (m->facts.model_type == SPM_WORD || m->facts.model_type == SPM_CHAR)
        return err_set(err, ERR_UNSUPPORTED, "tokenizer.model: model type %s is not supported", type_names[m->facts.model_type]);
    if (!rules->takes_spm)
        return err_set(err, ERR_UNSUPPORTED, "tokenizer.model under tokenizer_class \"%s\" is not supported without a tokenizer.json",
                       s->class->name);
    return s->rules == TOKENIZER_RULES_4 ? fill_4(p, m, s, err) : rules->frame ? fill_5_class(p, m, s, err) : fill_5(p, m, s, err);
}

int spm_model_fill(struct pipeline *p, const unsigned char *data, size_t len, struct settings *s, struct err *err)
{
    struct model m = {0};
    struct buf rebuilt;
    buf_init(&rebuilt, 2 * SPM_MAX_FILE_BYTES);
    int r = spm_check(data, len, &rebuilt, &m.facts, err);
    if (r >= 0)
        r = spm_open(rebuilt.data, rebuilt.len, &m.spm, err);
    if (r >= 0)
        r = fill(p, &m, s, err);
    spm_close(m.spm);
    spm_facts_done(&m.facts);
    buf_done(&rebuilt);
    return r;
}

int spm_model_load(struct pipeline *p, const char *path, struct settings *s, struct err *err)
{
    struct mapfile file;
    int r = mapfile_open(&file, path, err);
    if (r >= 0)
        r = spm_model_fill(p, file.data, file.len, s, err);
    mapfile_close(&file);
    return r;
}
