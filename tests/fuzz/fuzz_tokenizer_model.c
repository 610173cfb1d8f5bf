/* Any bytes as tokenizer.model: the check, the SentencePiece library behind it, and the tokenizer made of it. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_pipeline.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct settings settings = {.class = TOKENIZER_LLAMA, .legacy = len % 2 ? NO : YES, .add_prefix_space = UNSET};
    struct pipeline p;
    if (pipeline_init(&p, NULL) >= 0 && llama_spm_fill(&p, data, len, &settings, NULL) >= 0)
        fuzz_pipeline(&p, "", 0);
    pipeline_done(&p);
    return 0;
}
