/* Fills struct model_config. The list of keys is config_keys.c's, RoPE is rope_config.c's. */
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/config_keys.h"
#include "engine/checkpoint/model_hint.h"
#include "engine/checkpoint/relative_config.h"
#include "engine/checkpoint/rope_config.h"
#include "engine/checkpoint/special_ids_config.h"
#include "engine/checkpoint/ultradeep_config.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
    m->max_position_embeddings = model_type_info(m->type)->max_positions;
    return get_int(c, "max_position_embeddings", 1, 1 << 30, &m->max_position_embeddings, err);
}

static int read_heads(const json_t *c, struct model_config *m, struct err *err)
{
    const struct model_type_info *t = model_type_info(m->type);
    bool absent = !json_object_get(c, "num_key_value_heads"); /* null is another thing */
    m->n_kv_heads = absent && t->n_kv_heads ? t->n_kv_heads : m->n_heads;
    int r = get_int(c, "num_key_value_heads", 1, m->n_heads, &m->n_kv_heads, err);
    if (r < 0)
        return r;
    if (m->n_heads % m->n_kv_heads)
        return err_field(err, ERR_INVALID, "num_key_value_heads", WHERE "num_key_value_heads %d does not divide num_attention_heads %d",
                         m->n_kv_heads, m->n_heads);
    if (!given(c, "head_dim") && !t->head_dim && m->hidden % m->n_heads)
        return err_field(err, ERR_INVALID, "hidden_size",
                         WHERE "hidden_size %d is not a multiple of num_attention_heads %d, and head_dim is not given", m->hidden,
                         m->n_heads);
    m->head_dim = t->head_dim ? t->head_dim : m->hidden / m->n_heads;
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
    m->tied = model_type_info(m->type)->tied;
    if (r >= 0)
        r = json_get_bool(c, WHERE, "tie_word_embeddings", &m->tied, err);
    int tp = 1; /* splits the same products; no change of meaning */
    return r >= 0 ? get_int(c, "pretraining_tp", 1, 1024, &tp, err) : r;
}

/* ---- names that must be the ones we compute -------------------------------------------------------------- */

static int need_silu(const json_t *c, struct err *err)
{
    const char *s = "silu";
    int r = json_get_string(c, WHERE, "hidden_act", &s, NULL, err);
    if (r >= 0 && strcmp(s, "silu"))
        r = err_field(err, ERR_UNSUPPORTED, "hidden_act", WHERE "hidden_act '%.40s' is not implemented; only 'silu' is", s);
    return r;
}

