/* tokenizer.json's post_processor, each type a row. */
#include "tokenizer/hf_component.h"
#include <string.h>

static int put_ids(const struct hf_target *t, const json_t *list, int32_t *ids, int *n, struct err *err)
{
    if (!json_is_array(list))
        return hf_missing(t, "special_tokens", "objects with an array of ids", err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        if (!json_is_integer(json_array_get(list, i)) || id < 0 || id >= VOCAB_MAX_IDS || *n == TEMPLATE_MAX_IDS)
            return hf_missing(t, "special_tokens", "at most 16 token ids", err);
        ids[(*n)++] = (int32_t)id;
    }
    return 0;
}

/* This template goes around what earlier ones made: its ids come first in front and last behind. */
static int wrap(const struct hf_target *t, struct template_ids *own, struct err *err)
{
    struct template_ids *all = t->to;
    if (own->n_before + all->n_before > TEMPLATE_MAX_IDS || own->n_after + all->n_after > TEMPLATE_MAX_IDS)
        return hf_missing(t, "single", "at most 16 ids on each side", err);
    memcpy(own->before + own->n_before, all->before, (size_t)all->n_before * sizeof(int32_t));
    memcpy(all->after + all->n_after, own->after, (size_t)own->n_after * sizeof(int32_t));
    memcpy(all->before, own->before, sizeof(all->before));
    all->n_before += own->n_before;
    all->n_after += own->n_after;
    return 0;
}

static int read_template(const struct hf_target *t, const json_t *o, struct err *err)
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
            r = hf_missing(t, "single", "special tokens and the sequence A once", err);
    }
    if (r >= 0 && !seen)
        r = hf_missing(t, "single", "special tokens and the sequence A once", err);
    return r < 0 ? r : wrap(t, &own, err);
}

/* ["token", id] */
static int get_named_id(const struct hf_target *t, const json_t *o, const char *key, int32_t *ret, struct err *err)
{
    const json_t *id = json_array_get(json_object_get(o, key), 1);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= VOCAB_MAX_IDS)
        return hf_missing(t, key, "a token and its id", err);
    *ret = (int32_t)json_integer_value(id);
    return 0;
}

/* BertProcessing and RobertaProcessing: one token in front and one behind. */
static int read_cls_sep(const struct hf_target *t, const json_t *o, struct err *err)
{
    struct template_ids own = {.n_before = 1, .n_after = 1};
    int r = get_named_id(t, o, "cls", &own.before[0], err);
    if (r >= 0)
        r = get_named_id(t, o, "sep", &own.after[0], err);
    return r < 0 ? r : wrap(t, &own, err);
}

/* ByteLevel as a post-processor changes offsets only. */
static int read_nothing(const struct hf_target *t, const json_t *o, struct err *err)
{
    return 0;
}

int hf_post_processor(struct template_ids *ids, const json_t *o, struct err *err)
{
    static const char *const template_keys[] = {"type", "single", "pair", "special_tokens", NULL},
                             *const byte_keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex", NULL},
                             *const bert_keys[] = {"type", "sep", "cls", NULL},
                             *const roberta_keys[] = {"type", "sep", "cls", "trim_offsets", "add_prefix_space", NULL};
    static const struct hf_row rows[] = {
        {"TemplateProcessing", template_keys, read_template},
        {"BertProcessing", bert_keys, read_cls_sep},
        {"RobertaProcessing", roberta_keys, read_cls_sep},
        {"ByteLevel", byte_keys, read_nothing},
        {NULL, NULL, NULL},
    };
    return hf_read_component(rows, &(struct hf_target){.to = ids, .part = "post_processor"}, o, "processors", err);
}
