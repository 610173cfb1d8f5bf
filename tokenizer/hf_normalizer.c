/* tokenizer.json's normalizer, each type a row. */
#include "tokenizer/hf_component.h"
#include <string.h>

static int read_prepend(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct normalizer_step s = {.kind = NORMALIZER_PREPEND};
    int r = hf_get_text(t, o, "prepend", &s.text, &s.text_len, err);
    return r < 0 ? r : normalizer_add(t->to, &s, err);
}

static int read_replace(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct normalizer_step s = {.kind = NORMALIZER_REPLACE};
    int r = hf_get_text(t, o, "content", &s.text, &s.text_len, err);
    if (r >= 0)
        r = hf_get_pattern(t, o, &s.pattern, err);
    return r < 0 ? r : normalizer_add(t->to, &s, err);
}

static int read_form(const struct hf_target *t, const json_t *o, struct err *err)
{
    static const char *const names[] = {"NFC", "NFD", "NFKC", "NFKD"};
    static const enum normalizer_kind kinds[] = {NORMALIZER_NFC, NORMALIZER_NFD, NORMALIZER_NFKC, NORMALIZER_NFKD};
    size_t i = 0;
    while (strcmp(names[i], hf_type(o)) != 0)
        i++;
    return normalizer_add(t->to, &(struct normalizer_step){.kind = kinds[i]}, err);
}

static int read_lowercase(const struct hf_target *t, const json_t *o, struct err *err)
{
    return normalizer_add(t->to, &(struct normalizer_step){.kind = NORMALIZER_LOWERCASE}, err);
}

static int read_strip(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct normalizer_step s = {.kind = NORMALIZER_STRIP};
    if (!json_is_boolean(json_object_get(o, "strip_left")) || !json_is_boolean(json_object_get(o, "strip_right")))
        return hf_missing(t, "strip_left and strip_right", "true or false", err);
    s.left = json_is_true(json_object_get(o, "strip_left"));
    s.right = json_is_true(json_object_get(o, "strip_right"));
    return normalizer_add(t->to, &s, err);
}

static int read_precompiled(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct normalizer_step s = {.kind = NORMALIZER_PRECOMPILED};
    const char *text = NULL;
    size_t len = 0;
    int r = hf_get_text(t, o, "precompiled_charsmap", &text, &len, err);
    if (r >= 0)
        r = charsmap_from_base64(text, len, &s.charsmap, err);
    return r < 0 ? r : normalizer_add(t->to, &s, err);
}

int hf_normalizer(struct normalizer *n, const json_t *o, struct err *err)
{
    static const char *const prepend_keys[] = {"type", "prepend", NULL}, *const replace_keys[] = {"type", "pattern", "content", NULL},
                             *const strip_keys[] = {"type", "strip_left", "strip_right", NULL},
                             *const map_keys[] = {"type", "precompiled_charsmap", NULL};
    static const struct hf_row rows[] = {
        {"Prepend", prepend_keys, read_prepend},
        {"Replace", replace_keys, read_replace},
        {"NFC", hf_type_only, read_form},
        {"NFD", hf_type_only, read_form},
        {"NFKC", hf_type_only, read_form},
        {"NFKD", hf_type_only, read_form},
        {"Lowercase", hf_type_only, read_lowercase},
        {"Strip", strip_keys, read_strip},
        {"Precompiled", map_keys, read_precompiled},
        {NULL, NULL, NULL},
    };
    return hf_read_component(rows, &(struct hf_target){.to = n, .part = "normalizer"}, o, "normalizers", err);
}
