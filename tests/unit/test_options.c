/* Settings: precedence of flag, environment, file and default; every row refuses what is outside its range, naming it. */
#include "server/program/options.h"
#include "tests/check.h"
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static char settings_path[] = "/tmp/dtrnet-test-options-XXXXXX";

static int parse(enum command command, struct options *o, struct arena *arena, struct err *err, int n, const char *const *args)
{
    char *argv[16] = {(char *)(uintptr_t)"cmd"};
    bool help;
    for (int i = 0; i < n; i++)
        argv[i + 1] = (char *)(uintptr_t)args[i];
    *err = (struct err){0};
    return options_parse(command, n + 1, argv, arena, o, &help, err);
}

static void write_settings(const char *text)
{
    FILE *f = fopen(settings_path, "w");
    if (CHECK(f != NULL)) {
        fputs(text, f);
        fclose(f);
    }
}

static void test_defaults(struct arena *arena)
{
    struct options o;
    struct err err;
    CHECK_INT(parse(COMMAND_SERVE, &o, arena, &err, 0, NULL), 0);
    CHECK_INT(o.port, 8000);
    CHECK_STR(o.host, "127.0.0.1");
    CHECK_STR(o.device, "auto");
    CHECK(o.prefix_cache && o.tokenizer_info && !o.strict_model_name);
    CHECK(!o.model && !o.rope_scaling && !o.cpu_level && !o.api_key);
    CHECK_INT(o.bos_id, -1);
    CHECK_INT(o.max_body_bytes, 64 << 20);
}

static void test_precedence(struct arena *arena)
{
    struct options o;
    struct err err;
    const char *args[] = {"--port=1", "--config", settings_path};
    write_settings(
        "{\"port\": 3, \"threads\": 3, \"max_queue\": 3, \"kv_cache_memory\": \"2M\", \"prefix_cache\": false, \"dense_layers\": [0, 2],"
        " \"rope_scaling\": {\"factor\": 4}, \"host\": \"h\", \"route_rate\": 0.5, \"model\": null}");
    setenv("DTRNET_PORT", "2", 1);
    setenv("DTRNET_THREADS", "2", 1);
    setenv("DTRNET_STRICT_MODEL_NAME", "1", 1);
    CHECK_INT(parse(COMMAND_SERVE, &o, arena, &err, 3, args), 0);
    CHECK_INT(o.port, 1);
    CHECK_INT(o.threads, 2);
    CHECK_INT(o.max_queue, 3);
    CHECK_INT(o.kv_cache_memory, 2 << 20);
    CHECK(o.strict_model_name && !o.prefix_cache && !o.model);
    CHECK_STR(o.dense_layers, "0,2");
    CHECK_STR(o.rope_scaling, "{\"factor\":4}");
    CHECK_STR(o.host, "h");
    setenv("DTRNET_CONFIG", settings_path, 1);
    CHECK_INT(parse(COMMAND_INSPECT, &o, arena, &err, 0, NULL), 0);
    CHECK(o.route_rate == 0.5);
    const char *none[] = {"--config", "/no/such/file"};
    CHECK_INT(parse(COMMAND_SERVE, &o, arena, &err, 2, none), ERR_NOT_FOUND);
    unsetenv("DTRNET_PORT");
    unsetenv("DTRNET_THREADS");
    unsetenv("DTRNET_STRICT_MODEL_NAME");
    unsetenv("DTRNET_CONFIG");
}

