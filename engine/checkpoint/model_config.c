/* Fills struct model_config. The list of keys is config_keys.c's, RoPE is rope_config.c's. */
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/config_keys.h"
#include "engine/checkpoint/rope_config.h"
#include "engine/checkpoint/ultradeep_config.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WHERE "config.json: "
#define MAX_CONFIG_BYTES (16 << 20)

static bool given(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v);
}

static int get_int(const json_t *c, const char *key, int min, int max, int *ret, struct err *err)
{
    int64_t v = *ret;
    int r = json_get_int(c, WHERE, key, min, max, &v, err);
    if (r >= 0)
        *ret = (int)v;
    return r;
}

static int read_sizes(const json_t *c, struct model_config *m, struct err *err)
{
    const struct {
        const char *key;
        int min, max;
        int *field;
    } sizes[] = {
        {"hidden_size", 2, 1 << 20, &m->hidden},
        {"intermediate_size", 1, 1 << 24, &m->ffn},
        {"num_hidden_layers", 1, MODEL_MAX_LAYERS, &m->n_layers},
        {"num_attention_heads", 1, 1 << 14, &m->n_heads},
        {"vocab_size", 2, 1 << 24, &m->vocab},
    };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (!given(c, sizes[i].key))
            return err_field(err, ERR_INVALID, sizes[i].key, WHERE "%s is missing", sizes[i].key);
        int r = get_int(c, sizes[i].key, sizes[i].min, sizes[i].max, sizes[i].field, err);
        if (r < 0)
            return r;
    }
    m->max_position_embeddings = 2048;
    return get_int(c, "max_position_embeddings", 1, 1 << 30, &m->max_position_embeddings, err);
}

static int read_heads(const json_t *c, struct model_config *m, struct err *err)
{
    m->n_kv_heads = m->n_heads;
    int r = get_int(c, "num_key_value_heads", 1, m->n_heads, &m->n_kv_heads, err);
    if (r < 0)
        return r;
    if (m->n_heads % m->n_kv_heads)
        return err_field(err, ERR_INVALID, "num_key_value_heads", WHERE "num_key_value_heads %d does not divide num_attention_heads %d",
                         m->n_kv_heads, m->n_heads);
    if (!given(c, "head_dim") && m->hidden % m->n_heads)
        return err_field(err, ERR_INVALID, "hidden_size",
                         WHERE "hidden_size %d is not a multiple of num_attention_heads %d, and head_dim is not given", m->hidden,
                         m->n_heads);
    m->head_dim = m->hidden / m->n_heads;
    r = get_int(c, "head_dim", 2, MODEL_MAX_HEAD_DIM, &m->head_dim, err);
    if (r >= 0 && (m->head_dim % 2 || m->head_dim < 2 || m->head_dim > MODEL_MAX_HEAD_DIM))
        r = err_field(err, ERR_UNSUPPORTED, "head_dim", WHERE "head_dim %d must be an even number from 2 to %d", m->head_dim,
                      MODEL_MAX_HEAD_DIM);
    return r;
}

static int read_switches(const json_t *c, struct model_config *m, struct err *err)
{
    double eps = 1e-6;
    int r = json_get_double(c, WHERE, "rms_norm_eps", 1e-30, 1, &eps, err);
    m->rms_eps = (float)eps;
    if (r >= 0)
        r = json_get_bool(c, WHERE, "tie_word_embeddings", &m->tied, err);
    if (r >= 0)
        r = json_get_bool(c, WHERE, "attention_bias", &m->attention_bias, err);
    if (r >= 0)
        r = json_get_bool(c, WHERE, "mlp_bias", &m->mlp_bias, err);
    int tp = 1; /* splits the same products; no change of meaning */
    return r >= 0 ? get_int(c, "pretraining_tp", 1, 1024, &tp, err) : r;
}

/* ---- names that must be the ones we compute -------------------------------------------------------------- */

static int need_name(const json_t *c, const char *key, const char *want, bool required, struct err *err)
{
    const char *s = required ? NULL : want;
    int r = json_get_string(c, WHERE, key, &s, NULL, err);
    if (r < 0)
        return r;
    if (!s)
        return err_field(err, ERR_INVALID, key, WHERE "%s is missing; it must be '%s'", key, want);
    return strcmp(s, want) ? err_field(err, ERR_UNSUPPORTED, key, WHERE "%s '%s' is not implemented; only '%s' is", key, s, want) : 0;
}

