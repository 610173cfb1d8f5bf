/* The shipped model's tokenizer against ids that Hugging Face's fast tokenizer gives, and copies of its directory with
 * other settings. */
#include "common/utf8.h"
#include "tests/check.h"
#include "tokenizer/rules_compare.h"
#include "tokenizer/strmap.h"
#include "tokenizer/tokenizer.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_IDS 16

static struct tokenizer *opened_by(const char *dir, enum tokenizer_rules rules)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (!CHECK_INT(tokenizer_open(dir, rules, NULL, &t, &e), 0))
        fprintf(stderr, "%s\n", e.text);
    return t;
}

static struct tokenizer *opened(const char *dir)
{
    return opened_by(dir, TOKENIZER_RULES_4);
}

struct sample {
    const char *text;
    bool special;
    int n;
    int32_t ids[MAX_IDS];
};

static void check_samples(const struct tokenizer *t, const struct sample *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct token_ids got = {0};
        struct err e;
        CHECK_INT(tokenizer_encode(t, rows[i].text, strlen(rows[i].text), rows[i].special, 1000, &got, &e), 0);
        if (!CHECK_INT(got.n, rows[i].n) || !CHECK(got.n == 0 || memcmp(got.ids, rows[i].ids, got.n * sizeof(*got.ids)) == 0))
            fprintf(stderr, "text \"%s\"\n", rows[i].text);
        token_ids_done(&got);
    }
}

static void test_encode(const struct tokenizer *t)
{
    static const struct sample rows[] = {
        {"", false, 0, {0}},
        {"", true, 1, {1}},
        {"</s> hello", true, 5, {1, 2, 16107, 9179, 16111}},
        {"<s>a <s> b", true, 7, {1, 1, 261, 16107, 1, 16107, 277}},
        {"  x", false, 3, {16107, 16107, 2322}},
        {"a</s>", false, 2, {261, 2}},
    };
    check_samples(t, rows, sizeof(rows) / sizeof(rows[0]));
    CHECK_INT(tokenizer_bos(t), 1);
    CHECK_INT(tokenizer_eos(t), 2);
    CHECK_INT(tokenizer_unk(t), 0);
    CHECK_INT(tokenizer_pad(t), -1);
    CHECK_INT(tokenizer_vocab_size(t), 16384);
    CHECK(tokenizer_is_special(t, 1) && !tokenizer_is_special(t, 261) && !tokenizer_is_special(t, -1) && !tokenizer_is_special(t, 16384));
    CHECK_STR(tokenizer_piece(t, 261), "\xe2\x96\x81"
                                       "a");
    CHECK(tokenizer_chat_template(t) == NULL);
}

static void test_bad_text(const struct tokenizer *t)
{
    struct token_ids ids = {0};
    struct err e;
    CHECK_INT(tokenizer_encode(t, "ab\xff", 3, true, 10, &ids, &e), ERR_INVALID);
    CHECK(strstr(e.text, "byte 2") != NULL);
    CHECK_INT(ids.n, 0);
    CHECK_INT(tokenizer_encode(t, "a b c d", 7, true, 4, &ids, &e), ERR_TOO_LARGE);
    CHECK_INT(ids.n, 0);
    CHECK_INT(tokenizer_encode(t, "a b c d", 7, true, 5, &ids, &e), 0);
    CHECK_INT(ids.n, 5);
    token_ids_done(&ids);
    char *text;
    size_t len;
    CHECK_INT(tokenizer_decode(t, (int32_t[]){16384}, 1, false, &text, &len, &e), ERR_INVALID);
    CHECK_INT(tokenizer_decode(t, (int32_t[]){-1}, 1, false, &text, &len, &e), ERR_INVALID);
}

