/* tokenizer.json's decoder, each type a row. */
#include "common/json.h"
#include "tokenizer/hf_component.h"
#include <string.h>

static int read_decoder_replace(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct decoder_step s = {.kind = DECODER_REPLACE};
    int r = hf_get_text(t, o, "content", &s.text, &s.text_len, err);
    if (r >= 0)
        r = hf_get_pattern(t, o, &s.pattern, err);
    return r < 0 ? r : decoder_add(t->to, &s, err);
}

static int read_decoder_strip(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct decoder_step s = {.kind = DECODER_STRIP};
    int64_t start = 0, stop = 0;
    int r = hf_get_char(t, o, "content", s.mark, err);
    if (r >= 0 && (json_get_int(o, "", "start", 0, 1000, &start, NULL) < 0 || json_get_int(o, "", "stop", 0, 1000, &stop, NULL) < 0))
        r = hf_missing(t, "start and stop", "integers in [0, 1000]", err);
    s.start = (size_t)start;
    s.stop = (size_t)stop;
    return r < 0 ? r : decoder_add(t->to, &s, err);
}

static int read_decoder_metaspace(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct decoder_step s = {.kind = DECODER_METASPACE};
    enum prepend_scheme scheme = PREPEND_NEVER;
    int r = hf_get_char(t, o, "replacement", s.mark, err);
    if (r >= 0)
        r = hf_get_scheme(t, o, &scheme, err);
    s.drop_first = r >= 0 && scheme != PREPEND_NEVER;
    return r < 0 ? r : decoder_add(t->to, &s, err);
}

static int read_plain_decoder(const struct hf_target *t, const json_t *o, struct err *err)
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
    static const struct hf_row rows[] = {
        {"Replace", replace_keys, read_decoder_replace},
        {"Strip", strip_keys, read_decoder_strip},
        {"Metaspace", meta_keys, read_decoder_metaspace},
        {"Fuse", hf_type_only, read_plain_decoder},
        {"ByteFallback", hf_type_only, read_plain_decoder},
        {"ByteLevel", byte_keys, read_plain_decoder},
        {NULL, NULL, NULL},
    };
    d->none = !o || json_is_null(o);
    return hf_read_component(rows, &(struct hf_target){.to = d, .part = "decoder"}, o, "decoders", err);
}
