/* Plans of the golden checkpoints, of the real configs, and of tensors that disagree with their config. */
#include "common/buf.h"
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/safetensors.h"
#include "tests/check.h"
#include <glob.h>

static bool routed_in(const json_t *list, int l)
{
    size_t i;
    json_t *v;
    json_array_foreach ((json_t *)list, i, v)
        if (json_integer_value(v) == l)
            return true;
    return false;
}

static void check_plan(const char *what, const struct layer_plan *plan, int n_layers, const json_t *routed, const char *family)
{
    for (int l = 0; l < n_layers; l++)
        if (!CHECK_INT(layer_is_routed(&plan[l]), routed_in(routed, l)))
            fprintf(stderr, "  %s layer %d\n", what, l);
    if (!CHECK_STR(layer_plan_family(plan, n_layers), family))
        fprintf(stderr, "  %s\n", what);
}

static void check_model(const char *dir)
{
    struct model_config c;
    struct layer_plan plan[MODEL_MAX_LAYERS];
    struct safetensors *s = NULL;
    struct err e = {0};
    json_t *expected = NULL;
    char path[512];
    snprintf(path, sizeof(path), "%s/expected.json", dir);
    bool ok = CHECK_INT(json_parse_file(path, 1 << 20, &expected, &e), 0) && CHECK_INT(model_config_load(dir, NULL, NULL, &c, &e), 0) &&
              CHECK_INT(safetensors_open_dir(dir, &s, &e), 0) && CHECK_INT(layer_plan_fill(&c, s, NULL, plan, &e), 0);
    if (!ok)
        fprintf(stderr, "  %s: %s\n", dir, e.text);
    else
        check_plan(dir, plan, c.n_layers, json_object_get(expected, "routed_layers"),
                   json_string_value(json_object_get(expected, "variant")));
    safetensors_close(s);
    json_decref(expected);
}

static void test_golden(void)
{
    glob_t g;
    if (!CHECK_INT(glob(GOLDEN_DIR "/*/expected.json", 0, NULL, &g), 0))
        return;
    CHECK_INT(g.gl_pathc, 30);
    for (size_t i = 0; i < g.gl_pathc; i++) {
        *strrchr(g.gl_pathv[i], '/') = '\0';
        check_model(g.gl_pathv[i]);
    }
    globfree(&g);
}

static void test_real_configs(void)
{
    json_t *counts = NULL;
    struct err e = {0};
    if (!CHECK_INT(json_parse_file(GOLDEN_DIR "/configs/counts.json", 1 << 20, &counts, &e), 0))
        return;
    const char *name;
    json_t *want;
    json_object_foreach (counts, name, want) {
        char path[512];
        struct model_config c;
        struct layer_plan plan[MODEL_MAX_LAYERS];
        enum family family = FAMILY_DENSE;
        const char *variant = json_string_value(json_object_get(want, "variant"));
        snprintf(path, sizeof(path), GOLDEN_DIR "/configs/%s.json", name);
        CHECK_INT(layer_plan_find_family(variant, &family), 0);
        if (CHECK_INT(model_config_load_file(path, NULL, NULL, &c, &e), 0) && CHECK_INT(layer_plan_derive(&c, family, plan, &e), 0))
            check_plan(name, plan, c.n_layers, json_object_get(want, "routed_layers"), variant);
        else
            fprintf(stderr, "  %s: %s\n", name, e.text);
    }
    json_decref(counts);
}

/* ---- made-up checkpoints: only names matter ------------------------------------------------------------------ */

#define DTR ".router.weight_predictor.0.weight"
#define MOD ".router.weight_predictor.weight"
#define DLM ".router.linear_1.weight"

/* A file of empty tensors; `names` is separated by blanks, and a leading digit means "model.layers.". */
static struct safetensors *named(const char *names, struct buf *b)
{
    struct buf header;
    char copy[512], *save = NULL;
    struct safetensors *s = NULL;
    buf_init(&header, 1 << 16);
    buf_puts(&header, "{\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}");
    snprintf(copy, sizeof(copy), "%s", names);
    for (char *n = strtok_r(copy, " ", &save); n; n = strtok_r(NULL, " ", &save))
        buf_printf(&header, ",\"model.layers.%s\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}", n);
    buf_puts(&header, "}");
    unsigned char len[8] = {(unsigned char)header.len, (unsigned char)(header.len >> 8)};
    buf_clear(b);
    buf_append(b, len, 8);
    buf_append(b, header.data, header.len);
    buf_done(&header);
    CHECK_INT(safetensors_open_memory("made up", b->data, b->len, &s, NULL), 0);
    return s;
}

