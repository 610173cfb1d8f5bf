/* A hash table of prefixes in atomic words, and the choice by it and by load. */
#include "engine/schedule/dispatch.h"
#include "engine/schedule/queue.h"
#include "engine/schedule/ticket.h"
#include <stdlib.h>

#define WAYS 4
#define FINE 4        /* tokens between the lengths at which a prefix is looked up, */
#define FINE_UP_TO 32 /* up to this length, */
#define COARSE 16     /* and between those above it */
#define IDLE_PART 8   /* a device is nearly idle with less than this part of a step to do, */
#define FAR_STEPS 4   /* and so is one that has so many steps less to do than another */
#define WORTH 4       /* a prefix is computed once more for so many times its rows */

_Static_assert(ENGINE_DEVICES_MAX <= 16, "an entry has a bit a device");

int dispatch_init(struct dispatch *d, int max_rows, bool reuses, struct err *err)
{
    *d = (struct dispatch){.max_rows = max_rows};
    d->entries = reuses ? calloc(DISPATCH_ENTRIES, sizeof(*d->entries)) : NULL;
    return d->entries || !reuses ? 0 : err_set(err, ERR_NOMEM, "no memory for the table of prefixes");
}

void dispatch_done(struct dispatch *d)
{
    free(d->entries);
    *d = (struct dispatch){0};
}

void dispatch_clear(struct dispatch *d)
{
    for (size_t i = 0; d->entries && i < DISPATCH_ENTRIES; i++)
        atomic_store_explicit(&d->entries[i], 0, memory_order_relaxed);
}

/* ---- prefixes ----------------------------------------------------------------------------------------------------- */
/* The lengths of a sequence's prefixes that are looked up, one after the other, with their hashes. */
struct prefix {
    const int32_t *tokens;
    int n, max;
    uint64_t hash;
};

static bool next_prefix(struct prefix *p)
{
    int n = p->n + (p->n < FINE_UP_TO ? FINE : COARSE);
    if (n > p->max)
        return false;
    for (; p->n < n; p->n++) {
        p->hash = (p->hash ^ (uint32_t)p->tokens[p->n]) * 0x9e3779b97f4a7c15u;
        p->hash ^= p->hash >> 29;
    }
    return true;
}

static uint64_t tag_of(uint64_t hash)
{
    return hash & ~(uint64_t)0xffff;
}

/* The ways of a hash's set; its upper bits are the tag, so the set is taken from all of them mixed. */
static _Atomic uint64_t *set_of(struct dispatch *d, uint64_t hash)
{
    return &d->entries[(hash * 0xd6e8feb86659fd93u >> 40) % (DISPATCH_ENTRIES / WAYS) * WAYS];
}

static unsigned devices_with(struct dispatch *d, uint64_t hash)
{
    _Atomic uint64_t *set = set_of(d, hash);
    for (int i = 0; i < WAYS; i++) {
        uint64_t e = atomic_load_explicit(&set[i], memory_order_relaxed);
        if (tag_of(e) == tag_of(hash))
            return (unsigned)(e & 0xffff);
    }
    return 0;
}

/* One that others write at the same moment may be lost. */
static void note(struct dispatch *d, uint64_t hash, int device)
{
    _Atomic uint64_t *set = set_of(d, hash);
    int at = (int)(hash >> 20 & (WAYS - 1));
    for (int i = WAYS - 1; i >= 0; i--) {
        uint64_t e = atomic_load_explicit(&set[i], memory_order_relaxed);
        if (e && tag_of(e) == tag_of(hash)) {
            if (!(e >> device & 1))
                atomic_fetch_or_explicit(&set[i], (uint64_t)1 << device, memory_order_relaxed);
            return;
        }
        at = e ? at : i;
    }
    atomic_store_explicit(&set[at], tag_of(hash) | (uint64_t)1 << device, memory_order_relaxed);
}

/* The devices that were sent the longest prefix that anyone was; *ret_n: its tokens. */
static unsigned find(struct dispatch *d, const struct eval_request *q, unsigned alive, int *ret_n)
{
    struct prefix p = {.tokens = q->tokens, .max = q->n_tokens};
    unsigned best = 0;
    *ret_n = 0;
    while (d->entries && next_prefix(&p)) {
        unsigned have = devices_with(d, p.hash) & alive;
        if (!have)
            break;
        best = have;
        *ret_n = p.n;
    }
    return best;
}

static void remember(struct dispatch *d, const struct eval_request *q, int device)
{
    struct prefix p = {.tokens = q->tokens, .max = q->n_tokens};
    while (d->entries && next_prefix(&p))
        note(d, p.hash, device);
}

/* ---- the choice ------------------------------------------------------------------------------------------------------ */
struct choice {
    struct dispatch *d;
    int n_devices;
    unsigned alive;
    int64_t load[ENGINE_DEVICES_MAX]; /* what was sent before, and what this call sends */
};

static struct choice begin(struct dispatch *d, const struct queue *q)
{
    struct choice c = {.d = d, .n_devices = q->n_devices};
    for (int i = 0; i < q->n_devices; i++) {
        c.load[i] = atomic_load_explicit(&q->dev[i].load, memory_order_relaxed);
        c.alive |= (unsigned)!atomic_load_explicit(&q->dev[i].lost, memory_order_relaxed) << i;
    }
    if (!c.alive)
        c.alive = (1u << q->n_devices) - 1; /* all the same: nobody will take it */
    return c;
}

static int least_loaded(const struct choice *c, unsigned of)
{
    int best = -1;
    for (int i = 0; i < c->n_devices; i++)
        if (of >> i & 1 && (best < 0 || c->load[i] < c->load[best]))
            best = i;
    return best;
}

/* Should a sequence leave the device that has n tokens of it, of which it needs `load` rows more? */
static bool leaves(struct choice *c, int home, int least, int n, int64_t load)
{
    int64_t rows = c->d->max_rows, more = c->load[home] - c->load[least] - 2 * (int64_t)n;
    bool idle = c->load[least] * IDLE_PART < rows && more > 0, far = more > FAR_STEPS * rows;
    if (!idle && !far)
        return false;
    int64_t passed = atomic_fetch_add_explicit(&c->d->passed[least], load, memory_order_relaxed) + load;
    if (passed < WORTH * (int64_t)n)
        return false;
    atomic_store_explicit(&c->d->passed[least], 0, memory_order_relaxed);
    return true;
}

/* Rows that a sequence computes where n of its tokens are known. */
static int64_t rows_of(const struct sequence *s, int n)
{
    return s->table_cap > n ? s->table_cap - n : 1;
}

static void place(struct choice *c, struct sequence *s)
{
    int n, least = least_loaded(c, c->alive);
    unsigned have = find(c->d, s->req, c->alive, &n);
    int device = have ? least_loaded(c, have) : least;
    if (leaves(c, device, least, n, rows_of(s, n))) {
        device = least;
        n = 0;
    }
    s->place = &s->ticket->places[device];
    s->load = rows_of(s, n);
    c->load[device] += s->load;
    remember(c->d, s->req, device);
}

void dispatch_ticket(struct dispatch *d, const struct queue *q, struct engine_ticket *t)
{
    struct choice c = begin(d, q);
    for (int i = 0; i < t->n_seqs; i++)
        place(&c, &t->seqs[i]);
}

void dispatch_list(struct dispatch *d, const struct queue *q, struct seq_list *list)
{
    struct choice c = begin(d, q);
    for (struct sequence *s = list->head; s; s = s->next)
        place(&c, s);
}
