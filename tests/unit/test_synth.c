/* Random checkpoints of every family and dtype: they load, every routed layer selects the wanted share, and nothing is overwritten.
 * An argument is how many tokens they see, 16,384 without: the more, the closer the share must be. */
#include "engine/tools/synth.h"
#include "tests/check.h"
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

static char root[] = "/tmp/test_synth.XXXXXX";
static int n_tokens;

static void put_config(const char *path, const char *more)
{
    FILE *f = fopen(path, "w");
    fprintf(f,
            "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":4,\"num_attention_heads\":4,"
            "\"num_key_value_heads\":2,\"vocab_size\":1024,\"tie_word_embeddings\":true%s}",
            more);
    fclose(f);
}

static int make(const char *family, const char *more, double rate, const char *name, struct synth_report *report, struct err *e)
{
    char config[128], out[128];
    snprintf(config, sizeof(config), "%s/config.json", root);
    snprintf(out, sizeof(out), "%s/%s", root, name);
    put_config(config, more);
    const struct synth_options o = {.config = config,
                                    .out = out,
                                    .family = family,
                                    .route_rate = rate,
                                    .execute_rate = 0.6,
                                    .seed = 7,
                                    .n_tokens = n_tokens,
                                    .n_threads = 2};
    return synth_run(&o, report, e);
}

#define EXPERT ",\"layer_layout\":\"TSDS\",\"routing\":\"expert_choice\",\"attn_capacity\":0.25,\"exec_capacity\":0.6"

static void test_families(struct synth_report *report)
{
    static const struct {
        const char *family, *more;
        double rate;
        int n_routed;
    } cases[] = {
        {NULL, "", 0.1, 0},
        {"dense", ",\"attention_bias\":true,\"mlp_bias\":true,\"torch_dtype\":\"bfloat16\"", 0.1, 0},
        {NULL, ",\"dtrnet_layers\":[0,2]", 0.1, 2},
        {NULL, ",\"dtrnet_layers\":[0],\"torch_dtype\":\"bfloat16\"", 0.1, 3},
        {NULL, ",\"dtrnet_layers\":[],\"torch_dtype\":\"float16\",\"max_position_embeddings\":100", 0.25, 4},
        {"mod", ",\"torch_dtype\":\"bfloat16\"", 0.1, 2},
        {"mod", "", 0.5, 2},
        {"dllm", "", 0.1, 2},
        {"dllm", ",\"torch_dtype\":\"bfloat16\"", 0.3, 2},
        {"dtrnet", ",\"dtrnet_layers\":[1,3]", 0, 2},
        {"dtrnet", ",\"dtrnet_layers\":[1,3]", 1, 2},
        {NULL, ",\"layer_layout\":\"TSDS\"", 0.25, 3},
        {NULL, ",\"layer_layout\":\"TSDS\",\"router_type\":\"mamba\",\"torch_dtype\":\"bfloat16\"", 0.25, 3},
        {NULL, ",\"layer_layout\":\"SDTS\",\"norm_method\":\"hybridnorm*\",\"head_dim\":10,\"torch_dtype\":\"float16\"", 0.25, 3},
        {NULL, EXPERT ",\"expert_choice_inference\":\"threshold\",\"norm_method\":\"lns\",\"torch_dtype\":\"bfloat16\"", 0.25, 3},
        {NULL, EXPERT ",\"router_type\":\"mamba\"", 0.25, 3}, /* selects exactly, by rank */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[16];
        struct err e = {0};
        int n_routed = 0;
        snprintf(name, sizeof(name), "%zu", i);
        bool ok = CHECK_INT(make(cases[i].family, cases[i].more, cases[i].rate, name, report, &e), 0);
        for (int l = 0; l < report->n_layers; l++)
            n_routed += layer_is_routed(&report->plan[l]);
        if (ok)
            ok =
                CHECK_INT(n_routed, cases[i].n_routed) &&
                CHECK(report->worst <= sqrt(cases[i].rate * (1 - cases[i].rate) * 16384 / n_tokens) / 30); /* of 16,384: 0.01 for a tenth */
        if (!ok)
            fprintf(stderr, "  case %zu: %s, worst %.4f\n", i, e.text, report->worst);
    }
}

static void test_refusals(struct synth_report *report)
{
    struct err e = {0};
    CHECK_INT(make(NULL, "", 0.1, "0", report, &e), ERR_IO); /* there is one already */
    CHECK(strstr(e.text, "exist") != NULL);
    CHECK_INT(make(NULL, "", 1.5, "x", report, &e), ERR_INVALID);
    CHECK_INT(make(NULL, "", NAN, "x", report, &e), ERR_INVALID);
    CHECK_INT(make("mamba", "", 0.1, "x", report, &e), ERR_INVALID);
    CHECK_INT(make("dtrnet", "", 0.1, "x", report, &e), ERR_INVALID);
    CHECK_INT(make("mod", ",\"dtrnet_layers\":[]", 0.1, "x", report, &e), ERR_INVALID);
    CHECK_INT(make(NULL, ",\"logit_scale\":8", 0.1, "x", report, &e), ERR_UNSUPPORTED);
    CHECK_INT(make(NULL, "", 0.1, "no/such/parent", report, &e), ERR_IO);
}

int main(int argc, char **argv)
{
    n_tokens = argc > 1 ? atoi(argv[1]) : 16384;
    struct synth_report *report = calloc(1, sizeof(*report));
    if (!CHECK(mkdtemp(root) != NULL) || !CHECK(report != NULL))
        return check_result();
    test_families(report);
    test_refusals(report);
    char command[64];
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    CHECK_INT(system(command), 0);
    free(report);
    return check_result();
}
