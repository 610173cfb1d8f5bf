/* See fake_executor.h. */
#include "tests/unit/fake_executor.h"
#include "tests/unit/rows_check.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON 0xa5

static struct fake_executor *of(struct executor *x)
{
    return (struct fake_executor *)x;
}

/* Returns `ok`; if it is false, that is a breach. */
static bool require(struct fake_executor *x, bool ok, const char *what, long long value)
{
    if (!ok && x->n_breaches++ < 10)
        fprintf(stderr, "executor: %s (%lld)\n", what, value);
    return ok;
}

/* Counts a call; true: it fails. */
static bool fails(struct fake_executor *x)
{
    x->n_calls++;
    require(x, !x->fail_at || x->n_calls <= x->fail_at, "called after it had failed; calls", x->n_calls);
    return x->fail_at && x->n_calls >= x->fail_at;
}

static int refuse(struct err *err)
{
    return err_set(err, ERR_DEVICE, "the device was asked to fail");
}

/* ---- the step on the device ------------------------------------------------------------------------------------- */
/* The run of the step before whose last row run i of `s` follows, whose token is that row's best one; NULL: there is none, a breach. That step must be in
 * flight yet, since its buffers are the device's own. */
static const struct kern_run *run_before(struct fake_executor *x, const struct step_rows *s, const struct step_rows *before, int i)
{
    int row = s->after[i], at = -1 - s->ids[s->runs[i].row0];
    if (!require(x, x->face.limits.follows && before, "a run follows no step", i) ||
        !require(x, row < before->n_rows && s->n_before == before->n_rows, "a run follows no row", row) ||
        !require(x, at >= 0 && at < before->n_want * before->top_k && at % before->top_k == 0, "a run's token is none", at))
        return NULL;
    const struct kern_run *run = &before->runs[before->run_of[row]];
    bool whole = run->row0 == row && s->n_after[i] == (run->append ? run->n : 0);
    if (!require(x, whole && before->want_row[at / before->top_k] == run->row0 + run->n - 1, "a run follows a part of one", row))
        return NULL;
    return run;
}

static bool follow_run(struct fake_executor *x, const struct step_rows *s, const struct fake_flight *before, int i)
{
    const struct kern_run *run = run_before(x, s, before->rows, i);
    if (!run)
        return false;
    x->ids[s->runs[i].row0] = before->hidden.top_id[-1 - s->ids[s->runs[i].row0]];
    for (int l = 0; l < s->n_layers; l++) {
        int *base = &x->base[(size_t)l * (size_t)s->max_rows + (size_t)i];
        const struct route_layer *layer = &x->face.limits.layers[l];
        bool told = *base < 0;
        require(x, told == (run->append && layer->routed && !layer->keep_all), "a key count that the host knows, or cannot know", *base);
        *base = told ? -1 - *base : *base;
        for (int r = run->row0; r < run->row0 + run->n && told; r++)
            *base += before->hidden.route[l * s->n_before + r] == DECISION_ATTEND;
    }
    x->n_followed++;
    return true;
}

/* The step with its ids and key counts as the device makes them; what it returns is valid until the next launch. False: a breach. */
static bool make_rows(struct fake_executor *x, const struct step_rows *s, struct step_rows *ret)
{
    bool ok = true;
    int n = 0;
    memcpy(x->ids, s->ids, (size_t)s->n_rows * sizeof(int));
    memcpy(x->base, s->base, (size_t)s->n_layers * (size_t)s->max_rows * sizeof(int));
    *ret = *s;
    ret->ids = x->ids;
    ret->base = x->base;
    for (int i = 0; i < s->n_runs && ok; i++) {
        n += s->after[i] >= 0;
        ok = s->after[i] < 0 || follow_run(x, s, &x->flights[x->latest], i);
    }
    return ok && require(x, n == s->n_follow, "the runs that follow are miscounted", n);
}

