/* The components of tokenizer.json around the model, each type a row of a table. */
#include "common/json.h"
#include "common/utf8.h"
#include "tokenizer/hf_json.h"
#include "tokenizer/unicode.h"
#include <string.h>

#define MAX_NESTING 4 /* Sequence in Sequence */

/* GPT-2's split, which ByteLevel carries inside (tokenizers, pre_tokenizers/byte_level.rs). */
#define GPT2_SPLIT "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

struct target { /* where the rows of a table put what they read */
    void *to;
    const struct hf_overrides *overrides;
    bool nested;      /* inside a Sequence */
    const char *part; /* "normalizer", for errors */
    int depth;
};

struct row {
    const char *type;
    const char *const *keys;
    int (*read)(const struct target *t, const json_t *o, struct err *err);
};

static int unsupported(const struct target *t, const json_t *o, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "tokenizer.json: %s type \"%.40s\" is not supported", t->part, hf_type(o));
}

static int missing(const struct target *t, const char *key, const char *wanted, struct err *err)
{
    return err_set(err, ERR_CORRUPT, "tokenizer.json: %s: %s must be %s", t->part, key, wanted);
}

static int read_component(const struct row *rows, const struct target *t, const json_t *o, const char *list_key, struct err *err)
{
    if (!o || json_is_null(o))
        return 0;
    if (strcmp(hf_type(o), "Sequence") == 0) {
        static const char *const normalizer_keys[] = {"type", "normalizers", NULL}, *const pre_keys[] = {"type", "pretokenizers", NULL},
                                 *const decoder_keys[] = {"type", "decoders", NULL}, *const post_keys[] = {"type", "processors", NULL};
        const char *const *keys = *list_key == 'n'                      ? normalizer_keys
                                  : *list_key == 'd'                    ? decoder_keys
                                  : strcmp(list_key, "processors") == 0 ? post_keys
                                                                        : pre_keys;
        const json_t *list = json_object_get(o, list_key);
        struct target inner = *t;
        inner.nested = true;
        inner.depth++;
        int r = hf_only_keys(o, t->part, keys, err);
        if (r >= 0 && (!json_is_array(list) || inner.depth > MAX_NESTING))
            r = missing(t, list_key, "an array, nested at most 4 deep", err);
        for (size_t i = 0; i < json_array_size(list) && r >= 0; i++)
            r = read_component(rows, &inner, json_array_get(list, i), list_key, err);
        return r;
    }
    for (; rows->type; rows++)
        if (strcmp(rows->type, hf_type(o)) == 0) {
            int r = hf_only_keys(o, rows->type, rows->keys, err);
            return r < 0 ? r : rows->read(t, o, err);
        }
    return unsupported(t, o, err);
}

/* ---- fields ---- */

static int get_bool(const struct target *t, const json_t *o, const char *key, bool *ret, struct err *err)
{
    return json_get_bool(o, "", key, ret, NULL) < 0 ? missing(t, key, "true or false", err) : 0;
}

static int get_text(const struct target *t, const json_t *o, const char *key, const char **ret, size_t *ret_len, struct err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v))
        return missing(t, key, "a string", err);
    *ret = json_string_value(v);
    *ret_len = json_string_length(v);
    return 0;
}

/* A string that is one character. */
static int get_char(const struct target *t, const json_t *o, const char *key, char ret[5], struct err *err)
{
    const char *s = "";
    size_t len = 0;
    int r = get_text(t, o, key, &s, &len, err);
    if (r < 0)
        return r;
    if (len == 0 || utf8_decode(s, len, NULL) != len)
        return missing(t, key, "one character", err);
    memcpy(ret, s, len + 1);
    return 0;
}

/* {"String": "..."} or {"Regex": "..."}. */
static int get_pattern(const struct target *t, const json_t *o, struct pattern **ret, struct err *err)
{
    static const char *const keys[] = {"String", "Regex", NULL};
    const json_t *p = json_object_get(o, "pattern");
    const json_t *literal = json_object_get(p, "String"), *regex = json_object_get(p, "Regex");
    if (json_object_size(p) != 1)
        return missing(t, "pattern", "an object with one member, String or Regex", err);
    if (json_is_string(literal))
        return pattern_literal(json_string_value(literal), json_string_length(literal), ret, err);
    if (json_is_string(regex))
        return pattern_regex(json_string_value(regex), json_string_length(regex), ret, err);
    int r = hf_only_keys(p, "pattern", keys, err);
    return r < 0 ? r : missing(t, "pattern", "a string", err);
}

