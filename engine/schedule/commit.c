/* From a step's results to rows and scores of sequences. */
#include "engine/schedule/commit.h"
#include <stdlib.h>
#include <string.h>

int commit_init(struct commit *c, const struct route_bits *b, struct err *err)
{
    c->bits = malloc(COMMIT_ROWS * (size_t)b->n_bytes);
    c->slots = malloc(COMMIT_ROWS * (size_t)b->n_layers * sizeof(int));
    c->taken = malloc((size_t)b->n_layers * sizeof(int));
    return c->bits && c->slots && c->taken ? 0 : err_set(err, ERR_NOMEM, "no memory to take in steps");
}

void commit_done(struct commit *c)
{
    free(c->bits);
    free(c->slots);
    free(c->taken);
    memset(c, 0, sizeof(*c));
}

/* Rows row .. row+n-1 of a step, n <= COMMIT_ROWS, all of one sequence; q NULL: of none, which keeps nothing of them. */
struct block {
    struct commit *c;
    const struct sequence_env *e;
    const struct step *step;
    struct sequence *q;
    int row, n;
    int at[COMMIT_ROWS]; /* where the next slot of a row goes in c->slots */
    int n_slots;
};

static uint8_t *row_bits(const struct block *b, int i)
{
    return b->c->bits + (size_t)i * (size_t)b->e->bits->n_bytes;
}

static void read_decisions(struct block *b)
{
    const struct route_bits *bits = b->e->bits;
    for (int i = 0; i < b->n; i++)
        memcpy(row_bits(b, i), bits->unrouted, (size_t)bits->n_bytes);
    for (int l = 0; l < bits->n_layers; l++) {
        const unsigned char *route = b->step->results.route + (size_t)l * (size_t)b->step->rows.n_rows + (size_t)b->row;
        for (int i = 0; i < b->n && route_bits_get(bits->unrouted, l) != DECISION_ATTEND; i++)
            route_bits_set(row_bits(b, i), l, (enum decision)route[i]);
    }
}

static void count_decisions(const struct block *b, struct engine_stats *counts)
{
    const struct route_bits *bits = b->e->bits;
    for (int l = 0; l < bits->n_layers; l++) {
        bool unrouted = route_bits_get(bits->unrouted, l) == DECISION_ATTEND;
        const unsigned char *route = b->step->results.route + (size_t)l * (size_t)b->step->rows.n_rows + (size_t)b->row;
        unsigned attend = unrouted ? (unsigned)b->n : 0, execute = attend;
        for (int i = 0; i < b->n && !unrouted; i++) {
            attend += route[i] == DECISION_ATTEND;
            execute += route[i] != DECISION_SKIP;
        }
        counts->rows_routed[l] += attend;
        counts->rows_executed[l] += execute;
    }
}

static void place_slots(struct block *b)
{
    b->n_slots = 0;
    for (int i = 0; i < b->n; i++) {
        b->at[i] = b->n_slots;
        b->n_slots += route_bits_count_kv(b->e->bits, row_bits(b, i), 1);
    }
}

/* The slots that the device gave to the block's rows in layer l. Returns how many. */
static int read_layer_slots(struct block *b, int l, const int *next)
{
    int *slots = b->c->slots, taken = 0, n_layers = b->e->bits->n_layers;
    if (b->n_slots == b->n * n_layers) { /* every row has K and V in every layer */
        for (int i = 0; i < b->n; i++)
            slots[i * n_layers + l] = next[i];
        return b->n;
    }
    for (int i = 0; i < b->n; i++)
        if (route_bits_has_kv(b->e->bits, row_bits(b, i), l))
            slots[b->at[i]++] = next[taken++];
    return taken;
}

static void read_slots(struct block *b)
{
    const struct step_rows *rows = &b->step->rows;
    int *taken = b->c->taken;
    for (int l = 0; l < rows->n_layers; l++) {
        int n = read_layer_slots(b, l, rows->reserved + (size_t)l * (size_t)rows->n_append + (size_t)taken[l]);
        taken[l] += n;
        if (b->q && !b->q->done)
            b->q->kv_count[l] += n;
    }
}

