/* See rows_check.h. */
#include "tests/unit/rows_check.h"
#include <stdbool.h>

static const char *check_run(const struct step_rows *s, const struct executor_limits *l, int i, int row0)
{
    const struct kern_run *r = &s->runs[i];
    if (r->row0 != row0 || r->n < 1 || row0 + r->n > s->n_rows)
        return "a run does not follow the one before";
    if (r->table_off < 0 || r->table_off + (int64_t)l->n_layers * r->table_cap > l->n_table_entries)
        return "a run's tables lie outside";
    if (s->pos[row0] < 0 || s->pos[row0] + r->n > r->table_cap)
        return "a run passes the end of its tables";
    if (l->whole_prompts && (r->select != (s->pos[row0] == 0) || !r->append))
        return "a prompt is not selected from as a whole";
    if (s->after[i] >= 0 && (r->n != 1 || !r->append || r->select || s->ids[row0] >= 0))
        return "a run that follows is no such row";
    for (int j = 0; j < r->n; j++)
        if (s->ids[row0 + j] < 0 && s->after[i] < 0)
            return "a token is not known";
    for (int j = 0; j < r->n; j++)
        if (s->run_of[row0 + j] != i || s->pos[row0 + j] != s->pos[row0] + j)
            return "a row is not its run's";
    return NULL;
}

static const char *check_runs(const struct step_rows *s, const struct executor_limits *l)
{
    int row = 0, n_append = 0;
    for (int i = 0; i < s->n_runs; i++) {
        const char *problem = check_run(s, l, i, row);
        if (problem)
            return problem;
        row += s->runs[i].n;
        n_append += s->runs[i].append ? s->runs[i].n : 0;
    }
    return row == s->n_rows && n_append == s->n_append ? NULL : "the runs are not the rows";
}

static bool is_branch(const struct step_rows *s, int run)
{
    bool is = false;
    for (int i = 0; i < s->n_branches; i++)
        is |= s->branches[i].run == run;
    return is;
}

/* Does another branch of the same table list the keys? */
static bool listed_elsewhere(const struct step_rows *s, const struct kern_branch *b)
{
    bool is = false;
    for (int i = 0; i < s->n_branches; i++) {
        const struct kern_branch *o = &s->branches[i];
        is |= o != b && o->from == b->from && o->n_listed && s->runs[o->run].table_off == s->runs[b->run].table_off;
    }
    return is;
}

static const char *check_branches(const struct step_rows *s, const struct executor_limits *l)
{
    if (s->n_branches && !l->branches)
        return "a run branches where none can";
    for (int i = 0; i < s->n_branches; i++) {
        const struct kern_branch *b = &s->branches[i];
        if (b->from < 0 || b->from >= b->run || b->run >= s->n_runs)
            return "a run branches from none before it";
        const struct kern_run *run = &s->runs[b->run], *from = &s->runs[b->from];
        if (!from->append || s->after[b->from] >= 0 || s->after[b->run] >= 0 || is_branch(s, b->from))
            return "a run branches from one that it cannot branch from";
        if (b->n < 0 || s->pos[run->row0] != s->pos[from->row0] + b->n || b->n + (run->append ? 0 : run->n) > from->n)
            return "a run branches from rows that are not there";
        if (b->n_listed ? b->n_listed != b->n + (run->append ? 0 : run->n) : !listed_elsewhere(s, b))
            return "a branch does not list the keys that it needs";
    }
    return NULL;
}

static const char *check_wants(const struct step_rows *s)
{
    for (int i = 0; i < s->n_want; i++)
        if (s->want_row[i] <= (i ? s->want_row[i - 1] : -1) || s->want_row[i] >= s->n_rows)
            return "wanted rows do not ascend";
    return s->top_k >= 1 && s->top_k <= KERN_TOP_K_MAX ? NULL : "alternatives out of range";
}

/* Does run i, or a copy, write this slot of router states? */
static bool writes_state(const struct step_rows *s, int i, int slot)
{
    bool writes = s->runs[i].state_out == slot;
    for (int j = s->runs[i].save0; j < s->runs[i].save0 + s->runs[i].n_save; j++)
        writes |= s->saves[j].slot == slot;
    return writes;
}

