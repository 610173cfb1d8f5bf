/* Random weights filled in place: for a dense model they are those of the checkpoint that synth writes, to the bit of every score; 1, 2 and 4 ranks and two
 * replicas have the same, of dense and routed models, in f32 and bf16; another seed has others and another hash. DTRNET_TEST_DEVICE: on which device; with
 * DTRNET_TEST_LIKE=cpu its float32 scores are compared with the CPU's. */
#include "engine/engine.h"
#include "engine/tools/synth.h"
#include "tests/check.h"
#include <stdlib.h>
#include <sys/stat.h>

enum { N_TOKENS = 40 };

static char root[] = "/tmp/test_random.XXXXXX";
static const char *device;

struct model {
    const char *dir; /* or a config's file */
    const char *dtype, *device, *device_list;
    int ranks;
    bool random;
    uint64_t seed;
};

struct answer {
    float logprobs[N_TOKENS - 1];
    char hash[65];
};

static bool score(const struct model *m, struct answer *ret)
{
    const struct engine_options o = {.model_dir = m->dir,
                                     .device = m->device ? m->device : device,
                                     .device_list = m->device_list,
                                     .tensor_parallel = m->ranks,
                                     .dtype = m->dtype,
                                     .n_threads = 2,
                                     .max_model_len = 64,
                                     .max_batch_tokens = 64,
                                     .kv_cache_bytes = (size_t)4 << 20,
                                     .random_weights = m->random,
                                     .seed = m->seed,
                                     .bos_id = -1,
                                     .eos_id = -1};
    struct engine *e = NULL;
    struct engine_ticket *t = NULL;
    struct err err = {0};
    int32_t tokens[N_TOKENS];
    const char *hash = "";
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = i * i % 101;
    const struct eval_request q = {.tokens = tokens, .n_tokens = N_TOKENS, .score_begin = 1, .top_p = 1};
    memset(ret, 0, sizeof(*ret));
    int r = engine_open(&o, &e, &err);
    if (r >= 0)
        r = engine_model_hash(e, true, &hash, &err);
    snprintf(ret->hash, sizeof(ret->hash), "%s", hash);
    if (r >= 0)
        r = engine_submit(e, &q, 1, &t, &err);
    if (r >= 0 && engine_wait(t, -1) && engine_result(t, 0)->code >= 0)
        memcpy(ret->logprobs, engine_result(t, 0)->logprobs, sizeof(ret->logprobs));
    else if (!CHECK(false))
        fprintf(stderr, "  %s in %s: %s\n", m->dir, m->dtype, t ? engine_result(t, 0)->err.text : err.text);
    engine_ticket_free(t);
    engine_close(e);
    return r >= 0;
}

static bool equal(const struct answer *a, const struct answer *b)
{
    return a->logprobs[0] < 0 && !memcmp(a->logprobs, b->logprobs, sizeof(a->logprobs));
}

static void put_config(char path[128], const char *name, const char *more)
{
    snprintf(path, 128, "%s/%s.json", root, name);
    FILE *f = fopen(path, "w");
    fprintf(f,
            "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":4,\"num_attention_heads\":4,"
            "\"num_key_value_heads\":2,\"vocab_size\":101%s}",
            more);
    fclose(f);
}

/* head_dim 12 is padded, so those values are made on the host. */
static void test_synth(const char *name, const char *more)
{
    char config[128], dir[128];
    struct synth_report *report = calloc(1, sizeof(*report));
    struct answer written, filled;
    struct err err = {0};
    put_config(config, name, more);
    snprintf(dir, sizeof(dir), "%s/%s", root, name);
    const struct synth_options o = {.config = config, .out = dir, .seed = 7, .n_threads = 1};
    if (!CHECK_INT(synth_run(&o, report, &err), 0))
        fprintf(stderr, "  %s\n", err.text);
    for (int i = 0; i < 2; i++) {
        const char *dtype = i ? "bf16" : "f32";
        score(&(struct model){.dir = dir, .dtype = dtype}, &written);
        score(&(struct model){.dir = config, .dtype = dtype, .random = true, .seed = 7}, &filled);
        CHECK(equal(&written, &filled));
        CHECK(strcmp(written.hash, filled.hash) != 0);
        score(&(struct model){.dir = dir, .dtype = dtype, .random = true, .seed = 7}, &filled); /* the directory's config alone */
        CHECK(equal(&written, &filled));
    }
    free(report);
}

static void test_ranks(const char *name, const char *more, const char *dtype)
{
    char config[128];
    struct answer one, other;
    put_config(config, name, more);
    struct model m = {.dir = config, .dtype = dtype, .random = true, .seed = 1};
    score(&m, &one);
    for (m.ranks = 2; m.ranks <= 4; m.ranks += 2) {
        if (strcmp(device, "cpu"))
            continue;
        score(&m, &other);
        CHECK(equal(&one, &other));
        CHECK_STR(other.hash, one.hash);
    }
    m.ranks = 0;
    m.seed = 2;
    score(&m, &other);
    CHECK(!equal(&one, &other));
    CHECK(strcmp(one.hash, other.hash) != 0);
    m.seed = 1;
    m.device = getenv("DTRNET_TEST_LIKE");
    if (m.device && !strcmp(dtype, "f32")) {
        score(&m, &other);
        CHECK(equal(&one, &other));
    }
}

static void test_refusals(void)
{
    char config[128];
    struct err err = {0};
    struct engine *e = NULL;
    put_config(config, "refused", "");
    const struct engine_options file = {.model_dir = config, .device = device, .bos_id = -1, .eos_id = -1};
    CHECK_INT(engine_open(&file, &e, &err), ERR_NOT_FOUND); /* a config alone has no weights */
    CHECK(strstr(err.text, "is one file of a checkpoint") != NULL);
    const struct engine_options nothing = {.model_dir = root, .device = device, .random_weights = true, .bos_id = -1, .eos_id = -1};
    CHECK_INT(engine_open(&nothing, &e, &err), ERR_NOT_FOUND);
}

int main(void)
{
    const char *routed = ",\"dtrnet_layers\":[0,2],\"torch_dtype\":\"bfloat16\"";
    device = getenv("DTRNET_TEST_DEVICE") ? getenv("DTRNET_TEST_DEVICE") : "cpu";
    if (!CHECK(mkdtemp(root) != NULL))
        return check_result();
    test_synth("dense", ",\"torch_dtype\":\"bfloat16\",\"attention_bias\":true");
    test_synth("padded", ",\"torch_dtype\":\"float16\",\"head_dim\":12,\"tie_word_embeddings\":true");
    test_synth("plain", "");
    for (int i = 0; i < 2; i++) {
        test_ranks("ranks", "", i ? "bf16" : "f32");
        test_ranks("routed", routed, i ? "bf16" : "f32");
    }
    test_ranks("mamba", ",\"layer_layout\":\"TDSD\",\"router_type\":\"mamba\"", "f32");
    test_refusals();
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", root);
    CHECK_INT(system(command), 0);
    return check_result();
}
