/* See stop.h. */
#include "server/api/stop.h"
#include <string.h>

void stop_text_init(struct stop_text *t, const struct stop_set *set, size_t max_bytes)
{
    *t = (struct stop_text){.set = set};
    buf_init(&t->text, max_bytes);
}

void stop_text_done(struct stop_text *t)
{
    buf_done(&t->text);
}

/* Only what the new bytes may have completed is searched. Of several strings the one that begins first counts. */
int stop_text_add(struct stop_text *t, const char *bytes, size_t n)
{
    size_t old = t->text.len, best = (size_t)-1;
    int r = buf_append(&t->text, bytes, n);
    if (r < 0)
        return r;
    for (size_t i = 0; i < t->set->n; i++) {
        size_t len = t->set->lens[i], from = old + 1 > len ? old + 1 - len : 0;
        const char *at = memmem(t->text.data + from, t->text.len - from, t->set->strings[i], len);
        if (at && (size_t)(at - t->text.data) < best)
            best = (size_t)(at - t->text.data);
    }
    if (best == (size_t)-1)
        return 0;
    t->hit = true;
    t->cut = best;
    return 1;
}

static bool begins_a_stop(const struct stop_set *set, const char *tail, size_t n)
{
    for (size_t i = 0; i < set->n; i++)
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

size_t stop_text_settled(const struct stop_text *t, bool ended)
{
    if (t->hit)
        return t->cut;
    if (ended)
        return t->text.len;
    size_t tail = t->set->longest ? t->set->longest - 1 : 0, begin = t->text.len > tail ? t->text.len - tail : 0;
    while (begin < t->text.len && !begins_a_stop(t->set, t->text.data + begin, t->text.len - begin))
        begin++;
    return whole_characters(t->text.data, begin);
}