/* Just below and just above each numeric range, and words that are no number, for every row of the table. */
static void test_every_row(struct arena *arena)
{
    struct options o;
    struct err err;
    for (size_t i = 0; i < options_table.n; i++) {
        const struct option_row *row = &options_table.rows[i];
        bool number = row->type == OPTION_INT || row->type == OPTION_SIZE || row->type == OPTION_DOUBLE;
        enum command command = (enum command)(row->commands & (0 - row->commands)); /* one of them */
        char flag[64], value[64];
        const char *args[] = {flag, value};
        snprintf(flag, sizeof(flag), "--%s", row->name);
        CHECK(row->help && *row->help);
        if (row->initial)
            CHECK(strlen(row->initial) > 0);
        const double outside[] = {row->min - 1, row->max + (row->type == OPTION_SIZE ? 1048576 : 1)};
        for (int k = 0; k < 2 && number; k++) {
            snprintf(value, sizeof(value), "%.17g", outside[k]);
            CHECK_INT(parse(command, &o, arena, &err, 2, args), ERR_INVALID);
            CHECK_STR(err.param, row->name);
            CHECK(strstr(err.text, row->name) && strstr(err.text, value));
        }
        static const char *const junk[] = {"", "x", "1x", "--", "nan", "inf", "0x"};
        for (size_t k = 0; k < sizeof(junk) / sizeof(junk[0]); k++) {
            snprintf(value, sizeof(value), "%s", junk[k]);
            if (number || row->type == OPTION_ON_OFF || row->type == OPTION_CHOICE)
                CHECK_INT(parse(command, &o, arena, &err, 2, args), ERR_INVALID);
        }
    }
}

/* Values of each JSON type in a settings file. */
static void test_file_types(struct arena *arena)
{
    static const struct {
        const char *text;
        int code;
    } cases[] = {
        {"[1]", ERR_INVALID},
        {"7", ERR_INVALID},
        {"{", ERR_INVALID},
        {"{\"no_such\": 1}", ERR_INVALID},
        {"{\"config\": \"x\"}", ERR_INVALID},
        {"{\"port\": {}}", ERR_INVALID},
        {"{\"port\": []}", ERR_INVALID},
        {"{\"port\": true}", ERR_INVALID},
        {"{\"port\": 1.5}", ERR_INVALID},
        {"{\"port\": \"12\"}", 0},
        {"{\"port\": null, \"prefix_cache\": true}", 0},
        {"{\"port\": 5, \"no_such\": 1, \"host\": \"h\"}", ERR_INVALID},
        {"{\"rope_scaling\": {\"factor\": 2}}", 0},
        {"{\"dense_layers\": [0, 1], \"accept_config_key\": [\"a\"]}", 0},
        {"{\"dense_layers\": {}}", ERR_INVALID},
    };
    const char *args[] = {"--config", settings_path};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct options o;
        struct err err;
        write_settings(cases[i].text);
        if (!CHECK_INT(parse(COMMAND_SERVE, &o, arena, &err, 2, args), cases[i].code) || !CHECK(!cases[i].code || err.text[0]))
            fprintf(stderr, "  %s: %s\n", cases[i].text, err.text);
    }
}

static void test_sizes(struct arena *arena)
{
    static const struct {
        const char *text;
        long long want; /* -1: refused */
    } cases[] = {{"1024", 1024},
                 {"5K", 5120},
                 {"5k", 5120},
                 {"1.5M", 1572864},
                 {"2G", 2147483648LL},
                 {"1T", 1099511627776LL},
                 {"3GiB", 3221225472LL},
                 {"1.5", -1},
                 {"5X", -1},
                 {"5KB", 5120},
                 {"4GB", 4294967296LL},
                 {"4GBs", -1},
                 {"4iB", -1},
                 {"4B", -1},
                 {"K", -1},
                 {"-1", -1},
                 {"1e30", -1}};
    struct options o;
    struct err err;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *args[] = {"--kv-cache-memory", cases[i].text};
        int r = parse(COMMAND_SERVE, &o, arena, &err, 2, args);
        if (CHECK_INT(r, cases[i].want < 0 ? ERR_INVALID : 0) && r == 0)
            CHECK_INT(o.kv_cache_memory, cases[i].want);
    }
}

