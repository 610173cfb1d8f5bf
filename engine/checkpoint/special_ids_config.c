#include "engine/checkpoint/special_ids_config.h"
#include <math.h>
#include <string.h>

static bool given(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v);
}

struct special_ids {
    int32_t bos; /* -1: none */
    int32_t eos[MODEL_MAX_EOS];
    int n_eos;
};

/* An id that no token can be stands for none, as it does in transformers: -1, or one beyond the vocabulary. */
static int read_id(const json_t *v, const char *where, const char *key, int vocab, struct log *log, int32_t *ret, struct err *err)
{
    double id = json_number_value(v);
    if (!json_is_number(v) || id != rint(id))
        return err_field(err, ERR_INVALID, key, "%s%s must be a whole number, or a list of them", where, key);
    *ret = id >= 0 && id < vocab ? (int32_t)id : -1;
    if (*ret < 0)
        log_warn(log, "%s%s is %.15g, which is not an id of the vocabulary of %d: no such token", where, key, id, vocab);
    return 0;
}

static int read_eos(const json_t *v, const char *where, int vocab, struct log *log, struct special_ids *ret, struct err *err)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > MODEL_MAX_EOS)
        return err_field(err, ERR_INVALID, "eos_token_id", "%seos_token_id has %zu ids, and at most %d are read", where, n, MODEL_MAX_EOS);
    ret->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = -1;
        int r = read_id(json_is_array(v) ? json_array_get(v, i) : v, where, "eos_token_id", vocab, log, &id, err);
        if (r < 0)
            return r;
        if (id >= 0)
            ret->eos[ret->n_eos++] = id;
    }
    return 0;
}

/* Values that `obj` names replace those of *ret. A null keeps what is there in generation_config.json and means none in config.json. */
static int read_ids(const json_t *obj, const char *where, int vocab, struct log *log, struct special_ids *ret, struct err *err)
{
    int r = 0;
    if (given(obj, "bos_token_id"))
        r = read_id(json_object_get(obj, "bos_token_id"), where, "bos_token_id", vocab, log, &ret->bos, err);
    if (r >= 0 && given(obj, "eos_token_id"))
        r = read_eos(json_object_get(obj, "eos_token_id"), where, vocab, log, ret, err);
    return r;
}

static bool same_eos(const struct special_ids *a, const struct special_ids *b)
{
    return a->n_eos == b->n_eos && !memcmp(a->eos, b->eos, (size_t)a->n_eos * sizeof(a->eos[0]));
}

static void warn_about_ids(struct log *log, const struct special_ids *config, const struct special_ids *generation)
{
    if (config->bos != generation->bos)
        log_warn(log, "bos_token_id is %d in config.json and %d in generation_config.json: %d is used", config->bos, generation->bos,
                 generation->bos);
    if (!same_eos(config, generation))
        log_warn(log, "eos_token_id begins with %d in config.json and with %d in generation_config.json: generation_config.json's is used",
                 config->n_eos ? config->eos[0] : -1, generation->n_eos ? generation->eos[0] : -1);
}

static int override_id(const char *field, int id, int vocab, struct err *err)
{
    return id < vocab ? 0 : err_field(err, ERR_INVALID, field, "%s %d must be below the vocabulary size %d", field, id, vocab);
}

int special_ids_config_read(const json_t *config, const json_t *generation, const struct model_overrides *o, struct log *log,
                            struct model_config *m, struct err *err)
{
    const struct model_type_info *t = model_type_info(m->type);
    struct special_ids ids = {.bos = t->bos, .eos = {t->eos}, .n_eos = 1};
    if (json_object_get(config, "bos_token_id") || m->vocab <= t->bos)
        ids.bos = -1;
    if (json_object_get(config, "eos_token_id") || m->vocab <= t->eos || t->eos < 0)
        ids.n_eos = 0;
    int r = read_ids(config, "config.json: ", m->vocab, log, &ids, err);
    struct special_ids from_config = ids;
    if (r >= 0 && generation)
        r = read_ids(generation, "generation_config.json: ", m->vocab, log, &ids, err);
    if (r >= 0 && o)
        r = override_id("bos_id", o->bos_id, m->vocab, err);
    if (r >= 0 && o)
        r = override_id("eos_id", o->eos_id, m->vocab, err);
    if (r < 0)
        return r;
    if (generation)
        warn_about_ids(log, &from_config, &ids);
    m->bos_id = o && o->bos_id >= 0 ? o->bos_id : ids.bos;
    m->n_eos = o && o->eos_id >= 0 ? 1 : ids.n_eos;
    memcpy(m->eos_ids, ids.eos, sizeof(m->eos_ids));
    if (o && o->eos_id >= 0)
        m->eos_ids[0] = o->eos_id;
    m->eos_id = m->n_eos ? m->eos_ids[0] : -1;
    return 0;
}