/* The contexts of a run's rows. The states after the run, and the copies, go to their slots. */
static void run_contexts(struct fake_executor *x, const struct step_rows *s, const struct kern_run *r)
{
    const struct kern_save *save = s->saves + r->save0, *end = save + r->n_save;
    uint64_t state = x->kind.states && r->state_in >= 0 ? x->states[r->state_in] : fake_model_first_state(x->kind);
    uint64_t prompt = x->kind.whole ? fake_model_prompt(s->ids + r->row0, r->select ? r->n : 0) : 0;
    for (int row = r->row0; row < r->row0 + r->n; row++) {
        x->contexts[row] = fake_model_context(state, prompt);
        state = fake_model_next_state(state, s->ids[row]);
        if (save < end && save->row == row)
            x->states[save++->slot] = state;
    }
    if (x->kind.states && r->state_out >= 0)
        x->states[r->state_out] = state;
}

static int *table_of(const struct fake_executor *x, const struct kern_run *r, int layer)
{
    return x->tables + r->table_off + (int64_t)layer * r->table_cap;
}

/* As place() of kernels.h, and the keys are written at once. Returns how many reserved slots the run took. */
static int place_run(struct fake_executor *x, const struct step_rows *s, int i, int layer, const int *reserved)
{
    const struct kern_run *r = &s->runs[i];
    int *table = table_of(x, r, layer), n = *step_rows_base(s, layer, i), taken = 0;
    for (int row = r->row0; row < r->row0 + r->n; row++) {
        bool kv = fake_model_leaves_kv(s->ids[row], layer, x->contexts[row]);
        if (!require(x, n >= 0 && n + kv <= r->table_cap, "more keys than positions", n))
            return taken;
        if (kv && r->append) {
            x->keys[reserved[taken]] = (struct fake_key){s->ids[row], s->pos[row], layer};
            table[n] = reserved[taken++];
        }
        n += kv;
        x->visible[layer * x->face.limits.max_rows + row] = n;
    }
    return taken;
}

/* Keys that a run's first n rows leave in a layer. */
static int keys_of(const struct fake_executor *x, const struct step_rows *s, const struct kern_run *r, int layer, int n)
{
    int keys = 0;
    for (int row = r->row0; row < r->row0 + n; row++)
        keys += fake_model_leaves_kv(s->ids[row], layer, x->contexts[row]);
    return keys;
}

/* As branch_counts() of kernels.h. */
static void count_branch(struct fake_executor *x, const struct step_rows *s, const struct kern_branch *b, int layer)
{
    const struct route_layer *l = &x->face.limits.layers[layer];
    int *base = step_rows_base(s, layer, b->run), before = *step_rows_base(s, layer, b->from);
    bool told = l->routed && !l->keep_all;
    require(x, *base == before + (told ? 0 : b->n), "a branch's key count is not that of its run", *base);
    *base = before + keys_of(x, s, &s->runs[b->from], layer, b->n);
}

/* As branch_keys() of kernels.h. */
static void list_branch(struct fake_executor *x, const struct step_rows *s, const struct kern_branch *b, int layer)
{
    const struct kern_run *from = &s->runs[b->from];
    size_t keys = (size_t)keys_of(x, s, from, layer, b->n_listed), before = (size_t)*step_rows_base(s, layer, b->from);
    memcpy(table_of(x, &s->runs[b->run], layer) + before, table_of(x, from, layer) + before, keys * sizeof(int));
}

/* s: with key counts of the executor's own. */
static void place_keys(struct fake_executor *x, const struct step_rows *s)
{
    for (int l = 0; l < s->n_layers; l++) {
        const int *reserved = s->reserved + (size_t)l * (size_t)s->n_append;
        for (int i = 0; i < s->n_branches; i++)
            count_branch(x, s, &s->branches[i], l);
        for (int i = 0; i < s->n_runs; i++)
            reserved += place_run(x, s, i, l, reserved);
        for (int i = 0; i < s->n_branches; i++)
            list_branch(x, s, &s->branches[i], l);
    }
}

