/* Packing the rows of one step. */
#include "engine/model/step_rows.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

int step_rows_init(struct step_rows *s, int max_rows, int n_layers, struct err *err)
{
    size_t n = (size_t)max_rows, l = (size_t)n_layers, word = sizeof(int);
    *s = (struct step_rows){.max_rows = max_rows, .n_layers = n_layers};
    s->ids = malloc(n * word);
    s->pos = malloc(n * word);
    s->run_of = malloc(n * word);
    s->runs = malloc(n * sizeof(*s->runs));
    s->base = malloc(n * l * word);
    s->after = malloc(n * word);
    s->n_after = malloc(n * word);
    s->reserved = malloc(n * l * word);
    s->want_row = malloc(n * word);
    s->want_target = malloc(n * word);
    s->draws = malloc(n * sizeof(*s->draws));
    s->saves = malloc(n * sizeof(*s->saves));
    s->branches = malloc(n * sizeof(*s->branches));
    if (s->ids && s->pos && s->run_of && s->runs && s->base && s->after && s->n_after && s->reserved && s->want_row && s->want_target &&
        s->draws && s->saves && s->branches)
        return 0;
    step_rows_done(s);
    return err_set(err, ERR_NOMEM, "no memory for steps of %d rows", max_rows);
}

void step_rows_done(struct step_rows *s)
{
    free(s->ids);
    free(s->pos);
    free(s->run_of);
    free(s->runs);
    free(s->base);
    free(s->after);
    free(s->n_after);
    free(s->reserved);
    free(s->want_row);
    free(s->want_target);
    free(s->draws);
    free(s->saves);
    free(s->branches);
    memset(s, 0, sizeof(*s));
}

void step_rows_clear(struct step_rows *s)
{
    s->n_rows = s->n_runs = s->n_append = s->n_want = s->n_saves = s->n_branches = s->n_follow = s->n_before = 0;
    s->top_k = 1;
    s->want_probs = false;
}

struct kern_run *step_rows_add_run(struct step_rows *s, const int32_t *ids, int n, int pos0, bool append, int64_t table_off, int table_cap)
{
    assert(n > 0 && s->n_rows + n <= s->max_rows);
    struct kern_run *run = &s->runs[s->n_runs];
    *run = (struct kern_run){
        .row0 = s->n_rows, .n = n, .append = append, .table_cap = table_cap, .table_off = table_off, .state_in = -1, .state_out = -1};
    for (int i = 0; i < n; i++) {
        s->ids[s->n_rows + i] = ids[i];
        s->pos[s->n_rows + i] = pos0 + i;
        s->run_of[s->n_rows + i] = s->n_runs;
    }
    s->after[s->n_runs] = -1;
    s->n_after[s->n_runs] = 0;
    s->n_rows += n;
    s->n_runs++;
    if (append)
        s->n_append += n;
    return run;
}

int step_rows_want(struct step_rows *s, int row, int target, int top_k)
{
    s->want_row[s->n_want] = row;
    s->want_target[s->n_want] = target;
    s->draws[s->n_want] = NULL;
    if (top_k > s->top_k)
        s->top_k = top_k;
    return s->n_want++;
}
