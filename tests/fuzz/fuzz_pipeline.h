/* What the tokenizer targets do with a pipeline that was accepted: its ids stay in range and decode. */
#pragma once
#include "common/utf8.h"
#include "tokenizer/pipeline.h"
#include "tokenizer/token_text.h"
#include <stdlib.h>
#include <string.h>

static inline void fuzz_decode(const struct pipeline *p, const struct token_text *t, const struct token_ids *ids)
{
    struct string_list tokens;
    struct buf text;
    string_list_init(&tokens);
    buf_init(&text, (size_t)1 << 30);
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->ids[i] < 0 || ids->ids[i] >= t->n)
            abort();
        string_list_add(&tokens, t->decoded[ids->ids[i]].s, t->decoded[ids->ids[i]].len);
    }
    if (decoder_run(&p->decoder, &tokens, &text) >= 0 && utf8_valid_prefix(text.data, text.len) != text.len)
        abort();
    string_list_done(&tokens);
    buf_done(&text);
}

static inline void fuzz_encode(const struct pipeline *p, const struct token_text *t, const char *text, size_t len)
{
    struct token_ids ids = {0};
    if (utf8_valid_prefix(text, len) == len && pipeline_encode(p, text, len, &(struct id_sink){&ids, 100000}) >= 0)
        fuzz_decode(p, t, &ids);
    token_ids_done(&ids);
}

/* Fixed texts, and one of the input's own. */
static inline void fuzz_pipeline(struct pipeline *p, const char *text, size_t len)
{
    static const char *const texts[] = {"",
                                        " a",
                                        "Hello  world, it's 1234 \n\n",
                                        "</s> a<s>\t\xc3\xa9\xe2\x96\x81\xf0\x9f\x90\xa8",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaa",
                                        "A\xcc\x8a\xe1\x84\x80\xe1\x85\xa1 \xef\xac\x81"};
    struct token_text t;
    if (pipeline_finish(p, NULL) < 0 || token_text_init(&t, p, NULL) < 0)
        return;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        fuzz_encode(p, &t, texts[i], strlen(texts[i]));
    fuzz_encode(p, &t, text, len);
    token_text_done(&t);
}
