/* The Python classes of transformers whose rules are carried out, one a row, and which class a model type means. */
#pragma once
#include "tokenizer/rules.h"
#include <jansson.h>
#include <stdbool.h>

struct settings;

enum { ROLE_BOS, ROLE_EOS, ROLE_UNK, ROLE_SEP, ROLE_PAD, ROLE_CLS, ROLE_MASK, ROLE_COUNT };

/* The parameter exists, and is None unless told otherwise. */
#define ROLE_NONE ""

/* What a class's constructor does under one set of rules. */
struct class_rules {
    bool known;
    const char *roles[ROLE_COUNT]; /* defaults; NULL: no parameter of the constructor */
    bool roles_are_objects;        /* strings become tokens without flags, which override the file's */
    enum {
        TEMPLATE_FILE,  /* the file's post-processor; version 5: replaced where BOS or EOS are asked for, or there is none */
        TEMPLATE_OWN,   /* BOS and EOS by add_bos_token and add_eos_token, whatever the file says */
        TEMPLATE_NO_BOS /* as the file; asking for BOS is an error */
    } template;
    bool add_bos;          /* add_bos_token's default */
    bool prefix_is_null;   /* add_prefix_space's default is None, which leaves the file's */
    bool prefix_for_all;   /* add_prefix_space = true reaches ByteLevels inside a Sequence too */
    bool prefix_is_slow;   /* add_prefix_space makes the class go back to tokenizer.model */
    bool takes_spm;        /* a tokenizer.model without a tokenizer.json will do */
    const char *slow_file; /* what the slow class reads, where that is not read here; NULL: nothing */
    bool infills;          /* CodeLlama's tokens and its <FILL_ME> */
    /* Version 5's classes take the vocabulary and the merges of a file, and bring everything else; NULL: the file counts. */
    json_t *(*frame)(const struct settings *s);
    bool flags_named; /* when all is done, special tokens are given again, without flags */
    bool flags_own;   /* the same with their flags */
};

struct class_row {
    const char *name; /* without "Fast" at the end */
    struct class_rules v4, v5;
};

/* The row of a class, "Fast" or not. NULL: not carried out here; *ret_known then says whether transformers has it. */
const struct class_row *class_row_find(const char *name, bool *ret_known);
/* The row for files that name no class and no model type. */
const struct class_row *class_row_plain(void);

struct model_type_row {
    const char *type;
    const char *class4, *class5; /* NULL: none of its own, which means PreTrainedTokenizerFast */
    bool overrides;              /* version 5 takes its class whatever the tokenizer's file says */
};
const struct model_type_row *model_type_find(const char *type); /* NULL: not known here */

static inline const struct class_rules *class_rules_of(const struct class_row *row, enum tokenizer_rules rules)
{
    return rules == TOKENIZER_RULES_5 ? &row->v5 : &row->v4;
}
