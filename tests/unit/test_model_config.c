/* config.json, good and bad: what is read, and that each refusal names key, limit and value. */
#include "tests/check.h"
#include "tests/unit/config_text.h"
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BASE "\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"]," CONFIG_SHAPE

static bool good(const char *members, struct model_config *ret)
{
    struct err e;
    bool ok = CHECK_INT(config_text_read(members, NULL, NULL, ret, &e), 0);
    if (!ok)
        fprintf(stderr, "  %s: %s\n", members, e.text);
    return ok;
}

static void test_defaults(void)
{
    struct model_config c;
    if (!good(BASE, &c))
        return;
    CHECK(c.hidden == 64 && c.ffn == 128 && c.n_layers == 4 && c.n_heads == 4 && c.n_kv_heads == 4 && c.head_dim == 16 && c.vocab == 256);
    CHECK(c.rms_eps == 1e-6f && !c.tied && !c.qkv_bias && !c.o_bias && !c.mlp_bias && c.max_position_embeddings == 2048);
    CHECK(c.rope.type == ROPE_DEFAULT && c.rope.theta == 10000 && c.rope.attention_factor == 1 && c.default_max_model_len == 2048);
    CHECK(c.bos_id == 1 && c.eos_id == 2 && c.n_eos == 1 && c.eos_ids[0] == 2 && !c.has_dense_layers && c.save_dtype == DTYPE_F32);
}

static void test_values(void)
{
    struct model_config c;
    if (good(BASE ",\"num_key_value_heads\":2,\"head_dim\":24,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true,\"attention_bias\":true,"
                  "\"mlp_bias\":true,\"rope_theta\":500000,\"max_position_embeddings\":8192,\"dtrnet_layers\":[3,0],\"bos_token_id\":0,"
                  "\"eos_token_id\":[7,8],\"torch_dtype\":\"bfloat16\",\"hidden_act\":\"silu\",\"topk\":0.125,\"auto_map\":{\"a\":\"b\"},"
                  "\"min_dtype\":-3.4e38,\"use_cache\":true,\"pretraining_tp\":1",
             &c)) {
        CHECK(c.n_kv_heads == 2 && c.head_dim == 24 && c.rms_eps == 1e-5f && c.tied && c.qkv_bias && c.o_bias && c.mlp_bias);
        CHECK(c.rope.theta == 500000 && c.max_position_embeddings == 8192 && c.save_dtype == DTYPE_BF16);
        CHECK(c.has_dense_layers && !strncmp(c.layout, "TDDT", 4));
        CHECK(c.bos_id == 0 && c.eos_id == 7 && c.n_eos == 2 && c.eos_ids[1] == 8);
        CHECK(model_config_is_eos(&c, 7) && model_config_is_eos(&c, 8) && !model_config_is_eos(&c, 2));
    }
    if (good(BASE ",\"dtrnet_layers\":[],\"bos_token_id\":null,\"eos_token_id\":null,\"dtype\":\"float16\"", &c))
        CHECK(c.has_dense_layers && c.layout[0] == 'D' && c.bos_id == -1 && c.eos_id == -1 && c.n_eos == 0 && c.save_dtype == DTYPE_F16);
}

/* Keys of other architectures pass with the value that changes nothing; a public SmolLM file is full of them. */
static void test_neutral(void)
{
    struct model_config c;
    good(BASE ",\"sliding_window\":null,\"use_sliding_window\":false,\"partial_rotary_factor\":1.0,\"quantization_config\":null,"
              "\"layer_types\":[\"full_attention\",\"full_attention\"],\"attn_logit_softcapping\":null,\"logit_scale\":1,\"num_experts\":0,"
              "\"is_llama_config\":true,\"rope_interleaved\":false,\"transformers.js_config\":{\"a\":1},\"hidden_activation\":\"silu\","
              "\"pruned_heads\":{},\"never_heard_of\":null,\"nor_of_this\":false,\"or_that\":[]",
         &c);
}

