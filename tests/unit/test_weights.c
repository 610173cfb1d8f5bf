/* Binding: every golden checkpoint loads; and a small made-up checkpoint of each family is refused, naming the tensor, for every tensor
 * that is missing, has another shape or dtype, or holds NaN or infinity, and for one too many. */
#include "common/buf.h"
#include "engine/checkpoint/tensor_schema.h"
#include "engine/model/weights.h"
#include "tests/check.h"
#include <glob.h>
#include <math.h>
#include <stdlib.h>

enum mutation { NOTHING, DROP, OTHER_SHAPE, FLAT_SHAPE, OTHER_DTYPE, PUT_NAN, PUT_INF, MUTATIONS };

/* A checkpoint in memory with F32 tensors, one of which is spoilt. */
struct maker {
    struct buf header, data;
    const char *target;
    enum mutation mutation;
};

/* OTHER_SHAPE turns a matrix round and gives a vector a row; FLAT_SHAPE makes one dimension of all. */
static void spoilt_shape(const struct tensor_spec *t, enum mutation how, char *out, size_t size)
{
    if (how == FLAT_SHAPE)
        snprintf(out, size, "%lld", (long long)tensor_spec_elements(t));
    else if (how == OTHER_SHAPE && t->n_dims == 1)
        snprintf(out, size, "1,%lld", (long long)t->shape[0]);
    else
        for (int i = 0, at = 0; i < t->n_dims; i++)
            at += snprintf(out + at, size - (size_t)at, "%s%lld", i ? "," : "",
                           (long long)t->shape[how == OTHER_SHAPE ? t->n_dims - 1 - i : i]);
}

static int add_tensor(void *user, const struct tensor_spec *t)
{
    struct maker *m = user;
    enum mutation how = m->target && !strcmp(t->name, m->target) ? m->mutation : NOTHING;
    int64_t n = tensor_spec_elements(t);
    size_t begin = m->data.len;
    if (how == DROP)
        return 0;
    for (int64_t i = 0; i < n; i++) {
        float v = i != n / 2 ? 0.01f * (float)(i % 7) : how == PUT_NAN ? NAN : how == PUT_INF ? -INFINITY : 1;
        buf_append(&m->data, &v, sizeof(v));
    }
    char shape[64];
    spoilt_shape(t, how, shape, sizeof(shape));
    return buf_printf(&m->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", m->header.len > 1 ? "," : "",
                      t->name, how == OTHER_DTYPE ? "I32" : "F32", shape, begin, m->data.len);
}

/* Makes, opens and binds; `pad` blanks end the header, so that the data may be misaligned. */
static int load_made(struct kern_ctx *k, const struct model_config *c, const struct layer_plan *plan, const char *target, enum mutation how,
                     const char *extra, int pad, struct err *e)
{
    struct maker m = {.target = target, .mutation = how};
    struct buf file;
    struct safetensors *s = NULL;
    struct weights w = {0};
    buf_init(&m.header, 1 << 20);
    buf_init(&m.data, 1 << 24);
    buf_init(&file, 1 << 24);
    buf_puts(&m.header, "{");
    CHECK_INT(schema_walk(c, plan, add_tensor, &m), 0);
    struct tensor_spec spec = {.n_dims = 1, .shape = {1}};
    snprintf(spec.name, sizeof(spec.name), "%s", extra ? extra : "");
    if (extra)
        add_tensor(&m, &spec);
    buf_printf(&m.header, "}%*s", pad, "");
    uint64_t len = m.header.len;
    buf_append(&file, &len, 8);
    buf_append(&file, m.header.data, m.header.len);
    buf_append(&file, m.data.data, m.data.len);
    int r = safetensors_open_memory("made up", file.data, file.len, &s, e);
    CHECK_INT(r, 0);
    if (r >= 0)
        r = weights_load(k, c, plan, s, &(struct share){0}, NULL, &w, e);
    if (r >= 0)
        weights_free(k, &w);
    safetensors_close(s);
    buf_done(&file);
    buf_done(&m.data);
    buf_done(&m.header);
    return r;
}

struct sweep {
    struct kern_ctx *k;
    const struct model_config *c;
    const struct layer_plan *plan;
};

