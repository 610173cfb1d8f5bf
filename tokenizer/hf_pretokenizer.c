/* tokenizer.json's pre_tokenizer, each type a row. */
#include "tokenizer/hf_component.h"
#include "tokenizer/unicode.h"
#include <string.h>

/* GPT-2's split, which ByteLevel carries inside (tokenizers, pre_tokenizers/byte_level.rs). */
#define GPT2_SPLIT "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static int add_split(const struct hf_target *t, struct pattern *p, enum split_behavior behavior, bool invert, struct err *err)
{
    return pretokenizer_add(
        t->to, &(struct pretokenizer_step){.kind = PRETOKENIZER_SPLIT, .pattern = p, .behavior = behavior, .invert = invert}, err);
}

static int get_behavior(const struct hf_target *t, const json_t *o, enum split_behavior *ret, struct err *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(o, "behavior"));
    for (size_t i = 0; name && i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0) {
            *ret = (enum split_behavior)i;
            return 0;
        }
    return hf_missing(t, "behavior", "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous", err);
}

static int read_split(const struct hf_target *t, const json_t *o, struct err *err)
{
    enum split_behavior behavior = SPLIT_ISOLATED;
    bool invert = false;
    struct pattern *p = NULL;
    int r = get_behavior(t, o, &behavior, err);
    if (r >= 0)
        r = hf_get_bool(t, o, "invert", &invert, err);
    if (r >= 0)
        r = hf_get_pattern(t, o, &p, err);
    return r < 0 ? r : add_split(t, p, behavior, invert, err);
}

static bool prefix_space_of(const struct hf_target *t, bool in_file)
{
    if (t->overrides->prefix_for_all)
        return true;
    return t->nested || t->overrides->lone_prefix == HF_PREFIX_AS_FILED ? in_file : t->overrides->lone_prefix == HF_PREFIX_YES;
}

static int read_byte_level(const struct hf_target *t, const json_t *o, struct err *err)
{
    bool prefix = true, use_regex = true, trim = true;
    struct pattern *p = NULL;
    int r = hf_get_bool(t, o, "add_prefix_space", &prefix, err);
    if (r >= 0)
        r = hf_get_bool(t, o, "use_regex", &use_regex, err);
    if (r >= 0)
        r = hf_get_bool(t, o, "trim_offsets", &trim, err);
    if (r >= 0 && prefix_space_of(t, prefix))
        r = pretokenizer_add(t->to, &(struct pretokenizer_step){.kind = PRETOKENIZER_PREFIX_SPACE}, err);
    if (r >= 0 && use_regex)
        r = pattern_regex(GPT2_SPLIT, strlen(GPT2_SPLIT), &p, err);
    if (r >= 0 && use_regex)
        r = add_split(t, p, SPLIT_ISOLATED, false, err);
    return r < 0 ? r : pretokenizer_add(t->to, &(struct pretokenizer_step){.kind = PRETOKENIZER_SPELL_BYTES}, err);
}

static int read_metaspace(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct pretokenizer_step s = {.kind = PRETOKENIZER_METASPACE};
    bool split = true;
    int r = hf_get_char(t, o, "replacement", s.mark, err);
    if (r >= 0)
        r = hf_get_scheme(t, o, &s.prepend, err);
    if (r >= 0)
        r = hf_get_bool(t, o, "split", &split, err);
    if (r >= 0 && split)
        r = pattern_literal(s.mark, strlen(s.mark), &s.pattern, err);
    return r < 0 ? r : pretokenizer_add(t->to, &s, err);
}

static int add_class(const struct hf_target *t, bool (*member)(uint32_t), enum split_behavior behavior, struct err *err)
{
    struct pattern *p = NULL;
    int r = pattern_class(member, &p, err);
    return r < 0 ? r : add_split(t, p, behavior, false, err);
}

static int read_digits(const struct hf_target *t, const json_t *o, struct err *err)
{
    bool each = false;
    int r = hf_get_bool(t, o, "individual_digits", &each, err);
    return r < 0 ? r : add_class(t, unicode_is_numeric, each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, err);
}

static int read_punctuation(const struct hf_target *t, const json_t *o, struct err *err)
{
    enum split_behavior behavior = SPLIT_ISOLATED;
    int r = json_object_get(o, "behavior") ? get_behavior(t, o, &behavior, err) : 0;
    return r < 0 ? r : add_class(t, unicode_is_punctuation, behavior, err);
}

static int read_whitespace_split(const struct hf_target *t, const json_t *o, struct err *err)
{
    return add_class(t, unicode_is_space, SPLIT_REMOVED, err);
}

/* \w+|[^\w\s]+ of Rust's regex. */
static int word_or_symbol(uint32_t cp)
{
    return unicode_is_word(cp) ? 1 : unicode_is_space(cp) ? 0 : 2;
}

static int read_whitespace(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct pattern *p = NULL;
    int r = pattern_runs(word_or_symbol, &p, err);
    return r < 0 ? r : add_split(t, p, SPLIT_REMOVED, true, err);
}

static int read_bert(const struct hf_target *t, const json_t *o, struct err *err)
{
    int r = add_class(t, unicode_is_space, SPLIT_REMOVED, err);
    return r < 0 ? r : add_class(t, unicode_is_punctuation, SPLIT_ISOLATED, err);
}

static int read_delimiter(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct pattern *p = NULL;
    char delimiter[5];
    int r = hf_get_char(t, o, "delimiter", delimiter, err);
    if (r >= 0)
        r = pattern_literal(delimiter, strlen(delimiter), &p, err);
    return r < 0 ? r : add_split(t, p, SPLIT_REMOVED, false, err);
}

int hf_pretokenizer(struct pretokenizer *p, const json_t *o, const struct hf_overrides *overrides, struct err *err)
{
    static const char *const split_keys[] = {"type", "pattern", "behavior", "invert", NULL},
                             *const byte_keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex", NULL},
                             *const meta_keys[] = {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep", NULL},
                             *const digit_keys[] = {"type", "individual_digits", NULL}, *const behavior_keys[] = {"type", "behavior", NULL},
                             *const char_keys[] = {"type", "delimiter", NULL};
    static const struct hf_row rows[] = {
        {"ByteLevel", byte_keys, read_byte_level},
        {"Split", split_keys, read_split},
        {"Metaspace", meta_keys, read_metaspace},
        {"Digits", digit_keys, read_digits},
        {"Punctuation", behavior_keys, read_punctuation},
        {"Whitespace", hf_type_only, read_whitespace},
        {"WhitespaceSplit", hf_type_only, read_whitespace_split},
        {"BertPreTokenizer", hf_type_only, read_bert},
        {"CharDelimiterSplit", char_keys, read_delimiter},
        {NULL, NULL, NULL},
    };
    return hf_read_component(rows, &(struct hf_target){.to = p, .overrides = overrides, .part = "pre_tokenizer"}, o, "pretokenizers", err);
}
