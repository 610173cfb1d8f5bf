/* Version 5: a class takes vocabulary and merges; TokenizersBackend rebuilds what SentencePiece itself does. */
#include "tokenizer/frame.h"
#include "tokenizer/spm_parts.h"
#include <stdlib.h>
#include <string.h>

int spm_fill_5_class(struct pipeline *p, const struct spm_source *m, struct settings *s, struct err *err)
{
    json_t *frame = class_rules_of(s->class, s->rules)->frame(s);
    struct spm_reading how = {.order = spm_by_piece};
    int r = frame ? spm_load_pieces(p, m, s, SPM_RENAME_NONE, err) : spm_no_memory(err);
    if (r >= 0)
        r = hf_bpe_options(&p->vocab, json_object_get(frame, "model"), &how.bpe, err);
    if (r >= 0)
        r = spm_load_bpe(p, m, &how, err);
    if (r >= 0)
        r = spm_extra_symbols(m, s, true, err);
    return r < 0 ? (json_decref(frame), r) : spm_fill_frame(p, frame, err);
}

static int by_length(const void *a, const void *b)
{
    const struct piece *const *x = a, *const *y = b;
    uint32_t m = spm_count_chars((*x)->s, (*x)->len), n = spm_count_chars((*y)->s, (*y)->len);
    return m != n ? (m < n) - (m > n) : (*x > *y) - (*x < *y);
}

/* An expression for any of the user-defined pieces, the longest first. */
static int symbols_regex(const struct pipeline *p, const struct spm_source *m, struct buf *out)
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

static int fill_components_5(struct pipeline *p, const struct spm_source *m, const struct settings *s, struct err *err)
{
    const struct spm_facts *f = &m->facts;
    bool legacy = knob_is_true(s->legacy, true), bytes = f->byte_fallback;
    struct charsmap *map = NULL;
    struct buf symbols;
    buf_init(&symbols, SIZE_MAX / 4);
    int r = symbols_regex(p, m, &symbols) < 0 ? spm_no_memory(err) : 0;
    if (r >= 0 && f->charsmap)
        r = charsmap_new(f->charsmap, f->charsmap_len, &map, err);
    if (r >= 0 && map)
        r = normalizer_add(&p->normalizer, &(struct normalizer_step){.kind = NORMALIZER_PRECOMPILED, .charsmap = map}, err);
    if (r >= 0)
        r = spm_fill_frame(p,
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
            return spm_no_memory(err);
    }
    for (size_t i = 0; f->dummy_prefix && i < s->added.n; i++)
        s->added.t[i].normalized = NOT_NORMALIZED;
    return 0;
}

int spm_fill_5(struct pipeline *p, const struct spm_source *m, struct settings *s, struct err *err)
{
    bool unigram = m->facts.model_type == SPM_UNIGRAM;
    int r = spm_load_pieces(p, m, s, unigram ? SPM_RENAME_NONE : SPM_RENAME_ALL, err);
    struct spm_reading how = {.bpe = {.unk = r < 0 ? -1 : spm_piece_id(p, &m->facts.unk_piece),
                                      .fuse_unk = true,
                                      .byte_fallback = m->facts.byte_fallback,
                                      .ignore_merges = has_symbols(&m->facts)},
                              .unigram_unk = (int32_t)m->facts.named_unk,
                              .normal_only = true,
                              .order = spm_by_score_and_piece};
    if (r >= 0)
        r = unigram ? spm_load_unigram(p, m, &how, err) : spm_load_bpe(p, m, &how, err);
    if (r >= 0)
        r = spm_extra_symbols(m, s, false, err);
    if (r >= 0)
        r = settle_5(&m->facts, s, err);
    return r < 0 ? r : fill_components_5(p, m, s, err);
}
