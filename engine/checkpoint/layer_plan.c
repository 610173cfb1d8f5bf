/* Which router a layer has is read from tensor names; where the config or the published layouts say which layers are routed, the two
 * must agree, since a wrong pairing would run and give wrong numbers. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/safetensors.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[] = {"dense", "dtrnet", "mod", "dllm"};

static const struct layer_plan records[] = {
    [LAYER_DENSE] = {.kind = LAYER_DENSE},
    [LAYER_DTRNET] = {.kind = LAYER_DTRNET, .unselected = UNSELECTED_BYPASS, .gate = GATE_ATTENTION},
    [LAYER_MOD] = {.kind = LAYER_MOD, .unselected = UNSELECTED_SKIP, .gate = GATE_LAYER},
    [LAYER_DLLM] = {.kind = LAYER_DLLM, .unselected = UNSELECTED_SKIP, .kv_all = true, .forced = 2},
};

const char *layer_kind_name(enum layer_kind k)
{
    return kind_names[k];
}

int layer_kind_find(const char *name, enum layer_kind *ret)
{
    for (int k = LAYER_DENSE; k <= LAYER_DLLM; k++)
        if (!strcmp(name, kind_names[k])) {
            *ret = (enum layer_kind)k;
            return 0;
        }
    return ERR_INVALID;
}

const char *layer_plan_family(const struct layer_plan *plan, int n_layers)
{
    for (int l = 0; l < n_layers; l++)
        if (plan[l].kind != LAYER_DENSE)
            return kind_names[plan[l].kind];
    return kind_names[LAYER_DENSE];
}

/* ---- from tensor names --------------------------------------------------------------------------------- */

static bool layer_has(const struct safetensors *s, int layer, const char *tail)
{
    char name[128];
    snprintf(name, sizeof(name), "model.layers.%d.%s", layer, tail);
    return safetensors_find(s, name) != NULL;
}

static int kind_of_layer(const struct safetensors *s, int l, enum layer_kind *ret, struct err *err)
{
    static const struct {
        const char *tail;
        enum layer_kind kind;
    } marks[] = {
        {"router.weight_predictor.0.weight", LAYER_DTRNET},
        {"router.weight_predictor.weight", LAYER_MOD},
        {"router.linear_1.weight", LAYER_DLLM},
    };
    *ret = LAYER_DENSE;
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (!layer_has(s, l, marks[i].tail))
            continue;
        if (*ret != LAYER_DENSE)
            return err_set(err, ERR_CORRUPT, "layer %d has the router of a %s layer and of a %s layer", l, kind_names[*ret],
                           kind_names[marks[i].kind]);
        *ret = marks[i].kind;
    }
    return 0;
}

static int read_kinds(const struct model_config *c, const struct safetensors *s, struct layer_plan *plan, enum layer_kind *ret_family,
                      struct err *err)
{
    enum layer_kind family = LAYER_DENSE;
    int family_layer = 0;
    for (int l = 0; l < c->n_layers; l++) {
        enum layer_kind k;
        int r = kind_of_layer(s, l, &k, err);
        if (r < 0)
            return r;
        if (k != LAYER_DENSE && family != LAYER_DENSE && k != family)
            return err_set(err, ERR_UNSUPPORTED, "layer %d is a %s layer and layer %d a %s layer; such a mix is not implemented",
                           family_layer, kind_names[family], l, kind_names[k]);
        if (k != LAYER_DENSE && family == LAYER_DENSE) {
            family = k;
            family_layer = l;
        }
        plan[l] = records[k];
    }
    *ret_family = family;
    return 0;
}

/* ---- what the config and the published layouts say -------------------------------------------------------- */

static bool routed_by_layout(const struct model_config *c, enum layer_kind family, int l)
{
    switch (family) {
    case LAYER_DTRNET: return !c->dense_layers[l];
    case LAYER_MOD: return l % 2 == 1;
    case LAYER_DLLM: return l >= 2;
    default: return false;
    }
}

/* A file that lists dense layers is a DTRNet, even one whose layers are all dense. */
static int check_list(const struct model_config *c, enum layer_kind family, struct err *err)
{
    if (family == LAYER_DTRNET && !c->has_dense_layers)
        return err_field(err, ERR_INVALID, "dtrnet_layers",
                         "config.json: dtrnet_layers is missing, but the tensors are a DTRNet's; [] means that every layer is routed");
    if ((family == LAYER_MOD || family == LAYER_DLLM) && c->has_dense_layers)
        return err_field(err, ERR_INVALID, "dtrnet_layers", "config.json: dtrnet_layers must be null for a %s checkpoint",
                         kind_names[family]);
    return 0;
}

static int check_layout(const struct model_config *c, enum layer_kind family, const struct layer_plan *plan, struct err *err)
{
    enum layer_kind expected = family == LAYER_DENSE && c->has_dense_layers ? LAYER_DTRNET : family;
    for (int l = 0; l < c->n_layers; l++) {
        bool want = routed_by_layout(c, expected, l), is = plan[l].kind != LAYER_DENSE;
        if (want == is)
            continue;
        if (expected == LAYER_DTRNET)
            return err_field(err, ERR_CORRUPT, "dtrnet_layers",
                             "config.json: dtrnet_layers %s layer %d, but the tensors %s a router for it", want ? "leaves out" : "lists", l,
                             is ? "hold" : "lack");
        return err_set(err, ERR_CORRUPT, "layer %d of this %s checkpoint should be %s, but the tensors %s a router for it", l,
                       kind_names[family], want ? "routed" : "dense", is ? "hold" : "lack");
    }
    return 0;
}

/* ---- dense_layers ------------------------------------------------------------------------------------------ */

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
            return err_field(err, ERR_INVALID, "dense_layers",
                             "dense_layers must be \"all\", \"none\" or layers from 0 to %d separated by commas; it is '%.80s'",
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
        if (!dense[l] && plan[l].kind == LAYER_DENSE)
            return err_field(err, ERR_INVALID, "dense_layers",
                             "dense_layers '%.80s' leaves out layer %d, which has no router and can only be dense", text, l);
        if (dense[l] && plan[l].kind != LAYER_DENSE) {
            plan[l] = records[LAYER_DENSE];
            plan[l].forced_dense = true;
        }
    }
    return r;
}

int layer_plan_fill(const struct model_config *c, const struct safetensors *s, const char *dense_layers, struct layer_plan *plan,
                    struct err *err)
{
    enum layer_kind family = LAYER_DENSE;
    int r = read_kinds(c, s, plan, &family, err);
    if (r >= 0)
        r = check_list(c, family, err);
    if (r >= 0)
        r = check_layout(c, family, plan, err);
    return r >= 0 && dense_layers ? layer_plan_force_dense(c, dense_layers, plan, err) : r;
}

int layer_plan_derive(const struct model_config *c, enum layer_kind family, struct layer_plan *plan, struct err *err)
{
    int r = check_list(c, family, err);
    if (r < 0)
        return r;
    for (int l = 0; l < c->n_layers; l++)
        plan[l] = records[routed_by_layout(c, family, l) ? family : LAYER_DENSE];
    return 0;
}