static int read_architectures(const json_t *c, struct err *err)
{
    static const char suffix[] = "LlamaForCausalLM"; /* the published files name it plainly; trained ones may add a prefix */
    const json_t *list = json_object_get(c, "architectures"), *v;
    if (!given(c, "architectures"))
        return 0;
    if (!json_is_array(list))
        return err_field(err, ERR_INVALID, "architectures", WHERE "architectures must be a list of names");
    size_t i;
    json_array_foreach ((json_t *)list, i, v) {
        const char *s = json_string_value(v);
        size_t n = s ? strlen(s) : 0;
        if (n < strlen(suffix) || strcmp(s + n - strlen(suffix), suffix))
            return err_field(err, ERR_UNSUPPORTED, "architectures",
                             WHERE "architectures[%zu] '%s' is not implemented; only LlamaForCausalLM is", i, s ? s : "(not a string)");
    }
    return 0;
}

static int read_dtype(const json_t *c, struct model_config *m, struct err *err)
{
    static const char *const names[] = {"float32", "bfloat16", "float16"}; /* in the order of enum dtype */
    static const char *const keys[] = {"torch_dtype", "dtype"};
    m->save_dtype = DTYPE_F32;
    for (int k = 0; k < 2; k++) {
        const char *s = NULL;
        int t = 0, r = json_get_string(c, WHERE, keys[k], &s, NULL, err);
        if (r < 0)
            return r;
        if (!s)
            continue;
        s = strncmp(s, "torch.", 6) ? s : s + 6;
        while (t < 3 && strcmp(s, names[t]))
            t++;
        if (t == 3)
            return err_field(err, ERR_UNSUPPORTED, keys[k], WHERE "%s '%s' is not implemented; float32, bfloat16 and float16 are", keys[k],
                             s);
        m->save_dtype = (enum dtype)t;
    }
    return 0;
}

static int read_names(const json_t *c, struct model_config *m, struct err *err)
{
    int r = need_name(c, "model_type", "llama", true, err);
    if (r >= 0)
        r = need_name(c, "hidden_act", "silu", false, err);
    if (r >= 0)
        r = read_architectures(c, err);
    return r >= 0 ? read_dtype(c, m, err) : r;
}

static int read_dense_layers(const json_t *c, struct model_config *m, struct err *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    int r = json_get_ids(c, WHERE, "dtrnet_layers", 0, m->n_layers - 1, MODEL_MAX_LAYERS, &ids, &n, err);
    if (r < 0)
        return r;
    m->has_dense_layers = given(c, "dtrnet_layers");
    memset(m->layout, m->has_dense_layers ? 'D' : 'T', (size_t)m->n_layers);
    for (size_t i = 0; i < n; i++)
        m->layout[ids[i]] = 'T';
    free(ids);
    return 0;
}

/* ---- BOS and EOS ------------------------------------------------------------------------------------------- */

struct special_ids {
    int32_t bos; /* -1: none */
    int32_t eos[MODEL_MAX_EOS];
    int n_eos;
};

static int read_eos(const json_t *obj, const char *where, int vocab, struct special_ids *ret, struct err *err)
{
    const json_t *v = json_object_get(obj, "eos_token_id");
    if (!json_is_array(v)) {
        int64_t id = ret->n_eos ? ret->eos[0] : -1;
        int r = json_get_int(obj, where, "eos_token_id", 0, vocab - 1, &id, err);
        ret->eos[0] = (int32_t)id;
        ret->n_eos = id >= 0;
        return r;
    }
    int32_t *ids = NULL;
    size_t n = 0;
    int r = json_get_ids(obj, where, "eos_token_id", 0, vocab - 1, MODEL_MAX_EOS, &ids, &n, err);
    if (r < 0)
        return r;
    memcpy(ret->eos, ids, n * sizeof(*ids));
    ret->n_eos = (int)n;
    free(ids);
    return 0;
}

