/* Version 4: LlamaConverter and CodeLlama's, through the slow tokenizer. */
#include "tokenizer/frame.h"
#include "tokenizer/spm_parts.h"

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

int spm_fill_4(struct pipeline *p, const struct spm_source *m, struct settings *s, struct err *err)
{
    int r = spm_load_pieces(p, m, s, s->has_json ? SPM_RENAME_NONE : SPM_RENAME_FIRST_THREE, err);
    struct spm_reading how = {.bpe = {.unk = r < 0 ? -1 : spm_piece_id(p, &m->facts.unk_piece), .fuse_unk = true, .byte_fallback = true},
                              .zero_named = true,
                              .order = spm_by_score};
    if (r >= 0)
        r = m->facts.model_type == SPM_BPE ? spm_load_bpe(p, m, &how, err) : spm_load_unigram(p, m, &how, err);
    if (r >= 0)
        r = spm_add_symbols(p, m, err);
    pass_through_slow(s);
    return r < 0 ? r : spm_fill_frame(p, frame_4(s), err);
}
