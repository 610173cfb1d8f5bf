/* tokenizer.json: what is refused and how it is named, regular expressions that two libraries read differently, and a small file
 * whose ids can be checked by hand. */
#include "common/json.h"
#include "tests/check.h"
#include "tokenizer/hf_json.h"
#include "tokenizer/regex_dialect.h"
#include <stdlib.h>

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<x>\":3,\"c\":4},\"merges\":[\"a b\"]}"

static const struct hf_overrides plain = {.lone_prefix = HF_PREFIX_NO};

static int load(struct pipeline *p, const char *text, struct err *e)
{
    json_t *root = NULL;
    CHECK_INT(json_parse(text, strlen(text), text, &root, e), 0);
    int r = pipeline_init(p, TOKENIZER_RULES_4, e);
    if (r >= 0)
        r = hf_json_fill(p, root, &plain, NULL, e);
    if (r >= 0)
        r = pipeline_finish(p, e);
    json_decref(root);
    return r;
}

static void test_refusals(void)
{
    static const struct {
        const char *text;
        int code;
        const char *named;
    } rows[] = {
        {"[]", ERR_CORRUPT, "not an object"},
        {"{}", ERR_CORRUPT, "model"},
        {"{" MODEL ",\"extra\":1}", ERR_UNSUPPORTED, "\"extra\""},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", ERR_CORRUPT, "1 to"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",1,2]]}}", ERR_CORRUPT, "vocab[0]"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"1\"]]}}", ERR_CORRUPT, "vocab[0]"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",1]],\"unk_id\":1}}", ERR_CORRUPT, "unk_id"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",1]],\"nbest\":1}}", ERR_UNSUPPORTED, "\"nbest\""},
        {"{\"model\":{\"type\":\"WordPiece\"}}", ERR_UNSUPPORTED, "WordPiece"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", ERR_UNSUPPORTED, "dropout"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", ERR_UNSUPPORTED, "end_of_word_suffix"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"continuing_subword_prefix\":\"##\"}}", ERR_UNSUPPORTED,
         "continuing_subword_prefix"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"news\":1}}", ERR_UNSUPPORTED, "\"news\""},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", ERR_CORRUPT, "given twice"},
        {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", ERR_CORRUPT, "-1"},
        {"{\"model\":{\"vocab\":{\"a\":99999999},\"merges\":[]}}", ERR_CORRUPT, "99999999"},
        {"{\"model\":{\"vocab\":{\"a\":\"x\"},\"merges\":[]}}", ERR_CORRUPT, "\"a\""},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", ERR_CORRUPT, "the result"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a z\"]}}", ERR_CORRUPT, "the right part"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b c\"]}}", ERR_CORRUPT, "not a pair"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[7]}}", ERR_CORRUPT, "not a pair"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"BertNormalizer\"}}", ERR_UNSUPPORTED, "BertNormalizer"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true}}", ERR_CORRUPT, "strip_right"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Precompiled\"}}", ERR_CORRUPT, "precompiled_charsmap"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAA\"}}", ERR_CORRUPT, "precompiled_charsmap"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Prepend\"}}", ERR_CORRUPT, "prepend"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"NFC\",\"x\":1}}", ERR_UNSUPPORTED, "\"x\""},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", ERR_UNSUPPORTED, "UnicodeScripts"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Punctuation\",\"behavior\":\"Sideways\"}}", ERR_CORRUPT, "behavior"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"^\"},\"content\":\"b\"},\"pre_tokenizer\":{\"type\":"
         "\"ByteLevel\"}}",
         ERR_UNSUPPORTED, "inserts text"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
         "\"Whitespace\"},{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}]}}",
         ERR_UNSUPPORTED, "prepend_scheme"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\",\"invert\":false}}",
         ERR_CORRUPT, "byte 1"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\h\"},\"behavior\":\"Isolated\",\"invert\":false}}",
         ERR_UNSUPPORTED, "escape \\h"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Sideways\"}}", ERR_CORRUPT,
         "behavior"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}", ERR_CORRUPT, "replacement"},
        {"{" MODEL ",\"decoder\":{\"type\":\"WordPiece\"}}", ERR_UNSUPPORTED, "WordPiece"},
        {"{" MODEL ",\"post_processor\":{\"type\":\"BertProcessing\"}}", ERR_CORRUPT, "cls"},
        {"{" MODEL ",\"post_processor\":{\"type\":\"Other\"}}", ERR_UNSUPPORTED, "\"Other\""},
        {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[],\"special_tokens\":{}}}", ERR_CORRUPT, "single"},
        {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"q\"}}],\"special_tokens\":"
         "{\"q\":{\"ids\":[-1]}}}}",
         ERR_CORRUPT, "token ids"},
        {"{\"model\":{\"vocab\":[],\"merges\":[]}}", ERR_CORRUPT, "vocab"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":{}}}", ERR_CORRUPT, "merges"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"#version: 0.2\",[\"a\",1]]}}", ERR_CORRUPT, "not a pair"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[1,\"a\"]]}}", ERR_CORRUPT, "not a pair"},
        {"{" MODEL ",\"added_tokens\":[7]}", ERR_CORRUPT, "objects"},
        {"{" MODEL ",\"added_tokens\":{}}", ERR_CORRUPT, "added_tokens"},
        {"{" MODEL ",\"added_tokens\":[{\"content\":\"x\",\"odd\":1}]}", ERR_UNSUPPORTED, "\"odd\""},
        {"{" MODEL ",\"added_tokens\":[{\"id\":5}]}", ERR_CORRUPT, "content"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pipeline p;
        struct err e = {0};
        if (!CHECK_INT(load(&p, rows[i].text, &e), rows[i].code) || !CHECK(strstr(e.text, rows[i].named) != NULL))
            fprintf(stderr, "%s\n  says: %s\n", rows[i].text, e.text);
        pipeline_done(&p);
    }
}

