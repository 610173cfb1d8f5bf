/* See rig.h. */
#include "tests/unit/rig.h"
#include "tests/check.h"
#include "tests/unit/expect.h"

bool rig_open(struct rig *r, int max_rows, int n_kv_slots, int n_state_slots)
{
    struct err err;
    struct executor_limits limits = {.max_rows = max_rows,
                                     .max_steps = 1,
                                     .n_kv_slots = n_kv_slots,
                                     .n_table_entries = 2 * n_kv_slots,
                                     .n_state_slots = n_state_slots,
                                     .max_positions = RIG_POSITIONS};
    *r = (struct rig){.x = fake_executor_open(&limits)};
    if (!CHECK(r->x))
        return false;
    const struct executor_limits *l = &r->x->face.limits;
    r->env = (struct sequence_env){.x = &r->x->face,
                                   .tree = &r->tree,
                                   .tables = &r->tables,
                                   .bits = &r->bits,
                                   .table_host = r->table_host,
                                   .state_every = n_state_slots ? 8 : 0};
    return CHECK_INT(slots_init(&r->kv, n_kv_slots), 0) && CHECK_INT(slots_init(&r->states, n_state_slots), 0) &&
           CHECK_INT(extents_init(&r->tables, l->n_table_entries), 0) && CHECK_INT(route_bits_init(&r->bits, l->layers, l->n_layers), 0) &&
           CHECK_INT(tree_init(&r->tree, &r->kv, n_state_slots ? &r->states : NULL, &r->bits, true, 1 << 20), 0) &&
           CHECK_INT(commit_init(&r->commit, &r->bits, &err), 0) && CHECK_INT(step_init(&r->step, 0, l, &err), 0);
}

void rig_close(struct rig *r)
{
    tree_clear(&r->tree);
    CHECK_INT(r->kv.n_free, r->kv.n);
    CHECK_INT(r->states.n_free, r->states.n);
    CHECK_INT(r->tree.n_linked, 0);
    CHECK_INT(r->tree.bytes, 0);
    CHECK(r->tables.n_holes == 1 && r->tables.holes[0].n == r->x->face.limits.n_table_entries);
    CHECK_INT(r->x->n_breaches, 0);
    step_done(&r->step);
    commit_done(&r->commit);
    tree_done(&r->tree);
    route_bits_done(&r->bits);
    extents_done(&r->tables);
    slots_done(&r->kv);
    slots_done(&r->states);
    fake_executor_close(r->x);
}

void rig_prepare(struct rig *r, struct sequence *s, const struct eval_request *q)
{
    CHECK_INT(sequence_prepare(s, q, FAKE_LAYERS, &r->ticket), 0);
    if (q->user)
        ((struct expect_watch *)q->user)->seq = s;
}

enum admission rig_admit(struct rig *r, struct sequence *s, int64_t promised)
{
    const struct sequence *owner;
    return sequence_admit(s, &r->env, &(struct admission_terms){.promised = promised, .ahead = RIG_POSITIONS}, &owner);
}

void rig_pack(struct rig *r, struct sequence *s, int n)
{
    if (!r->step.rows.n_rows)
        step_rows_clear(&r->step.rows);
    sequence_pack(s, &r->env, &r->step, n);
}

bool rig_compute(struct rig *r)
{
    struct err err = {0};
    struct step_rows *rows = &r->step.rows;
    tree_make_room(&r->tree, step_rows_slots(rows));
    slots_take(&r->kv, step_rows_slots(rows), rows->reserved);
    bool ok = CHECK_INT(r->env.x->ops->launch(r->env.x, 0, rows, &err), 0) &&
              CHECK_INT(r->env.x->ops->wait(r->env.x, 0, &r->step.results, &err), 0);
    for (int i = 0; i < rows->n_runs; i++)
        r->step.runs[i].seq->n_flights = 0;
    return ok;
}

void rig_run(struct rig *r)
{
    if (rig_compute(r))
        commit_step(&r->commit, &r->env, &r->step, &r->counts);
    while (r->env.x->ops->help_draw(r->env.x))
        ;
    for (struct draw *d = r->env.x->ops->drawn(r->env.x), *next; d; d = next) {
        next = d->next;
        sequence_commit_draw(sequence_of_draw(d), &r->env);
    }
    step_rows_clear(&r->step.rows);
}

void rig_complete(struct rig *r, struct sequence *s, int n)
{
    if (!CHECK_INT(rig_admit(r, s, 0), ADMIT_DONE))
        return;
    while (!s->done && s->result.finish == FINISH_NONE && sequence_due(s)) {
        rig_pack(r, s, sequence_due(s) < n ? sequence_due(s) : n);
        rig_run(r);
    }
    if (!s->done)
        sequence_finish(s, &r->env, 0, NULL);
}

int rig_answer(struct rig *r, const struct eval_request *q, int n)
{
    struct sequence s;
    rig_prepare(r, &s, q);
    rig_complete(r, &s, n);
    CHECK_INT(s.result.code, 0);
    CHECK(expect_result(q, &s.result, -1, r->x->kind));
    int rows = s.result.rows_computed;
    sequence_release(&s);
    return rows;
}
