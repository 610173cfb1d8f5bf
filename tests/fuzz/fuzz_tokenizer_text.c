/* Any bytes as a text for the shipped tokenizer, and as context and continuation cut at the first NUL. Valid text comes back when
 * its ids are decoded, token by token too; other text is refused. */
#include "common/utf8.h"
#include "tests/fuzz/fuzz.h"
#include "tokenizer/tokenizer.h"
#include <stdlib.h>
#include <string.h>

#define MAX_IDS 1000000

static const struct tokenizer *shipped(void)
{
    static struct tokenizer *t;
    if (!t && tokenizer_open(MODEL_DIR, TOKENIZER_RULES_4, NULL, &t, NULL) < 0)
        abort();
    return t;
}

/* The spelled-out tokens joined; special tokens may have taken no part of the text away. */
static void check_round_trip(const struct tokenizer *t, const struct token_ids *ids, const char *text, size_t len)
{
    char *back, *joined = malloc(len * 4 + 64);
    size_t back_len, n = 0, k;
    if (!joined || tokenizer_decode(t, ids->ids, ids->n, false, &back, &back_len, NULL) < 0)
        abort();
    for (size_t i = 0; i < ids->n; i++) {
        const char *s = tokenizer_token_bytes(t, ids->ids[i], i == 0, &k);
        memcpy(joined + n, s, k);
        n += k;
    }
    if (n != back_len || memcmp(joined, back, n) != 0)
        abort();
    bool plain = !memchr(text, '<', len) && !memmem(text, len, "\xe2\x96\x81", 3); /* nothing that is spelled otherwise */
    if (plain && (n != len || memcmp(joined, text, n) != 0))
        abort();
    free(joined);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct tokenizer *t = shipped();
    const char *text = (const char *)data, *nul = len ? memchr(text, 0, len) : NULL;
    size_t context = nul ? (size_t)(nul - text) : len / 2, border = 0;
    struct token_ids ids = {0}, pair = {0};
    bool valid = utf8_valid_prefix(text, len) == len;
    if ((tokenizer_encode(t, text, len, false, MAX_IDS, &ids, NULL) >= 0) != valid)
        abort();
    if (valid)
        check_round_trip(t, &ids, text, len);
    if (tokenizer_encode_pair(t, text, context, text + context, len - context, MAX_IDS, &pair, &border, NULL) >= 0 &&
        (border > pair.n || pair.n != ids.n))
        abort();
    token_ids_done(&ids);
    token_ids_done(&pair);
    return 0;
}
