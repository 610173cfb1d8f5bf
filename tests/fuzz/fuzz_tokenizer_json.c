/* Any bytes as tokenizer.json; what follows a NUL is a text to encode. */
#include "common/json.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_pipeline.h"
#include "tokenizer/hf_json.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct settings settings = {.class = TOKENIZER_PRETRAINED, .add_prefix_space = UNSET, .null_prefix_space = true};
    const char *json = (const char *)data, *nul = len ? memchr(json, 0, len) : NULL;
    size_t json_len = nul ? (size_t)(nul - json) : len;
    struct pipeline p;
    json_t *root = NULL;
    if (json_parse(json, json_len, "input", &root, NULL) < 0)
        return 0;
    if (pipeline_init(&p, NULL) >= 0 && hf_json_fill(&p, root, &settings, NULL, NULL) >= 0)
        fuzz_pipeline(&p, nul ? nul + 1 : "", nul ? len - json_len - 1 : 0);
    pipeline_done(&p);
    json_decref(root);
    return 0;
}