static void check_pair(const struct tokenizer *t, const char *context, const char *continuation)
{
    struct token_ids whole = {0}, want = {0}, border = {0};
    size_t n = 99, kept = strlen(context);
    char text[256];
    struct err e;
    snprintf(text, sizeof(text), "%s%s", context, continuation);
    while (kept > 0 && strchr(" \n\t", context[kept - 1]))
        kept--;
    CHECK_INT(tokenizer_encode_pair(t, context, strlen(context), continuation, strlen(continuation), 1000, &whole, &n, &e), 0);
    tokenizer_encode(t, text, strlen(text), false, 1000, &want, &e);
    tokenizer_encode(t, context, kept, false, 1000, &border, &e);
    CHECK_INT(whole.n, want.n);
    CHECK(whole.n == 0 || memcmp(whole.ids, want.ids, whole.n * sizeof(*whole.ids)) == 0);
    CHECK_INT(n, border.n < whole.n ? border.n : whole.n);
    token_ids_done(&whole);
    token_ids_done(&want);
    token_ids_done(&border);
}

static void test_pairs(const struct tokenizer *t)
{
    static const char *const contexts[] = {"", " ", "The cat ", "The cat\n\n", "The ca", "Question: what? Answer:", "a</s> "};
    static const char *const continuations[] = {"t", " sat", "sat on the mat", "\n", "</s>"};
    for (size_t i = 0; i < sizeof(contexts) / sizeof(contexts[0]); i++)
        for (size_t k = 0; k < sizeof(continuations) / sizeof(continuations[0]); k++)
            check_pair(t, contexts[i], continuations[k]);
}

/* Every token's bytes joined are the text, and no two ids are spelled alike. */
static void test_spellings(const struct tokenizer *t)
{
    static const char text[] = "  Caf\xc3\xa9 \xf0\x9f\x90\xa8\n\tend </s> \xe4\xb8\xad";
    struct token_ids ids = {0};
    struct err e;
    char joined[256], *back;
    size_t n = 0, len;
    CHECK_INT(tokenizer_encode(t, text, strlen(text), false, 100, &ids, &e), 0);
    for (size_t i = 0; i < ids.n; i++) {
        const char *s = tokenizer_token_bytes(t, ids.ids[i], i == 0, &len);
        memcpy(joined + n, s, len);
        n += len;
    }
    CHECK_INT(tokenizer_decode(t, ids.ids, ids.n, false, &back, &len, &e), 0);
    CHECK_INT(len, n);
    CHECK(memcmp(back, joined, n) == 0);
    free(back);
    token_ids_done(&ids);
    CHECK_STR(tokenizer_token_string(t, 3, false, &len), "bytes:\\x00");
    CHECK_STR(tokenizer_token_string(t, 3 + 0xe2, false, &len), "bytes:\\xe2");
    CHECK_STR(tokenizer_token_string(t, 261, false, &len), " a");
    CHECK_STR(tokenizer_token_string(t, 261, true, &len), "a");
}

/* Keys of a JSON object: valid UTF-8 without NUL, and each its own. */
static void test_unique_strings(const struct tokenizer *t, bool first)
{
    struct strmap seen;
    CHECK_INT(strmap_init(&seen, 20000), 0);
    for (int32_t id = 0; id < tokenizer_vocab_size(t); id++) {
        size_t len;
        const char *s = tokenizer_token_string(t, id, first, &len);
        if (len == 0 || memchr(s, 0, len) || utf8_valid_prefix(s, len) != len || strmap_put(&seen, s, len, id) != 1)
            CHECK_INT(id, -1);
    }
    strmap_done(&seen);
}

static void test_decode(const struct tokenizer *t)
{
    static const struct {
        int n;
        int32_t ids[4];
        bool skip;
        const char *text;
    } rows[] = {
        {4, {1, 261, 277, 2}, false, "<s> a b</s>"},
        {4, {1, 261, 277, 2}, true, "a b"},
        {0, {0}, false, ""},
        {2, {3 + 0xc3, 3 + 0xa9}, false, "\xc3\xa9"},
        {2, {3 + 0xc3, 261}, false, "\xef\xbf\xbd a"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *text;
        size_t len;
        struct err e;
        CHECK_INT(tokenizer_decode(t, rows[i].ids, (size_t)rows[i].n, rows[i].skip, &text, &len, &e), 0);
        CHECK_STR(text, rows[i].text);
        free(text);
    }
}

/* ---- settings ---- */

static char dir[] = "/tmp/test_tokenizer_XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (CHECK(f)) {
        fputs(text, f);
        fclose(f);
    }
}

