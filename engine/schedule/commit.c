/* From a step's read-backs to rows and scores of sequences. */
#include "engine/schedule/commit.h"
#include "engine/schedule/scheduler.h"
#include <stdlib.h>
#include <string.h>

int commit_init(struct commit *c, const struct model *m, const struct prefix_tree *t, struct err *err)
{
    size_t layers = (size_t)t->n_layers, rb = (size_t)t->route_bytes;
    c->dense = calloc(rb, 1);
    c->bits = malloc(COMMIT_ROWS * rb);
    c->slots = malloc(COMMIT_ROWS * layers * sizeof(int));
    c->taken = malloc(layers * sizeof(int));
    if (!c->dense || !c->bits || !c->slots || !c->taken)
        return err_set(err, ERR_NOMEM, "no memory for the scheduler");
    for (int l = 0; l < t->n_layers; l++)
        if (m->plan[l].kind == LAYER_DENSE)
            c->dense[l >> 3] |= (uint8_t)(1 << (l & 7));
    return 0;
}

void commit_done(struct commit *c)
{
    free(c->dense);
    free(c->bits);
    free(c->slots);
    free(c->taken);
}

/* Rows row .. row+n-1 of a step, n <= COMMIT_ROWS, all of one sequence. */
struct block {
    struct scheduler *s;
    struct flight *f;
    struct sequence *q;
    int row, n;
    int at[COMMIT_ROWS]; /* where the next slot of a row goes in s->commit.slots */
    int n_slots;
};

static void read_bits(struct block *b)
{
    struct scheduler *s = b->s;
    size_t rb = (size_t)s->tree.route_bytes;
    for (int i = 0; i < b->n; i++)
        memcpy(s->commit.bits + (size_t)i * rb, s->commit.dense, rb);
    for (int l = 0; l < s->tree.n_layers; l++) {
        const unsigned char *route = b->f->route + (size_t)l * (size_t)b->f->batch.n_rows + (size_t)b->row;
        if (s->m->plan[l].kind == LAYER_DENSE) {
            s->counts.rows_routed[l] += (uint64_t)b->n;
            continue;
        }
        for (int i = 0; i < b->n; i++) {
            s->commit.bits[(size_t)i * rb + (size_t)(l >> 3)] |= (uint8_t)((route[i] == DECISION_ATTEND) << (l & 7));
            s->counts.rows_routed[l] += route[i] == DECISION_ATTEND;
        }
    }
}

static void place_slots(struct block *b)
{
    const struct prefix_tree *t = &b->s->tree;
    b->n_slots = 0;
    for (int i = 0; i < b->n; i++) {
        b->at[i] = b->n_slots;
        b->n_slots += tree_count_slots(t, b->s->commit.bits + (size_t)i * (size_t)t->route_bytes, 1);
    }
}

/* The slots that the device gave to the block's rows in layer l. Returns how many. */
static int read_layer_slots(struct block *b, int l, const int *next)
{
    const struct prefix_tree *t = &b->s->tree;
    int *slots = b->s->commit.slots, taken = 0;
    if (b->n_slots == b->n * t->n_layers) { /* every row has K and V in every layer */
        for (int i = 0; i < b->n; i++)
            slots[i * t->n_layers + l] = next[i];
        return b->n;
    }
    for (int i = 0; i < b->n; i++)
        if (tree_has_kv(t, b->s->commit.bits + (size_t)i * (size_t)t->route_bytes, l))
            slots[b->at[i]++] = next[taken++];
    return taken;
}

static void read_slots(struct block *b)
{
    const struct batch *batch = &b->f->batch;
    int *taken = b->s->commit.taken;
    for (int l = 0; l < batch->n_layers; l++) {
        int n = read_layer_slots(b, l, batch->reserved + (size_t)l * (size_t)batch->n_append + (size_t)taken[l]);
        taken[l] += n;
        if (!b->q->done)
            b->q->kv_count[l] += n;
    }
}

static void commit_block(struct block *b)
{
    struct scheduler *s = b->s;
    read_bits(b);
    place_slots(b);
    read_slots(b);
    int kept = b->q->done ? 0 : sequence_commit_rows(b->q, &s->env, b->n, s->commit.bits, s->commit.slots);
    if (kept == b->n)
        return;
    int used = tree_count_slots(&s->tree, s->commit.bits, kept);
    kv_cache_give(&s->kv, s->commit.slots + used, b->n_slots - used);
    if (!b->q->done) {
        struct err err;
        err_set(&err, ERR_NOMEM, "no memory to keep the request's computed rows");
        sequence_finish(b->q, &s->env, ERR_NOMEM, &err);
    }
}

static void commit_run(struct scheduler *s, struct flight *f, int i)
{
    const struct kern_run *run = &f->batch.runs[i];
    *(run->append ? &s->counts.rows_computed : &s->counts.rows_rescored) += (uint64_t)run->n;
    for (int done = 0; run->append && done < run->n; done += COMMIT_ROWS) {
        int n = run->n - done < COMMIT_ROWS ? run->n - done : COMMIT_ROWS;
        commit_block(&(struct block){.s = s, .f = f, .q = f->runs[i].seq, .row = run->row0 + done, .n = n});
    }
}

void commit_step(struct scheduler *s, struct flight *f)
{
    const struct batch *b = &f->batch;
    int *taken = s->commit.taken;
    memset(taken, 0, (size_t)b->n_layers * sizeof(int));
    for (int i = 0; i < b->n_runs; i++)
        commit_run(s, f, i);
    for (int l = b->n_layers - 1; l >= 0; l--)
        kv_cache_give(&s->kv, b->reserved + (size_t)l * (size_t)b->n_append + taken[l], b->n_append - taken[l]);
    for (int i = 0; i < b->n_want; i++)
        sequence_commit_score(f->wants[i].seq, &s->env, f->wants[i].pos, b->want_target[i], &f->scores, i);
}
