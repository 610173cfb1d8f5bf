/* tests/ultradeep/accounting.json: FLOPs, rows of K and V and router states of real shapes and of the golden checkpoints, at given rates. */
#include "engine/tools/flops.h"
#include "tests/check.h"
#include <math.h>

/* A checkpoint's config, or for a real shape the dense 360M's with the layout and, where the name says so, Mamba routers. */
static json_t *config_of(const json_t *t)
{
    const char *name = json_string_value(json_object_get(t, "name")), *layout = json_string_value(json_object_get(t, "layout"));
    char path[512];
    json_t *config = NULL;
    struct err e;
    snprintf(path, sizeof(path), ULTRADEEP_DIR "/%s/config.json", name);
    if (json_parse_file(path, 1 << 20, &config, &e) == 0)
        return config;
    CHECK_INT(json_parse_file(GOLDEN_DIR "/configs/360m-dense.json", 1 << 20, &config, &e), 0);
    json_object_set_new(config, "layer_layout", json_string(layout));
    json_object_set_new(config, "num_hidden_layers", json_integer((json_int_t)strlen(layout)));
    if (strstr(name, "mamba"))
        json_object_set_new(config, "router_type", json_string("mamba"));
    return config;
}

static bool same(const char *what, double got, double want)
{
    bool ok = CHECK(fabs(got - want) <= 0.501 + 1e-14 * fabs(want)); /* the file's FLOPs are whole numbers */
    if (!ok)
        fprintf(stderr, "  %s is %.17g, not %.17g\n", what, got, want);
    return ok;
}

static bool check_one(const json_t *t, const struct model_config *c, const struct layer_plan *plan)
{
    const json_t *want = json_object_get(t, "flops");
    struct rates rates = {json_number_value(json_object_get(t, "a")), json_number_value(json_object_get(t, "e"))};
    double n = json_number_value(json_object_get(t, "T"));
    bool causal = !strcmp(json_string_value(json_object_get(t, "pairs")), "causal");
    struct sequence_cost cost;
    sequence_cost(c, plan, rates, n, &cost);
    const struct flops *f = &cost.flops;
#define WANT(object, key) json_number_value(json_object_get(object, key))
    bool ok = same("vo", f->vo, WANT(want, "vo")); /* each says what differs */
    ok &= same("qk", f->qk, WANT(want, "qk"));
    ok &= same("mlp", f->mlp, WANT(want, "mlp"));
    ok &= same("router", f->router, WANT(want, "router"));
    ok &= same("scores", causal ? f->causal : f->full, WANT(want, "scores"));
    ok &= same("total", causal ? flops_causal(f) : flops_full(f), WANT(t, "flops_total_without_head"));
    ok &= same("head", flops_head(c), WANT(t, "head_flops_per_token"));
    ok &= CHECK(fabs(cost.kv_rows / n - WANT(t, "kv_rows_per_token")) < 1e-9);
    ok &= CHECK(fabs(cost.kv_rows / n * 2 * c->n_kv_heads * c->head_dim - WANT(t, "kv_elements_per_token")) < 1e-6);
    ok &= CHECK(cost.state_bytes == WANT(t, "router_state_bytes_per_sequence"));
    return ok;
}

static void test_accounting(void)
{
    json_t *list = NULL, *t;
    size_t i;
    CHECK_INT(json_parse_file(ULTRADEEP_DIR "/accounting.json", 1 << 20, &list, NULL), 0);
    CHECK_INT(json_array_size(list), 52);
    json_array_foreach (list, i, t) {
        struct model_config c;
        struct layer_plan plan[MODEL_MAX_LAYERS];
        struct err e = {0};
        json_t *config = config_of(t);
        bool ok = CHECK_INT(model_config_from_json(config, NULL, NULL, NULL, &c, &e), 0) &&
                  CHECK_INT(layer_plan_derive(&c, layer_plan_default_family(&c), plan, &e), 0) && check_one(t, &c, plan);
        if (!ok)
            fprintf(stderr, "  case %zu, %s: %s\n", i, json_string_value(json_object_get(t, "name")), e.text);
        json_decref(config);
    }
    json_decref(list);
}

/* Counted rows give what rates give where the two say the same. */
static void test_counted(void)
{
    static const struct layer_plan plan[4] = {
        {0},
        {.router = ROUTER_MLP, .below = DECISION_LINEAR, .kv = KV_ATTENDING},
        {.router = ROUTER_MAMBA, .skip_router = ROUTER_MAMBA, .below = DECISION_LINEAR, .kv = KV_ATTENDING},
        {.router = ROUTER_DLLM, .below = DECISION_SKIP},
    };
    struct model_config c = {.hidden = 48, .ffn = 24, .n_layers = 4, .n_heads = 4, .n_kv_heads = 2, .head_dim = 8, .vocab = 128};
    c.mamba = (struct mamba_config){.dim = 8, .inner = 16, .d_state = 4, .d_conv = 4, .dt_rank = 1};
    const int attended[4] = {100, 25, 15, 25}, executed[4] = {100, 100, 60, 25};
    struct sequence_cost counted, rated;
    sequence_cost_counted(&c, plan, attended, executed, 100, &counted);
    sequence_cost(&c, plan, (struct rates){0.25, 0.6}, 100, &rated);
    CHECK(fabs(flops_causal(&counted.flops) - flops_causal(&rated.flops)) < 1e-6);
    CHECK(fabs(flops_full(&counted.flops) - flops_full(&rated.flops)) < 1e-6);
    CHECK(counted.kv_rows == 100 + 25 + 15 + 100 && counted.kv_rows == rated.kv_rows);
    CHECK(counted.state_bytes == 2 * 4 * 16 * (3 + 4));
}

int main(void)
{
    test_accounting();
    test_counted();
    return check_result();
}
