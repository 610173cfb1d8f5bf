/* Counts of the real configs against tests/golden/configs/counts.json; costs against the papers' ratios; checkpoints with tensors. */
#include "engine/checkpoint/model_hash.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/tools/inspect.h"
#include "tests/check.h"
#include <math.h>
#include <stdlib.h>

static json_t *report_on(const char *model, const char *family, double rate, int context)
{
    const struct inspect_options o = {
        .model = model, .family = family, .route_rate = rate, .execute_rate = 0.6, .context = context, .kv_dtype = -1};
    json_t *report = NULL;
    struct err e = {0};
    if (!CHECK_INT(inspect_report(&o, &report, &e), 0))
        fprintf(stderr, "  %s: %s\n", model, e.text);
    return report;
}

static json_int_t count_of(const json_t *report, const char *which)
{
    return json_integer_value(json_object_get(json_object_get(report, "parameters"), which));
}

static void test_counts(void)
{
    json_t *counts = NULL, *want;
    if (!CHECK_INT(json_parse_file(GOLDEN_DIR "/configs/counts.json", 1 << 20, &counts, NULL), 0))
        return;
    const char *name;
    json_object_foreach (counts, name, want) {
        char path[512];
        snprintf(path, sizeof(path), GOLDEN_DIR "/configs/%s.json", name);
        json_t *r = report_on(path, json_string_value(json_object_get(want, "variant")), 0.1, 0);
        CHECK_INT(count_of(r, "total"), json_integer_value(json_object_get(want, "parameters")));
        CHECK_INT(count_of(r, "router"), json_integer_value(json_object_get(want, "router_parameters")));
        CHECK_INT(count_of(r, "embedding"), json_integer_value(json_object_get(want, "embedding_parameters")));
        CHECK_INT(json_integer_value(json_object_get(r, "tensors")), json_integer_value(json_object_get(want, "tensors")));
        json_decref(r);
    }
    json_decref(counts);
}

/* Parameters as transformers counts them for the same configs, and what the plan shows. */
static void test_relatives(void)
{
    static const struct {
        const char *name, *type, *norm, *last_positions;
        json_int_t parameters, tensors;
    } models[] = {
        {"mistral-7b-v0.3", "mistral", "pre", "rope", 7248023552, 291},
        {"qwen2.5-0.5b", "qwen2", "pre", "rope", 494032768, 290},
        {"qwen3-0.6b", "qwen3", "pre, qk", "rope", 596049920, 310},
        {"smollm3-3b", "smollm3", "pre", "none", 3075098624, 326},
    };
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        char path[512];
        snprintf(path, sizeof(path), CONFIGS_DIR "/models/%s.json", models[i].name);
        json_t *r = report_on(path, NULL, 0.1, 0), *plan = json_object_get(r, "plan");
        const json_t *last = json_array_get(plan, json_array_size(plan) - 1);
        CHECK_INT(count_of(r, "total"), models[i].parameters);
        CHECK_INT(json_integer_value(json_object_get(r, "tensors")), models[i].tensors);
        CHECK_STR(json_string_value(json_object_get(r, "family")), "dense");
        CHECK_STR(json_string_value(json_object_get(json_object_get(r, "config"), "model_type")), models[i].type);
        CHECK_STR(json_string_value(json_object_get(last, "norm")), models[i].norm);
        CHECK_STR(json_string_value(json_object_get(last, "positions")), models[i].last_positions);
        json_decref(r);
    }
}

static double ratio_of(const json_t *report, const char *group, const char *label)
{
    const json_t *g = json_object_get(report, group);
    return json_number_value(json_object_get(label ? json_object_get(g, label) : g, "ratio"));
}