static void test_ids(void)
{
    static const struct {
        const char *text;
        int n;
        int32_t ids[6];
    } rows[] = {
        {"abc", 2, {2, 4}}, {"a<x>b", 3, {0, 3, 1}}, {"zab", 1, {2}}, {"a <n> b", 3, {0, 5, 1}}, {"", 0, {0}},
    };
    struct pipeline p;
    struct err e = {0};
    if (!CHECK_INT(load(&p,
                        "{" MODEL ",\"added_tokens\":[{\"id\":3,\"content\":\"<x>\",\"special\":true,\"normalized\":false},"
                        "{\"id\":9,\"content\":\"<n>\",\"lstrip\":true,\"rstrip\":true}]}",
                        &e),
                   0))
        fprintf(stderr, "%s\n", e.text);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct token_ids got = {0};
        CHECK_INT(pipeline_encode(&p, rows[i].text, strlen(rows[i].text), &(struct id_sink){&got, 100}), 0);
        CHECK_INT(got.n, rows[i].n);
        for (size_t k = 0; k < got.n; k++)
            CHECK_INT(got.ids[k], rows[i].ids[k]);
        token_ids_done(&got);
    }
    pipeline_done(&p);
}

/* Each component shows in which letters come together: "ab" is 2 where nothing parts them. */
static void test_components(void)
{
#define SPLIT(regex) \
    MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define PRE(type) MODEL ",\"pre_tokenizer\":{\"type\":\"" type "\"}"
#define UNIGRAM(ab) "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1],[\"b\",-1],[\"ab\"," ab "]]}"
    static const struct {
        const char *json, *text;
        int n;
        int32_t ids[6];
    } rows[] = {
        {MODEL, "a,b", 1, {2}},
        {PRE("Punctuation"), "a,b", 2, {0, 1}},
        {PRE("Whitespace"), "a,b ab", 3, {0, 1, 2}},
        {PRE("WhitespaceSplit"), "a,b ab", 2, {2, 2}},
        {PRE("BertPreTokenizer"), "a,b ab", 3, {0, 1, 2}},
        {PRE("CharDelimiterSplit\",\"delimiter\":\"c"), "acb", 2, {0, 1}},
        {MODEL ",\"normalizer\":{\"type\":\"Lowercase\"}", "ABC", 2, {2, 4}},
        {MODEL ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false},"
               "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"c\"}]}",
         "  a b ",
         4,
         {0, 4, 1, 4}},
        {SPLIT("(?i)A"), "ab", 2, {0, 1}},
        {SPLIT("(?i)(?-i)A"), "ab", 1, {2}},
        {SPLIT("[a-c&&[^b]]"), "abc", 3, {0, 1, 4}},
        {SPLIT("[c&&[^b]]"), "abc", 2, {2, 4}},
        {SPLIT("\\\\B"), "ab", 2, {0, 1}},
        {SPLIT("\\\\b"), "ab", 1, {2}},
        {SPLIT("x(?i)y|A"), "ab", 1, {2}},
        {SPLIT("x(?i)y|A"), "xab", 2, {0, 1}},
        {UNIGRAM("-1.5"), "abz", 2, {3, 0}},
        {UNIGRAM("-2.5"), "abzz", 3, {1, 2, 0}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[1024];
        struct pipeline p;
        struct err e = {0};
        struct token_ids got = {0};
        snprintf(text, sizeof(text), "{%s}", rows[i].json);
        if (!CHECK_INT(load(&p, text, &e), 0))
            fprintf(stderr, "%s\n", e.text);
        CHECK_INT(pipeline_encode(&p, rows[i].text, strlen(rows[i].text), &(struct id_sink){&got, 100}), 0);
        if (!CHECK_INT(got.n, rows[i].n) || !CHECK(memcmp(got.ids, rows[i].ids, got.n * sizeof(*got.ids)) == 0))
            fprintf(stderr, "%s: \"%s\"\n", rows[i].json, rows[i].text);
        token_ids_done(&got);
        pipeline_done(&p);
    }
}

