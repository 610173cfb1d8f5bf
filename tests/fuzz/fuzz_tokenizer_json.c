/* Any bytes as tokenizer.json; what follows a NUL is a text to encode. */
#include "common/json.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_pipeline.h"
#include "tokenizer/hf_json.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct hf_overrides as_filed = {.lone_prefix = HF_PREFIX_AS_FILED};
    enum tokenizer_rules rules = len % 2 ? TOKENIZER_RULES_4 : TOKENIZER_RULES_5;
    const char *json = (const char *)data, *nul = len ? memchr(json, 0, len) : NULL;
    size_t json_len = nul ? (size_t)(nul - json) : len;
    struct pipeline p;
    json_t *root = NULL;
    if (json_parse(json, json_len, "input", &root, NULL) < 0)
        return 0;
    if (pipeline_init(&p, rules, NULL) >= 0 && hf_json_fill(&p, root, &as_filed, NULL, NULL) >= 0)
        fuzz_pipeline(&p, nul ? nul + 1 : "", nul ? len - json_len - 1 : 0);
    pipeline_done(&p);
    json_decref(root);
    return 0;
}