static void test_refusals(void)
{
    static const struct {
        const char *members, *key, *says;
    } bad[] = {
        {"\"architectures\":[\"LlamaForCausalLM\"]", "model_type", "missing"},
        {"\"model_type\":\"gemma\"", "model_type", "'gemma' is not implemented; llama, mistral, qwen2, qwen3 and smollm3 are"},
        {"\"model_type\":\"llama\",\"architectures\":[\"MistralForCausalLM\"]", "architectures", "Mistral"},
        {"\"model_type\":\"llama\",\"architectures\":[\"LlamaForSequenceClassification\"]", "architectures", "Classification"},
        {"\"model_type\":\"llama\",\"hidden_size\":64", "intermediate_size", "missing"},
        {BASE ",\"hidden_act\":\"gelu\"", "hidden_act", "gelu"},
        {BASE ",\"head_dim\":21", "head_dim", "21 must be an even number"},
        {BASE ",\"head_dim\":512", "head_dim", "512"},
        {BASE ",\"num_key_value_heads\":3", "num_key_value_heads", "3 does not divide"},
        {BASE ",\"num_key_value_heads\":8", "num_key_value_heads", "8"},
        {BASE ",\"num_key_value_heads\":\"2\"", "num_key_value_heads", "string"},
        {BASE ",\"rms_norm_eps\":0", "rms_norm_eps", "0"},
        {BASE ",\"rms_norm_eps\":-1e-5", "rms_norm_eps", "-1e-05"},
        {BASE ",\"rope_theta\":0", "rope_theta", "0"},
        {BASE ",\"max_position_embeddings\":0", "max_position_embeddings", "0"},
        {BASE ",\"attention_bias\":1", "attention_bias", "integer"},
        {BASE ",\"tie_word_embeddings\":\"yes\"", "tie_word_embeddings", ""},
        {BASE ",\"dtrnet_layers\":[4]", "dtrnet_layers", "4"},
        {BASE ",\"dtrnet_layers\":[-1]", "dtrnet_layers", "-1"},
        {BASE ",\"dtrnet_layers\":[0.5]", "dtrnet_layers", ""},
        {BASE ",\"dtrnet_layers\":3", "dtrnet_layers", ""},
        {BASE ",\"bos_token_id\":\"<s>\"", "bos_token_id", "whole number"},
        {BASE ",\"eos_token_id\":1.5", "eos_token_id", "whole number"},
        {BASE ",\"eos_token_id\":[1,[2]]", "eos_token_id", "whole number"},
        {BASE ",\"eos_token_id\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "eos_token_id", "17 ids"},
        {BASE ",\"torch_dtype\":\"int8\"", "torch_dtype", "int8"},
        {BASE ",\"pretraining_tp\":0", "pretraining_tp", "0"},
        {BASE ",\"sliding_window\":0", "sliding_window", "0"},
        {BASE ",\"use_sliding_window\":true", "use_sliding_window", "true"},
        {BASE ",\"partial_rotary_factor\":0.5", "partial_rotary_factor", "0.5"},
        {BASE ",\"quantization_config\":{\"bits\":4,\"quant_method\":\"gptq\"}", "quantization_config",
         "weights are quantised (quant_method 'gptq', bits 4)"},
        {BASE ",\"quantization\":{\"group_size\":64,\"bits\":8}", "quantization", "bits 8"},
        {BASE ",\"compression_config\":{\"quant_method\":\"compressed-tensors\"}", "compression_config", "'compressed-tensors')"},
        {BASE ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]", "layer_types", "sliding_attention"},
        {BASE ",\"attn_logit_softcapping\":50.0", "attn_logit_softcapping", "50"},
        {BASE ",\"logit_scale\":0.0625", "logit_scale", "0.0625"},
        {BASE ",\"embedding_multiplier\":12", "embedding_multiplier", "12"},
        {BASE ",\"num_experts\":8", "num_experts", "8"},
        {BASE ",\"num_local_experts\":8", "num_local_experts", "8"},
        {BASE ",\"rope_interleaved\":true", "rope_interleaved", "true"},
        {BASE ",\"never_heard_of\":3", "never_heard_of", "know"},
        {BASE ",\"never_heard_of\":\"x\"", "never_heard_of", "know"},
        {BASE ",\"rope_scaling\":3", "rope_scaling", "object"},
        {BASE ",\"rope_scaling\":{\"factor\":2.0}", "rope_type", "missing"},
        {BASE ",\"rope_parameters\":{\"factor\":2.0}", "rope_type", "missing"}, /* what is more than theta would be passed over */
        {BASE ",\"rope_scaling\":{\"rope_theta\":10000}", "rope_type", "missing"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0}", "rope_type", "dynamic"},
        {BASE ",\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2.0}", "rope_type", "longrope"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"linear\",\"type\":\"yarn\",\"factor\":2.0}", "rope_type", "yarn"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"linear\"}", "factor", "missing"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0.5}", "factor", "0.5"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"short_factor\":[1]}", "short_factor", "short_factor"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"truncate\":false}", "truncate", "truncate"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"attention_factor\":-1}", "attention_factor", "-1"},
        {BASE ",\"rope_theta\":1,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}", "rope_theta", "above 1"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}",
         "original_max_position_embeddings", "missing"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,\"original_max_"
              "position_embeddings\":32}",
         "high_freq_factor", "above"},
        {BASE ",\"rope_scaling\":{\"rope_type\":\"default\"},\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2}",
         "rope_parameters", "differ"},
        {BASE ",\"rope_theta\":10000,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":20000}", "rope_theta", "20000"},
        {BASE ",\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.25}", "partial_rotary_factor", "partial"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct model_config c;
        struct err e;
        int r = config_text_read(bad[i].members, NULL, NULL, &c, &e);
        bool ok = CHECK(r == ERR_INVALID || r == ERR_UNSUPPORTED) && CHECK(strstr(e.text, bad[i].says) != NULL) &&
                  CHECK(strstr(e.param, bad[i].key) != NULL) && CHECK(strstr(e.text, bad[i].key) || strstr(e.text, "rope_scaling"));
        if (!ok)
            fprintf(stderr, "  %s: %d, %s, %s\n", bad[i].members, r, e.param, e.text);
    }
}

