/* Every value of a tokenizer's JSON files becomes one of another kind in turn: the directory is read and its ids decode, or the error says what is
 * wrong; nothing in between, by either rules. */
#include "common/json.h"
#include "tests/check.h"
#include "tests/fuzz/fuzz_pipeline.h"
#include "tests/unit/json_values.h"
#include "tokenizer/hf_json.h"
#include "tokenizer/tokenizer.h"
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/test_tokenizer_values_XXXXXX";
static long n_read, n_refused;

static void count(int r, const struct err *e, const char *where)
{
    n_read += r >= 0;
    n_refused += r < 0;
    if (!CHECK(r >= 0 || (e->text[0] && r != ERR_NOMEM && r != ERR_INTERNAL)))
        fprintf(stderr, "  %s: %s %s\n", where, err_name(r), e->text);
}

/* ---- tokenizer.json ---- */

/* By the rules of 4 and of 5 in turn. */
static void fill(const json_t *root, const char *where, void *user)
{
    static const struct hf_overrides as_filed = {.lone_prefix = HF_PREFIX_AS_FILED};
    struct pipeline p;
    struct err e = {0};
    (void)user;
    int r = pipeline_init(&p, (n_read + n_refused) % 2 ? TOKENIZER_RULES_4 : TOKENIZER_RULES_5, &e);
    if (r >= 0)
        r = hf_json_fill(&p, root, &as_filed, NULL, &e);
    if (r >= 0)
        fuzz_pipeline(&p, "a b", 3); /* aborts when ids are out of range */
    count(r, &e, where);
    pipeline_done(&p);
}

static void test_tokenizer_json(void)
{
    struct dirent **list = NULL;
    int n = scandir(CORPUS_DIR "/tokenizer_json", &list, NULL, alphasort);
    CHECK(n > 5);
    for (int i = 0; i < n; i++) {
        char path[512], text[8192];
        snprintf(path, sizeof(path), CORPUS_DIR "/tokenizer_json/%s", list[i]->d_name);
        FILE *f = fopen(path, "r");
        size_t len = f ? fread(text, 1, sizeof(text), f) : 0;
        json_t *root = len ? json_loadb(text, strnlen(text, len), 0, NULL) : NULL;
        CHECK(!len || root);
        if (f)
            fclose(f);
        if (root)
            json_values_each(root, fill, NULL);
        json_decref(root);
        free(list[i]);
    }
    free(list);
}

/* ---- the files beside it ---- */

static void open_with(const json_t *root, const char *where, void *user)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", dir, (const char *)user);
    CHECK_INT(json_dump_file(root, path, JSON_COMPACT), 0);
    for (int rules = TOKENIZER_RULES_4; rules <= TOKENIZER_RULES_5; rules++) {
        struct tokenizer *t = NULL;
        struct token_ids ids = {0};
        struct err e = {0}, ignored;
        char *text = NULL;
        size_t len;
        int r = tokenizer_open(dir, (enum tokenizer_rules)rules, NULL, &t, &e);
        count(r, &e, where);
        if (r >= 0 && tokenizer_encode(t, "<s> hello<FILL_ME>1 <a>", 23, true, 1000, &ids, &ignored) >= 0 &&
            CHECK_INT(tokenizer_decode(t, ids.ids, ids.n, true, &text, &len, &ignored), 0))
            free(text);
        token_ids_done(&ids);
        tokenizer_close(t);
    }
}

#define TOKEN(text)                                  \
    "{\"__type\":\"AddedToken\",\"content\":\"" text \
    "\",\"lstrip\":false,\"normalized\":true,\"rstrip\":false,\"single_word\":false,\"special\":true}"

static const struct {
    const char *file, *text;
} files[] = {
    {"tokenizer_config.json",
     "{\"tokenizer_class\":\"LlamaTokenizer\",\"bos_token\":" TOKEN(
         "<s>") ",\"eos_token\":\"</s>\",\"unk_token\":{\"content\":\"<unk>\"},"
                "\"pad_token\":null,\"add_bos_token\":true,\"add_eos_token\":false,\"add_prefix_space\":true,\"legacy\":false,\"from_"
                "slow\":false,"
                "\"split_special_tokens\":false,\"tokenizer_file\":\"\",\"vocab_file\":\"\",\"chat_template\":[{\"name\":\"other\","
                "\"template\":\"S\"},"
                "{\"name\":\"default\",\"template\":\"T\"}],\"added_tokens_decoder\":{\"0\":" TOKEN(
                    "<unk>") "},\"additional_special_tokens\":[\"<a>\"," TOKEN("<b>") "],\"extra_special_tokens\":{\"image_token\":\"<i>\"}"
                                                                                      ",\"image_token\":\"<i>\",\"model_max_length\":100,"
                                                                                      "\"x\":1}"},
    {"tokenizer_config.json",
     "{\"tokenizer_class\":\"CodeLlamaTokenizer\",\"prefix_token\":\"<s>\",\"middle_token\":\"</s>\",\"suffix_token\":\"<unk>\","
     "\"eot_token\":\"</s>\",\"fill_token\":\"<FILL_ME>\",\"extra_special_tokens\":[\"<a>\"],\"chat_template\":\"T\"}"},
    {"tokenizer_config.json", "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"bos_token\":\"<s>\",\"split_special_tokens\":true}"},
    {"tokenizer_config.json", "{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_prefix_space\":true,\"errors\":\"replace\"}"},
    {"config.json", "{\"model_type\":\"llama\",\"tokenizer_class\":\"LlamaTokenizer\"}"},
    {"special_tokens_map.json", "{\"bos_token\":" TOKEN("<s>") ",\"eos_token\":\"</s>\",\"additional_special_tokens\":[\"<a>\"," TOKEN(
                                    "<b>") "],\"mask_token\":\"<m>\"}"},
    {"added_tokens.json", "{\"<a>\":5,\"<b>\":6}"},
    {"generation_config.json", "{\"bos_token_id\":1,\"eos_token_id\":[2,1],\"pad_token_id\":0}"},
};

static void copy(const char *seed, const char *name)
{
    char command[512];
    snprintf(command, sizeof(command), "rm -f %s/* && cp '" CORPUS_DIR "/%s' %s/%s", dir, seed, dir, name);
    CHECK_INT(system(command), 0);
}

static void test_files(const char *seed, const char *name)
{
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        json_t *root = json_loads(files[i].text, 0, NULL);
        if (!CHECK(root))
            continue;
        copy(seed, name);
        json_values_each(root, open_with, (void *)(uintptr_t)files[i].file);
        json_decref(root);
    }
}

int main(void)
{
    char command[64];
    if (!CHECK(mkdtemp(dir)))
        return 1;
    test_tokenizer_json();
    test_files("tokenizer_json/llama3", "tokenizer.json");
    test_files("tokenizer_model/bytes", "tokenizer.model");
    printf("%ld read, %ld refused\n", n_read, n_refused);
    CHECK(n_read > 1000 && n_refused > 1000);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command) || check_result();
}
