/* tests/ultradeep/configs.json: patches of a checkpoint's config.json and tensors. Those that must load give the plan of the checkpoint that
 * they patch, so its numbers too; the others are refused, naming a key or a tensor. */
#include "common/buf.h"
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/tensor_match.h"
#include "tests/check.h"
#include <stdlib.h>

struct subject {
    struct model_config config;
    struct layer_plan plan[MODEL_MAX_LAYERS];
};

static bool listed(const json_t *names, const char *name)
{
    size_t i;
    json_t *v;
    json_array_foreach ((json_t *)names, i, v)
        if (!strcmp(json_string_value(v), name))
            return true;
    return false;
}

static int put_tensor(struct buf *header, struct buf *data, const char *name, const char *dtype, const int64_t *shape, int n_dims,
                      const void *bytes, size_t n)
{
    static const char zeros[1 << 16];
    size_t begin = data->len;
    buf_append(data, bytes ? bytes : zeros, n);
    buf_printf(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", header->len > 1 ? "," : "", name, dtype);
    for (int i = 0; i < n_dims; i++)
        buf_printf(header, "%s%lld", i ? "," : "", (long long)shape[i]);
    return buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", begin, data->len);
}

static void add_tensors(struct buf *header, struct buf *data, const json_t *add)
{
    const char *name;
    json_t *dims;
    json_object_foreach ((json_t *)add, name, dims) {
        int64_t shape[4] = {0}, n = 1;
        for (size_t i = 0; i < json_array_size(dims); i++)
            n *= shape[i] = json_integer_value(json_array_get(dims, i));
        put_tensor(header, data, name, "F32", shape, (int)json_array_size(dims), NULL, (size_t)n * 4);
    }
}

/* The checkpoint's tensors less those of `drop`, and those of `add` with zeros, as one file in `out`. */
static void patch_tensors(const struct safetensors *s, const json_t *drop, const json_t *add, struct buf *out)
{
    struct buf header, data;
    buf_init(&header, 1 << 20);
    buf_init(&data, 1 << 24);
    buf_puts(&header, "{");
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct tensor *t = safetensors_at(s, i);
        if (!listed(drop, t->name))
            put_tensor(&header, &data, t->name, t->dtype, t->shape, t->n_dims, t->data, t->n_bytes);
    }
    add_tensors(&header, &data, add);
    buf_puts(&header, "}");
    uint64_t len = header.len;
    buf_append(out, &len, 8);
    buf_append(out, header.data, header.len);
    CHECK_INT(buf_append(out, data.data, data.len), 0);
    buf_done(&header);
    buf_done(&data);
}

/* null removes a key. */
static json_t *patch_config(const char *dir, const json_t *patch)
{
    char path[512];
    json_t *config = NULL, *v;
    const char *key;
    snprintf(path, sizeof(path), "%s/config.json", dir);
    CHECK_INT(json_parse_file(path, 1 << 20, &config, NULL), 0);
    json_object_foreach ((json_t *)patch, key, v) {
        if (json_is_null(v))
            json_object_del(config, key);
        else
            json_object_set(config, key, v);
    }
    return config;
}

static int load(const char *base, const json_t *config, const json_t *drop, const json_t *add, struct subject *ret, struct err *err)
{
    char dir[256];
    struct safetensors *s = NULL, *patched = NULL;
    struct buf file;
    buf_init(&file, 1 << 24);
    snprintf(dir, sizeof(dir), ULTRADEEP_DIR "/%s", base);
    json_t *c = patch_config(dir, config);
    memset(ret, 0, sizeof(*ret));
    if (CHECK_INT(safetensors_open_dir(dir, &s, err), 0))
        patch_tensors(s, drop, add, &file);
    CHECK_INT(safetensors_open_memory("patched", file.data, file.len, &patched, err), 0);
    int r = model_config_from_json(c, NULL, NULL, NULL, &ret->config, err);
    if (r >= 0)
        r = layer_plan_fill(&ret->config, patched, NULL, ret->plan, err);
    if (r >= 0)
        r = tensor_match(&ret->config, ret->plan, patched, NULL, err);
    safetensors_close(patched);
    safetensors_close(s);
    json_decref(c);
    buf_done(&file);
    return r;
}