static const char *const type_only[] = {"type", NULL};

/* ---- normalizers ---- */

static int read_prepend(const struct target *t, const json_t *o, struct err *err)
{
    struct normalizer_step s = {.kind = NORMALIZER_PREPEND};
    int r = get_text(t, o, "prepend", &s.text, &s.text_len, err);
    return r < 0 ? r : normalizer_add(t->to, &s, err);
}

static int read_replace(const struct target *t, const json_t *o, struct err *err)
{
    struct normalizer_step s = {.kind = NORMALIZER_REPLACE};
    int r = get_text(t, o, "content", &s.text, &s.text_len, err);
    if (r >= 0)
        r = get_pattern(t, o, &s.pattern, err);
    return r < 0 ? r : normalizer_add(t->to, &s, err);
}

static int read_form(const struct target *t, const json_t *o, struct err *err)
{
    static const char *const names[] = {"NFC", "NFD", "NFKC", "NFKD"};
    static const enum normalizer_kind kinds[] = {NORMALIZER_NFC, NORMALIZER_NFD, NORMALIZER_NFKC, NORMALIZER_NFKD};
    size_t i = 0;
    while (strcmp(names[i], hf_type(o)) != 0)
        i++;
    return normalizer_add(t->to, &(struct normalizer_step){.kind = kinds[i]}, err);
}

static int read_lowercase(const struct target *t, const json_t *o, struct err *err)
{
    return normalizer_add(t->to, &(struct normalizer_step){.kind = NORMALIZER_LOWERCASE}, err);
}

static int read_strip(const struct target *t, const json_t *o, struct err *err)
{
    struct normalizer_step s = {.kind = NORMALIZER_STRIP};
    if (!json_is_boolean(json_object_get(o, "strip_left")) || !json_is_boolean(json_object_get(o, "strip_right")))
        return missing(t, "strip_left and strip_right", "true or false", err);
    s.left = json_is_true(json_object_get(o, "strip_left"));
    s.right = json_is_true(json_object_get(o, "strip_right"));
    return normalizer_add(t->to, &s, err);
}

static int read_precompiled(const struct target *t, const json_t *o, struct err *err)
{
    struct normalizer_step s = {.kind = NORMALIZER_PRECOMPILED};
    const char *text = NULL;
    size_t len = 0;
    int r = get_text(t, o, "precompiled_charsmap", &text, &len, err);
    if (r >= 0)
        r = charsmap_from_base64(text, len, &s.charsmap, err);
    return r < 0 ? r : normalizer_add(t->to, &s, err);
}

int hf_normalizer(struct normalizer *n, const json_t *o, struct err *err)
{
    static const char *const prepend_keys[] = {"type", "prepend", NULL}, *const replace_keys[] = {"type", "pattern", "content", NULL},
                             *const strip_keys[] = {"type", "strip_left", "strip_right", NULL},
                             *const map_keys[] = {"type", "precompiled_charsmap", NULL};
    static const struct row rows[] = {
        {"Prepend", prepend_keys, read_prepend},
        {"Replace", replace_keys, read_replace},
        {"NFC", type_only, read_form},
        {"NFD", type_only, read_form},
        {"NFKC", type_only, read_form},
        {"NFKD", type_only, read_form},
        {"Lowercase", type_only, read_lowercase},
        {"Strip", strip_keys, read_strip},
        {"Precompiled", map_keys, read_precompiled},
        {NULL, NULL, NULL},
    };
    return read_component(rows, &(struct target){.to = n, .part = "normalizer"}, o, "normalizers", err);
}

/* ---- pre-tokenizers ---- */

static int add_split(const struct target *t, struct pattern *p, enum split_behavior behavior, bool invert, struct err *err)
{
    return pretokenizer_add(
        t->to, &(struct pretokenizer_step){.kind = PRETOKENIZER_SPLIT, .pattern = p, .behavior = behavior, .invert = invert}, err);
}

static int get_behavior(const struct target *t, const json_t *o, enum split_behavior *ret, struct err *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(o, "behavior"));
    for (size_t i = 0; name && i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0) {
            *ret = (enum split_behavior)i;
            return 0;
        }
    return missing(t, "behavior", "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous", err);
}

