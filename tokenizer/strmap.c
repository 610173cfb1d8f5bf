/* Open addressing with linear probing; the hash folds eight bytes at a time by a 64 x 64 -> 128 bit product. */
#include "tokenizer/strmap.h"
#include "common/err.h"
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 p = (unsigned __int128)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint32_t hash_of(const char *s, size_t len)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ len, word = 0;
    for (; len >= 8; s += 8, len -= 8) {
        memcpy(&word, s, 8);
        h = mix(h ^ word, 0xd6e8feb86659fd93u);
    }
    word = 0;
    for (size_t i = 0; i < len; i++)
        word |= (uint64_t)(unsigned char)s[i] << (8 * i);
    return (uint32_t)mix(h ^ word, 0xa0761d6478bd642fu);
}

static int allocate(struct strmap *m, size_t expected)
{
    size_t cap = 16;
    while (cap / 2 < expected)
        cap *= 2;
    struct strmap_slot *slots = calloc(cap, sizeof(*slots));
    if (!slots)
        return ERR_NOMEM;
    m->slots = slots;
    m->mask = cap - 1;
    return 0;
}

int strmap_init(struct strmap *m, size_t expected)
{
    *m = (struct strmap){0};
    return allocate(m, expected);
}

void strmap_done(struct strmap *m)
{
    free(m->slots);
    *m = (struct strmap){0};
}

static struct strmap_slot *find(const struct strmap *m, const char *key, size_t len, uint32_t hash)
{
    for (size_t i = hash & m->mask;; i = (i + 1) & m->mask) {
        struct strmap_slot *s = &m->slots[i];
        if (!s->key || (s->hash == hash && s->len == len && memcmp(s->key, key, len) == 0))
            return s;
    }
}

static int grow(struct strmap *m)
{
    struct strmap old = *m;
    if (allocate(m, old.n * 2) < 0)
        return ERR_NOMEM;
    for (size_t i = 0; i <= old.mask; i++) {
        struct strmap_slot *s = &old.slots[i];
        if (s->key)
            *find(m, s->key, s->len, s->hash) = *s;
    }
    free(old.slots);
    return 0;
}

int strmap_put(struct strmap *m, const char *key, size_t len, int32_t id)
{
    uint32_t hash = hash_of(key, len);
    struct strmap_slot *s = find(m, key, len, hash);
    if (s->key) {
        s->id = id;
        return 0;
    }
    if ((m->n + 1) * 2 > m->mask + 1) {
        if (grow(m) < 0)
            return ERR_NOMEM;
        s = find(m, key, len, hash);
    }
    *s = (struct strmap_slot){.key = key, .len = (uint32_t)len, .hash = hash, .id = id};
    m->n++;
    return 1;
}

int32_t strmap_get(const struct strmap *m, const char *key, size_t len)
{
    const struct strmap_slot *s = find(m, key, len, hash_of(key, len));
    return s->key ? s->id : -1;
}
