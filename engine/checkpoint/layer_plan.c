/* Which family a checkpoint is of is read from tensor names; where the config or the published layouts say which layers are routed, the two
 * must agree, since a wrong pairing would run and give wrong numbers. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/layer_record.h"
#include "engine/checkpoint/safetensors.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const family_names[] = {"dense", "dtrnet", "mod", "dllm"};

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
        {"router.in_proj.weight", FAMILY_DTRNET},
        {"router.weight_predictor.weight", FAMILY_MOD},
        {"router.linear_1.weight", FAMILY_DLLM},
    };
    *ret = FAMILY_DENSE;
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (!layer_has(s, l, marks[i].tail))
            continue;
        if (*ret != FAMILY_DENSE && *ret != marks[i].family)
            return err_set(err, ERR_CORRUPT, "layer %d has the router of a %s layer and of a %s layer", l, family_names[*ret],
                           family_names[marks[i].family]);
        *ret = marks[i].family;
    }
    return 0;
}

/* routed: [c->n_layers]: a router's tensors are there. */
static int read_families(const struct model_config *c, const struct safetensors *s, bool *routed, enum family *ret_family, struct err *err)
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
        routed[l] = k != FAMILY_DENSE;
    }
    *ret_family = family;
    return 0;
}

/* ---- what the config and the published layouts say -------------------------------------------------------- */

/* MoD and D-LLM have a layout of their own, one kind of router and pre-norms. */
static int check_keys(const struct model_config *c, enum family family, struct err *err)
{
    const struct {
        const char *key;
        bool set;
    } keys[] = {
        {"dtrnet_layers", c->has_dense_layers},
        {"layer_layout", c->has_layout},
        {"norm_method", c->norm_method != NORM_METHOD_NONE},
        {"router_type", c->router_type != ROUTER_TYPE_MLP},
        {"routing", c->expert_choice},
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (keys[i].set)
            return err_field(err, ERR_INVALID, keys[i].key, "config.json: %s must be null for a %s checkpoint", keys[i].key,
                             family_names[family]);
    return 0;
}

static int check_list(const struct model_config *c, enum family family, struct err *err)
{
    if (c->type != MODEL_LLAMA && family != FAMILY_DENSE)
        return err_field(err, ERR_UNSUPPORTED, "model_type", "routed layers go with model_type llama alone, and config.json says %s",
                         model_type_info(c->type)->name);
    if (family == FAMILY_DTRNET && !c->has_dense_layers && !c->has_layout)
        return err_field(err, ERR_INVALID, "dtrnet_layers",
                         "config.json: dtrnet_layers is missing, and layer_layout too, but the tensors hold routers of D layers; "
                         "dtrnet_layers [] means that every layer is routed");
    return family == FAMILY_MOD || family == FAMILY_DLLM ? check_keys(c, family, err) : 0;
}

/* A file that lists dense layers is a DTRNet, even one whose layers are all dense. A layer_layout is compared with the tensors one by
 * one, by tensor_match. */
static int check_layout(const struct model_config *c, enum family family, const bool *routed, struct err *err)
{
    enum family expected = family == FAMILY_DENSE && c->has_dense_layers ? FAMILY_DTRNET : family;
    for (int l = 0; l < c->n_layers && !c->has_layout; l++) {
        bool want = layer_record_is_routed(c, expected, l), is = routed[l];
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

/* ---- thresholds ------------------------------------------------------------------------------------------------- */

/* One router with a threshold asks all for theirs; tensor_match misses the others. */
static bool holds_thresholds(const struct model_config *c, const struct safetensors *s)
{
    for (int l = 0; l < c->n_layers; l++)
        if (layer_has(s, l, "router.threshold") || layer_has(s, l, "skip_router.threshold"))
            return true;
    return false;
}

static int check_thresholds(const struct model_config *c, const struct layer_plan *plan, struct err *err)
{
    for (int l = 0; l < c->n_layers; l++)
        if (plan[l].decide == DECIDE_THRESHOLD && !plan[l].has_threshold)
            return err_field(err, ERR_INVALID, "expert_choice_inference",
                             "expert choice \"threshold\" needs tensor model.layers.%d.router.threshold, which is missing; \"exact\" can "
                             "score without thresholds",
                             l);
    return 0;
}

/* ---- dense_layers ---------------------------------------------------------------------------------------- */

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
        if (!dense[l] && !layer_is_routed(&plan[l]))
            return err_field(err, ERR_INVALID, "dense_layers",
                             "dense_layers '%.80s' leaves out layer %d, which has no router and can only be dense", text, l);
        if (dense[l] && layer_is_routed(&plan[l]))
            plan[l] = layer_record_dense(&plan[l]);
    }
    return r;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

int layer_plan_fill(const struct model_config *c, const struct safetensors *s, const char *dense_layers, struct layer_plan *plan,
                    struct err *err)
{
    enum family family = FAMILY_DENSE;
    bool routed[MODEL_MAX_LAYERS], has_thresholds = c->expert_choice && holds_thresholds(c, s);
    int r = read_families(c, s, routed, &family, err);
    if (r >= 0)
        r = check_list(c, family, err);
    if (r >= 0)
        r = check_layout(c, family, routed, err);
    if (r < 0)
        return r;
    for (int l = 0; l < c->n_layers; l++) /* without routers in the tensors the config alone says what is missing */
        plan[l] = layer_record(c, family == FAMILY_DENSE ? FAMILY_DTRNET : family, l, has_thresholds);
    if (dense_layers)
        r = layer_plan_force_dense(c, dense_layers, plan, err);
    return r >= 0 ? check_thresholds(c, plan, err) : r;
}

enum family layer_plan_default_family(const struct model_config *c)
{
    return c->has_dense_layers || c->has_layout ? FAMILY_DTRNET : FAMILY_DENSE;
}

int layer_plan_derive(const struct model_config *c, enum family family, struct layer_plan *plan, struct err *err)
{
    int r = check_list(c, family, err);
    for (int l = 0; l < c->n_layers && r >= 0; l++)
        plan[l] = layer_record(c, family, l, c->expert_choice);
    return r;
}
