/* Which rows of a sequence can run, and how they are put into a step. */
#include "engine/schedule/sequence.h"
#include <assert.h>

/* Positions whose tokens are known. */
static int known(const struct sequence *s)
{
    return s->n_new ? s->req->n_tokens + s->n_new : s->n_prompt_rows;
}

bool sequence_in_prompt(const struct sequence *s)
{
    return s->n_kv < s->n_prompt_rows;
}

/* A run does not go from the prompt into what was generated: their tokens lie apart, and selectors may see a prompt as a whole. */
int sequence_appends(const struct sequence *s)
{
    int end = sequence_in_prompt(s) ? s->n_prompt_rows : known(s);
    return end > s->n_kv ? end - s->n_kv : 0;
}

/* One row may follow those in flight, if the token behind them is not the last one. A step is packed while one is in flight at most, so theirs is the
 * one launched last. */
static bool may_follow(const struct sequence *s)
{
    return s->n_flights == 1 && s->flight && s->n_new + 1 < s->req->max_new;
}
_Static_assert(EXECUTOR_STEPS_MAX == 2, "one in flight, and the one that is packed");

int sequence_due(const struct sequence *s)
{
    if (s->done || s->drawing || !s->table_cap)
        return 0;
    if (s->n_flights)
        return may_follow(s);
    return s->state_slot >= 0 && s->n_rerun_left ? s->n_rerun_left : s->n_rerun_left + sequence_appends(s);
}

bool sequence_goes_on(const struct sequence *s)
{
    return s->n_rerun_left || known(s) > s->n_kv + s->n_appending || s->n_new + 1 < s->req->max_new;
}

/* Are the logits of row p wanted? Of what was generated, those after the last token, which of one in flight is the one to come. */
static bool wants_row(const struct sequence *s, int p)
{
    return p < s->n_prompt_rows ? s->need[p] & NEED_SCORE : p == known(s) - 1 + s->n_flights;
}

/* What penalties look at; nothing of it changes while the sequence is away. */
static struct logit_history history(const struct sequence *s)
{
    return (struct logit_history){s->req->tokens, s->new_tokens, s->req->n_tokens, s->n_new};
}

/* Row p of the sequence is row `row` of the step, and its logits are wanted. */
static void want_row(struct sequence *s, struct step *step, int row, int p)
{
    int target = p + 1 < s->req->n_tokens ? s->req->tokens[p + 1] : -1, i = step_rows_want(&step->rows, row, target, s->k1);
    step->wants[i] = (struct step_owner){s, p};
    if (p + 1 < s->req->n_tokens || !sequence_draws(s))
        return;
    s->drawing = true;
    s->draw = (struct draw){.params = &s->sampler, .index = (uint64_t)s->n_new, .edits = s->req->edits, .history = history(s)};
    step->rows.draws[i] = &s->draw;
}

/* Router states of a run: they go on from the sequence's own slot, from a copy that the tree keeps, or from zeros. */
static void set_states(struct sequence *s, struct kern_run *run, int pos)
{
    int at = s->state_pos;
    run->state_in = s->state_slot;
    if (at != pos)
        run->state_in = tree_find_state(&s->path, pos, &at);
    assert(at == pos);
    run->state_out = s->state_slot;
    s->state_pos = pos + run->n;
}

/* Is a copy of the router states at this position worth keeping? At regular distances, where the context ends, and where this request leaves what
 * was cached, both one row early: that row is run again for the score of the token after it. */
static bool keeps_state(const struct sequence *s, const struct sequence_env *e, int pos)
{
    int at;
    if (pos > s->path.n_linked || (pos % e->state_every && pos != s->req->score_begin - 1 && pos != s->n_cached - 1))
        return false;
    return tree_find_state(&s->path, pos, &at) < 0 || at != pos;
}

static void add_saves(struct sequence *s, const struct sequence_env *e, struct step *step, struct kern_run *run, int pos)
{
    struct step_rows *rows = &step->rows;
    run->save0 = rows->n_saves;
    for (int i = 0; i < run->n; i++) {
        int slot = e->tree->shared && keeps_state(s, e, pos + i + 1) ? tree_take_state(e->tree, e->states_kept) : -1;
        if (slot < 0)
            continue;
        step->saves[rows->n_saves] = (struct step_owner){s, pos + i + 1};
        rows->saves[rows->n_saves++] = (struct kern_save){run->row0 + i, slot};
    }
    run->n_save = rows->n_saves - run->save0;
}

static void add_run(struct sequence *s, const struct sequence_env *e, struct step *step, int pos, const int32_t *ids, int n, bool append,
                    const int *base)
{
    struct step_rows *rows = &step->rows;
    int i_run = rows->n_runs, row0 = rows->n_rows;
    for (int l = 0; l < e->bits->n_layers; l++)
        *step_rows_base(rows, l, i_run) = base[l];
    step->runs[i_run] = (struct step_owner){s, pos};
    struct kern_run *run = step_rows_add_run(rows, ids, n, pos, append, s->table_off, s->table_cap);
    rows->want_probs |= s->req->want_probs;
    run->select = e->whole_prompts && pos == 0;
    if (e->state_every) {
        set_states(s, run, pos);
        add_saves(s, e, step, run, pos);
    }
    for (int i = 0; i < n; i++)
        if (wants_row(s, pos + i))
            want_row(s, step, row0 + i, pos + i);
    s->rows_run += n;
}

