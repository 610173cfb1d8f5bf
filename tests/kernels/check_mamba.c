/* route_mamba against its reference, and its bits over chunks, runs, batches, row sets and kept states. */
#include "tests/kernels/mamba_case.h"
#include <math.h>

/* Of the margin, relative to the sums that it is made of, and of states: what float32 leaves after some hundred rows. On CUDA 2^x of the recurrence is the
 * hardware's, within two units of the last place, and its errors add up in states that keep their values long. */
static const double margin_tolerance[2] = {1e-6, 3e-6}, state_tolerance[2] = {2e-6, 2e-5};
static int on_cuda(const struct check *c)
{
    return !strcmp(c->backend->name, "cuda");
}

/* ---- what is checked ---- */

static void near(struct check *c, const char *what, int seq, int at, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        check_fail(c, what, "sequence %d, %d: %.9g, not %.9g (off by %.3g, and %.3g is allowed)", seq, at, got, want, got - want,
                   tolerance);
}

static void check_row(struct check *c, const struct mamba_case *p, int seq, int pos, const struct mamba_row *got,
                      const struct mamba_reference *ref)
{
    double margin = ref->r[0] - ref->r[1], p0 = 1 / (1 + exp(-margin)), tolerance = margin_tolerance[on_cuda(c)] * ref->size;
    double from = p->threshold ? margin - p->limit : margin;
    near(c, "margin", seq, pos, got->margin, margin, tolerance);
    near(c, "prob", seq, pos, got->prob, p0, tolerance);
    if (fabs(from) > tolerance && got->route != (from > 0 ? ABOVE : BELOW))
        check_fail(c, "route", "sequence %d, %d: %d at %g from the threshold", seq, pos, got->route, from);
    near(c, "gate", seq, pos, got->gate, got->route == ABOVE ? got->prob : 1 - got->prob, 1e-6);
    near(c, "bad", seq, pos, got->bad, 0, 0);
}

/* Sequence `seq` of the whole pass, with the state that it left in `slot`. */
static void check_sequence(struct check *c, const struct mamba_case *p, int seq, const struct mamba_row *got, int slot)
{
    int e = p->s.e, tail = e * (p->s.n_conv - 1), n = e * p->s.n_state;
    struct mamba_reference ref = {.tail = calloc(tail, sizeof(double)), .state = calloc(n, sizeof(double))};
    float *state = malloc(sizeof(float) * p->state_floats);
    double tolerance = state_tolerance[on_cuda(c)];
    for (int t = 0; t < p->len[seq]; t++) {
        mamba_reference_row(p, &ref, p->x[seq] + (size_t)t * p->s.d);
        check_row(c, p, seq, t, &got[t], &ref);
    }
    mamba_case_slot(c, p, slot, state);
    for (int i = 0; i < tail; i++)
        near(c, "conv state", seq, i, state[i], ref.tail[i], tolerance * (1 + fabs(ref.tail[i])));
    for (int i = 0; i < n; i++)
        near(c, "ssm state", seq, i, state[tail + i], ref.state[i], tolerance * (1 + fabs(ref.state[i])));
    free(ref.tail);
    free(ref.state);
    free(state);
}

static void same_row(struct check *c, const char *how, int seq, int pos, const struct mamba_row *got, const struct mamba_row *want)
{
    if (memcmp(&got->prob, &want->prob, 4) || memcmp(&got->gate, &want->gate, 4) || memcmp(&got->margin, &want->margin, 4) ||
        got->route != want->route || got->bad != want->bad)
        check_fail(c, how, "sequence %d, row %d has other bits than in the whole pass (margin %.9g, not %.9g)", seq, pos, got->margin,
                   want->margin);
}

