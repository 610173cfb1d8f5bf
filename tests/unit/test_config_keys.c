/* The table of keys: what has no effect passes with any value and stands in the docs, what nobody knows is refused unless the user vouches for it. */
#include "engine/checkpoint/config_keys.h"
#include "tests/check.h"
#include "tests/unit/config_text.h"
#include <stdlib.h>

#define BASE "\"model_type\":\"llama\"," CONFIG_SHAPE

static int read_with(const char *members, const char *accept, struct model_config *c, struct err *e)
{
    const struct model_overrides o = {.bos_id = -1, .eos_id = -1, .accept_keys = accept};
    return config_text_read(members, NULL, &o, c, e);
}

static char *read_file(const char *path)
{
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");
    if (CHECK(f != NULL)) {
        CHECK(fread(text, 1, (1 << 20) - 1, f) > 0);
        fclose(f);
    }
    return text;
}

static void test_without_effect(void)
{
    char *docs = read_file(DOCS_DIR "/architectures.md");
    const char *last = "";
    for (size_t i = 0; config_keys_ignored(i); i++) {
        const char *key = config_keys_ignored(i);
        char members[1024], quoted[128];
        struct model_config c;
        struct err e;
        snprintf(members, sizeof(members), BASE ",\"%s\":{\"any\":[\"thing\",1.5,true]}", key);
        if (!CHECK_INT(read_with(members, NULL, &c, &e), 0))
            fprintf(stderr, "  %s: %s\n", key, e.text);
        snprintf(quoted, sizeof(quoted), "`%s`", key);
        if (!CHECK(strstr(docs, quoted) != NULL))
            fprintf(stderr, "  docs/architectures.md does not name %s\n", key);
        CHECK(strcmp(last, key) < 0);
        last = key;
    }
    free(docs);
}

/* Those that the issue names are among them. */
static void test_named(void)
{
    struct model_config c;
    struct err e;
    CHECK_INT(read_with(BASE ",\"max_sequence_length\":64,\"model_max_length\":64,\"resid_pdrop\":0.1,\"hidden_dropout\":0.1,"
                             "\"_flash_attn_2_enabled\":true,\"_comment\":\"x\",\"model_name\":\"x\",\"neftune_noise_alpha\":5,"
                             "\"max_window_layers\":28",
                        NULL, &c, &e),
              0);
    CHECK_INT(c.window, 0);
}

static void test_vouched(void)
{
    static const struct {
        const char *members, *accept;
        int code;
        const char *says /* the error, or the log */;
    } cases[] = {
        {BASE ",\"odd\":3", NULL, ERR_UNSUPPORTED, "odd = 3 is a key that this program does not know"},
        {BASE ",\"odd\":3", "odd", 0, "odd = 3 is passed over"},
        {BASE ",\"odd\":3,\"even\":{\"a\":1}", "odd", ERR_UNSUPPORTED, "even"},
        {BASE ",\"odd\":3,\"even\":{\"a\":1}", "odd,even", 0, "even = {\"a\":1} is passed over"},
        {BASE, "odd", 0, "config.json has no such key"},
        {BASE ",\"logit_scale\":0.5", NULL, ERR_UNSUPPORTED, "logit_scale"},
        {BASE ",\"logit_scale\":0.5", "logit_scale", 0,
         "logit_scale = 0.5 is passed over"}, /* of another class: LLaMA's does not read it */
        {BASE ",\"sliding_window\":32", "sliding_window", 0, "passed over"},
        {"\"model_type\":\"mistral\"," CONFIG_SHAPE ",\"num_key_value_heads\":4,\"sliding_window\":32", "sliding_window", ERR_INVALID,
         "is read"},
        {BASE ",\"rope_theta\":5", "rope_theta", ERR_INVALID, "accept_config_key rope_theta: this key is read"},
        {BASE, "hidden_size", ERR_INVALID, "is read"},
        {BASE ",\"quantization_config\":{\"bits\":4}", "quantization_config", ERR_INVALID, "is read"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_config c;
        struct err e;
        bool ok = CHECK_INT(read_with(cases[i].members, cases[i].accept, &c, &e), cases[i].code) &&
                  CHECK(strstr(cases[i].code ? e.text : config_text_log, cases[i].says) != NULL);
        if (!ok)
            fprintf(stderr, "  case %zu: %s %s\n", i, e.text, config_text_log);
    }
    struct model_config c;
    struct err e;
    CHECK_INT(read_with(BASE ",\"sliding_window\":32", "sliding_window", &c, &e), 0);
    CHECK_INT(c.window, 0);
}

int main(void)
{
    test_without_effect();
    test_named();
    test_vouched();
    return check_result();
}