/* ---- RoPE ------------------------------------------------------------------------------------------------------ */

static void test_rope(void)
{
    /* max_position_embeddings, settings; effective factor, original length, attention factor, default length, whether it warns */
    static const struct {
        int max_pos;
        const char *settings;
        bool is_override;
        double factor, length, attention;
        int max_len;
        bool warns;
    } cases[] = {
        {2048, "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":4}", false, 4, 0, 1, 8192, false},
        {2048, "\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}", false, 4, 0, 1, 8192, false},
        {64,
         "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_"
         "embeddings\":32}",
         false, 8, 32, 1, 64, false},
        {32, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":10}", false, 10, 32, 1.2302585, 320, false},
        {320, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":10,\"original_max_position_embeddings\":32}", false, 10, 32, 1.2302585,
         320, false},
        {2048, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":10,\"original_max_position_embeddings\":2048}", false, 1, 2048, 1, 2048,
         true},
        {2048,
         "\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":10,\"original_max_position_embeddings\":2048,\"rope_theta\":10000.0}",
         false, 10, 2048, 1.2302585, 20480, false},
        {2048, "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}", false, 1, 0, 1, 2048, false},
        {32, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":8,\"attention_factor\":1.1}", false, 8, 32, 1.1, 256, false},
        {32, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":10,\"mscale\":1.0,\"mscale_all_dim\":0.4}", false, 10, 32,
         1.2302585 / 1.0921034, 320, false},
        {2048, "{\"rope_type\":\"yarn\",\"factor\":10}", true, 10, 2048, 1.2302585, 20480, false},
        {2048, "{\"rope_type\":\"yarn\",\"factor\":10,\"original_max_position_embeddings\":1024}", true, 10, 1024, 1.2302585, 10240, false},
        {2048, "{\"rope_type\":\"default\"}", true, 1, 0, 1, 2048, false},
        {2048, "\"rope_parameters\":{\"rope_theta\":10000.0}", false, 1, 0, 1, 2048, false}, /* without a type */
        {2048, "\"rope_parameters\":{}", false, 1, 0, 1, 2048, false},
        {2048, "\"rope_scaling\":{}", false, 1, 0, 1, 2048, false},
        {2048, "\"rope_scaling\":{},\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2}", false, 2, 0, 1, 4096, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char members[1024];
        struct model_config c;
        struct err e;
        const struct model_overrides o = {.rope_scaling = cases[i].is_override ? cases[i].settings : NULL, .bos_id = -1, .eos_id = -1};
        snprintf(members, sizeof(members), BASE ",\"max_position_embeddings\":%d,%s", cases[i].max_pos,
                 cases[i].is_override ? "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":3}" : cases[i].settings);
        bool ok = CHECK_INT(config_text_read(members, NULL, &o, &c, &e), 0) && CHECK(fabs(c.rope.factor - cases[i].factor) < 1e-9) &&
                  CHECK(cases[i].length == 0 || c.rope.original_length == cases[i].length) &&
                  CHECK(fabs(c.rope.attention_factor - cases[i].attention) < 1e-6) &&
                  CHECK_INT(c.default_max_model_len, cases[i].max_len) &&
                  CHECK_INT(strstr(config_text_log, "effective") != NULL, cases[i].warns);
        if (!ok)
            fprintf(stderr, "  case %zu: %s %s\n", i, e.text, config_text_log);
    }
}

/* YaRN with both lengths, which give 320 / 64 = 5, and a factor of 10. */
static void test_rope_factor(void)
{
    static const struct {
        const char *type, *where, *rope_factor;
        double factor;
        bool warns;
    } cases[] = {
        {"llama", "rope_scaling", NULL, 5, true},        {"llama", "rope_scaling", "ratio", 5, false},
        {"llama", "rope_scaling", "config", 10, false},  {"llama", "rope_parameters", NULL, 10, false},
        {"llama", "rope_parameters", "ratio", 5, false}, {"llama", "rope_parameters", "config", 10, false},
        {"qwen2", "rope_scaling", NULL, 10, true},       {"qwen2", "rope_scaling", "ratio", 5, false},
        {"qwen2", "rope_scaling", "config", 10, false},  {"smollm3", "rope_parameters", NULL, 10, false},
    };
    struct model_config c;
    struct err e;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char members[1024];
        const struct model_overrides o = {.bos_id = -1, .eos_id = -1, .rope_factor = cases[i].rope_factor};
        snprintf(members, sizeof(members),
                 "\"model_type\":\"%s\"," CONFIG_SHAPE ",\"num_key_value_heads\":4,\"max_position_embeddings\":320,"
                 "\"%s\":{\"rope_type\":\"yarn\",\"factor\":10,\"original_max_position_embeddings\":64}",
                 cases[i].type, cases[i].where);
        bool ok = CHECK_INT(config_text_read(members, NULL, &o, &c, &e), 0) && CHECK(c.rope.factor == cases[i].factor) &&
                  CHECK_INT(c.default_max_model_len, (int)(64 * cases[i].factor)) &&
                  CHECK_INT(strstr(config_text_log, "rope_factor") != NULL, cases[i].warns);
        if (!ok)
            fprintf(stderr, "  case %zu: %s %s\n", i, e.text, config_text_log);
    }
    const struct model_overrides bad = {.bos_id = -1, .eos_id = -1, .rope_factor = "both"};
    CHECK_INT(config_text_read(BASE, NULL, &bad, &c, &e), ERR_INVALID);
    CHECK(strstr(e.text, "rope_factor_override") && strstr(e.text, "both"));
}

