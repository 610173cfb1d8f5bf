/* Every allocation of opening an engine, scoring and closing, and every call of failing_own.h, fails once: the call fails with a sentence, and nothing leaks. */
#include "engine/engine.h"
#include "engine/tools/synth.h"
#include "tests/check.h"
#include "tests/fail/failing.h"
#include "tests/fail/failing_own.h"
#include <stdlib.h>
#include <unistd.h>

static int use_engine(const char *dir, struct err *err)
{
    static const int32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 0, 1, 2};
    const struct engine_options o = {.model_dir = dir,
                                     .device = "cpu",
                                     .dtype = "f32",
                                     .n_threads = 1,
                                     .max_model_len = 32,
                                     .max_batch_tokens = 8,
                                     .kv_cache_bytes = 1 << 20,
                                     .prefix_cache = true,
                                     .bos_id = -1,
                                     .eos_id = -1};
    const struct eval_request q = {
        .tokens = tokens, .n_tokens = 10, .score_begin = 1, .top_k = 2, .max_new = 2, .top_p = 1, .want_routing = true, .want_probs = true};
    struct engine *e = NULL;
    struct engine_ticket *t = NULL;
    int r = engine_open(&o, &e, err);
    if (r < 0)
        return r;
    r = engine_submit(e, &q, 1, &t, err);
    if (r >= 0) {
        engine_wait(t, -1);
        r = engine_result(t, 0)->code;
        if (r < 0)
            *err = engine_result(t, 0)->err;
    }
    engine_ticket_free(t);
    engine_close(e);
    return r;
}

/* Fails number n of the plan; false when there were not so many. */
static bool fail_at(const char *dir, void (*plan)(long n), long n)
{
    struct err err = {0};
    long before = failing_live();
    plan(n);
    int r = use_engine(dir, &err);
    const char *own = plan == failing_own_plan ? failing_own_reached() : NULL;
    bool reached = own || (plan == failing_plan && failing_reached());
    bool ok = CHECK(r == 0 || (r < 0 && err.text[0])) && CHECK_INT(failing_live(), before) && CHECK(reached || r == 0);
    if (!ok)
        fprintf(stderr, "  %s %ld: %s (%s)\n", own ? own : "allocation", n, err_name(r), err.text);
    return reached;
}

#define SHAPE                                                                                                                              \
    "\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":1,\"vocab_size\":" \
    "8"

/* Writes a model of the config's text and fails each allocation of its life once. */
static void fail_all(const char *root, const char *name, const char *text, struct synth_report *report)
{
    char config[96], dir[96];
    struct err err = {0};
    long n = 0, own = 0;
    snprintf(config, sizeof(config), "%s/%s.json", root, name);
    snprintf(dir, sizeof(dir), "%s/%s", root, name);
    FILE *f = fopen(config, "w");
    fprintf(f, "%s", text);
    fclose(f);
    const struct synth_options o = {.config = config, .out = dir, .route_rate = 0.5, .execute_rate = 0.5, .n_tokens = 512, .n_threads = 1};
    if (!CHECK_INT(synth_run(&o, report, &err), 0))
        return;
    while (fail_at(dir, failing_plan, n) && n < 100000)
        n++;
    while (fail_at(dir, failing_own_plan, own) && own < 100000)
        own++;
    printf("%s: %ld allocations and %ld calls failed, one at a time\n", name, n, own);
    CHECK(n > 100 && own > 0);
}

int main(void)
{
    char root[] = "/tmp/test_fail_open.XXXXXX", command[96];
    struct synth_report *report = calloc(1, sizeof(*report));
    failing_init();
    if (!CHECK(mkdtemp(root) != NULL))
        return check_result();
    fail_all(root, "bilayer", "{" SHAPE ",\"attention_bias\":true,\"dtrnet_layers\":[0]}", report);
    fail_all(root, "nested", "{" SHAPE ",\"attention_bias\":true,\"head_dim\":6,\"layer_layout\":\"DS\",\"norm_method\":\"hybridnorm*\"}",
             report);
    fail_all(root, "smollm3",
             "{\"model_type\":\"smollm3\",\"hidden_size\":8,\"intermediate_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":1,"
             "\"num_key_value_heads\":1,\"vocab_size\":8,\"no_rope_layers\":[0,1]}",
             report);
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    CHECK_INT(system(command), 0);
    free(report);
    return check_result();
}