/* Skips n rows from rerun_pos on: their keys precede what comes. */
static void pass_rows(struct sequence *s, const struct route_bits *b, int n)
{
    route_bits_add_kv(b, s->route + (size_t)s->rerun_pos * (size_t)b->n_bytes, n, s->rerun_count);
    s->rerun_pos += n;
}

/* Runs of consecutive rows that are needed again, from rerun_pos on; a single one where it leaves router states behind. */
static int pack_reruns(struct sequence *s, const struct sequence_env *e, struct step *step, int n)
{
    int packed = 0;
    while (packed < n && s->n_rerun_left && !(packed && e->state_every)) {
        int len = 1, skipped = 0;
        while (!s->need[s->rerun_pos + skipped])
            skipped++;
        pass_rows(s, e->bits, skipped);
        while (packed + len < n && len < s->n_rerun_left && s->need[s->rerun_pos + len])
            len++;
        add_run(s, e, step, s->rerun_pos, sequence_tokens(s, s->rerun_pos), len, false, s->rerun_count);
        pass_rows(s, e->bits, len);
        s->n_rerun_left -= len;
        packed += len;
    }
    return packed;
}

/* The row behind those in flight. */
static void pack_following(struct sequence *s, const struct sequence_env *e, struct step *step)
{
    const struct step_rows *before = &s->flight->rows;
    struct step_rows *rows = &step->rows;
    const int32_t id = -1 - s->flight_want * before->top_k;
    int run = rows->n_runs, n = s->n_appending;
    add_run(s, e, step, s->n_kv + n, &id, 1, true, s->kv_count);
    for (int l = 0; l < e->bits->n_layers && n; l++) {
        int *base = step_rows_base(rows, l, run);
        *base = route_bits_has_kv(e->bits, e->bits->unrouted, l) ? *base + n : -1 - *base;
    }
    rows->after[run] = before->runs[s->flight_run].row0;
    rows->n_after[run] = n;
    rows->n_before = before->n_rows;
    rows->n_follow++;
    s->n_appending = 1;
    s->follows = true;
}

/* The step's latest run branches from run `from`, behind its first n rows. */
static void add_branch(const struct sequence_env *e, struct step *step, int from, int n, int n_listed)
{
    struct step_rows *rows = &step->rows;
    int run = rows->n_runs - 1;
    for (int l = 0; l < e->bits->n_layers; l++)
        *step_rows_base(rows, l, run) = *step_rows_base(rows, l, from) + (route_bits_has_kv(e->bits, e->bits->unrouted, l) ? n : 0);
    rows->branches[rows->n_branches++] = (struct kern_branch){run, from, n, n_listed};
}

/* All rows due: the last one that it shares, if its logits are wanted, and those behind it. */
static void pack_branch(struct sequence *s, const struct sequence_env *e, struct step *step)
{
    const struct sequence *o = s->branch_of;
    int at = s->n_kv, from = o->flight_run, shared = at - s->branch_begin;
    assert(step->runs[from].seq == o && step->rows.runs[from].append && o->n_appending >= shared);
    s->n_appending = sequence_appends(s);
    if (s->n_rerun_left) {
        add_run(s, e, step, at - 1, sequence_tokens(s, at - 1), 1, false, s->rerun_count);
        add_branch(e, step, from, shared - 1, s->n_appending ? 0 : shared);
        s->n_rerun_left = s->need[at - 1] = 0;
    }
    if (s->n_appending) {
        add_run(s, e, step, at, sequence_tokens(s, at), s->n_appending, true, s->kv_count);
        add_branch(e, step, from, shared, shared);
    }
    s->follows = false;
}

/* Rows that are known. True: the last of them is, and a row may follow. */
static bool pack_known(struct sequence *s, const struct sequence_env *e, struct step *step, int n)
{
    int again = pack_reruns(s, e, step, n), due = sequence_appends(s);
    n = again && e->state_every ? 0 : n - again; /* what is appended goes on from the states that are left behind */
    s->n_appending = n < due ? n : due;
    if (s->n_appending)
        add_run(s, e, step, s->n_kv, sequence_tokens(s, s->n_kv), s->n_appending, true, s->kv_count);
    s->follows = false;
    return e->x->limits.follows && !s->n_rerun_left && s->n_kv + s->n_appending == known(s) && s->req->max_new;
}

void sequence_pack(struct sequence *s, const struct sequence_env *e, struct step *step, int n)
{
    bool followable = !s->branch_of;
    if (s->branch_of)
        pack_branch(s, e, step);
    else if (s->n_flights)
        pack_following(s, e, step);
    else
        followable = pack_known(s, e, step, n);
    s->n_flights++;
    s->flight = followable ? step : NULL;
    s->flight_run = step->rows.n_runs - 1;
    s->flight_want = step->rows.n_want - 1;
}
