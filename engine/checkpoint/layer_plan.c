/* Which router a layer has is read from tensor names; where the config or the published layouts say which layers are routed, the two
 * must agree, since a wrong pairing would run and give wrong numbers. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/safetensors.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const family_names[] = {"dense", "dtrnet", "mod", "dllm"};

/* A routed layer of each family. */
static const struct layer_plan records[] = {
    [FAMILY_DENSE] = {0},
    [FAMILY_DTRNET] =
        {.router = ROUTER_MLP, .below = DECISION_LINEAR, .above = DECISION_ATTEND, .attn_gate = GATE_CHOSEN, .kv = KV_ATTENDING},
    [FAMILY_MOD] = {.router = ROUTER_MOD,
                    .below = DECISION_SKIP,
                    .above = DECISION_ATTEND,
                    .layer_gate = GATE_ADD,
                    .kv = KV_ATTENDING,
                    .expert1 = true},
    [FAMILY_DLLM] = {.router = ROUTER_DLLM,
                     .decide = DECIDE_HALF_INCLUSIVE,
                     .below = DECISION_SKIP,
                     .above = DECISION_ATTEND,
                     .kv = KV_ALL,
                     .forced = 2},
};

int layer_plan_find_family(const char *name, enum family *ret)
{
    for (int f = FAMILY_DENSE; f <= FAMILY_DLLM; f++)
        if (!strcmp(name, family_names[f])) {
            *ret = (enum family)f;
            return 0;
        }
    return ERR_INVALID;
}

const char *layer_plan_kind(const struct layer_plan *p)
{
    switch (p->router) {
    case ROUTER_MLP: return family_names[FAMILY_DTRNET];
    case ROUTER_MOD: return family_names[FAMILY_MOD];
    case ROUTER_DLLM: return family_names[FAMILY_DLLM];
    case ROUTER_NONE: break;
    }
    return family_names[FAMILY_DENSE];
}

const char *layer_plan_family(const struct layer_plan *plan, int n_layers)
{
    for (int l = 0; l < n_layers; l++)
        if (layer_is_routed(&plan[l]))
            return layer_plan_kind(&plan[l]);
    return family_names[FAMILY_DENSE];
}

/* ---- from tensor names --------------------------------------------------------------------------------- */

static bool layer_has(const struct safetensors *s, int layer, const char *tail)
{
    char name[128];
    snprintf(name, sizeof(name), "model.layers.%d.%s", layer, tail);
    return safetensors_find(s, name) != NULL;
}

static int family_of_layer(const struct safetensors *s, int l, enum family *ret, struct err *err)
{
    static const struct {
        const char *tail;
        enum family family;
    } marks[] = {
        {"router.weight_predictor.0.weight", FAMILY_DTRNET},
        {"router.weight_predictor.weight", FAMILY_MOD},
        {"router.linear_1.weight", FAMILY_DLLM},
    };
    *ret = FAMILY_DENSE;
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (!layer_has(s, l, marks[i].tail))
            continue;
        if (*ret != FAMILY_DENSE)
            return err_set(err, ERR_CORRUPT, "layer %d has the router of a %s layer and of a %s layer", l, family_names[*ret],
                           family_names[marks[i].family]);
        *ret = marks[i].family;
    }
    return 0;
}

static int read_families(const struct model_config *c, const struct safetensors *s, struct layer_plan *plan, enum family *ret_family,
                         struct err *err)
{
    enum family family = FAMILY_DENSE;
    int family_layer = 0;
    for (int l = 0; l < c->n_layers; l++) {
        enum family k;
        int r = family_of_layer(s, l, &k, err);
        if (r < 0)
            return r;
        if (k != FAMILY_DENSE && family != FAMILY_DENSE && k != family)
            return err_set(err, ERR_UNSUPPORTED, "layer %d is a %s layer and layer %d a %s layer; such a mix is not implemented",
                           family_layer, family_names[family], l, family_names[k]);
        if (k != FAMILY_DENSE && family == FAMILY_DENSE) {
            family = k;
            family_layer = l;
        }
        plan[l] = records[k];
    }
    *ret_family = family;
    return 0;
}

/* ---- what the config and the published layouts say -------------------------------------------------------- */

