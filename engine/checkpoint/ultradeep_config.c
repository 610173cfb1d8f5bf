#include "engine/checkpoint/ultradeep_config.h"
#include "kernels/mamba.h"
#include <stdlib.h>
#include <string.h>

#define WHERE "config.json: "

static const char *const router_types[] = {"mlp", "mamba", NULL};                             /* in the order of enum router_type */
static const char *const norm_methods[] = {"none", "lns", "hybridnorm", "hybridnorm*", NULL}; /* of enum norm_method */
static const char *const routings[] = {"token_choice", "expert_choice", NULL};
static const char *const inferences[] = {"exact", "threshold", NULL}; /* of enum expert_inference */

const char *norm_method_name(enum norm_method n)
{
    return norm_methods[n];
}

const char *expert_inference_name(const struct model_config *c)
{
    return c->expert_choice ? inferences[c->expert_inference] : "none";
}

static bool given(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v);
}

static int find(const char *const *names, const char *s)
{
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], s))
            return i;
    return -1;
}

static int get_choice(const json_t *config, const char *key, const char *const *names, int *ret, struct err *err)
{
    const char *s = names[*ret];
    int r = json_get_string(config, WHERE, key, &s, NULL, err);
    int i = r >= 0 ? find(names, s) : 0;
    if (i < 0)
        return err_field(err, ERR_UNSUPPORTED, key, WHERE "%s '%.40s' is not implemented; '%s' and '%s'%s are", key, s, names[0], names[1],
                         names[2] ? ", 'hybridnorm' and 'hybridnorm*'" : "");
    *ret = i;
    return r;
}

/* ---- the layout ---------------------------------------------------------------------------------------------- */

/* Letter l of a string, or of a list of one-letter strings; 0: there is none. */
static char letter_at(const json_t *v, size_t l)
{
    const json_t *one = json_is_array(v) ? json_array_get(v, l) : v;
    size_t at = json_is_array(v) ? 0 : l, n = json_is_string(one) ? json_string_length(one) : 0;
    if (at >= n || (json_is_array(v) && n != 1))
        return 0;
    return json_string_value(one)[at];
}

static int read_layout(const json_t *v, struct model_config *m, struct err *err)
{
    if (!json_is_string(v) && !json_is_array(v))
        return err_field(err, ERR_INVALID, "layer_layout", WHERE "layer_layout must be a string or a list of letters");
    size_t n = json_is_array(v) ? json_array_size(v) : json_string_length(v);
    if (n != (size_t)m->n_layers)
        return err_field(err, ERR_INVALID, "layer_layout", WHERE "layer_layout has %zu letters, but num_hidden_layers is %d", n,
                         m->n_layers);
    for (size_t l = 0; l < n; l++) {
        char c = letter_at(v, l);
        if (!c || !strchr("TDS", c))
            return err_field(err, ERR_INVALID, "layer_layout", WHERE "layer_layout[%zu] must be \"T\", \"D\" or \"S\"", l);
        m->layout[l] = c;
    }
    m->has_layout = true;
    return 0;
}

/* dtrnet_layers beside a layout says the same thing twice, so the two must agree. */
static int compare_with_list(const struct model_config *m, const char *listed, struct err *err)
{
    for (int l = 0; m->has_dense_layers && l < m->n_layers; l++)
        if ((listed[l] == 'T') != (m->layout[l] == 'T'))
            return err_field(err, ERR_INVALID, "dtrnet_layers", WHERE "dtrnet_layers %s layer %d, which layer_layout calls %c",
                             listed[l] == 'T' ? "lists" : "leaves out", l, m->layout[l]);
    return 0;
}

static int read_layers(const json_t *config, struct model_config *m, struct err *err)
{
    char listed[MODEL_MAX_LAYERS];
    if (!given(config, "layer_layout"))
        return 0;
    memcpy(listed, m->layout, sizeof(listed));
    int r = read_layout(json_object_get(config, "layer_layout"), m, err);
    return r >= 0 ? compare_with_list(m, listed, err) : r;
}

static bool has_letter(const struct model_config *m, const char *letters)
{
    for (int l = 0; l < m->n_layers; l++)
        if (m->layout[l] && strchr(letters, m->layout[l]))
            return true;
    return false;
}

/* ---- routers ------------------------------------------------------------------------------------------------- */

static int get_int(const json_t *config, const char *key, int min, int max, int *ret, struct err *err)
{
    int64_t v = *ret;
    int r = json_get_int(config, WHERE, key, min, max, &v, err);
    *ret = (int)v;
    return r;
}

/* null and "auto" stand for ceil(router_dim / 16). */
static int read_dt_rank(const json_t *config, struct mamba_config *m, struct err *err)
{
    const json_t *v = json_object_get(config, "router_dt_rank");
    m->dt_rank = (m->dim + 15) / 16;
    if (json_is_string(v) && !strcmp(json_string_value(v), "auto"))
        return 0;
    return get_int(config, "router_dt_rank", 1, MAMBA_DT_MAX, &m->dt_rank, err);
}

