/* Do versions 4 and 5 of transformers read a checkpoint's tokenizer alike? Looked up on a few strings at whose borders they part. */
#pragma once
#include "tokenizer/tokenizer.h"

#define RULES_COMPARE_STRINGS 12

struct rules_comparison {
    int n_differ;         /* of RULES_COMPARE_STRINGS, encoded without special tokens */
    int n_special_differ; /* the same, with them */
    struct err other;     /* why the other version's rules refuse the directory; code 0: they do not */
};

/* Loads `dir` by the other rules than t's, and compares. 0 or ERR_NOMEM. */
int rules_compare(const struct tokenizer *t, const char *dir, struct rules_comparison *ret, struct err *err);
/* One line to the log if they differ, or the other rules refuse the directory. Errors are only logged. */
void rules_compare_log(const struct tokenizer *t, const char *dir, struct log *log);
