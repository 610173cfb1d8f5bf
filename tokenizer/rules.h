/* Whose reading of a tokenizer directory is followed. */
#pragma once

enum tokenizer_rules {
    TOKENIZER_RULES_4 = 4, /* transformers 4.57 with tokenizers 0.22 */
    TOKENIZER_RULES_5 = 5  /* transformers 5.24 with tokenizers 0.23 */
};