static void test_bad_overrides(void)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "3",
                                      "{}",
                                      "{\"rope_type\":\"dynamic\",\"factor\":2}",
                                      "{\"rope_type\":\"yarn\"}",
                                      "{\"rope_type\":\"yarn\",\"factor\":1e99}"};
    struct model_config c;
    struct err e;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct model_overrides o = {.rope_scaling = bad[i], .bos_id = -1, .eos_id = -1};
        CHECK(config_text_read(BASE, NULL, &o, &c, &e) < 0);
        CHECK(strstr(e.text, "rope_scaling_override") != NULL);
    }
}

/* Ids that no token can be are none, and the log says so. */
static void test_impossible_ids(void)
{
    static const struct {
        const char *members;
        int bos, n_eos, eos;
        bool warns;
    } cases[] = {
        {BASE ",\"bos_token_id\":-1,\"eos_token_id\":-1", -1, 0, -1, true},
        {BASE ",\"bos_token_id\":256,\"eos_token_id\":256", -1, 0, -1, true},
        {BASE ",\"bos_token_id\":255,\"eos_token_id\":255", 255, 1, 255, false},
        {BASE ",\"eos_token_id\":[300,7,-1,9223372036854775807]", 1, 1, 7, true},
        {BASE ",\"eos_token_id\":[]", 1, 0, -1, false},
        {BASE ",\"eos_token_id\":7.0,\"bos_token_id\":1e300", -1, 1, 7, true},
        {BASE ",\"pad_token_id\":-1", 1, 1, 2, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_config c;
        struct err e;
        bool ok = CHECK_INT(config_text_read(cases[i].members, NULL, NULL, &c, &e), 0) && CHECK_INT(c.bos_id, cases[i].bos) &&
                  CHECK_INT(c.n_eos, cases[i].n_eos) && CHECK_INT(c.eos_id, cases[i].eos) &&
                  CHECK_INT(strstr(config_text_log, "no such token") != NULL, cases[i].warns);
        if (!ok)
            fprintf(stderr, "  %s: %s %s\n", cases[i].members, e.text, config_text_log);
    }
}

static void test_special_ids(void)
{
    struct model_config c;
    struct err e;
    CHECK_INT(config_text_read(BASE ",\"bos_token_id\":0,\"eos_token_id\":0",
                               "\"bos_token_id\":1,\"eos_token_id\":[2,3],\"temperature\":0.7", NULL, &c, &e),
              0);
    CHECK(c.bos_id == 1 && c.eos_id == 2 && c.n_eos == 2 && strstr(config_text_log, "bos_token_id") &&
          strstr(config_text_log, "eos_token_id"));
    CHECK_INT(config_text_read(BASE ",\"bos_token_id\":0,\"eos_token_id\":0", "\"bos_token_id\":0,\"eos_token_id\":0", NULL, &c, &e), 0);
    CHECK(c.bos_id == 0 && c.eos_id == 0 && !config_text_log[0]);
    CHECK_INT(config_text_read(BASE, "\"eos_token_id\":999", NULL, &c, &e), 0);
    CHECK(c.n_eos == 0 && c.eos_id == -1 && strstr(config_text_log, "generation_config.json") && strstr(config_text_log, "999"));
    struct model_overrides o = {.bos_id = 5, .eos_id = 6};
    CHECK_INT(config_text_read(BASE ",\"eos_token_id\":[7,8]", NULL, &o, &c, &e), 0);
    CHECK(c.bos_id == 5 && c.eos_id == 6 && c.n_eos == 1 && c.eos_ids[0] == 6);
    o.eos_id = 256;
    CHECK_INT(config_text_read(BASE, NULL, &o, &c, &e), ERR_INVALID);
    CHECK(strstr(e.text, "256") != NULL);
}

static void test_files(void)
{
    char dir[] = "/tmp/test_model_config.XXXXXX", path[128];
    struct model_config c;
    struct err e;
    if (!CHECK(mkdtemp(dir) != NULL))
        return;
    CHECK_INT(model_config_load(dir, NULL, NULL, &c, &e), ERR_NOT_FOUND);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    static const char *const texts[] = {"", "[]", "{", "null", "{\"model_type\":\"llama\"} x"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        FILE *f = fopen(path, "w");
        fputs(texts[i], f);
        fclose(f);
        CHECK_INT(model_config_load(dir, NULL, NULL, &c, &e), ERR_INVALID);
        CHECK(strstr(e.text, "config.json") != NULL);
    }
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    test_defaults();
    test_values();
    test_neutral();
    test_refusals();
    test_rope();
    test_rope_factor();
    test_bad_overrides();
    test_impossible_ids();
    test_special_ids();
    test_files();
    return check_result();
}