/* The row's hash over the keys that it sees, read as attention reads them. */
static uint64_t read_row(struct fake_executor *x, const struct step_rows *s, int row)
{
    const struct kern_run *r = &s->runs[s->run_of[row]];
    uint64_t h = fake_model_begin(s->ids[row], s->pos[row], x->contexts[row]);
    for (int l = 0; l < s->n_layers; l++) {
        const int *table = table_of(x, r, l);
        for (int j = 0; j < x->visible[l * x->face.limits.max_rows + row]; j++) {
            if (!require(x, table[j] >= 0 && table[j] < x->face.limits.n_kv_slots, "a table holds no slot", table[j]))
                return 0;
            const struct fake_key *k = &x->keys[table[j]];
            h = fake_model_see(h, k->token, k->pos, k->layer);
        }
    }
    return h;
}

static void take_draw(struct fake_executor *x, struct draw *d, uint64_t row, bool bad)
{
    if (!require(x, x->n_draws < FAKE_DRAWS_MAX, "too many draws", x->n_draws))
        return;
    d->token = -2;
    d->next = NULL;
    x->draws[x->n_draws++] = (struct fake_draw){d, *d, row, bad};
}

static void predict(struct fake_executor *x, const struct step_rows *s, struct fake_results *ret, int i)
{
    int row = s->want_row[i], k = s->top_k;
    uint64_t h = read_row(x, s, row);
    ret->target[i] = s->want_target[i];
    ret->target_lp[i] = ret->target[i] < 0 ? 0 : fake_model_logprob(h, ret->target[i]);
    for (int j = 0; j < k; j++) {
        ret->top_id[i * k + j] = fake_model_top_id(h, j);
        ret->top_lp[i * k + j] = fake_model_top_logprob(h, j);
    }
    ret->bad[i] = s->ids[row] == FAKE_BAD_TOKEN;
    if (s->draws[i])
        take_draw(x, s->draws[i], h, ret->bad[i]);
}

static void route_rows(const struct fake_executor *x, const struct step_rows *s, struct fake_results *ret)
{
    for (int i = 0; i < s->n_rows; i++)
        ret->bad_states[i] = s->ids[i] == FAKE_BAD_STATE;
    for (int l = 0; l < s->n_layers; l++)
        for (int i = 0; i < s->n_rows && x->face.limits.layers[l].routed; i++)
            ret->route[l * s->n_rows + i] = (unsigned char)fake_model_decision(s->ids[i], l, x->contexts[i]);
}