static int read_split(const struct target *t, const json_t *o, struct err *err)
{
    enum split_behavior behavior = SPLIT_ISOLATED;
    bool invert = false;
    struct pattern *p = NULL;
    int r = get_behavior(t, o, &behavior, err);
    if (r >= 0)
        r = get_bool(t, o, "invert", &invert, err);
    if (r >= 0)
        r = get_pattern(t, o, &p, err);
    return r < 0 ? r : add_split(t, p, behavior, invert, err);
}

static bool prefix_space_of(const struct target *t, bool in_file)
{
    if (t->overrides->prefix_for_all)
        return true;
    return t->nested || t->overrides->lone_prefix == HF_PREFIX_AS_FILED ? in_file : t->overrides->lone_prefix == HF_PREFIX_YES;
}

static int read_byte_level(const struct target *t, const json_t *o, struct err *err)
{
    bool prefix = true, use_regex = true, trim = true;
    struct pattern *p = NULL;
    int r = get_bool(t, o, "add_prefix_space", &prefix, err);
    if (r >= 0)
        r = get_bool(t, o, "use_regex", &use_regex, err);
    if (r >= 0)
        r = get_bool(t, o, "trim_offsets", &trim, err);
    if (r >= 0 && prefix_space_of(t, prefix))
        r = pretokenizer_add(t->to, &(struct pretokenizer_step){.kind = PRETOKENIZER_PREFIX_SPACE}, err);
    if (r >= 0 && use_regex)
        r = pattern_regex(GPT2_SPLIT, strlen(GPT2_SPLIT), &p, err);
    if (r >= 0 && use_regex)
        r = add_split(t, p, SPLIT_ISOLATED, false, err);
    return r < 0 ? r : pretokenizer_add(t->to, &(struct pretokenizer_step){.kind = PRETOKENIZER_SPELL_BYTES}, err);
}

/* add_prefix_space is the older spelling of prepend_scheme. */
static int get_scheme(const struct target *t, const json_t *o, enum prepend_scheme *ret, struct err *err)
{
    static const char *const names[] = {"never", "first", "always"};
    const char *name = json_string_value(json_object_get(o, "prepend_scheme"));
    bool prefix = true;
    int r = get_bool(t, o, "add_prefix_space", &prefix, err);
    *ret = prefix ? PREPEND_ALWAYS : PREPEND_NEVER;
    if (r < 0 || !json_object_get(o, "prepend_scheme"))
        return r;
    for (size_t i = 0; name && i < 3; i++)
        if (strcmp(names[i], name) == 0) {
            *ret = (enum prepend_scheme)i;
            return prefix || *ret == PREPEND_NEVER ? 0 : missing(t, "prepend_scheme", "never where add_prefix_space is false", err);
        }
    return missing(t, "prepend_scheme", "never, first or always", err);
}

static int read_metaspace(const struct target *t, const json_t *o, struct err *err)
{
    struct pretokenizer_step s = {.kind = PRETOKENIZER_METASPACE};
    bool split = true;
    int r = get_char(t, o, "replacement", s.mark, err);
    if (r >= 0)
        r = get_scheme(t, o, &s.prepend, err);
    if (r >= 0)
        r = get_bool(t, o, "split", &split, err);
    if (r >= 0 && split)
        r = pattern_literal(s.mark, strlen(s.mark), &s.pattern, err);
    return r < 0 ? r : pretokenizer_add(t->to, &s, err);
}

static int add_class(const struct target *t, bool (*member)(uint32_t), enum split_behavior behavior, struct err *err)
{
    struct pattern *p = NULL;
    int r = pattern_class(member, &p, err);
    return r < 0 ? r : add_split(t, p, behavior, false, err);
}

static int read_digits(const struct target *t, const json_t *o, struct err *err)
{
    bool each = false;
    int r = get_bool(t, o, "individual_digits", &each, err);
    return r < 0 ? r : add_class(t, unicode_is_numeric, each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, err);
}

static int read_punctuation(const struct target *t, const json_t *o, struct err *err)
{
    enum split_behavior behavior = SPLIT_ISOLATED;
    int r = json_object_get(o, "behavior") ? get_behavior(t, o, &behavior, err) : 0;
    return r < 0 ? r : add_class(t, unicode_is_punctuation, behavior, err);
}

static int read_whitespace_split(const struct target *t, const json_t *o, struct err *err)
{
    return add_class(t, unicode_is_space, SPLIT_REMOVED, err);
}