/* A word of one letter without borders: long, so that merging goes by the heap, and the same as by the simple way. */
/* What a decoder makes of tokens. */
static void test_decoders(void)
{
#define DECODER(json) "{" MODEL ",\"decoder\":" json "}"
#define FALLBACK DECODER("{\"type\":\"ByteFallback\"}")
#define STRIP(start, stop) DECODER("{\"type\":\"Strip\",\"content\":\"_\",\"start\":" start ",\"stop\":" stop "}")
    static const struct {
        const char *json, *tokens[4], *want;
    } rows[] = {
        {FALLBACK, {"<0x61>", "b"}, "ab"},
        {FALLBACK, {"<0xe4>", "<0xB8>", "<0xaD>"}, "\xe4\xb8\xad"},
        {FALLBACK, {"<0xE4>", "x"}, "\xef\xbf\xbdx"},
        {FALLBACK, {"<0x+a>"}, "\n"},
        {FALLBACK, {"<0xg1>", "<0x1G>", "<0x:1>", "<0x/1>"}, "<0xg1><0x1G><0x:1><0x/1>"},
        {FALLBACK, {"<0x123>", "<0x6", "<1x61>", "<0x61)"}, "<0x123><0x6<1x61><0x61)"},
        {FALLBACK, {"<0x@1>", "<0x`1>", "<0x1+>"}, "<0x@1><0x`1><0x1+>"},
        {STRIP("0", "0"), {"__a_"}, "__a_"},
        {STRIP("1", "2"), {"__a___", "_", "b"}, "_a_b"},
        {STRIP("3", "1"), {"_a_", "a", ""}, "aa"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pipeline p;
        struct err e = {0};
        struct string_list tokens;
        struct buf out;
        string_list_init(&tokens);
        buf_init(&out, 1000);
        if (!CHECK_INT(load(&p, rows[i].json, &e), 0))
            fprintf(stderr, "%s\n", e.text);
        for (int k = 0; k < 4 && rows[i].tokens[k]; k++)
            CHECK_INT(string_list_add(&tokens, rows[i].tokens[k], strlen(rows[i].tokens[k])), 0);
        CHECK_INT(decoder_run(&p.decoder, &tokens, &out), 0);
        if (!CHECK_STR(out.data, rows[i].want))
            fprintf(stderr, "  row %zu\n", i);
        string_list_done(&tokens);
        buf_done(&out);
        pipeline_done(&p);
    }
}

static void test_long_words(void)
{
    struct pipeline p;
    struct err e;
    CHECK_INT(load(&p, "{" MODEL "}", &e), 0);
    char *word = malloc(200000);
    for (size_t len = 2; len <= 200000; len = len < 200 ? len + 2 : len * 10) {
        struct token_ids got = {0};
        for (size_t i = 0; i < len; i++)
            word[i] = i % 2 ? 'b' : 'a';
        CHECK_INT(pipeline_encode(&p, word, len, &(struct id_sink){&got, 1000000}), 0);
        CHECK_INT(got.n, len / 2);
        CHECK_INT(got.ids[got.n - 1], 2);
        token_ids_done(&got);
    }
    free(word);
    pipeline_done(&p);
}

/* Nested `depth` times, by these brackets. */
static int nested(const char *open, const char *close, int depth)
{
    char text[2048] = "";
    struct pattern *p = NULL;
    for (int i = 0; i < depth; i++)
        strcat(text, open);
    strcat(text, "a");
    for (int i = 0; i < depth; i++)
        strcat(text, close);
    int r = pattern_regex(text, strlen(text), &p, NULL);
    pattern_free(p);
    return r;
}

static void test_limits_of_regexes(void)
{
    static char longer[REGEX_MAX_BYTES + 2];
    struct pattern *p = NULL;
    CHECK_INT(nested("(?:", ")", 10), 0);
    CHECK_INT(nested("(?:", ")", REGEX_MAX_DEPTH + 2), ERR_UNSUPPORTED);
    CHECK_INT(nested("[", "]", 10), 0);
    CHECK_INT(nested("[", "]", REGEX_MAX_DEPTH + 2), ERR_UNSUPPORTED);
    CHECK_INT(pattern_regex("[a", 2, &p, NULL), ERR_CORRUPT);
    CHECK_INT(pattern_regex("[^a&&b", 6, &p, NULL), ERR_CORRUPT);
    memset(longer, 'a', sizeof(longer) - 1);
    CHECK_INT(pattern_regex(longer, sizeof(longer) - 1, &p, NULL), ERR_UNSUPPORTED);
}

static void test_regexes(void)
{
    static const char *const refused[] = {"\\h",
                                          "\\R",
                                          "\\X",
                                          "\\1",
                                          "\\k<n>",
                                          "\\p{Greek}",
                                          "\\p{^L}",
                                          "\\pL",
                                          "a{1,3}+",
                                          "(?<n>a)",
                                          "(?#c)",
                                          "(*UTF)a",
                                          "\\u0041",
                                          "\\x41",
                                          "[]a]",
                                          "\\",
                                          "(?x:a)",
                                          "(?i:st)",
                                          "(?i)\xc3\xa9",
                                          "[[:alpha:]]",
                                          "(?<=a+)b",
                                          "(?i:s)(?i:s)",
                                          "[a-[b]]",
                                          "[\\A]",
                                          "[\\h]",
                                          "[]",
                                          "[a&&]",
                                          "(?i)[\xc3\xa9]",
                                          "(?i)[\xe2\x80\xa6-\xe2\x80\xa7]",
                                          "(?i)[\\w]",
                                          "\xff",
                                          "[\xff]",
                                          "(?i)\xf0\x9f\x90\xa8",
                                          "(?i-)a",
                                          "(?)",
                                          "(?im",
                                          "[\\p{L]",
                                          "[\\",
                                          "a|[\\x{}]"};
    static const char *const taken[] = {"a{1,3}",
                                        "a++",
                                        "a?+",
                                        "(?:a|b)(?i:s)(?!c)(?=d)(?<=e)(?<!f)(?>g)",
                                        "[^\\r\\n\\p{L}]",
                                        "\\p{Lu}\\P{N}\\s\\S\\d\\D\\w\\W",
                                        "[\\s\\w\\d\\p{Han}\\-\\]]",
                                        "[\xe4\xb8\x80-\xe9\xbe\xa5]+",
                                        "^a$|\\Ab\\z",
                                        "\\bword\\B",
                                        "[a[bc]]",
                                        "[a&&b]",
                                        "[\\W\\P{L}]",
                                        "[^\\S\\n&&[^a-f]]",
                                        "(?m:a)(?i)b|c",
                                        "(?-i:st)",
                                        "[\\-\\n\\ \\~]",
                                        "[^a[b]]",
                                        "[^[a][b]]",
                                        "[^\\S[b]]",
                                        "[^a&&b]",
                                        "[a^]",
                                        "[\\^a]",
                                        "(?i)[\xe2\x80\xa6\xe4\xb8\xad\xc2\xb1\xd9\xa1\xe2\x80\xa8]",
                                        "(?i)\xe2\x80\xa6",
                                        "(?i-m:1)(?m-i:s)"};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct pattern *p = NULL;
        if (!CHECK_INT(pattern_regex(refused[i], strlen(refused[i]), &p, NULL), ERR_UNSUPPORTED))
            fprintf(stderr, "%s\n", refused[i]);
    }
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        struct pattern *p = NULL;
        struct err e;
        if (!CHECK_INT(pattern_regex(taken[i], strlen(taken[i]), &p, &e), 0))
            fprintf(stderr, "%s: %s\n", taken[i], e.text);
        pattern_free(p);
    }
}

int main(void)
{
    test_refusals();
    test_ids();
    test_components();
    test_decoders();
    test_long_words();
    test_regexes();
    test_limits_of_regexes();
    return check_result();
}