static void compare_rows(const struct fake_executor *x, const struct step_rows *s, struct fake_results *ret)
{
    for (int l = 0; l < s->n_layers; l++)
        for (int i = 0; i < s->n_rows && x->face.limits.layers[l].routed; i++) {
            ret->prob[l * s->n_rows + i] = fake_model_prob(s->ids[i], l, x->contexts[i], false);
            if (x->face.limits.layers[l].nested)
                ret->skip_prob[l * s->n_rows + i] = fake_model_prob(s->ids[i], l, x->contexts[i], true);
        }
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */
static int launch(struct executor *face, int id, struct step_rows *rows, struct err *err)
{
    struct fake_executor *x = of(face);
    if (fails(x))
        return refuse(err);
    struct fake_flight *f = &x->flights[id];
    if (!require(x, id >= 0 && id < face->limits.max_steps && !f->rows, "the step's number is not free", id))
        return err_set(err, ERR_INTERNAL, "the step's number is not free");
    const char *problem = rows_check(rows, &face->limits);
    if (!require(x, !problem, problem, rows->n_rows))
        return err_set(err, ERR_INTERNAL, "%s", problem);
    struct step_rows own;
    if (!make_rows(x, rows, &own))
        return err_set(err, ERR_INTERNAL, "a run follows what is not there");
    memset(f->told.block, POISON, x->results_bytes);
    memset(f->hidden.block, POISON, x->results_bytes);
    for (int i = 0; i < own.n_runs; i++)
        run_contexts(x, &own, &own.runs[i]);
    place_keys(x, &own);
    route_rows(x, &own, &f->hidden);
    if (own.want_probs)
        compare_rows(x, &own, &f->hidden);
    for (int i = 0; i < own.n_want; i++)
        predict(x, &own, &f->hidden, i);
    x->latest = id;
    f->rows = rows;
    f->rows_hash = rows_check_hash(rows);
    f->number = ++x->n_launched;
    return 0;
}

static int wait_step(struct executor *face, int id, struct step_results *ret, struct err *err)
{
    struct fake_executor *x = of(face);
    if (fails(x))
        return refuse(err);
    struct fake_flight *f = &x->flights[id];
    if (!require(x, f->rows && f->number == ++x->n_waited, "waited for a step that is not the oldest", id))
        return err_set(err, ERR_INTERNAL, "the step is not in flight");
    require(x, rows_check_hash(f->rows) == f->rows_hash, "the rows of a step in flight were changed", id);
    memcpy(f->told.block, f->hidden.block, x->results_bytes);
    const struct fake_results *t = &f->told;
    *ret = (struct step_results){.route = t->route,
                                 .prob = f->rows->want_probs ? t->prob : NULL,
                                 .skip_prob = f->rows->want_probs ? t->skip_prob : NULL,
                                 .top_k = f->rows->top_k,
                                 .target = t->target,
                                 .target_lp = t->target_lp,
                                 .top_id = t->top_id,
                                 .top_lp = t->top_lp,
                                 .bad = t->bad,
                                 .bad_states = x->kind.states ? t->bad_states : NULL};
    for (int i = 0; i < f->rows->n_want; i++)
        x->n_draws_begun += f->rows->draws[i] != NULL;
    f->rows = NULL;
    return 0;
}

bool fake_executor_draw(struct fake_executor *x)
{
    if (x->n_drawn == x->n_draws_begun)
        return false;
    struct fake_draw *f = &x->draws[x->n_drawn++];
    struct draw *d = f->draw, *was = &f->asked;
    require(x, d->params == was->params && d->index == was->index && d->edits == was->edits && d->history.n_made == was->history.n_made,
            "what is being drawn was changed", x->n_drawn);
    d->token = f->bad ? -1 : fake_model_draw(f->row, d->params, d->index);
    d->logprob = f->bad ? 0 : fake_model_logprob(f->row, d->token);
    if (x->n_drawn == x->n_draws_begun && x->wake)
        x->wake(x->wake_arg);
    return true;
}

static struct draw *drawn(struct executor *face)
{
    struct fake_executor *x = of(face);
    struct draw *list = NULL;
    for (int i = 0; i < x->n_drawn; i++) { /* the latest first, as it may come */
        x->draws[i].draw->next = list;
        list = x->draws[i].draw;
    }
    x->n_draws -= x->n_drawn;
    x->n_draws_begun -= x->n_drawn;
    memmove(x->draws, x->draws + x->n_drawn, (size_t)x->n_draws * sizeof(x->draws[0]));
    x->n_drawn = 0;
    return list;
}

static bool help_draw(struct executor *face)
{
    struct fake_executor *x = of(face);
    return !x->holds_draws && fake_executor_draw(x);
}

static void notify(struct executor *face, void (*wake)(void *arg), void *arg)
{
    of(face)->wake = wake;
    of(face)->wake_arg = arg;
}

static void drop(struct executor *face, struct err *err)
{
    struct fake_executor *x = of(face);
    x->n_drops++;
    for (int i = 0; i < face->limits.max_steps; i++)
        x->flights[i].rows = NULL;
    x->n_draws = x->n_draws_begun = x->n_drawn = 0;
    if (x->fail_at && x->n_calls >= x->fail_at && err && err->code >= 0)
        refuse(err);
}

static void rest(struct executor *face)
{
    struct fake_executor *x = of(face);
    atomic_fetch_add(&x->n_rests, 1);
    require(x, !x->fail_at || x->n_calls < x->fail_at, "rests though it has failed; calls", x->n_calls);
    for (int i = 0; i < face->limits.max_steps; i++)
        require(x, !x->flights[i].rows, "rests while a step is in flight", i);
    require(x, !x->n_draws, "rests while tokens are being drawn", x->n_draws);
}

static int write_table(struct executor *face, int64_t off, const int *entries, int64_t n)
{
    struct fake_executor *x = of(face);
    if (fails(x))
        return ERR_DEVICE;
    if (!require(x, off >= 0 && n >= 0 && off + n <= face->limits.n_table_entries, "tables written outside", off))
        return ERR_INTERNAL;
    memcpy(x->tables + off, entries, (size_t)n * sizeof(*entries));
    return 0;
}

static void report(struct executor *face, double busy_s, struct executor_stats *ret)
{
    require(of(face), busy_s >= 0, "busy for less than no time", 0);
    *ret = (struct executor_stats){.memory_total_bytes = 2, .memory_free_bytes = 1};
}

static void close_fake(struct executor *face)
{
    fake_executor_close(of(face));
}

/* ---- open and close ---------------------------------------------------------------------------------------------- */
static bool results_init(struct fake_results *r, size_t rows, size_t bytes)
{
    char *at = r->block = malloc(bytes);
    if (!at)
        return false;
    r->target = (int *)at;
    r->top_id = r->target + rows;
    r->target_lp = (float *)(r->top_id + rows * KERN_TOP_K_MAX);
    r->top_lp = r->target_lp + rows;
    r->prob = r->top_lp + rows * KERN_TOP_K_MAX;
    r->skip_prob = r->prob + rows * FAKE_LAYERS;
    r->bad = (unsigned char *)(r->skip_prob + rows * FAKE_LAYERS);
    r->bad_states = r->bad + rows;
    r->route = r->bad_states + rows;
    memset(at, POISON, bytes);
    return true;
}

static bool allocate(struct fake_executor *x)
{
    const struct executor_limits *l = &x->face.limits;
    size_t rows = (size_t)l->max_rows, keys = (size_t)l->n_kv_slots * sizeof(*x->keys), entries = (size_t)l->n_table_entries * sizeof(int);
    size_t states = ((size_t)l->n_state_slots + 1) * sizeof(*x->states);
    x->results_bytes = rows * (8 * (1 + KERN_TOP_K_MAX + FAKE_LAYERS) + 2 + FAKE_LAYERS);
    x->keys = malloc(keys);
    x->tables = malloc(entries);
    x->states = malloc(states);
    x->ids = malloc(rows * sizeof(*x->ids));
    x->base = malloc(FAKE_LAYERS * rows * sizeof(*x->base));
    x->visible = malloc(FAKE_LAYERS * rows * sizeof(*x->visible));
    x->contexts = malloc(rows * sizeof(*x->contexts));
    bool ok = x->keys && x->tables && x->ids && x->base && x->visible && x->states && x->contexts;
    for (int i = 0; ok && i < l->max_steps; i++)
        ok = results_init(&x->flights[i].hidden, rows, x->results_bytes) && results_init(&x->flights[i].told, rows, x->results_bytes);
    if (!ok)
        return false;
    memset(x->keys, POISON, keys);
    memset(x->tables, POISON, entries);
    memset(x->states, POISON, states);
    return true;
}

struct fake_executor *fake_executor_open(const struct executor_limits *l)
{
    static const struct executor_ops ops = {.launch = launch,
                                            .wait = wait_step,
                                            .drawn = drawn,
                                            .help_draw = help_draw,
                                            .notify = notify,
                                            .drop = drop,
                                            .rest = rest,
                                            .write_table = write_table,
                                            .report = report,
                                            .close = close_fake};
    struct fake_executor *x = calloc(1, sizeof(*x));
    if (!x)
        return NULL;
    x->face = (struct executor){.ops = &ops, .limits = *l};
    x->face.limits.n_layers = FAKE_LAYERS;
    x->kind = (struct fake_kind){.states = l->n_state_slots, .whole = l->whole_prompts};
    x->face.limits.layers = fake_model_layers(x->kind);
    if (allocate(x))
        return x;
    fake_executor_close(x);
    return NULL;
}

void fake_executor_close(struct fake_executor *x)
{
    if (!x)
        return;
    for (int i = 0; i < EXECUTOR_STEPS_MAX; i++) {
        free(x->flights[i].hidden.block);
        free(x->flights[i].told.block);
    }
    free(x->keys);
    free(x->tables);
    free(x->ids);
    free(x->base);
    free(x->visible);
    free(x->states);
    free(x->contexts);
    free(x);
}