/* \w+|[^\w\s]+ of Rust's regex. */
static int word_or_symbol(uint32_t cp)
{
    return unicode_is_word(cp) ? 1 : unicode_is_space(cp) ? 0 : 2;
}

static int read_whitespace(const struct target *t, const json_t *o, struct err *err)
{
    struct pattern *p = NULL;
    int r = pattern_runs(word_or_symbol, &p, err);
    return r < 0 ? r : add_split(t, p, SPLIT_REMOVED, true, err);
}

static int read_bert(const struct target *t, const json_t *o, struct err *err)
{
    int r = add_class(t, unicode_is_space, SPLIT_REMOVED, err);
    return r < 0 ? r : add_class(t, unicode_is_punctuation, SPLIT_ISOLATED, err);
}

static int read_delimiter(const struct target *t, const json_t *o, struct err *err)
{
    struct pattern *p = NULL;
    char delimiter[5];
    int r = get_char(t, o, "delimiter", delimiter, err);
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
    static const struct row rows[] = {
        {"ByteLevel", byte_keys, read_byte_level},
        {"Split", split_keys, read_split},
        {"Metaspace", meta_keys, read_metaspace},
        {"Digits", digit_keys, read_digits},
        {"Punctuation", behavior_keys, read_punctuation},
        {"Whitespace", type_only, read_whitespace},
        {"WhitespaceSplit", type_only, read_whitespace_split},
        {"BertPreTokenizer", type_only, read_bert},
        {"CharDelimiterSplit", char_keys, read_delimiter},
        {NULL, NULL, NULL},
    };
    return read_component(rows, &(struct target){.to = p, .overrides = overrides, .part = "pre_tokenizer"}, o, "pretokenizers", err);
}

/* ---- decoders ---- */

static int read_decoder_replace(const struct target *t, const json_t *o, struct err *err)
{
    struct decoder_step s = {.kind = DECODER_REPLACE};
    int r = get_text(t, o, "content", &s.text, &s.text_len, err);
    if (r >= 0)
        r = get_pattern(t, o, &s.pattern, err);
    return r < 0 ? r : decoder_add(t->to, &s, err);
}

static int read_decoder_strip(const struct target *t, const json_t *o, struct err *err)
{
    struct decoder_step s = {.kind = DECODER_STRIP};
    int64_t start = 0, stop = 0;
    int r = get_char(t, o, "content", s.mark, err);
    if (r >= 0 && (json_get_int(o, "", "start", 0, 1000, &start, NULL) < 0 || json_get_int(o, "", "stop", 0, 1000, &stop, NULL) < 0))
        r = missing(t, "start and stop", "integers in [0, 1000]", err);
    s.start = (size_t)start;
    s.stop = (size_t)stop;
    return r < 0 ? r : decoder_add(t->to, &s, err);
}

static int read_decoder_metaspace(const struct target *t, const json_t *o, struct err *err)
{
    struct decoder_step s = {.kind = DECODER_METASPACE};
    enum prepend_scheme scheme = PREPEND_NEVER;
    int r = get_char(t, o, "replacement", s.mark, err);
    if (r >= 0)
        r = get_scheme(t, o, &scheme, err);
    s.drop_first = r >= 0 && scheme != PREPEND_NEVER;
    return r < 0 ? r : decoder_add(t->to, &s, err);
}

static int read_plain_decoder(const struct target *t, const json_t *o, struct err *err)
{
    const char *type = hf_type(o);
    enum decoder_kind kind = strcmp(type, "Fuse") == 0           ? DECODER_FUSE
                             : strcmp(type, "ByteFallback") == 0 ? DECODER_BYTE_FALLBACK
                                                                 : DECODER_BYTE_LEVEL;
    return decoder_add(t->to, &(struct decoder_step){.kind = kind}, err);
}