static void same_state(struct check *c, const struct mamba_case *p, const char *how, int slot, int whole)
{
    float *a = malloc(sizeof(float) * p->state_floats), *b = malloc(sizeof(float) * p->state_floats);
    mamba_case_slot(c, p, slot, a);
    mamba_case_slot(c, p, whole, b);
    if (memcmp(a, b, sizeof(float) * p->state_floats))
        check_fail(c, how, "slot %d has other bits than slot %d", slot, whole);
    free(a);
    free(b);
}

/* A piece's results against those of the whole pass. */
static void same_piece(struct check *c, const char *how, const struct mamba_piece *piece, const struct mamba_row *got,
                       struct mamba_row *const *whole)
{
    for (int t = piece->begin; t < piece->end; t++)
        same_row(c, how, piece->seq, t, &got[t - piece->begin], &whole[piece->seq][t]);
}

/* ---- the passes. Slot i: the whole pass of sequence i; MAX_SEQ + i: the sequence that goes on; then the saved copies ---- */

static void whole_pass(struct check *c, const struct mamba_case *p, struct mamba_row **ret)
{
    struct mamba_piece pieces[MAX_SEQ];
    struct mamba_row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    int n = 0;
    for (int i = 0; i < p->n_seq; i++)
        pieces[i] = (struct mamba_piece){.seq = i, .end = p->len[i], .state_in = -1, .state_out = i};
    mamba_case_run(c, p, pieces, p->n_seq, NULL, 0, rows);
    for (int i = 0; i < p->n_seq; n += p->len[i++]) {
        ret[i] = malloc(sizeof(**ret) * p->len[i]);
        memcpy(ret[i], rows + n, sizeof(*rows) * p->len[i]);
        check_sequence(c, p, i, ret[i], i);
    }
    for (int i = 0; i < n; i++) {
        check_digest(c, &rows[i].margin, 4);
        check_digest(c, &rows[i].route, 1);
    }
    free(rows);
}

/* Copies after the given rows are continued. */
static void continue_saves(struct check *c, const struct mamba_case *p, const struct mamba_piece *saved, int n,
                           struct mamba_row *const *whole)
{
    struct mamba_row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    for (int i = 0; i < n; i++) {
        struct mamba_piece rest = {.seq = saved[i].seq,
                                   .begin = saved[i].save_at[0] + 1,
                                   .end = p->len[saved[i].seq],
                                   .state_in = saved[i].save_slot[0],
                                   .state_out = -1};
        if (rest.begin == rest.end) {
            same_state(c, p, "copy after the last row", rest.state_in, rest.seq);
            continue;
        }
        mamba_case_run(c, p, &rest, 1, NULL, 0, rows);
        same_piece(c, "from a kept state", &rest, rows, whole);
    }
    free(rows);
}

/* A piece of sequence i from `begin` on, with its saves, if any are left. */
static struct mamba_piece next_piece(struct check *c, const struct mamba_case *p, int i, int begin, int longest, struct mamba_piece *saved,
                                     int *n_saved)
{
    int left = p->len[i] - begin, n = check_int(c, 1, longest < left ? longest : left), slot = MAX_SEQ + i;
    struct mamba_piece piece = {.seq = i, .begin = begin, .end = begin + n, .state_in = begin ? slot : -1, .state_out = slot};
    for (int t = begin; t < piece.end && *n_saved < SAVES; t++)
        if (!check_int(c, 0, n)) {
            int at = piece.n_save++, to = 2 * MAX_SEQ + *n_saved;
            piece.save_at[at] = t;
            piece.save_slot[at] = to;
            saved[(*n_saved)++] = (struct mamba_piece){.seq = i, .save_at = {t}, .save_slot = {to}};
        }
    return piece;
}