static const char *check_saves(const struct step_rows *s, const struct executor_limits *l, const struct kern_run *r)
{
    for (int j = r->save0; j < r->save0 + r->n_save; j++) {
        const struct kern_save *save = &s->saves[j];
        if (save->row < (j > r->save0 ? save[-1].row + 1 : r->row0) || save->row >= r->row0 + r->n)
            return "a copy of router states is of another run's row";
        if (save->slot < 0 || save->slot >= l->n_state_slots || save->slot == r->state_in || save->slot == r->state_out)
            return "a copy of router states has no slot of its own";
    }
    return NULL;
}

/* A slot that a run writes is read and written by no other. */
static const char *check_states(const struct step_rows *s, const struct executor_limits *l)
{
    int n_saves = 0;
    for (int i = 0; i < s->n_runs && l->n_state_slots; i++) {
        const struct kern_run *r = &s->runs[i];
        if (r->state_in >= l->n_state_slots || r->state_out >= l->n_state_slots || (r->n_save && r->save0 != n_saves))
            return "there is no such slot of router states";
        if (r->state_in < 0 && s->pos[r->row0])
            return "a run within a sequence begins without router states";
        const char *problem = check_saves(s, l, r);
        if (problem)
            return problem;
        for (int j = 0; j < s->n_runs; j++) {
            const struct kern_run *o = &s->runs[j];
            if (i != j &&
                ((r->state_in >= 0 && writes_state(s, j, r->state_in)) || (o->state_out >= 0 && writes_state(s, i, o->state_out))))
                return "two runs share a slot of router states";
        }
        n_saves += r->n_save;
    }
    return n_saves == s->n_saves ? NULL : "copies of router states are of no run";
}

const char *rows_check(const struct step_rows *s, const struct executor_limits *l)
{
    if (s->n_rows < 1 || s->n_rows > l->max_rows || s->n_layers != l->n_layers)
        return "rows out of range";
    const char *problem = check_runs(s, l);
    if (!problem)
        problem = check_branches(s, l);
    if (!problem)
        problem = check_states(s, l);
    if (problem)
        return problem;
    for (int i = 0; i < step_rows_slots(s); i++)
        if (s->reserved[i] < 0 || s->reserved[i] >= l->n_kv_slots)
            return "there is no such slot";
    return check_wants(s);
}

/* FNV-1a, a word at a time. */
static uint64_t hash_words(uint64_t h, const int *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned)words[i]) * 0x100000001b3u;
    return h;
}

uint64_t rows_check_hash(const struct step_rows *s)
{
    size_t n = (size_t)s->n_rows, want = (size_t)s->n_want;
    const int counts[] = {s->n_rows, s->n_runs, s->n_append, s->n_want, s->n_follow, s->n_before, s->n_branches, s->top_k};
    uint64_t h = hash_words(0xcbf29ce484222325u, counts, sizeof(counts) / sizeof(counts[0]));
    h = hash_words(h, s->ids, n);
    h = hash_words(h, s->pos, n);
    h = hash_words(h, s->run_of, n);
    h = hash_words(h, s->after, (size_t)s->n_runs);
    h = hash_words(h, s->n_after, (size_t)s->n_runs);
    for (int i = 0; i < s->n_runs; i++) {
        const struct kern_run *r = &s->runs[i];
        h = hash_words(h, (const int[]){r->row0, r->n, r->append, r->table_cap, (int)r->table_off, r->state_in, r->state_out, r->select},
                       8);
    }
    for (int l = 0; l < s->n_layers; l++)
        h = hash_words(h, step_rows_base(s, l, 0), (size_t)s->n_runs);
    h = hash_words(h, s->reserved, (size_t)step_rows_slots(s));
    for (int i = 0; i < s->n_saves; i++)
        h = hash_words(h, (const int[]){s->saves[i].row, s->saves[i].slot}, 2);
    for (int i = 0; i < s->n_branches; i++) {
        const struct kern_branch *b = &s->branches[i];
        h = hash_words(h, (const int[]){b->run, b->from, b->n, b->n_listed}, 4);
    }
    h = hash_words(h, s->want_row, want);
    h = hash_words(h, s->want_target, want);
    for (size_t i = 0; i < want; i++)
        h = hash_words(h, (const int[]){s->draws[i] ? 1 : 0, s->draws[i] ? (int)s->draws[i]->index : 0}, 2);
    return h;
}
