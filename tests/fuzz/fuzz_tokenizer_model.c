/* Any bytes as tokenizer.model: the check, the SentencePiece library behind it, and the tokenizer made of it. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_pipeline.h"
#include "tokenizer/spm_model.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const classes[] = {"LlamaTokenizer", "PreTrainedTokenizerFast", "CodeLlamaTokenizer"};
    bool known;
    struct settings s = {.rules = len % 2 ? TOKENIZER_RULES_4 : TOKENIZER_RULES_5,
                         .class = class_row_find(classes[len / 2 % 3], &known),
                         .legacy = len / 6 % 2 ? KNOB_FALSE : KNOB_ABSENT};
    struct pipeline p;
    arena_init(&s.memory, (size_t)1 << 28);
    if (pipeline_init(&p, s.rules, NULL) >= 0 && spm_model_fill(&p, data, len, &s, NULL) >= 0 &&
        settings_add_tokens(&s, NULL, &p.added, &p.vocab, NULL) >= 0)
        fuzz_pipeline(&p, "", 0);
    pipeline_done(&p);
    settings_done(&s);
    return 0;
}