/* A flag that may be given several times makes a list; elsewhere it is one already. */
static void test_names(struct arena *arena)
{
    struct options o;
    struct err err;
    const char *twice[] = {"--accept-config-key", "a", "--port", "1", "--accept-config-key=b,c", "--port", "2"};
    CHECK_INT(parse(COMMAND_SERVE, &o, arena, &err, 7, twice), 0);
    CHECK_STR(o.accept_config_key, "a,b,c");
    CHECK_INT(o.port, 2); /* of other flags the last counts */
    const char *file[] = {"--config", settings_path};
    write_settings("{\"accept_config_key\": [\"a\", \"b\"]}");
    CHECK_INT(parse(COMMAND_INSPECT, &o, arena, &err, 2, file), 0);
    CHECK_STR(o.accept_config_key, "a,b");
    write_settings("{\"accept_config_key\": \"a\"}");
    CHECK_INT(parse(COMMAND_INSPECT, &o, arena, &err, 2, file), 0);
    CHECK_STR(o.accept_config_key, "a");
    setenv("DTRNET_ACCEPT_CONFIG_KEY", "x,y", 1);
    CHECK_INT(parse(COMMAND_SCORE, &o, arena, &err, 0, NULL), 0);
    CHECK_STR(o.accept_config_key, "x,y");
    unsetenv("DTRNET_ACCEPT_CONFIG_KEY");
}

static void test_bad_lines(struct arena *arena)
{
    static const struct {
        const char *a, *b, *says;
    } cases[] = {{"--no-such", "1", "unknown flag --no-such"},
                 {"stray", "x", "unexpected argument"},
                 {"--port", NULL, "needs a value"},
                 {"--json", NULL, "unknown flag --json"},
                 {"--tls-cert", "f", "tls-key is missing"},
                 {"--tls-key", "f", "tls-cert is missing"},
                 {"--device", "tpu", "none of auto|cpu|cuda"},
                 {"--model", "", "empty"},
                 {"--prefix-cache", "2", "neither on nor off"}};
    struct options o;
    struct err err;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *args[] = {cases[i].a, cases[i].b};
        CHECK_INT(parse(COMMAND_SERVE, &o, arena, &err, cases[i].b ? 2 : 1, args), ERR_INVALID);
        if (!CHECK(strstr(err.text, cases[i].says) != NULL))
            fprintf(stderr, "  it says: %s\n", err.text);
    }
}

static void test_bad_files(struct arena *arena)
{
    static const char *const texts[] = {"",
                                        "[]",
                                        "5",
                                        "{",
                                        "{\"port\": 70000}",
                                        "{\"port\": []}",
                                        "{\"port\": {}}",
                                        "{\"no_such\": 1}",
                                        "{\"max-queue\": 1}",
                                        "{\"config\": \"x\"}",
                                        "{\"dense_layers\": {}}",
                                        "{\"rope_scaling\": []}",
                                        "{\"port\": 1, \"port\": 2}",
                                        "{\"host\": \"\"}"};
    const char *args[] = {"--config", settings_path};
    struct options o;
    struct err err;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_settings(texts[i]);
        if (!CHECK_INT(parse(COMMAND_SERVE, &o, arena, &err, 2, args), ERR_INVALID))
            fprintf(stderr, "  for %s\n", texts[i]);
    }
}

static void test_help(void)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    CHECK_INT(option_rows_help(&options_table, COMMAND_SERVE, &out), 0);
    for (size_t i = 0; i < options_table.n; i++) {
        char flag[64];
        snprintf(flag, sizeof(flag), "  --%s ", options_table.rows[i].name);
        CHECK_INT(strstr(out.data, flag) != NULL, (options_table.rows[i].commands & COMMAND_SERVE) != 0);
    }
    buf_done(&out);
}

int main(void)
{
    struct arena arena;
    arena_init(&arena, 1 << 24);
    int fd = mkstemp(settings_path);
    if (!CHECK(fd >= 0))
        return check_result();
    close(fd);
    test_defaults(&arena);
    test_precedence(&arena);
    test_every_row(&arena);
    test_file_types(&arena);
    test_sizes(&arena);
    test_names(&arena);
    test_bad_lines(&arena);
    test_bad_files(&arena);
    test_help();
    unlink(settings_path);
    arena_done(&arena);
    return check_result();
}
