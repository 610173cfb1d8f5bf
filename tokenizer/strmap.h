/* Byte strings to ids: an open-addressed hash table. Keys are borrowed and must outlive the map. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct strmap_slot {
    const char *key; /* NULL: free */
    uint32_t len;
    uint32_t hash;
    int32_t id;
};

struct strmap {
    struct strmap_slot *slots;
    size_t n, mask; /* mask + 1 slots, at least twice n */
};

/* Room for `expected` keys without growing. 0 or ERR_NOMEM. */
int strmap_init(struct strmap *m, size_t expected);
void strmap_done(struct strmap *m);
/* Sets the id of a key. 1 if the key was new, 0 if its id was replaced, or ERR_NOMEM. */
int strmap_put(struct strmap *m, const char *key, size_t len, int32_t id);
int32_t strmap_get(const struct strmap *m, const char *key, size_t len); /* -1: not there */