static struct tokenizer *configured(const char *config)
{
    write_file("tokenizer_config.json", config);
    return opened(dir);
}

static void test_settings(void)
{
    struct tokenizer *t = configured("{\"legacy\": false, \"add_bos_token\": false, \"add_eos_token\": true, \"pad_token\": \"</s>\", "
                                     "\"chat_template\": [{\"name\": \"default\", \"template\": \"T\"}]}");
    static const struct sample modern[] = {{"a", true, 2, {261, 2}}};
    static const struct sample bare[] = {{" a", false, 1, {261}}};
    static const struct sample added[] = {{"a<x>  a", false, 3, {261, 16384, 261}}};
    if (t) {
        int32_t a = -1;
        struct token_ids ids = {0};
        tokenizer_encode(t, "<s>a", 4, false, 9, &ids, NULL);
        a = ids.n == 2 ? ids.ids[1] : -1;
        CHECK_STR(a < 0 ? "" : tokenizer_piece(t, a), "a");
        token_ids_done(&ids);
        check_samples(t, modern, 1);
        CHECK_INT(tokenizer_pad(t), 2);
        CHECK_STR(tokenizer_chat_template(t), "T");
    }
    tokenizer_close(t);
    t = configured("{\"add_prefix_space\": false}");
    if (t)
        check_samples(t, bare, 1);
    tokenizer_close(t);
    t = configured("{\"added_tokens_decoder\": {\"16384\": {\"content\": \"<x>\", \"rstrip\": true, \"lstrip\": false, "
                   "\"normalized\": false, \"single_word\": false, \"special\": true}}}");
    if (t) {
        check_samples(t, added, 1);
        CHECK_INT(tokenizer_vocab_size(t), 16385);
    }
    tokenizer_close(t);
}

/* Both rules name what they do not carry out; some of it is only one's to do. */
static void test_refusals(void)
{
    static const struct {
        const char *config, *named;
        bool four, five;
    } rows[] = {
        {"{\"tokenizer_class\": \"T5Tokenizer\"}", "\"T5Tokenizer\"", true, true},
        {"{\"tokenizer_class\": \"BertTokenizerFast\"}", "\"BertTokenizerFast\"", true, true},
        {"{\"tokenizer_class\": \"NoSuchTokenizer\"}", "\"NoSuchTokenizer\"", true, false},
        {"{\"tokenizer_class\": \"NoSuchTokenizer\", \"auto_map\": {}}", "\"NoSuchTokenizer\"", true, true},
        {"{\"tokenizer_class\": \"GPT2Tokenizer\"}", "GPT2Tokenizer", true, false},
        {"{\"gguf_file\": \"x\"}", "\"gguf_file\"", true, true},
        {"{\"vocab\": {\"a\": 1}}", "\"vocab\"", true, true},
        {"{\"vocab_file\": \"/dev/null\"}", "vocab_file", true, false},
        {"{\"gguf_file\": null, \"vocab\": {}, \"merges\": \"\", \"fix_mistral_regex\": false, \"own\": 1}", "", false, false},
        {"{\"vocab_file\": \"/nowhere/tokenizer.model\"}", "", false, false},
    };
    for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
        enum tokenizer_rules rules = i % 2 ? TOKENIZER_RULES_5 : TOKENIZER_RULES_4;
        bool refused = i % 2 ? rows[i / 2].five : rows[i / 2].four;
        struct tokenizer *t = NULL;
        struct err e = {0};
        write_file("tokenizer_config.json", rows[i / 2].config);
        int r = tokenizer_open(dir, rules, NULL, &t, &e);
        if (!CHECK_INT(r, refused ? ERR_UNSUPPORTED : 0) || !CHECK(!refused || strstr(e.text, rows[i / 2].named)))
            fprintf(stderr, "%s by rules %d: %s\n", rows[i / 2].config, (int)rules, e.text);
        tokenizer_close(t);
    }
}