int hf_decoder(struct decoder *d, const json_t *o, struct err *err)
{
    static const char *const replace_keys[] = {"type", "pattern", "content", NULL},
                             *const strip_keys[] = {"type", "content", "start", "stop", NULL},
                             *const byte_keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex", NULL},
                             *const meta_keys[] = {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep", NULL};
    static const struct row rows[] = {
        {"Replace", replace_keys, read_decoder_replace},
        {"Strip", strip_keys, read_decoder_strip},
        {"Metaspace", meta_keys, read_decoder_metaspace},
        {"Fuse", type_only, read_plain_decoder},
        {"ByteFallback", type_only, read_plain_decoder},
        {"ByteLevel", byte_keys, read_plain_decoder},
        {NULL, NULL, NULL},
    };
    d->none = !o || json_is_null(o);
    return read_component(rows, &(struct target){.to = d, .part = "decoder"}, o, "decoders", err);
}

/* ---- post-processors ---- */

static int put_ids(const struct target *t, const json_t *list, int32_t *ids, int *n, struct err *err)
{
    if (!json_is_array(list))
        return missing(t, "special_tokens", "objects with an array of ids", err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        if (!json_is_integer(json_array_get(list, i)) || id < 0 || id >= VOCAB_MAX_IDS || *n == TEMPLATE_MAX_IDS)
            return missing(t, "special_tokens", "at most 16 token ids", err);
        ids[(*n)++] = (int32_t)id;
    }
    return 0;
}

/* This template goes around what earlier ones made: its ids come first in front and last behind. */
static int wrap(const struct target *t, struct template_ids *own, struct err *err)
{
    struct template_ids *all = t->to;
    if (own->n_before + all->n_before > TEMPLATE_MAX_IDS || own->n_after + all->n_after > TEMPLATE_MAX_IDS)
        return missing(t, "single", "at most 16 ids on each side", err);
    memcpy(own->before + own->n_before, all->before, (size_t)all->n_before * sizeof(int32_t));
    memcpy(all->after + all->n_after, own->after, (size_t)own->n_after * sizeof(int32_t));
    memcpy(all->before, own->before, sizeof(all->before));
    all->n_before += own->n_before;
    all->n_after += own->n_after;
    return 0;
}

static int read_template(const struct target *t, const json_t *o, struct err *err)
{
    struct template_ids own = {0};
    const json_t *single = json_object_get(o, "single"), *specials = json_object_get(o, "special_tokens");
    bool seen = false;
    int r = 0;
    for (size_t i = 0; i < json_array_size(single) && r >= 0; i++) {
        const json_t *piece = json_array_get(single, i), *special = json_object_get(piece, "SpecialToken");
        const char *sequence = json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
        const char *name = json_string_value(json_object_get(special, "id"));
        if (name)
            r = put_ids(t, json_object_get(json_object_get(specials, name), "ids"), seen ? own.after : own.before,
                        seen ? &own.n_after : &own.n_before, err);
        else if (sequence && strcmp(sequence, "A") == 0 && !seen)
            seen = true;
        else
            r = missing(t, "single", "special tokens and the sequence A once", err);
    }
    if (r >= 0 && !seen)
        r = missing(t, "single", "special tokens and the sequence A once", err);
    return r < 0 ? r : wrap(t, &own, err);
}

/* ["token", id] */
static int get_named_id(const struct target *t, const json_t *o, const char *key, int32_t *ret, struct err *err)
{
    const json_t *id = json_array_get(json_object_get(o, key), 1);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= VOCAB_MAX_IDS)
        return missing(t, key, "a token and its id", err);
    *ret = (int32_t)json_integer_value(id);
    return 0;
}

/* BertProcessing and RobertaProcessing: one token in front and one behind. */
static int read_cls_sep(const struct target *t, const json_t *o, struct err *err)
{
    struct template_ids own = {.n_before = 1, .n_after = 1};
    int r = get_named_id(t, o, "cls", &own.before[0], err);
    if (r >= 0)
        r = get_named_id(t, o, "sep", &own.after[0], err);
    return r < 0 ? r : wrap(t, &own, err);
}

/* ByteLevel as a post-processor changes offsets only. */
static int read_nothing(const struct target *t, const json_t *o, struct err *err)
{
    return 0;
}

int hf_post_processor(struct template_ids *ids, const json_t *o, struct err *err)
{
    static const char *const template_keys[] = {"type", "single", "pair", "special_tokens", NULL},
                             *const byte_keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex", NULL},
                             *const bert_keys[] = {"type", "sep", "cls", NULL},
                             *const roberta_keys[] = {"type", "sep", "cls", "trim_offsets", "add_prefix_space", NULL};
    static const struct row rows[] = {
        {"TemplateProcessing", template_keys, read_template},
        {"BertProcessing", bert_keys, read_cls_sep},
        {"RobertaProcessing", roberta_keys, read_cls_sep},
        {"ByteLevel", byte_keys, read_nothing},
        {NULL, NULL, NULL},
    };
    return read_component(rows, &(struct target){.to = ids, .part = "post_processor"}, o, "processors", err);
}
