/* See stop.h. */
#include "server/api/stop.h"
#include <string.h>

void stop_set_add(struct stop_set *set, const char *s, size_t len)
{
    set->strings[set->n] = s;
    set->lens[set->n++] = len;
    set->longest = len > set->longest ? len : set->longest;
    set->first[(unsigned char)*s] = true;
}

void stop_text_init(struct stop_text *t, const struct stop_set *set, size_t max_bytes)
{
    *t = (struct stop_text){.set = set};
    buf_init(&t->text, max_bytes);
}

void stop_text_done(struct stop_text *t)
{
    buf_done(&t->text);
}

/* Where the first stop string begins that ends in the bytes from `old` on; -1: none does. *ret_len is its length. */
static size_t find_stop(const struct stop_text *t, size_t old, size_t *ret_len)
{
    const struct stop_set *set = t->set;
    size_t best = (size_t)-1;
    bool fresh[256] = {false};
    for (size_t i = old; i < t->text.len; i++)
        fresh[(unsigned char)t->text.data[i]] = true;
    for (size_t i = 0; i < set->n; i++) {
        size_t len = set->lens[i], from = old + 1 > len ? old + 1 - len : 0;
        const char *at = NULL;
        if (fresh[(unsigned char)set->strings[i][len - 1]])
            at = memmem(t->text.data + from, t->text.len - from, set->strings[i], len);
        if (!at || (size_t)(at - t->text.data) >= best)
            continue;
        best = (size_t)(at - t->text.data);
        *ret_len = len;
    }
    return best;
}

/* Of several strings the one that begins first counts. */
int stop_text_add(struct stop_text *t, const char *bytes, size_t n)
{
    size_t old = t->text.len, stop_len = 0;
    int r = buf_append(&t->text, bytes, n);
    if (r < 0)
        return r;
    size_t best = n && t->set->n && !t->deaf ? find_stop(t, old, &stop_len) : (size_t)-1;
    if (best == (size_t)-1)
        return 0;
    t->hit = true;
    t->cut = t->set->keep ? best + stop_len : best;
    return 1;
}

static bool begins_a_stop(const struct stop_set *set, const char *tail, size_t n)
{
    for (size_t i = 0; set->first[(unsigned char)*tail] && i < set->n; i++)
        if (set->lens[i] > n && !memcmp(set->strings[i], tail, n))
            return true;
    return false;
}

/* Where the last character begins if it still lacks bytes, else len. */
static size_t whole_characters(const char *s, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)s[len - back];
        if (c < 0x80)
            return len;
        if (c >= 0xc0) {
            size_t wants = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
            return wants > back ? len - back : len;
        }
    }
    return len;
}

size_t stop_text_settled(struct stop_text *t, bool ended)
{
    if (t->hit)
        return t->cut;
    if (ended)
        return t->text.len;
    if (t->set->keep)
        return whole_characters(t->text.data, t->text.len);
    size_t tail = t->set->longest ? t->set->longest - 1 : 0, begin = t->text.len > tail ? t->text.len - tail : 0;
    if (begin > t->held)
        t->held = begin;
    while (t->held < t->text.len && !begins_a_stop(t->set, t->text.data + t->held, t->text.len - t->held))
        t->held++;
    return whole_characters(t->text.data, t->held);
}