static bool same_arithmetic(const struct subject *a, const struct subject *b)
{
    return !memcmp(a->plan, b->plan, sizeof(a->plan)) && !memcmp(&a->config.mamba, &b->config.mamba, sizeof(a->config.mamba));
}

/* Sizes of Mamba routers have no meaning with MLP routers, but are read. */
static void check_loads(const json_t *patch, const struct subject *got, int code, const struct err *e)
{
    struct subject *base = calloc(1, sizeof(*base));
    const char *name = json_string_value(json_object_get(patch, "base"));
    CHECK_INT(load(name, NULL, NULL, NULL, base, NULL), 0);
    if (base->config.router_type == ROUTER_TYPE_MLP)
        base->config.mamba = got->config.mamba;
    if (!CHECK_INT(code, 0) || !CHECK(same_arithmetic(base, got)))
        fprintf(stderr, "  %s: %s\n", name, e->text);
    free(base);
}

static void test_patches(void)
{
    json_t *patches = NULL, *p;
    size_t i, n_refused = 0;
    struct subject *got = calloc(1, sizeof(*got));
    CHECK_INT(json_parse_file(ULTRADEEP_DIR "/configs.json", 1 << 20, &patches, NULL), 0);
    CHECK_INT(json_array_size(patches), 59);
    json_array_foreach (patches, i, p) {
        const char *base = json_string_value(json_object_get(p, "base")), *names = json_string_value(json_object_get(p, "names"));
        struct err e = {0};
        int r = load(base, json_object_get(p, "config"), json_object_get(p, "drop"), json_object_get(p, "add"), got, &e);
        n_refused += json_is_true(json_object_get(p, "refuse"));
        if (!json_is_true(json_object_get(p, "refuse")))
            check_loads(p, got, r, &e);
        else if (!CHECK(r < 0) || !CHECK(strstr(e.text, names) != NULL))
            fprintf(stderr, "  patch %zu of %s: '%s' is not in '%s'\n", i, base, names, e.text);
    }
    CHECK_INT(n_refused, 44);
    json_decref(patches);
    free(got);
}

/* ---- what the records say ---------------------------------------------------------------------------------------- */

static void test_records(void)
{
    struct subject *s = calloc(1, sizeof(*s));
    CHECK_INT(load("hybridnorm-star-bias-bf16", NULL, NULL, NULL, s, NULL), 0); /* SDTS */
    const struct layer_plan *p = s->plan;
    CHECK(p[0].skip_router == ROUTER_MLP && p[1].skip_router == ROUTER_NONE && p[1].router == ROUTER_MLP && !layer_is_routed(&p[2]));
    CHECK(p[0].layer_gate == GATE_TOWARDS && p[0].attn_gate == GATE_CHOSEN && p[1].layer_gate == GATE_NONE);
    CHECK(layer_can_skip(&p[0]) && layer_has_linear(&p[0]) && !layer_can_skip(&p[1]) && layer_has_linear(&p[1]));
    CHECK(!p[0].no_attn_norm && !p[0].mlp_from_norm && p[0].qk_norm && p[0].v_norm && p[1].no_attn_norm && p[2].mlp_from_norm &&
          p[2].qk_norm && p[2].v_norm);
    CHECK_STR(layer_plan_family(p, 4), "ultradeep");
    CHECK_STR(layer_plan_kind(&p[0]), "nested");
    CHECK_INT(load("deep92-lns-bf16", NULL, NULL, NULL, s, NULL), 0);
    CHECK(p[0].norm_scale == 1 && p[3].norm_scale == 0.5f && p[91].norm_scale == 0.10425720702853738f);
    CHECK_INT(load("expert-nested-mamba-lns-bf16", NULL, NULL, NULL, s, NULL), 0); /* TSDS */
    CHECK(p[1].decide == DECIDE_THRESHOLD && p[1].has_threshold && p[1].scope == SCOPE_PREFIX_STATE && layer_n_states(&p[1]) == 2);
    CHECK(layer_n_states(&p[0]) == 0 && layer_n_states(&p[2]) == 1 && p[1].attn_capacity == 0);
    free(s);
}