static int spoil(void *user, const struct tensor_spec *t)
{
    const struct sweep *s = user;
    for (enum mutation how = DROP; how < MUTATIONS; how++) {
        struct err e = {0};
        bool vector = t->n_dims == 1, square = !vector && t->shape[0] == t->shape[t->n_dims - 1];
        if ((how == OTHER_SHAPE && square) || (how == FLAT_SHAPE && vector))
            continue;
        int r = load_made(s->k, s->c, s->plan, t->name, how, NULL, 0, &e);
        if (!CHECK_INT(r, how == OTHER_DTYPE ? ERR_UNSUPPORTED : ERR_CORRUPT) || !CHECK(strstr(e.text, t->name) != NULL))
            fprintf(stderr, "  %s, mutation %d: %s\n", t->name, (int)how, e.text);
    }
    return 0;
}

/* A model of three layers; layout NULL: one that no key describes. */
static struct model_config config_of(const char *layout, bool bias, bool tied)
{
    struct model_config c = {.hidden = 16,
                             .ffn = 24,
                             .n_layers = 3,
                             .n_heads = 3,
                             .n_kv_heads = 1,
                             .head_dim = 8,
                             .vocab = 20,
                             .rms_eps = 1e-5f,
                             .tied = tied,
                             .qkv_bias = bias,
                             .o_bias = bias,
                             .mlp_bias = bias,
                             .has_dense_layers = layout != NULL,
                             .layout = "TTT",
                             .mamba = {.dim = 5, .inner = 10, .d_state = 3, .d_conv = 4, .dt_rank = 2},
                             .attn_capacity = 0.5,
                             .exec_capacity = 0.5};
    if (layout)
        memcpy(c.layout, layout, 3);
    return c;
}

/* Every tensor of the model in turn is missing, misshapen, of another dtype, or holds what is no number; then there is one too many. */
static void sweep_model(struct kern_ctx *k, const struct model_config *c, enum family family)
{
    struct layer_plan plan[3];
    struct err e = {0};
    CHECK_INT(layer_plan_derive(c, family, plan, &e), 0);
    for (int pad = 0; pad < 8; pad++)
        if (!CHECK_INT(load_made(k, c, plan, NULL, NOTHING, NULL, pad, &e), 0))
            fprintf(stderr, "  %s: %s\n", layer_plan_family(plan, 3), e.text);
    struct sweep s = {k, c, plan};
    CHECK_INT(schema_walk(c, plan, spoil, &s), 0);
    CHECK_INT(load_made(k, c, plan, NULL, NOTHING, "model.layers.0.self_attn.rotary_emb.inv_freq", 0, &e), 0);
    static const char *const extras[] = {"model.layers.3.input_layernorm.weight", "model.layers.0.self_attn.p_norm.weight",
                                         "model.layers.0.router.mixer.bias", "surprise", ""};
    for (size_t x = 0; x < sizeof(extras) / sizeof(extras[0]); x++) {
        CHECK_INT(load_made(k, c, plan, NULL, NOTHING, extras[x], 0, &e), ERR_CORRUPT);
        CHECK(strstr(e.text, extras[x]) != NULL);
    }
    CHECK_INT(load_made(k, c, plan, NULL, NOTHING, "model.layers.0.self_attn.q_proj.qweight", 0, &e), ERR_UNSUPPORTED);
    CHECK(strstr(e.text, "q_proj.qweight is of quantised weights") != NULL);
    if (c->tied)
        CHECK_INT(load_made(k, c, plan, NULL, NOTHING, "lm_head.weight", 0, &e), 0);
}

static void test_made_up(struct kern_ctx *k)
{
    static const struct {
        enum family family;
        bool bias, tied;
        const char *layout;
    } models[] = {
        {FAMILY_DENSE, true, false, NULL},
        {FAMILY_DTRNET, false, true, "TDT"},
        {FAMILY_MOD, false, true, NULL},
        {FAMILY_DLLM, true, true, NULL},
    };
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        struct model_config c = config_of(models[i].layout, models[i].bias, models[i].tied);
        sweep_model(k, &c, models[i].family);
    }
}