static int read_mamba(const json_t *config, struct mamba_config *m, struct err *err)
{
    int expand = 2;
    *m = (struct mamba_config){.dim = 64, .d_state = 16, .d_conv = 4};
    int r = get_int(config, "router_dim", 1, MAMBA_INNER_MAX, &m->dim, err);
    if (r >= 0)
        r = get_int(config, "router_d_state", 1, MAMBA_STATE_MAX, &m->d_state, err);
    if (r >= 0)
        r = get_int(config, "router_d_conv", 2, MAMBA_CONV_MAX, &m->d_conv, err);
    if (r >= 0)
        r = get_int(config, "router_expand", 1, MAMBA_INNER_MAX, &expand, err);
    if (r >= 0)
        r = read_dt_rank(config, m, err);
    if (r >= 0 && (int64_t)expand * m->dim > MAMBA_INNER_MAX)
        r = err_field(err, ERR_UNSUPPORTED, "router_expand", WHERE "router_expand %d times router_dim %d is above %d", expand, m->dim,
                      MAMBA_INNER_MAX);
    m->inner = r < 0 ? 0 : expand * m->dim;
    return r;
}

static int read_router_type(const json_t *config, struct model_config *m, struct err *err)
{
    int type = ROUTER_TYPE_MLP;
    const char *s = json_string_value(json_object_get(config, "router_type"));
    if (s && find(routings, s) >= 0)
        return err_field(err, ERR_UNSUPPORTED, "router_type",
                         WHERE "router_type '%s' is a value of the key routing; router_type is 'mlp' or 'mamba'", s);
    int r = get_choice(config, "router_type", router_types, &type, err);
    m->router_type = (enum router_type)type;
    return r;
}

static int read_norm(const json_t *config, struct model_config *m, struct err *err)
{
    int method = NORM_METHOD_NONE;
    int r = get_choice(config, "norm_method", norm_methods, &method, err);
    m->norm_method = (enum norm_method)method;
    return r;
}

/* ---- expert choice --------------------------------------------------------------------------------------------- */

static int read_capacity(const json_t *config, const char *key, bool needed, double *ret, struct err *err)
{
    *ret = 0;
    int r = json_get_double(config, WHERE, key, 0, 1, ret, err);
    if (r < 0 || (!given(config, key) && !needed))
        return r;
    if (!given(config, key))
        return err_field(err, ERR_INVALID, key, WHERE "%s is missing; routing \"expert_choice\" needs it", key);
    return *ret > 0 ? 0 : err_field(err, ERR_INVALID, key, WHERE "%s %g must be above 0 and at most 1", key, *ret);
}

static int override_inference(const char *name, struct model_config *m, struct err *err)
{
    int i = find(inferences, name);
    if (i < 0)
        return err_field(err, ERR_INVALID, "expert_choice_override", "expert_choice_override must be exact or threshold, and is '%.40s'",
                         name);
    if (!m->expert_choice)
        return err_field(err, ERR_INVALID, "expert_choice_override",
                         "expert_choice_override %s needs a model whose routing is \"expert_choice\"", name);
    m->expert_inference = (enum expert_inference)i;
    return 0;
}

static int read_inference(const json_t *config, const struct model_overrides *o, struct model_config *m, struct err *err)
{
    int i = EXPERT_EXACT;
    if (!m->expert_choice && given(config, "expert_choice_inference"))
        return err_field(err, ERR_INVALID, "expert_choice_inference",
                         WHERE "expert_choice_inference must be absent where routing is \"token_choice\"");
    int r = get_choice(config, "expert_choice_inference", inferences, &i, err);
    m->expert_inference = (enum expert_inference)i;
    return r >= 0 && o && o->expert_choice ? override_inference(o->expert_choice, m, err) : r;
}

static int read_routing(const json_t *config, const struct model_overrides *o, struct model_config *m, struct err *err)
{
    int i = 0;
    int r = get_choice(config, "routing", routings, &i, err);
    m->expert_choice = i == 1;
    if (r >= 0)
        r = read_capacity(config, "attn_capacity", m->expert_choice && has_letter(m, "DS"), &m->attn_capacity, err);
    if (r >= 0)
        r = read_capacity(config, "exec_capacity", m->expert_choice && has_letter(m, "S"), &m->exec_capacity, err);
    return r >= 0 ? read_inference(config, o, m, err) : r;
}

int ultradeep_config_read(const json_t *config, const struct model_overrides *o, struct model_config *m, struct err *err)
{
    int r = read_layers(config, m, err);
    if (r >= 0)
        r = read_router_type(config, m, err);
    if (r >= 0)
        r = read_mamba(config, &m->mamba, err);
    if (r >= 0)
        r = read_norm(config, m, err);
    return r >= 0 ? read_routing(config, o, m, err) : r;
}