/* The papers give 0.84 for the 360M bilayer at 2048 tokens with a tenth routed; what is computed is 0.89. */
static void test_costs(void)
{
    json_t *r = report_on(GOLDEN_DIR "/configs/360m-dtrnet-bilayer.json", NULL, 0.1, 2048);
    CHECK(fabs(ratio_of(r, "flops_per_token", "full") - 0.84) < 0.005);
    CHECK(fabs(ratio_of(r, "flops_per_token", "causal") - 0.89) < 0.005);
    CHECK(fabs(ratio_of(r, "kv_bytes_per_token", NULL) - 0.55) < 1e-12);
    CHECK(json_number_value(json_object_get(json_object_get(r, "kv_bytes_per_token"), "row")) == 2 * 5 * 64 * 2);
    json_decref(r);
    r = report_on(GOLDEN_DIR "/configs/360m-dllm.json", "dllm", 0.1, 2048);
    CHECK(ratio_of(r, "kv_bytes_per_token", NULL) == 1);
    json_decref(r);
    r = report_on(GOLDEN_DIR "/configs/360m-dense.json", NULL, 0.1, 2048);
    CHECK(ratio_of(r, "flops_per_token", "full") == 1);
    json_decref(r);
}

static void test_checkpoints(void)
{
    static const char *const models[] = {"dense-headdim-bias", "dtrnet-trilayer-sharded", "mod", "dllm", "dtrnet-bilayer-f16"};
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        char path[512];
        struct safetensors *s = NULL;
        int64_t n = 0;
        snprintf(path, sizeof(path), GOLDEN_DIR "/%s", models[i]);
        json_t *r = report_on(path, NULL, 0.5, 100);
        CHECK_INT(safetensors_open_dir(path, &s, NULL), 0);
        for (size_t t = 0; t < safetensors_count(s); t++)
            n += tensor_elements(safetensors_at(s, t));
        CHECK_INT(count_of(r, "total"), n);
        CHECK_INT(json_integer_value(json_object_get(r, "tensors")), safetensors_count(s));
        struct buf table;
        buf_init(&table, 1 << 16);
        CHECK_INT(inspect_table(r, &table), 0);
        CHECK(strstr(table.data, "parameters") != NULL);
        buf_done(&table);
        safetensors_close(s);
        json_decref(r);
    }
}

static void test_errors(void)
{
    json_t *r = NULL;
    struct err e = {0};
    struct inspect_options o = {.model = GOLDEN_DIR "/configs/360m-dtrnet-bilayer.json", .kv_dtype = -1, .route_rate = 1.5};
    CHECK_INT(inspect_report(&o, &r, &e), ERR_INVALID);
    o.route_rate = 0.1;
    o.family = "mamba";
    CHECK_INT(inspect_report(&o, &r, &e), ERR_INVALID);
    o.family = "mod"; /* the file lists dense layers */
    CHECK_INT(inspect_report(&o, &r, &e), ERR_INVALID);
    o = (struct inspect_options){.model = GOLDEN_DIR "/absent", .kv_dtype = -1};
    CHECK_INT(inspect_report(&o, &r, &e), ERR_NOT_FOUND);
}

/* The digest that sha256sum gives for the concatenated files. */
static void test_hash(void)
{
    char hex[65], want[65] = "";
    struct safetensors *s = NULL;
    struct err e = {0};
    FILE *p = popen("cd '" GOLDEN_DIR "/dtrnet-trilayer-sharded' && cat config.json model-*.safetensors | sha256sum", "r");
    if (!CHECK(p && fscanf(p, "%64s", want) == 1))
        return;
    pclose(p);
    CHECK_INT(safetensors_open_dir(GOLDEN_DIR "/dtrnet-trilayer-sharded", &s, &e), 0);
    const struct model_hash_source of = {.dir = GOLDEN_DIR "/dtrnet-trilayer-sharded", .s = s};
    if (CHECK_INT(model_hash(&of, NULL, NULL, hex, &e), 0))
        CHECK_STR(hex, want);
    safetensors_close(s);
}

int main(void)
{
    test_counts();
    test_relatives();
    test_costs();
    test_checkpoints();
    test_errors();
    test_hash();
    return check_result();
}
