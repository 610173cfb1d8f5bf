/* CodeLlama's gap: a text with <FILL_ME> in it becomes what stands before and behind the gap, between three tokens of the class. */
#pragma once
#include "tokenizer/pipeline.h"
#include "tokenizer/settings.h"

struct infill {
    const char *mark; /* borrowed from the settings; NULL: the class has no gap */
    bool usable;      /* the tokens around a gap are there */
    size_t mark_len;
    int32_t prefix, middle, suffix;
    bool bos, eos; /* go around it where special tokens are asked for */
    struct normalizer normalizer;
    struct trie normalized; /* version 5's library looks for added tokens by this normalizer, version 4's by the tokenizer's own */
};

/* After the last added token. */
int infill_init(struct infill *f, const struct settings *s, const struct pipeline *p, struct err *err);
void infill_done(struct infill *f);

/* Where the mark stands in a text: 1 and its place, 0 where there is none, ERR_INVALID where there are several or it is of no use. */
int infill_find(const struct infill *f, const char *text, size_t len, size_t *ret_at, struct err *err);
/* Appends the ids of a text whose mark stands at `at`. As pipeline_encode. */
int infill_encode(const struct infill *f, const struct pipeline *p, const char *text, size_t len, size_t at, int32_t bos, int32_t eos,
                  struct id_sink *out);