static int read_type(const json_t *c, struct model_config *m, struct err *err)
{
    const char *s = NULL;
    int r = json_get_string(c, WHERE, "model_type", &s, NULL, err);
    if (r < 0)
        return r;
    if (!s)
        return err_field(err, ERR_INVALID, "model_type", WHERE "model_type is missing; %s are implemented", model_type_names);
    if (!model_type_of(s, &m->type))
        return err_field(err, ERR_UNSUPPORTED, "model_type", WHERE "model_type '%.40s' is not implemented; %s are", s, model_type_names);
    return 0;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* The published files name the class plainly; trained ones may add a prefix. */
static int read_architectures(const json_t *c, const struct model_config *m, struct err *err)
{
    const struct model_type_info *t = model_type_info(m->type);
    const json_t *list = json_object_get(c, "architectures"), *v;
    if (!given(c, "architectures"))
        return 0;
    if (!json_is_array(list))
        return err_field(err, ERR_INVALID, "architectures", WHERE "architectures must be a list of names");
    size_t i;
    json_array_foreach ((json_t *)list, i, v) {
        const char *s = json_string_value(v);
        bool ok = false;
        for (int k = 0; s && t->classes[k]; k++)
            ok |= ends_with(s, t->classes[k]);
        if (!ok)
            return err_field(err, ERR_UNSUPPORTED, "architectures",
                             WHERE "architectures[%zu] '%.60s' is not implemented with model_type %s; only %s is", i,
                             s ? s : "(not a string)", t->name, t->classes[0]);
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
    int r = read_type(c, m, err);
    if (r >= 0)
        r = need_silu(c, err);
    if (r >= 0)
        r = read_architectures(c, m, err);
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

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static int read_rope(const json_t *config, const struct model_overrides *o, struct log *log, struct model_config *m, struct err *err)
{
    const struct model_type_info *t = model_type_info(m->type);
    const char *factor = o && o->rope_factor ? o->rope_factor : NULL;
    const struct rope_rules rules = {.max_positions = m->max_position_embeddings,
                                     .theta = t->theta,
                                     .ratio = factor ? !strcmp(factor, "ratio") : !t->factor_counts,
                                     .asked = factor != NULL};
    json_t *override = NULL;
    int r = 0;
    if (factor && strcmp(factor, "ratio") && strcmp(factor, "config"))
        return err_field(err, ERR_INVALID, "rope_factor_override", "rope_factor_override must be config or ratio, and is '%.40s'", factor);
    if (o && o->rope_scaling)
        r = json_parse(o->rope_scaling, strlen(o->rope_scaling), "rope_scaling_override", &override, err);
    if (r >= 0)
        r = rope_config_read(config, override, &rules, log, &m->rope, err);
    if (r >= 0)
        m->default_max_model_len = rope_config_length(&m->rope, m->max_position_embeddings);
    json_decref(override);
    return r;
}

static int read_all(const json_t *config, const json_t *generation, const struct model_overrides *o, struct log *log,
                    struct model_config *m, struct err *err)
{
    int r = config_keys_check(config, m->type, err);
    if (r >= 0)
        r = read_sizes(config, m, err);
    if (r >= 0)
        r = read_heads(config, m, err);
    if (r >= 0)
        r = read_switches(config, m, err);
    if (r >= 0)
        r = read_dense_layers(config, m, err);
    if (r >= 0)
        r = ultradeep_config_read(config, o, m, err);
    if (r >= 0)
        r = relative_config_read(config, m, err);
    if (r >= 0)
        r = special_ids_config_read(config, generation, o, log, m, err);
    return r >= 0 ? read_rope(config, o, log, m, err) : r;
}

int model_config_from_json(const json_t *config, const json_t *generation, const struct model_overrides *o, struct log *log,
                           struct model_config *ret, struct err *err)
{
    struct model_config m = {0};
    json_t *rest = NULL; /* without the keys that the user vouches for */
    if (!json_is_object(config))
        return err_set(err, ERR_INVALID, WHERE "the file must hold a JSON object");
    if (generation && !json_is_object(generation))
        return err_set(err, ERR_INVALID, "generation_config.json: the file must hold a JSON object");
    int r = read_names(config, &m, err);
    if (r >= 0)
        r = config_keys_pass_over(config, o ? o->accept_keys : NULL, m.type, log, &rest, err);
    if (r >= 0)
        r = read_all(rest, generation, o, log, &m, err);
    if (r >= 0)
        *ret = m;
    json_decref(rest);
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

int model_config_path(const char *dir, char ret[PATH_MAX], struct err *err)
{
    struct stat st;
    size_t n = strlen(dir);
    bool file = n > 5 && !strcmp(dir + n - 5, ".json") && !stat(dir, &st) && S_ISREG(st.st_mode);
    if (n > PATH_MAX - 32)
        return err_set(err, ERR_INVALID, "the model's path is longer than %d bytes", PATH_MAX - 32);
    snprintf(ret, PATH_MAX, file ? "%s" : "%s/config.json", dir);
    return 0;
}

int model_config_load(const char *dir, const struct model_overrides *o, struct log *log, struct model_config *ret, struct err *err)
{
    char config[PATH_MAX], generation[PATH_MAX];
    int r = model_config_path(dir, config, err);
    if (r < 0)
        return r;
    snprintf(generation, sizeof(generation), "%s/generation_config.json", dir);
    if (access(config, F_OK))
        return model_hint_no_config(dir, err);
    return load(config, generation, o, log, ret, err);
}