/* Sequences in pieces of at most `longest` rows, some of them in each step, in any order. */
static void cut_pass(struct check *c, const struct mamba_case *p, const char *how, int longest, bool all, struct mamba_row *const *whole)
{
    struct mamba_piece saved[SAVES];
    struct mamba_row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    int done[MAX_SEQ] = {0}, n_saved = 0;
    for (bool any = true; any;) {
        struct mamba_piece pieces[MAX_SEQ];
        int n = 0, first = check_int(c, 0, p->n_seq - 1), at = 0;
        any = false;
        for (int j = 0; j < p->n_seq; j++) {
            int i = (first + j) % p->n_seq;
            any |= done[i] < p->len[i];
            if (done[i] == p->len[i] || (!all && check_int(c, 0, 2) == 0))
                continue;
            pieces[n] = next_piece(c, p, i, done[i], longest, saved, &n_saved);
            done[i] = pieces[n++].end;
        }
        mamba_case_run(c, p, pieces, n, NULL, 0, rows);
        for (int j = 0; j < n; at += pieces[j].end - pieces[j].begin, j++)
            same_piece(c, how, &pieces[j], rows + at, whole);
    }
    for (int i = 0; i < p->n_seq; i++)
        same_state(c, p, how, MAX_SEQ + i, i);
    continue_saves(c, p, saved, n_saved, whole);
    free(rows);
}

/* About half of the rows get a decision; the others keep theirs, and states are as before. */
static void subset_pass(struct check *c, const struct mamba_case *p, struct mamba_row *const *whole)
{
    struct mamba_piece pieces[MAX_SEQ];
    struct mamba_row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    int *idx = malloc(sizeof(int) * (MAX_ROWS + 1)), n_idx = 0, n = 0;
    for (int i = 0; i < p->n_seq; n += p->len[i++])
        pieces[i] = (struct mamba_piece){.seq = i, .end = p->len[i], .state_in = -1, .state_out = MAX_SEQ + i};
    for (int r = 0; r < n; r++)
        if (check_int(c, 0, 1))
            idx[n_idx++] = r;
    mamba_case_run(c, p, pieces, p->n_seq, idx, n_idx, rows);
    for (int i = 0, r = 0, at = 0; i < p->n_seq; i++)
        for (int t = 0; t < p->len[i]; t++, r++) {
            bool in = at < n_idx && idx[at] == r;
            at += in;
            if (in)
                same_row(c, "subset", i, t, &rows[r], &whole[i][t]);
            else if (rows[r].route != UNTOUCHED || rows[r].prob < 5 || rows[r].gate < 5 || rows[r].margin < 5 || rows[r].bad)
                check_fail(c, "subset", "sequence %d, row %d is outside the set, but changed", i, t);
        }
    for (int i = 0; i < p->n_seq; i++)
        same_state(c, p, "subset", MAX_SEQ + i, i);
    free(rows);
    free(idx);
}

static void expect_bad(struct check *c, int seq, int pos, const struct mamba_row *got)
{
    if (got->bad != 1 || got->route != BELOW || !isnan(got->prob) || !isnan(got->gate) || !isnan(got->margin))
        check_fail(c, "bad", "sequence %d, row %d: bad is %d, the code %d, prob %g", seq, pos, got->bad, got->route, got->prob);
}

/* A value that is not finite spoils its row and those after it, in its own sequence; through a kept state as well. */
static void bad_pass(struct check *c, struct mamba_case *p, struct mamba_row *const *whole)
{
    struct mamba_piece pieces[MAX_SEQ];
    struct mamba_row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    int seq = check_int(c, 0, p->n_seq - 1), at = check_int(c, 0, p->len[seq] - 1), n = 0;
    float *x = &p->x[seq][(size_t)at * p->s.d + check_int(c, 0, p->s.d - 1)], kept = *x;
    *x = check_int(c, 0, 1) ? NAN : INFINITY;
    for (int i = 0; i < p->n_seq; i++)
        pieces[i] = (struct mamba_piece){.seq = i, .end = i == seq ? at + 1 : p->len[i], .state_in = -1, .state_out = MAX_SEQ + i};
    mamba_case_run(c, p, pieces, p->n_seq, NULL, 0, rows);
    *x = kept;
    for (int i = 0; i < p->n_seq; n += pieces[i].end, i++)
        for (int t = 0; t < pieces[i].end; t++)
            if (i == seq && t == at)
                expect_bad(c, i, t, &rows[n + t]);
            else
                same_row(c, "beside a bad row", i, t, &rows[n + t], &whole[i][t]);
    pieces[0] = (struct mamba_piece){.seq = seq, .begin = at + 1, .end = p->len[seq], .state_in = MAX_SEQ + seq, .state_out = -1};
    if (at + 1 < p->len[seq])
        mamba_case_run(c, p, pieces, 1, NULL, 0, rows);
    for (int t = at + 1; t < p->len[seq]; t++)
        expect_bad(c, seq, t, &rows[t - at - 1]);
    free(rows);
}