static void commit_block(struct block *b, struct engine_stats *counts)
{
    read_decisions(b);
    place_slots(b);
    read_slots(b);
    if (b->q)
        count_decisions(b, counts);
    int kept = !b->q || b->q->done ? 0 : sequence_commit_rows(b->q, b->e, b->n, b->c->bits, b->c->slots);
    if (kept == b->n)
        return;
    int used = route_bits_count_kv(b->e->bits, b->c->bits, kept);
    slots_give(b->e->tree->kv, b->c->slots + used, b->n_slots - used);
    if (b->q && !b->q->done) {
        struct err err;
        err_set(&err, ERR_NOMEM, "no memory to keep the request's computed rows");
        sequence_finish(b->q, b->e, ERR_NOMEM, &err);
    }
}

/* A router's state that is not finite ends its sequence. */
static void check_states(const struct sequence_env *e, const struct step *step, int i_run)
{
    const struct kern_run *run = &step->rows.runs[i_run];
    const struct step_owner *owner = &step->runs[i_run];
    const unsigned char *bad = step->results.bad_states;
    for (int l = 0; l < e->bits->n_layers; l++)
        for (int i = 0; i < e->x->limits.layers[l].n_states; i++, bad += step->rows.n_rows) {
            const unsigned char *at = memchr(bad + run->row0, 1, (size_t)run->n);
            if (!at || owner->seq->done)
                continue;
            struct err err;
            err_set(&err, ERR_NUMERIC, "the state of a router of layer %d is not finite at position %d", l,
                    owner->pos + (int)(at - bad) - run->row0);
            sequence_finish(owner->seq, e, ERR_NUMERIC, &err);
        }
}

/* What is not in slots. */
static void take_run(const struct sequence_env *e, const struct step *step, int i, struct engine_stats *counts)
{
    const struct kern_run *run = &step->rows.runs[i];
    *(run->append ? &counts->rows_computed : &counts->rows_rescored) += (uint64_t)run->n;
    counts->rows_followed += step->rows.after[i] >= 0;
    if (step->results.bad_states)
        check_states(e, step, i);
    sequence_commit_probs(step->runs[i].seq, e, step->runs[i].pos, step, i);
}

/* A run's or wanted row's sequence, unless nothing of that is kept. */
static struct sequence *keeper(struct sequence *q)
{
    return q && !q->lost_branch ? q : NULL;
}

static void commit_run(struct commit *c, const struct sequence_env *e, const struct step *step, int i, struct engine_stats *counts)
{
    const struct kern_run *run = &step->rows.runs[i];
    struct sequence *of = step->runs[i].seq;
    if (of && of->branch_of && step->runs[i - 1].seq != of) {
        sequence_take_branch(of, e);
        counts->sequences_joined += !of->lost_branch;
    }
    struct sequence *q = keeper(of);
    if (q)
        take_run(e, step, i, counts);
    else
        counts->rows_dropped += (uint64_t)run->n;
    if (of && !q)
        of->rows_run -= run->n;
    for (int done = 0; run->append && done < run->n; done += COMMIT_ROWS) {
        int n = run->n - done < COMMIT_ROWS ? run->n - done : COMMIT_ROWS;
        struct block b = {.c = c, .e = e, .step = step, .q = q, .row = run->row0 + done, .n = n};
        commit_block(&b, counts);
    }
}

/* Once those of the rows that it branches from are in the tree. */
static void take_branch_scores(struct sequence *q, const struct sequence_env *e)
{
    if (q && q->branch_of)
        sequence_take_branch_scores(q, e);
}

void commit_step(struct commit *c, const struct sequence_env *e, const struct step *step, struct engine_stats *counts)
{
    const struct step_rows *rows = &step->rows;
    memset(c->taken, 0, (size_t)rows->n_layers * sizeof(int));
    for (int i = 0; i < rows->n_runs; i++)
        commit_run(c, e, step, i, counts);
    for (int l = rows->n_layers - 1; l >= 0; l--)
        slots_give(e->tree->kv, rows->reserved + (size_t)l * (size_t)rows->n_append + c->taken[l], rows->n_append - c->taken[l]);
    for (int i = 0; i < rows->n_saves; i++)
        sequence_commit_state(step->saves[i].seq, e, step->saves[i].pos, rows->saves[i].slot);
    for (int i = 0; i < rows->n_want; i++) {
        struct sequence *q = keeper(step->wants[i].seq);
        take_branch_scores(q, e);
        if (q)
            sequence_commit_score(q, e, step->wants[i].pos, &step->results, i);
    }
    for (int i = 0; i < rows->n_branches; i++)
        take_branch_scores(keeper(step->runs[rows->branches[i].run].seq), e);
}