/* Values that `obj` names replace those of *ret. A null keeps what is there in generation_config.json and means none in config.json. */
static int read_ids(const json_t *obj, const char *where, int vocab, struct special_ids *ret, struct err *err)
{
    int64_t bos = ret->bos;
    int r = json_get_int(obj, where, "bos_token_id", 0, vocab - 1, &bos, err);
    ret->bos = (int32_t)bos;
    return r >= 0 && given(obj, "eos_token_id") ? read_eos(obj, where, vocab, ret, err) : r;
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

static int read_special_ids(const json_t *config, const json_t *generation, const struct model_overrides *o, struct log *log,
                            struct model_config *m, struct err *err)
{
    struct special_ids ids = {.bos = 1, .eos = {2}, .n_eos = 1};
    if (json_object_get(config, "bos_token_id") || m->vocab <= 1)
        ids.bos = -1;
    if (json_object_get(config, "eos_token_id") || m->vocab <= 2)
        ids.n_eos = 0;
    int r = read_ids(config, WHERE, m->vocab, &ids, err);
    struct special_ids from_config = ids;
    if (r >= 0 && generation)
        r = read_ids(generation, "generation_config.json: ", m->vocab, &ids, err);
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

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static int read_rope(const json_t *config, const struct model_overrides *o, struct log *log, struct model_config *m, struct err *err)
{
    json_t *override = NULL;
    int r = 0;
    if (o && o->rope_scaling)
        r = json_parse(o->rope_scaling, strlen(o->rope_scaling), "rope_scaling_override", &override, err);
    if (r >= 0)
        r = rope_config_read(config, override, m->max_position_embeddings, log, &m->rope, err);
    if (r >= 0)
        m->default_max_model_len = rope_config_length(&m->rope, m->max_position_embeddings);
    json_decref(override);
    return r;
}

int model_config_from_json(const json_t *config, const json_t *generation, const struct model_overrides *o, struct log *log,
                           struct model_config *ret, struct err *err)
{
    struct model_config m = {0};
    if (!json_is_object(config))
        return err_set(err, ERR_INVALID, WHERE "the file must hold a JSON object");
    if (generation && !json_is_object(generation))
        return err_set(err, ERR_INVALID, "generation_config.json: the file must hold a JSON object");
    int r = read_names(config, &m, err);
    if (r >= 0)
        r = config_keys_check(config, err);
    if (r >= 0)
        r = read_sizes(config, &m, err);
    if (r >= 0)
        r = read_heads(config, &m, err);
    if (r >= 0)
        r = read_switches(config, &m, err);
    if (r >= 0)
        r = read_dense_layers(config, &m, err);
    if (r >= 0)
        r = ultradeep_config_read(config, o, &m, err);
    if (r >= 0)
        r = read_special_ids(config, generation, o, log, &m, err);
    if (r >= 0)
        r = read_rope(config, o, log, &m, err);
    if (r >= 0)
        *ret = m;
    return r;
}

static int load(const char *config_path, const char *generation_path, const struct model_overrides *o, struct log *log,
                struct model_config *ret, struct err *err)
{
    json_t *config = NULL, *generation = NULL;
    int r = json_parse_file(config_path, MAX_CONFIG_BYTES, &config, err);
    if (r >= 0 && generation_path && !access(generation_path, F_OK))
        r = json_parse_file(generation_path, MAX_CONFIG_BYTES, &generation, err);
    if (r >= 0)
        r = model_config_from_json(config, generation, o, log, ret, err);
    json_decref(config);
    json_decref(generation);
    return r;
}

int model_config_load_file(const char *path, const struct model_overrides *o, struct log *log, struct model_config *ret, struct err *err)
{
    return load(path, NULL, o, log, ret, err);
}

int model_config_load(const char *dir, const struct model_overrides *o, struct log *log, struct model_config *ret, struct err *err)
{
    char config[PATH_MAX], generation[PATH_MAX];
    if (snprintf(config, sizeof(config), "%s/config.json", dir) >= (int)sizeof(config) ||
        snprintf(generation, sizeof(generation), "%s/generation_config.json", dir) >= (int)sizeof(generation))
        return err_set(err, ERR_INVALID, "the model's path is longer than %d bytes", PATH_MAX - 32);
    return load(config, generation, o, log, ret, err);
}