static void one(struct check *c, struct mamba_shape s, int n_seq, int longest)
{
    static struct mamba_case p;
    struct mamba_row *whole[MAX_SEQ];
    mamba_case_make(c, &p, s, n_seq, longest);
    whole_pass(c, &p, whole);
    cut_pass(c, &p, "row by row", 1, true, whole);
    cut_pass(c, &p, "short pieces", 5, false, whole);
    cut_pass(c, &p, "long pieces", longest, false, whole);
    subset_pass(c, &p, whole);
    bad_pass(c, &p, whole);
    for (int i = 0; i < n_seq; i++)
        free(whole[i]);
    mamba_case_free(c, &p);
}

/* Sizes beyond the limits, and weights that are not finite. */
static void refusals(struct check *c)
{
    static struct mamba_case p;
    struct mamba_shape s = {8, 4, 8, 2, 2, 1};
    const struct {
        int offset, value;
    } wrong[] = {{offsetof(struct mamba_parts, n_state), MAMBA_STATE_MAX + 1},
                 {offsetof(struct mamba_parts, n_conv), 1},
                 {offsetof(struct mamba_parts, n_dt), 0},
                 {offsetof(struct mamba_parts, r), MAMBA_INNER_MAX + 1},
                 {offsetof(struct mamba_parts, e), 0}};
    struct kern_mamba *w;
    struct err err;
    mamba_case_make(c, &p, s, 1, 1);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        struct mamba_parts parts = p.parts;
        *(int *)((char *)&parts + wrong[i].offset) = wrong[i].value;
        if (c->k->ops->mamba_new(c->k, &parts, &w, &err) != ERR_UNSUPPORTED)
            check_fail(c, "mamba_new", "took size %d", (int)i);
    }
    p.t[A_LOG].v[3] = NAN;
    p.parts.a_log = (struct kern_tensor){p.t[A_LOG].v, DTYPE_F32};
    if (c->k->ops->mamba_new(c->k, &p.parts, &w, &err) != ERR_CORRUPT)
        check_fail(c, "mamba_new", "took a weight that is not a number");
    p.t[A_LOG].v[3] = 100;
    if (c->k->ops->mamba_new(c->k, &p.parts, &w, &err) != ERR_CORRUPT)
        check_fail(c, "mamba_new", "took an A_log whose exponential overflows");
    mamba_case_free(c, &p);
}

void check_route_mamba(struct check *c)
{
    static const struct mamba_shape shapes[] = {
        {48, 16, 32, 8, 4, 1},   {33, 5, 10, 3, 2, 2},   {64, 24, 48, 8, 4, 2},  {7, 1, 1, 1, 3, 1},    {20, 9, 27, 17, 5, 3},
        {96, 64, 128, 16, 4, 4}, {30, 12, 24, 40, 4, 1}, {16, 70, 140, 2, 6, 5}, {12, 6, 12, 4, 20, 1}, {10, 4, 8, 128, 2, 64}};
    if (c->bench)
        return;
    refusals(c);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int n = 1; n <= MAX_SEQ; n += 2)
            one(c, shapes[i], n, n == 3 ? 60 : 9);
    one(c, shapes[0], 1, MAX_ROWS); /* several blocks of rows */
    one(c, shapes[5], 4, MAX_ROWS / 4);
}
