#include "engine/checkpoint/relative_config.h"
#include <stdlib.h>
#include <string.h>

#define WHERE "config.json: "
#define MAX_WINDOW (1 << 30)

static bool given(const json_t *c, const char *key)
{
    const json_t *v = json_object_get(c, key);
    return v && !json_is_null(v);
}

static int get_int(const json_t *c, const char *key, int min, int max, int *ret, struct err *err)
{
    int64_t v = *ret;
    int r = json_get_int(c, WHERE, key, min, max, &v, err);
    *ret = (int)v;
    return r;
}

/* ---- biases ------------------------------------------------------------------------------------------------------ */

static int read_biases(const json_t *c, struct model_config *m, struct err *err)
{
    const struct model_type_info *t = model_type_info(m->type);
    bool attention = false, mlp = false;
    int r = json_get_bool(c, WHERE, "attention_bias", &attention, err);
    if (r >= 0)
        r = json_get_bool(c, WHERE, "mlp_bias", &mlp, err);
    m->qkv_bias = t->bias == BIAS_QKV || (t->bias == BIAS_BY_KEY && attention);
    m->o_bias = t->bias == BIAS_BY_KEY && attention;
    m->mlp_bias = t->mlp_bias && mlp;
    return r;
}

/* ---- layers without positions -------------------------------------------------------------------------------------- */

/* no_rope_layers has a number a layer, and 1 means that the layer has positions. Without it every no_rope_layer_interval-th has none. */
static int read_no_rope(const json_t *c, struct model_config *m, struct err *err)
{
    const json_t *list = json_object_get(c, "no_rope_layers");
    int interval = 4;
    if (!model_type_info(m->type)->no_rope)
        return 0;
    int r = get_int(c, "no_rope_layer_interval", 1, MODEL_MAX_LAYERS, &interval, err);
    for (int l = 0; r >= 0 && l < m->n_layers; l++)
        m->no_rope[l] = (l + 1) % interval == 0;
    if (r < 0 || !given(c, "no_rope_layers"))
        return r;
    if (!json_is_array(list) || json_array_size(list) != (size_t)m->n_layers)
        return err_field(err, ERR_INVALID, "no_rope_layers", WHERE "no_rope_layers must be a list of %d numbers, one a layer", m->n_layers);
    for (int l = 0; l < m->n_layers; l++) {
        const json_t *v = json_array_get(list, (size_t)l);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 1)
            return err_field(err, ERR_INVALID, "no_rope_layers", WHERE "no_rope_layers[%d] must be 0 (no positions) or 1", l);
        m->no_rope[l] = json_integer_value(v) == 0;
    }
    return 0;
}

/* ---- windows ------------------------------------------------------------------------------------------------------- */

/* The width that the keys give if some layer has a window; 0: none. */
static int read_width(const json_t *c, const struct model_config *m, int *ret, struct err *err)
{
    const struct model_type_info *t = model_type_info(m->type);
    bool use = t->window_rule == WINDOW_ALWAYS;
    int width = json_object_get(c, "sliding_window") ? 0 : t->window;
    int r = json_get_bool(c, WHERE, "use_sliding_window", &use, err);
    if (r >= 0 && !json_is_false(json_object_get(c, "sliding_window")))
        r = get_int(c, "sliding_window", 1, MAX_WINDOW, &width, err);
    if (r >= 0 && m->type == MODEL_LLAMA && use && width == 0 && given(c, "use_sliding_window"))
        return err_field(err, ERR_UNSUPPORTED, "use_sliding_window",
                         WHERE "use_sliding_window = true is not implemented without sliding_window");
    *ret = r >= 0 && use ? width : 0;
    return r;
}

/* layer_types, where it is given, says which layers have one. */
static int read_layer_types(const json_t *c, const struct model_config *m, bool *ret_given, bool *ret_any, struct err *err)
{
    const json_t *list = json_object_get(c, "layer_types"), *v;
    size_t i;
    *ret_given = given(c, "layer_types") && !(json_is_array(list) && !json_array_size(list));
    *ret_any = false;
    if (!*ret_given)
        return 0;
    if (!json_is_array(list))
        return err_field(err, ERR_INVALID, "layer_types", WHERE "layer_types must be a list of names");
    json_array_foreach ((json_t *)list, i, v) {
        const char *s = json_string_value(v);
        bool sliding = s && !strcmp(s, "sliding_attention");
        if (!sliding && (!s || strcmp(s, "full_attention")))
            return err_field(err, ERR_UNSUPPORTED, "layer_types",
                             WHERE "layer_types[%zu] '%.40s' is not implemented; full_attention and sliding_attention are", i,
                             s ? s : "(not a string)");
        *ret_any |= sliding;
    }
    return 0;
}

/* Without layer_types. */
static int has_windows(const json_t *c, const struct model_config *m, bool *ret, struct err *err)
{
    enum window_rule rule = model_type_info(m->type)->window_rule;
    int from = 28; /* transformers' default of max_window_layers */
    int r = rule == WINDOW_FROM ? get_int(c, "max_window_layers", 0, 1 << 20, &from, err) : 0;
    *ret = rule == WINDOW_ALWAYS || (rule == WINDOW_FROM && from < m->n_layers);
    for (int l = 0; rule == WINDOW_NO_ROPE && l < m->n_layers; l++)
        *ret |= m->no_rope[l];
    return r;
}

static int read_window(const json_t *c, struct model_config *m, struct err *err)
{
    int width = 0;
    bool listed, any;
    int r = read_width(c, m, &width, err);
    if (r >= 0)
        r = read_layer_types(c, m, &listed, &any, err);
    if (r >= 0 && listed && any && width == 0)
        r = err_field(err, ERR_UNSUPPORTED, "layer_types",
                      WHERE "layer_types has \"sliding_attention\", but no key says how wide the window is (sliding_window%s)",
                      model_type_info(m->type)->window_rule == WINDOW_ALWAYS ? "" : " with use_sliding_window");
    if (r < 0)
        return r;
    if (!listed || m->type == MODEL_MISTRAL) /* whose class does not read the list */
        r = has_windows(c, m, &any, err);
    m->window = any ? width : 0;
    return r;
}

/* ---- routed layers --------------------------------------------------------------------------------------------------- */

static int refuse_routing(const struct model_config *m, struct err *err)
{
    const struct {
        const char *key;
        bool set;
    } keys[] = {
        {"dtrnet_layers", m->has_dense_layers},
        {"layer_layout", m->has_layout},
        {"norm_method", m->norm_method != NORM_METHOD_NONE},
        {"router_type", m->router_type != ROUTER_TYPE_MLP},
        {"routing", m->expert_choice},
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && m->type != MODEL_LLAMA; i++)
        if (keys[i].set)
            return err_field(err, ERR_UNSUPPORTED, keys[i].key, WHERE "%s goes with model_type llama alone, and model_type is %s",
                             keys[i].key, model_type_info(m->type)->name);
    return 0;
}

int relative_config_read(const json_t *config, struct model_config *m, struct err *err)
{
    m->qk_norm = model_type_info(m->type)->qk_norm;
    int r = refuse_routing(m, err);
    if (r >= 0)
        r = read_biases(config, m, err);
    if (r >= 0)
        r = read_no_rope(config, m, err);
    return r >= 0 ? read_window(config, m, err) : r;
}
