/* See spellings.h. */
#include "server/api/spellings.h"
#include "common/json.h"
#include <stdlib.h>

static int add(struct spelling *ret, const struct tokenizer *t, int32_t id, bool first, struct buf *bytes)
{
    size_t len, begin = bytes->len;
    const char *s = tokenizer_token_string(t, id, first, &len);
    int r = json_put_string(bytes, s, len);
    *ret = (struct spelling){.at = (uint32_t)begin, .len = (uint32_t)(bytes->len - begin)};
    s = tokenizer_token_bytes(t, id, first, &len);
    ret->inside = len && ((unsigned char)s[0] & 0xc0) == 0x80;
    for (size_t i = 0; i < len; i++)
        ret->chars += ((unsigned char)s[i] & 0xc0) != 0x80;
    return r;
}

static struct spelling *add_all(struct spellings *s, const struct tokenizer *t, bool first, int *r)
{
    struct spelling *list = calloc((size_t)s->n + 1, sizeof(*list));
    if (!list)
        *r = ERR_NOMEM;
    for (int32_t id = 0; id < s->n && *r >= 0; id++)
        *r = add(&list[id], t, id, first, &s->bytes);
    return list;
}

int spellings_init(struct spellings *ret, const struct tokenizer *t, int32_t vocab, struct err *err)
{
    int n = t ? tokenizer_vocab_size(t) : 0, r = 0;
    *ret = (struct spellings){.n = n < vocab ? n : vocab};
    buf_init(&ret->bytes, UINT32_MAX - 1);
    ret->inner = add_all(ret, t, false, &r);
    ret->first = add_all(ret, t, true, &r);
    return r < 0 ? err_set(err, r, "no memory for the spellings of %d tokens", ret->n) : 0;
}

void spellings_done(struct spellings *s)
{
    free(s->inner);
    free(s->first);
    if (s->inner)
        buf_done(&s->bytes);
    *s = (struct spellings){0};
}
