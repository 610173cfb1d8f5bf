/* Which device a sequence is sent to, where there are several.
 *
 * A table remembers for prefixes of what was sent (hashes at a few lengths) which devices they went to; it stands for the prefix trees, which belong to
 * the workers and cannot be asked. A sequence goes to the device that has most of it, of several such to the one with the least to do, and where
 * nobody has anything to that of all. So continuations of one context, and documents with one beginning, stay together. It goes elsewhere, and its
 * prefix is computed there once more, when so many rows were sent past that other device, while it was nearly idle or some steps behind, that the
 * prefix is little beside them.
 *
 * The table is a guess: an entry that was overwritten, or whose rows a tree has evicted, costs rows and never changes a bit. It is read and written by any
 * thread, without a lock. */
#pragma once
#include "common/err.h"
#include "engine/engine.h"
#include <stdatomic.h>

struct engine_ticket;
struct queue;
struct seq_list;

struct dispatch {
    _Atomic uint64_t *entries; /* [DISPATCH_ENTRIES] 48 bits of a hash, then a bit a device; NULL: nothing is reused */
    int max_rows;              /* of a step */
    _Atomic int64_t
        passed[ENGINE_DEVICES_MAX]; /* rows sent past a device that was idle or behind, since a prefix was last computed there for that */
};

#define DISPATCH_ENTRIES (1 << 20)

/* max_rows: of a device's step. reuses: devices keep prefixes. ERR_NOMEM. */
int dispatch_init(struct dispatch *d, int max_rows, bool reuses, struct err *err);
void dispatch_done(struct dispatch *d); /* copes with a zeroed struct */

/* Chooses a device for each sequence: its place and its load. Devices that are lost are passed, unless all are. */
void dispatch_ticket(struct dispatch *d, const struct queue *q, struct engine_ticket *t);
void dispatch_list(struct dispatch *d, const struct queue *q, struct seq_list *list);
/* The devices' trees are about to be cleared. */
void dispatch_clear(struct dispatch *d);