static void test_rules(void)
{
    static const struct sample four[] = {{"a</s>a", false, 3, {261, 2, 261}}};
    struct tokenizer *t = configured("{\"tokenizer_class\": \"LlamaTokenizer\"}");
    struct rules_comparison c;
    struct err e = {0};
    if (t) {
        CHECK_INT(tokenizer_rules(t), 4);
        check_samples(t, four, 1);
        CHECK_INT(rules_compare(t, dir, &c, &e), 0);
        CHECK(c.n_differ > 0 && c.other.code == 0);
    }
    tokenizer_close(t);
    t = opened_by(dir, TOKENIZER_RULES_5);
    if (t) {
        struct token_ids ids = {0};
        CHECK_INT(tokenizer_rules(t), 5);
        tokenizer_encode(t, "a</s>a", 6, false, 9, &ids, &e); /* only the first piece is marked */
        CHECK(ids.n == 3 && strcmp(tokenizer_piece(t, ids.ids[2]), "a") == 0);
        token_ids_done(&ids);
        CHECK_INT(rules_compare(t, dir, &c, &e), 0);
        CHECK(c.n_differ > 0 && c.other.code == 0);
    }
    tokenizer_close(t);
    write_file("tokenizer_config.json", "{\"tokenizer_class\": \"NoSuchTokenizer\"}");
    t = opened_by(dir, TOKENIZER_RULES_5);
    if (t) {
        CHECK_INT(rules_compare(t, dir, &c, &e), 0);
        CHECK_INT(c.other.code, ERR_UNSUPPORTED);
    }
    tokenizer_close(t);
}

static void test_bad_files(void)
{
    static const char *const configs[] = {"[]",
                                          "{",
                                          "{\"split_special_tokens\": 3}",
                                          "{\"bos_token\": 1}",
                                          "{\"added_tokens_decoder\": []}",
                                          "{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}",
                                          "{\"added_tokens_decoder\": {\"1\": {\"content\": 1}}}"};
    struct tokenizer *t = NULL;
    struct err e;
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        write_file("tokenizer_config.json", configs[i]);
        CHECK_INT(tokenizer_open(dir, TOKENIZER_RULES_4, NULL, &t, &e), ERR_CORRUPT);
        CHECK(strstr(e.text, "tokenizer_config.json") != NULL);
    }
    write_file("tokenizer_config.json", "{}");
    write_file("tokenizer.model", "");
    CHECK_INT(tokenizer_open(dir, TOKENIZER_RULES_4, NULL, &t, &e), ERR_CORRUPT);
    CHECK_INT(tokenizer_open("/nonexistent", TOKENIZER_RULES_4, NULL, &t, &e), ERR_NOT_FOUND);
}

/* A directory with the shipped tokenizer.model (copied) and settings of its own. */
static bool make_dir(void)
{
    char command[512];
    if (!CHECK(mkdtemp(dir)))
        return false;
    snprintf(command, sizeof(command), "cp '%s/tokenizer.model' %s", MODEL_DIR, dir);
    return CHECK_INT(system(command), 0);
}

int main(void)
{
    struct tokenizer *t = opened(MODEL_DIR);
    char command[64];
    if (!t || !make_dir())
        return 1;
    test_encode(t);
    test_bad_text(t);
    test_pairs(t);
    test_spellings(t);
    test_unique_strings(t, false);
    test_unique_strings(t, true);
    test_decode(t);
    tokenizer_close(t);
    test_settings();
    test_refusals();
    test_rules();
    test_bad_files();
    tokenizer_close(NULL);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command) || check_result();
}
