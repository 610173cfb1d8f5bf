#include "engine/tools/inspect_plan.h"
#include <string.h>

static const char *const routers[] = {"none", "mlp", "mamba", "mod", "dllm"};
static const char *const decides[] = {"p > 0.5", "p >= 0.5", "threshold", "top"};
static const char *const decisions[] = {"skip", "linear", "attend"};
static const char *const gates[] = {"none", "chosen", "add", "towards"};
static const char *const keeps[] = {"all", "attending"};
static const char *const scopes[] = {"token", "prefix state", "sequence"};

const char *inspect_router_name(enum router router)
{
    return routers[router];
}

const char *inspect_decide_name(enum decide decide)
{
    return decides[decide];
}

static const char *norm_of(const struct layer_plan *p)
{
    if (p->v_norm)
        return p->no_attn_norm ? "qkv" : "pre, qkv";
    if (p->qk_norm)
        return "pre, qk";
    return p->norm_scale != 0 ? "pre, lns" : "pre";
}

static json_t *layer_json(const struct layer_plan *p, int l)
{
    bool routed = layer_is_routed(p);
    return json_pack("{si ss sb ss ss ss ss ss ss ss ss ss ss}", "layer", l, "kind", layer_plan_kind(p), "forced_dense", p->forced_dense,
                     "router", routers[p->router], "skip_router", routers[p->skip_router], "decide", routed ? decides[p->decide] : "none",
                     "below", routed ? decisions[p->below] : "none", "attn_gate", gates[p->attn_gate], "layer_gate", gates[p->layer_gate],
                     "norm", norm_of(p), "positions", p->no_rope ? "none" : "rope", "kv", keeps[p->kv], "scope", scopes[p->scope]);
}

json_t *inspect_plan_json(const struct layer_plan *plan, int n_layers)
{
    json_t *list = json_array();
    for (int l = 0; list && l < n_layers; l++)
        json_array_append_new(list, layer_json(&plan[l], l));
    return list;
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *key, *title;
    int width;
} columns[] = {
    {"kind", "kind", 8},
    {"skip_router", "skips by", 10},
    {"router", "attends by", 12},
    {"decide", "decides", 11},
    {"below", "others", 8},
    {"attn_gate", "attn gate", 11},
    {"layer_gate", "layer gate", 12},
    {"norm", "norms", 10},
    {"positions", "positions", 11},
    {"kv", "K and V", 11},
    {"scope", "sees", 14},
};
#define N_COLUMNS (sizeof(columns) / sizeof(columns[0]))

static bool same_layer(const json_t *a, const json_t *b)
{
    for (size_t i = 0; i < N_COLUMNS; i++)
        if (!json_equal(json_object_get(a, columns[i].key), json_object_get(b, columns[i].key)))
            return false;
    return json_equal(json_object_get(a, "forced_dense"), json_object_get(b, "forced_dense"));
}

static bool seen_before(const json_t *plan, size_t l)
{
    for (size_t i = 0; i < l; i++)
        if (same_layer(json_array_get(plan, i), json_array_get(plan, l)))
            return true;
    return false;
}

/* Layers like `first`: "4", "0-3", "1-31 by 2", or where they keep no distance "0 1 4 ..". */
static void layers_text(const json_t *plan, size_t first, char *out, size_t size, int *ret_n)
{
    size_t last = first, step = 0, at;
    int n = 0;
    bool even = true;
    at = (size_t)snprintf(out, size, "%zu", first);
    for (size_t i = first; i < json_array_size(plan); i++) {
        if (!same_layer(json_array_get(plan, first), json_array_get(plan, i)))
            continue;
        even &= n < 2 || i - last == step;
        step = i - last;
        last = i;
        if (n > 0 && n < 4 && at < size)
            at += (size_t)snprintf(out + at, size - at, " %zu%s", i, n == 3 ? " .." : "");
        n++;
    }
    if (even && n > 2)
        snprintf(out, size, step > 1 ? "%zu-%zu by %zu" : "%zu-%zu", first, last, step);
    *ret_n = n;
}

int inspect_plan_table(const json_t *plan, struct buf *out)
{
    int r = buf_printf(out, "\n%-16s%-6s", "layers", "");
    for (size_t i = 0; i < N_COLUMNS && r >= 0; i++)
        r = buf_printf(out, "%-*s", columns[i].width, columns[i].title);
    for (size_t l = 0; l < json_array_size(plan) && r >= 0; l++) {
        const json_t *p = json_array_get(plan, l);
        char layers[64];
        int n;
        if (seen_before(plan, l))
            continue;
        layers_text(plan, l, layers, sizeof(layers), &n);
        r = buf_printf(out, "\n%-16s%-6d", layers, n);
        for (size_t i = 0; i < N_COLUMNS && r >= 0; i++)
            r = buf_printf(out, "%-*s", columns[i].width, json_string_value(json_object_get(p, columns[i].key)));
        if (r >= 0 && json_is_true(json_object_get(p, "forced_dense")))
            r = buf_puts(out, "forced dense");
    }
    return r >= 0 ? buf_puts(out, "\n") : r;
}
