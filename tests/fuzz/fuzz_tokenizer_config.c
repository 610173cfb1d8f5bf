/* Any bytes as the files beside a small tokenizer.json: tokenizer_config.json, special_tokens_map.json, added_tokens.json, config.json and
 * a text, each ending at a NUL. */
#include "tests/fuzz/fuzz.h"
#include "tokenizer/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/dev/shm/fuzz_tokenizer_config_XXXXXX"; /* in memory: every input writes files */
static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"};
#define N_NAMES 4

static const char model[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":6,\"content\":\"[L]\",\"lstrip\":true}],"
    "\"normalizer\":{\"type\":\"Lowercase\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
    "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"<s>\",1],\"sep\":[\"</s>\",2]},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"a\":3,\"b\":4,\"ab\":5},"
    "\"merges\":[\"a b\"]}}";

static void path_of(char path[128], const char *name)
{
    snprintf(path, 128, "%s/%s", dir, name);
}

static void write_file(const char *name, const char *data, size_t len)
{
    char path[128];
    path_of(path, name);
    FILE *f = fopen(path, "w");
    if (!f || fwrite(data, 1, len, f) != len || fclose(f) != 0)
        abort();
}

static void remove_all(void)
{
    char path[128];
    for (int i = 0; i <= N_NAMES; i++) {
        path_of(path, i < N_NAMES ? names[i] : "tokenizer.json");
        unlink(path);
    }
    rmdir(dir);
}

static void make_dir(void)
{
    static int made;
    if (made++)
        return;
    if (access("/dev/shm", W_OK) != 0)
        strcpy(dir, "/tmp/fuzz_tokenizer_config_XXXXXX");
    if (!mkdtemp(dir) || atexit(remove_all) != 0)
        abort();
    write_file("tokenizer.json", model, sizeof(model) - 1);
}

/* The part up to the next NUL; an empty one is a file that is not there. */
static size_t next_part(const char *data, size_t len)
{
    const char *nul = len ? memchr(data, 0, len) : NULL;
    return nul ? (size_t)(nul - data) : len;
}

static void check_ids(const struct tokenizer *t, const char *text, size_t len)
{
    for (int special = 0; special < 2; special++) {
        struct token_ids ids = {0};
        char *back = NULL;
        size_t n;
        if (tokenizer_encode(t, text, len, special, 100000, &ids, NULL) >= 0 &&
            tokenizer_decode(t, ids.ids, ids.n, special, &back, &n, NULL) < 0)
            abort(); /* an id out of range */
        free(back);
        token_ids_done(&ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *at = (const char *)data;
    enum tokenizer_rules rules = len % 2 ? TOKENIZER_RULES_4 : TOKENIZER_RULES_5;
    struct tokenizer *t = NULL;
    make_dir();
    for (int i = 0; i < N_NAMES; i++) {
        size_t n = next_part(at, len), taken = n + (n < len);
        char path[128];
        path_of(path, names[i]);
        if (n)
            write_file(names[i], at, n);
        else
            unlink(path);
        at += taken;
        len -= taken;
    }
    if (tokenizer_open(dir, rules, NULL, &t, NULL) < 0)
        return 0;
    check_ids(t, "a[L] ab<s>B <FILL_ME>", 21);
    check_ids(t, at, len);
    tokenizer_close(t);
    return 0;
}