static void test_disagreements(void)
{
    static const struct {
        const char *names, *list /* dtrnet_layers */, *dense /* dense_layers */;
        int code;
        const char *kinds /* or what the error says */;
    } cases[] = {
        {"", NULL, NULL, 0, "----"},
        {"", "0123", NULL, 0, "----"},
        {"", "012", NULL, ERR_CORRUPT, "layer 3"},
        {"1" DTR " 3" DTR, "02", NULL, 0, "-t-t"},
        {"1" DTR " 3" DTR, "", NULL, ERR_CORRUPT, "layer 0"},
        {"1" DTR " 3" DTR, "012", NULL, ERR_CORRUPT, "layer 1"},
        {"1" DTR " 3" DTR, NULL, NULL, ERR_INVALID, "dtrnet_layers is missing"},
        {"1" DTR " 3" MOD, "02", NULL, ERR_UNSUPPORTED, "mix"},
        {"1" DTR " 1" MOD " 3" DTR, "02", NULL, ERR_CORRUPT, "layer 1"},
        {"1" MOD " 3" MOD, NULL, NULL, 0, "-m-m"},
        {"1" MOD " 3" MOD, "02", NULL, ERR_INVALID, "must be null"},
        {"1" MOD, NULL, NULL, ERR_CORRUPT, "layer 3"},
        {"0" MOD " 1" MOD " 3" MOD, NULL, NULL, ERR_CORRUPT, "layer 0"},
        {"2" DLM " 3" DLM, NULL, NULL, 0, "--dd"},
        {"1" DLM " 2" DLM " 3" DLM, NULL, NULL, ERR_CORRUPT, "layer 1"},
        {"1" DTR " 3" DTR, "02", "all", 0, "-f-f"},
        {"1" DTR " 3" DTR, "02", "none", ERR_INVALID, "layer 0"},
        {"1" DTR " 3" DTR, "02", "0,2", 0, "-t-t"},
        {"1" DTR " 3" DTR, "02", "0,1,2", 0, "-f-t"},
        {"1" DTR " 3" DTR, "02", "0,1", ERR_INVALID, "layer 2"},
        {"1" DTR " 3" DTR, "02", "", ERR_INVALID, "dense_layers"},
        {"1" DTR " 3" DTR, "02", "0,", ERR_INVALID, "dense_layers"},
        {"1" DTR " 3" DTR, "02", "0,4", ERR_INVALID, "0 to 3"},
        {"1" DTR " 3" DTR, "02", "-1", ERR_INVALID, "dense_layers"},
        {"1" DTR " 3" DTR, "02", "0;2", ERR_INVALID, "dense_layers"},
        {"1" DTR " 3" DTR, "02", "99999999999999999999", ERR_INVALID, "dense_layers"},
        {"0" DTR " 1" DTR " 2" DTR " 3" DTR, "", "none", 0, "tttt"},
        {"2" DLM " 3" DLM, NULL, "0,1,3", 0, "--df"},
        {"1" MOD " 3" MOD, NULL, "0,2,3", 0, "-m-f"},
    };
    struct buf b;
    buf_init(&b, 1 << 16);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_config c = {.n_layers = 4, .has_dense_layers = cases[i].list != NULL};
        struct layer_plan plan[4];
        struct err e = {0};
        memset(c.layout, cases[i].list ? 'D' : 'T', 4);
        for (const char *p = cases[i].list; p && *p; p++)
            c.layout[*p - '0'] = 'T';
        struct safetensors *s = named(cases[i].names, &b);
        int r = layer_plan_fill(&c, s, cases[i].dense, plan, &e);
        bool ok = CHECK_INT(r, cases[i].code);
        for (int l = 0; ok && r == 0 && l < 4; l++)
            ok = CHECK_INT(plan[l].forced_dense ? 'f' : "-t?md"[plan[l].router], cases[i].kinds[l]);
        if (ok && r < 0)
            ok = CHECK(strstr(e.text, cases[i].kinds) != NULL);
        if (!ok)
            fprintf(stderr, "  case %zu: %s\n", i, e.text);
        safetensors_close(s);
    }
    buf_done(&b);
}

int main(void)
{
    test_golden();
    test_real_configs();
    test_disagreements();
    return check_result();
}