/* Biases of q, k and v without o's; norms of q and k without v's. */
static void test_made_up_relatives(struct kern_ctx *k)
{
    struct model_config c = config_of(NULL, false, true);
    c.type = MODEL_QWEN2;
    c.qkv_bias = true;
    sweep_model(k, &c, FAMILY_DENSE);
    c.type = MODEL_QWEN3;
    c.qk_norm = true;
    c.head_dim = 6;
    sweep_model(k, &c, FAMILY_DENSE);
}

static void test_made_up_ultradeep(struct kern_ctx *k)
{
    struct model_config c = config_of("SDT", true, false);
    c.norm_method = NORM_METHOD_HYBRID_STAR;
    c.head_dim = 6; /* padded when it is packed */
    sweep_model(k, &c, FAMILY_DTRNET);
    c = config_of("DTS", false, true);
    c.norm_method = NORM_METHOD_LNS;
    c.router_type = ROUTER_TYPE_MAMBA;
    c.expert_choice = true;
    c.expert_inference = EXPERT_THRESHOLD;
    sweep_model(k, &c, FAMILY_DTRNET);
}

static void load_golden(struct kern_ctx *k, const char *dir, const char *dense_layers)
{
    struct model_config c;
    struct layer_plan plan[MODEL_MAX_LAYERS];
    struct safetensors *s = NULL;
    struct weights w = {0};
    struct err e = {0};
    int64_t n = 0;
    bool ok = CHECK_INT(model_config_load(dir, NULL, NULL, &c, &e), 0) && CHECK_INT(safetensors_open_dir(dir, &s, &e), 0) &&
              CHECK_INT(layer_plan_fill(&c, s, dense_layers, plan, &e), 0) &&
              CHECK_INT(weights_load(k, &c, plan, s, &(struct share){0}, NULL, &w, &e), 0);
    if (!ok)
        fprintf(stderr, "  %s: %s\n", dir, e.text);
    for (size_t i = 0; ok && i < safetensors_count(s); i++)
        n += tensor_elements(safetensors_at(s, i));
    CHECK_INT(w.n_params, n);
    CHECK((w.head == w.embed) == c.tied);
    weights_free(k, &w);
    safetensors_close(s);
}

static void load_all(struct kern_ctx *k, const char *pattern, size_t n)
{
    glob_t g;
    if (!CHECK_INT(glob(pattern, 0, NULL, &g), 0) || !CHECK_INT(g.gl_pathc, n))
        return;
    for (size_t i = 0; i < g.gl_pathc; i++) {
        *strrchr(g.gl_pathv[i], '/') = '\0';
        load_golden(k, g.gl_pathv[i], NULL);
    }
    globfree(&g);
}

static void test_golden(struct kern_ctx *k)
{
    load_all(k, GOLDEN_DIR "/*/expected.json", 30);
    load_all(k, ULTRADEEP_DIR "/*/expected.json", 12);
    /* routers, and MoD's expert1, with all layers dense */
    static const char *const forced[] = {GOLDEN_DIR "/dtrnet-bilayer", GOLDEN_DIR "/mod", GOLDEN_DIR "/dllm",
                                         ULTRADEEP_DIR "/nested-mamba-bf16", ULTRADEEP_DIR "/expert-nested-mamba-lns-bf16"};
    for (size_t i = 0; i < sizeof(forced) / sizeof(forced[0]); i++)
        load_golden(k, forced[i], "all");
}

int main(void)
{
    const struct backend *cpu = NULL;
    struct err e = {0};
    if (!CHECK_INT(backend_find("cpu", &cpu, &e), 0))
        return check_result();
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        struct kern_ctx *k = NULL;
        const struct backend_config config = {.dtype = t, .n_threads = 2};
        if (!CHECK_INT(cpu->open(&config, &k, &e), 0)) {
            fprintf(stderr, "  %s\n", e.text);
            continue;
        }
        test_golden(k);
        if (t == DTYPE_F32)
            test_made_up(k);
        if (t == DTYPE_F32)
            test_made_up_relatives(k);
        if (t == DTYPE_F32)
            test_made_up_ultradeep(k);
        cpu->close(k);
    }
    return check_result();
}
