/* Packing a step's rows: runs, positions, wanted rows; clearing; and no memory. */
#include "engine/model/step_rows.h"
#include "tests/check.h"
#include "tests/fail/failing.h"

static const int32_t ids[] = {7, 8, 9, 10};

static void test_packing(struct step_rows *s)
{
    struct kern_run *run = step_rows_add_run(s, ids, 3, 5, true, 40, 12);
    CHECK(run == &s->runs[0] && run->row0 == 0 && run->n == 3 && run->append && run->table_off == 40 && run->table_cap == 12);
    CHECK(run->state_in == -1 && run->state_out == -1 && !run->n_save && !run->select);
    run = step_rows_add_run(s, ids + 3, 1, 0, false, 0, 4);
    CHECK(run == &s->runs[1] && run->row0 == 3 && run->n == 1 && !run->append);
    static const int pos[] = {5, 6, 7, 0}, run_of[] = {0, 0, 0, 1};
    for (int i = 0; i < 4; i++)
        CHECK(s->ids[i] == ids[i] && s->pos[i] == pos[i] && s->run_of[i] == run_of[i]);
    CHECK(s->n_rows == 4 && s->n_runs == 2 && s->n_append == 3);
    CHECK_INT(step_rows_slots(s), 3 * 2);
    for (int l = 0; l < 2; l++)
        for (int r = 0; r < 2; r++)
            *step_rows_base(s, l, r) = 10 * l + r;
    for (int l = 0; l < 2; l++) /* a layer's bases follow each other */
        CHECK(step_rows_base(s, l, 0)[0] == 10 * l && step_rows_base(s, l, 0)[1] == 10 * l + 1);
}

static void test_wanting(struct step_rows *s)
{
    struct draw draw;
    CHECK_INT(s->top_k, 1);
    CHECK_INT(step_rows_want(s, 1, 9, 5), 0);
    s->draws[0] = &draw;
    CHECK_INT(step_rows_want(s, 3, -1, 2), 1);
    CHECK(s->n_want == 2 && s->top_k == 5);
    CHECK(s->want_row[0] == 1 && s->want_target[0] == 9 && s->want_row[1] == 3 && s->want_target[1] == -1);
    step_rows_clear(s);
    CHECK(!s->n_rows && !s->n_runs && !s->n_append && !s->n_want && !s->n_saves && s->top_k == 1);
    step_rows_want(s, 0, 1, 0);
    CHECK(!s->draws[0] && s->top_k == 1); /* that of the last step is forgotten */
}

int main(void)
{
    struct step_rows s;
    struct err err;
    bool reached = true;
    failing_init();
    for (int n = 0; reached; n++) {
        long live = failing_live();
        failing_plan(n);
        int r = step_rows_init(&s, 4, 2, &err);
        reached = failing_reached();
        CHECK_INT(r, reached ? ERR_NOMEM : 0);
        CHECK(!reached || failing_live() == live);
    }
    step_rows_clear(&s);
    test_packing(&s);
    test_wanting(&s);
    step_rows_done(&s);
    step_rows_done(&s);
    return check_result();
}