static bool routed_by_layout(const struct model_config *c, enum family family, int l)
{
    switch (family) {
    case FAMILY_DTRNET: return !c->dense_layers[l];
    case FAMILY_MOD: return l % 2 == 1;
    case FAMILY_DLLM: return l >= 2;
    default: return false;
    }
}

/* A file that lists dense layers is a DTRNet, even one whose layers are all dense. */
static int check_list(const struct model_config *c, enum family family, struct err *err)
{
    if (family == FAMILY_DTRNET && !c->has_dense_layers)
        return err_field(err, ERR_INVALID, "dtrnet_layers",
                         "config.json: dtrnet_layers is missing, but the tensors are a DTRNet's; [] means that every layer is routed");
    if ((family == FAMILY_MOD || family == FAMILY_DLLM) && c->has_dense_layers)
        return err_field(err, ERR_INVALID, "dtrnet_layers", "config.json: dtrnet_layers must be null for a %s checkpoint",
                         family_names[family]);
    return 0;
}

static int check_layout(const struct model_config *c, enum family family, const struct layer_plan *plan, struct err *err)
{
    enum family expected = family == FAMILY_DENSE && c->has_dense_layers ? FAMILY_DTRNET : family;
    for (int l = 0; l < c->n_layers; l++) {
        bool want = routed_by_layout(c, expected, l), is = layer_is_routed(&plan[l]);
        if (want == is)
            continue;
        if (expected == FAMILY_DTRNET)
            return err_field(err, ERR_CORRUPT, "dtrnet_layers",
                             "config.json: dtrnet_layers %s layer %d, but the tensors %s a router for it", want ? "leaves out" : "lists", l,
                             is ? "hold" : "lack");
        return err_set(err, ERR_CORRUPT, "layer %d of this %s checkpoint should be %s, but the tensors %s a router for it", l,
                       family_names[family], want ? "routed" : "dense", is ? "hold" : "lack");
    }
    return 0;
}

/* ---- --dense-layers ---------------------------------------------------------------------------------------- */

static int parse_list(const char *text, int n_layers, bool *dense, struct err *err)
{
    bool all = !strcmp(text, "all");
    for (int l = 0; l < n_layers; l++)
        dense[l] = all;
    if (all || !strcmp(text, "none"))
        return 0;
    for (const char *p = text;; p++) {
        char *end;
        long l = *p >= '0' && *p <= '9' ? strtol(p, &end, 10) : -1;
        if (l < 0 || l >= n_layers || (*end && *end != ','))
            return err_field(err, ERR_INVALID, "dense-layers",
                             "--dense-layers must be \"all\", \"none\" or layers from 0 to %d separated by commas; it is '%.80s'",
                             n_layers - 1, text);
        dense[l] = true;
        p = end;
        if (!*p)
            return 0;
    }
}

int layer_plan_force_dense(const struct model_config *c, const char *text, struct layer_plan *plan, struct err *err)
{
    bool dense[MODEL_MAX_LAYERS];
    int r = parse_list(text, c->n_layers, dense, err);
    for (int l = 0; l < c->n_layers && r >= 0; l++) {
        if (!dense[l] && !layer_is_routed(&plan[l]))
            return err_field(err, ERR_INVALID, "dense-layers",
                             "--dense-layers '%.80s' leaves out layer %d, which has no router and can only be dense", text, l);
        if (dense[l] && layer_is_routed(&plan[l]))
            plan[l] = (struct layer_plan){.forced_dense = true, .expert1 = plan[l].expert1};
    }
    return r;
}

int layer_plan_fill(const struct model_config *c, const struct safetensors *s, const char *dense_layers, struct layer_plan *plan,
                    struct err *err)
{
    enum family family = FAMILY_DENSE;
    int r = read_families(c, s, plan, &family, err);
    if (r >= 0)
        r = check_list(c, family, err);
    if (r >= 0)
        r = check_layout(c, family, plan, err);
    return r >= 0 && dense_layers ? layer_plan_force_dense(c, dense_layers, plan, err) : r;
}

int layer_plan_derive(const struct model_config *c, enum family family, struct layer_plan *plan, struct err *err)
{
    int r = check_list(c, family, err);
    if (r < 0)
        return r;
    for (int l = 0; l < c->n_layers; l++)
        plan[l] = records[routed_by_layout(c, family, l) ? family : FAMILY_DENSE];
    return 0;
}
