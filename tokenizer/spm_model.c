/* The file, and who reads it. */
#include "tokenizer/spm_model.h"
#include "common/mapfile.h"
#include "tokenizer/spm_parts.h"

int spm_no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for tokenizer.model");
}

int spm_fill_frame(struct pipeline *p, json_t *frame, struct err *err)
{
    static const struct hf_overrides none = {0};
    int r = frame ? hf_components_fill(p, frame, &none, err) : spm_no_memory(err);
    json_decref(frame);
    return r;
}

static const char *const type_names[] = {[SPM_UNIGRAM] = "unigram", [SPM_BPE] = "bpe", [SPM_WORD] = "word", [SPM_CHAR] = "char"};

static int fill(struct pipeline *p, const struct spm_source *m, struct settings *s, struct err *err)
{
    const struct class_rules *rules = class_rules_of(s->class, s->rules);
    if (m->facts.model_type == SPM_WORD || m->facts.model_type == SPM_CHAR)
        return err_set(err, ERR_UNSUPPORTED, "tokenizer.model: model type %s is not supported", type_names[m->facts.model_type]);
    if (!rules->takes_spm)
        return err_set(err, ERR_UNSUPPORTED, "tokenizer.model under tokenizer_class \"%s\" is not supported without a tokenizer.json",
                       s->class->name);
    return s->rules == TOKENIZER_RULES_4 ? spm_fill_4(p, m, s, err)
           : rules->frame                ? spm_fill_5_class(p, m, s, err)
                                         : spm_fill_5(p, m, s, err);
}

int spm_model_fill(struct pipeline *p, const unsigned char *data, size_t len, struct settings *s, struct err *err)
{
    struct spm_source m = {0};
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
