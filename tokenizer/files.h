/* Which of a directory's files the tokenizer is made of. */
#pragma once
#include "tokenizer/settings.h"
#include <limits.h>

struct tokenizer_files {
    char json_path[PATH_MAX], spm_path[PATH_MAX];
    bool has_json, has_spm;
    json_t *json; /* the parsed tokenizer.json; NULL unless has_json */
    bool spm;     /* tokenizer.model is taken */
};

/* ERR_NOT_FOUND if there is neither tokenizer.json nor tokenizer.model. tokenizer_files_done also after an error. */
int tokenizer_files_find(struct tokenizer_files *f, const char *dir, struct err *err);
/* Sets f->spm. ERR_UNSUPPORTED where transformers would read a file that is not read here. */
int tokenizer_files_choose(struct tokenizer_files *f, const char *dir, const struct settings *s, struct log *log, struct err *err);
void tokenizer_files_done(struct tokenizer_files *f);
