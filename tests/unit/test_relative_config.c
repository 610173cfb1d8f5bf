/* Mistral, Qwen2, Qwen3 and SmolLM3: what their configs mean, and that a window of attention is served only where it changes nothing. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/model/model.h"
#include "tests/check.h"
#include "tests/unit/config_text.h"
#include <stdlib.h>

static bool good(const char *members, struct model_config *c)
{
    struct err e;
    bool ok = CHECK_INT(config_text_read(members, NULL, NULL, c, &e), 0);
    if (!ok)
        fprintf(stderr, "  %s: %s\n", members, e.text);
    return ok;
}

/* What the classes of transformers take for keys that are absent. */
static void test_defaults(void)
{
    static const struct {
        const char *type, *name;
        int heads, kv_heads, head_dim, positions, bos, eos, window;
        double theta;
        bool tied, qkv_bias, o_bias, qk_norm;
    } cases[] = {
        {"llama", "LlamaForCausalLM", 8, 8, 8, 2048, 1, 2, 0, 1e4, false, false, false, false},
        {"llama", "LLaMAForCausalLM", 8, 8, 8, 2048, 1, 2, 0, 1e4, false, false, false, false},
        {"mistral", "MistralForCausalLM", 8, 8, 8, 131072, 1, 2, 4096, 1e4, false, false, false, false},
        {"qwen2", "Qwen2ForCausalLM", 32, 32, 2, 32768, -1, -1, 0, 1e4, false, true, false, false},
        {"qwen3", "Qwen3ForCausalLM", 32, 32, 128, 32768, -1, -1, 0, 1e4, false, false, false, true},
        {"smollm3", "SmolLM3ForCausalLM", 8, 4, 8, 32768, 128000, 128001, 0, 2e6, true, false, false, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char members[512];
        struct model_config c;
        snprintf(members, sizeof(members),
                 "\"model_type\":\"%s\",\"architectures\":[\"%s\"],\"hidden_size\":64,\"intermediate_size\":8,\"num_hidden_layers\":4,"
                 "\"num_attention_heads\":%d,\"vocab_size\":200000",
                 cases[i].type, cases[i].name, cases[i].heads);
        if (!good(members, &c))
            continue;
        bool ok = CHECK_INT(c.n_kv_heads, cases[i].kv_heads) && CHECK_INT(c.head_dim, cases[i].head_dim) &&
                  CHECK_INT(c.max_position_embeddings, cases[i].positions) && CHECK_INT(c.bos_id, cases[i].bos) &&
                  CHECK_INT(c.eos_id, cases[i].eos) && CHECK_INT(c.window, cases[i].window) && CHECK(c.rope.theta == cases[i].theta) &&
                  CHECK_INT(c.tied, cases[i].tied) && CHECK_INT(c.qkv_bias, cases[i].qkv_bias) && CHECK_INT(c.o_bias, cases[i].o_bias) &&
                  CHECK_INT(c.qk_norm, cases[i].qk_norm) && CHECK(!c.mlp_bias && c.rms_eps == 1e-6f);
        if (!ok)
            fprintf(stderr, "  %s\n", cases[i].name);
    }
}

#define OF(type) "\"model_type\":\"" type "\",\"num_key_value_heads\":4," CONFIG_SHAPE

static void test_biases(void)
{
    static const struct {
        const char *members;
        bool qkv, o, mlp;
    } cases[] = {
        {OF("llama") ",\"attention_bias\":true,\"mlp_bias\":true", true, true, true},
        {OF("mistral") ",\"attention_bias\":true,\"mlp_bias\":true", false, false, false}, /* the class does not read them */
        {OF("qwen2") ",\"attention_bias\":false", true, false, false},
        {OF("qwen3") ",\"attention_bias\":true,\"mlp_bias\":true", true, true, false},
        {OF("smollm3") ",\"attention_bias\":true,\"mlp_bias\":true", true, true, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_config c;
        if (good(cases[i].members, &c) && !CHECK(c.qkv_bias == cases[i].qkv && c.o_bias == cases[i].o && c.mlp_bias == cases[i].mlp))
            fprintf(stderr, "  %s\n", cases[i].members);
    }
}

/* Models of four layers. */
static void test_windows(void)
{
    static const struct {
        const char *members;
        int window;
    } cases[] = {
        {OF("llama") ",\"sliding_window\":null", 0},
        {OF("llama") ",\"sliding_window\":64", 64},
        {OF("llama") ",\"sliding_window\":64,\"use_sliding_window\":false", 0},
        {OF("llama") ",\"sliding_window\":64,\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"full_attention\"]",
         0},
        {OF("mistral"), 4096},
        {OF("mistral") ",\"sliding_window\":null", 0},
        {OF("mistral") ",\"sliding_window\":64", 64},
        {OF("mistral") ",\"sliding_window\":64,\"layer_types\":[\"full_attention\"]", 64}, /* the class does not read layer_types */
        {OF("qwen2") ",\"sliding_window\":64,\"max_window_layers\":0", 0},
        {OF("qwen2") ",\"sliding_window\":64,\"use_sliding_window\":false,\"max_window_layers\":0", 0},
        {OF("qwen2") ",\"sliding_window\":64,\"use_sliding_window\":true,\"max_window_layers\":4", 0},
        {OF("qwen2") ",\"sliding_window\":64,\"use_sliding_window\":true", 0}, /* 28 layers come before */
        {OF("qwen2") ",\"sliding_window\":64,\"use_sliding_window\":true,\"max_window_layers\":3", 64},
        {OF("qwen2") ",\"use_sliding_window\":true,\"max_window_layers\":3", 4096},
        {OF("qwen3") ",\"sliding_window\":64,\"use_sliding_window\":true,\"layer_types\":[\"full_attention\",\"sliding_attention\"]", 64},
        {OF("qwen3") ",\"sliding_window\":64,\"use_sliding_window\":true,\"layer_types\":[\"full_attention\"],\"max_window_layers\":0", 0},
        {OF("smollm3") ",\"sliding_window\":64,\"use_sliding_window\":false", 0},
        {OF("smollm3") ",\"sliding_window\":64,\"use_sliding_window\":true", 64},
        {OF("smollm3") ",\"sliding_window\":64,\"use_sliding_window\":true,\"no_rope_layers\":[1,1,1,1]", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_config c;
        if (good(cases[i].members, &c) && !CHECK_INT(c.window, cases[i].window))
            fprintf(stderr, "  %s\n", cases[i].members);
    }
}

static void test_no_rope(void)
{
    static const struct {
        const char *members, *layers /* which have no positions */;
    } cases[] = {
        {OF("smollm3"), "...n"},
        {OF("smollm3") ",\"no_rope_layer_interval\":2", ".n.n"},
        {OF("smollm3") ",\"no_rope_layer_interval\":1", "nnnn"},
        {OF("smollm3") ",\"no_rope_layers\":[0,1,1,0],\"no_rope_layer_interval\":2", "n..n"},
        {OF("smollm3") ",\"no_rope_layers\":null", "...n"},
        {OF("qwen3") ",\"no_rope_layer_interval\":2", "...."},
        {OF("llama") ",\"no_rope_layers\":[]", "...."},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_config c;
        struct layer_plan plan[4];
        if (!good(cases[i].members, &c) || !CHECK_INT(layer_plan_derive(&c, FAMILY_DENSE, plan, NULL), 0))
            continue;
        for (int l = 0; l < 4; l++)
            if (!CHECK_INT(plan[l].no_rope, cases[i].layers[l] == 'n'))
                fprintf(stderr, "  %s layer %d\n", cases[i].members, l);
    }
}

static void test_refusals(void)
{
    static const struct {
        const char *members, *key, *says;
    } bad[] = {
        {OF("mistral") ",\"architectures\":[\"LlamaForCausalLM\"]", "architectures", "with model_type mistral; only MistralForCausalLM is"},
        {OF("qwen2") ",\"architectures\":[\"Qwen2ForSequenceClassification\"]", "architectures", "Classification"},
        {OF("qwen2_moe"), "model_type", "qwen2_moe"},
        {OF("mistral") ",\"dtrnet_layers\":[0]", "dtrnet_layers", "llama alone, and model_type is mistral"},
        {OF("qwen2") ",\"layer_layout\":\"TDTD\"", "layer_layout", "qwen2"},
        {OF("qwen3") ",\"norm_method\":\"lns\"", "norm_method", "qwen3"},
        {OF("smollm3") ",\"routing\":\"expert_choice\",\"attn_capacity\":0.5", "routing", "smollm3"},
        {OF("smollm3") ",\"router_type\":\"mamba\"", "router_type", "smollm3"},
        {OF("smollm3") ",\"no_rope_layers\":[1,0]", "no_rope_layers", "list of 4 numbers"},
        {OF("smollm3") ",\"no_rope_layers\":[1,0,2,1]", "no_rope_layers", "no_rope_layers[2]"},
        {OF("smollm3") ",\"no_rope_layers\":3", "no_rope_layers", "list of 4"},
        {OF("smollm3") ",\"no_rope_layer_interval\":0", "no_rope_layer_interval", "0"},
        {OF("llama") ",\"no_rope_layers\":[1,0,1,0]", "no_rope_layers", "not implemented"},
        {OF("mistral") ",\"sliding_window\":-1", "sliding_window", "-1"},
        {OF("mistral") ",\"sliding_window\":\"4096\"", "sliding_window", "string"},
        {OF("qwen2") ",\"layer_types\":[\"sliding_attention\"]", "layer_types", "no key says how wide"},
        {OF("qwen3") ",\"layer_types\":[\"linear_attention\"]", "layer_types", "linear_attention"},
        {OF("qwen3") ",\"layer_types\":[3]", "layer_types", "not a string"},
        {OF("qwen3") ",\"layer_types\":\"full_attention\"", "layer_types", "list"},
        {OF("qwen2") ",\"use_sliding_window\":1", "use_sliding_window", "integer"},
        {OF("qwen2") ",\"max_window_layers\":-1,\"use_sliding_window\":true", "max_window_layers", "-1"},
        {"\"model_type\":\"mistral\"," CONFIG_SHAPE, "num_key_value_heads", "8 does not divide num_attention_heads 4"}, /* the default */
        {OF("qwen3") ",\"head_dim\":258", "head_dim", "258"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct model_config c;
        struct err e;
        int r = config_text_read(bad[i].members, NULL, NULL, &c, &e);
        bool ok = CHECK(r == ERR_INVALID || r == ERR_UNSUPPORTED) && CHECK(strstr(e.text, bad[i].says) != NULL) &&
                  CHECK(strstr(e.param, bad[i].key) != NULL);
        if (!ok)
            fprintf(stderr, "  %s: %d, %s, %s\n", bad[i].members, r, e.param, e.text);
    }
}

/* The golden model's window is 512, and so is its length. */
static void test_window_and_length(void)
{
    static const struct {
        int max_model_len, code;
    } cases[] = {{0, 0}, {100, 0}, {512, 0}, {513, ERR_UNSUPPORTED}, {1 << 20, ERR_UNSUPPORTED}};
    const struct backend *cpu = NULL;
    struct err e = {0};
    if (!CHECK_INT(backend_find("cpu", &cpu, &e), 0))
        return;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model m;
        const struct model_options o = {.dir = GOLDEN_DIR "/mistral-window-bf16",
                                        .n_threads = 1,
                                        .max_model_len = cases[i].max_model_len,
                                        .overrides = {.bos_id = -1, .eos_id = -1}};
        int r = model_open(&o, cpu, &m, &e);
        bool ok = CHECK_INT(r, cases[i].code);
        if (ok && r < 0)
            ok = CHECK_STR(e.param, "max_model_len") &&
                 CHECK(strstr(e.text, "more than 512 tokens; with max_model_len 512 or less") != NULL);
        if (!ok)
            fprintf(stderr, "  max_model_len %d: %s\n", cases[i].max_model_len, e.text);
        model_close(&m);
    }
}

int main(void)
{
    test_defaults();
    test_biases();
    test_windows();
    test_no_rope();
    test_refusals();
    test_window_and_length();
    return check_result();
}