static int read_text(const char *members, const char *expert_choice, struct model_config *ret, struct err *err)
{
    char text[1024];
    json_t *config = NULL;
    const struct model_overrides o = {.bos_id = -1, .eos_id = -1, .expert_choice = expert_choice};
    snprintf(text, sizeof(text),
             "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":4,\"num_attention_heads\":4,"
             "\"vocab_size\":256%s}",
             members);
    CHECK_INT(json_parse(text, strlen(text), "config", &config, err), 0);
    int r = model_config_from_json(config, NULL, &o, NULL, ret, err);
    json_decref(config);
    return r;
}

static void test_override(void)
{
#define EXPERT ",\"layer_layout\":\"TDSD\",\"routing\":\"expert_choice\",\"attn_capacity\":0.25,\"exec_capacity\":1"
    static const struct {
        const char *members, *flag, *says; /* says: NULL: it loads */
        enum expert_inference inference;
    } cases[] = {
        {EXPERT, NULL, NULL, EXPERT_EXACT},
        {EXPERT, "threshold", NULL, EXPERT_THRESHOLD},
        {EXPERT ",\"expert_choice_inference\":\"threshold\"", NULL, NULL, EXPERT_THRESHOLD},
        {EXPERT ",\"expert_choice_inference\":\"threshold\"", "exact", NULL, EXPERT_EXACT},
        {EXPERT, "causal", "expert_choice_override must be exact or threshold", 0},
        {",\"layer_layout\":\"TDSD\"", "exact", "expert_choice_override exact needs", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_config c;
        struct err e = {0};
        int r = read_text(cases[i].members, cases[i].flag, &c, &e);
        bool ok = cases[i].says ? CHECK_INT(r, ERR_INVALID) && CHECK(strstr(e.text, cases[i].says) != NULL)
                                : CHECK_INT(r, 0) && CHECK_INT(c.expert_inference, cases[i].inference) && CHECK(c.attn_capacity == 0.25);
        if (!ok)
            fprintf(stderr, "  case %zu: %s\n", i, e.text);
    }
}

/* Values that configs.json does not try. */
static void test_refusals(void)
{
    static const char *const bad[][2] = {
        {",\"router_dim\":1000000", "router_dim"},
        {",\"router_dim\":16384,\"router_expand\":4", "router_dim"},
        {",\"router_d_state\":0", "router_d_state"},
        {",\"router_dt_rank\":0", "router_dt_rank"},
        {",\"router_dt_rank\":\"big\"", "router_dt_rank"},
        {",\"router_expand\":0", "router_expand"},
        {",\"exec_capacity\":-0.5", "exec_capacity"},
        {",\"attn_capacity\":1e300", "attn_capacity"},
        {",\"layer_layout\":{}", "layer_layout"},
        {",\"layer_layout\":[]", "layer_layout"},
        {",\"layer_layout\":[\"T\",\"\",\"D\",\"S\"]", "layer_layout"},
        {",\"norm_method\":3", "norm_method"},
        {",\"routing\":[\"token_choice\"]", "routing"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct model_config c;
        struct err e = {0};
        if (!CHECK(read_text(bad[i][0], NULL, &c, &e) < 0) || !CHECK(strstr(e.text, bad[i][1]) != NULL))
            fprintf(stderr, "  %s: %s\n", bad[i][0], e.text);
    }
}

int main(void)
{
    test_patches();
    test_records();
    test_override();
    test_refusals();
    return check_result();
}
