/* Two tokenizers, and both encodings of each string. */
#include "tokenizer/rules_compare.h"
#include <string.h>

#define MARK "\xe2\x96\x81" /* U+2581 */

static const char *const strings[RULES_COMPARE_STRINGS] = {
    "a", " a", "a ", "  a b", "\n a", "a\n\nb", "<s>a b</s> c", "</s>\n", MARK "a", "1234, x", "Caf\xc3\xa9", "It's\ta b",
};

static int encode(const struct tokenizer *t, const char *text, bool special, struct token_ids *ret)
{
    return tokenizer_encode(t, text, strlen(text), special, SIZE_MAX, ret, NULL);
}

/* 1, 0, or ERR_NOMEM. A text that both refuse is read alike. */
static int differ(const struct tokenizer *a, const struct tokenizer *b, const char *text, bool special)
{
    struct token_ids x = {0}, y = {0};
    int rx = encode(a, text, special, &x), ry = encode(b, text, special, &y);
    int r = rx == ERR_NOMEM || ry == ERR_NOMEM
                ? ERR_NOMEM
                : (rx < 0) != (ry < 0) || x.n != y.n || (x.n && memcmp(x.ids, y.ids, x.n * sizeof(*x.ids)) != 0);
    token_ids_done(&x);
    token_ids_done(&y);
    return r;
}

int rules_compare(const struct tokenizer *t, const char *dir, struct rules_comparison *ret, struct err *err)
{
    enum tokenizer_rules other = tokenizer_rules(t) == TOKENIZER_RULES_4 ? TOKENIZER_RULES_5 : TOKENIZER_RULES_4;
    struct tokenizer *o = NULL;
    *ret = (struct rules_comparison){0};
    int r = tokenizer_open(dir, other, NULL, &o, &ret->other);
    if (r < 0)
        return r == ERR_NOMEM ? err_set(err, r, "%s", ret->other.text) : 0;
    ret->other = (struct err){0};
    for (int i = 0; i < 2 * RULES_COMPARE_STRINGS && r >= 0; i++) {
        r = differ(t, o, strings[i / 2], i % 2);
        *(i % 2 ? &ret->n_special_differ : &ret->n_differ) += r > 0;
    }
    tokenizer_close(o);
    return r < 0 ? err_set(err, r, "no memory to compare two tokenizers") : 0;
}

void rules_compare_log(const struct tokenizer *t, const char *dir, struct log *log)
{
    struct rules_comparison c;
    struct err err = {0};
    int mine = tokenizer_rules(t), other = mine == TOKENIZER_RULES_4 ? TOKENIZER_RULES_5 : TOKENIZER_RULES_4;
    if (rules_compare(t, dir, &c, &err) < 0)
        log_warn(log, "tokenizer: transformers 4 and 5 were not compared: %s", err.text);
    else if (c.other.code < 0)
        log_info(log, "tokenizer: the rules of transformers %d are not carried out for this checkpoint: %s", other, c.other.text);
    else if (c.n_differ || c.n_special_differ)
        log_write(
            log, c.n_differ ? LOG_WARN : LOG_INFO, NULL,
            "tokenizer: transformers 4 and 5 give different ids for %d of %d border strings of this checkpoint, with special tokens asked "
            "for %d; these are version %d's (--tokenizer-rules %d for the other's)",
            c.n_differ, RULES_COMPARE_STRINGS, c.n_special_differ, mine, other);
}
