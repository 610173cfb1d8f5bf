/* route_mamba against SPEC of UltraDeep, section 3.3, in double; and its bits over chunks, runs, batches, row sets and kept states. */
#include "tests/check/harness.h"
#include <math.h>

/* Of the margin, relative to the sums that it is made of, and of states: what float32 leaves after some hundred rows. On CUDA 2^x of the recurrence is the
 * hardware's, within two units of the last place, and its errors add up in states that keep their values long. */
static const double margin_tolerance[2] = {1e-6, 3e-6}, state_tolerance[2] = {2e-6, 2e-5};
static int on_cuda(const struct check *c)
{
    return !strcmp(c->backend->name, "cuda");
}

enum { MAX_SEQ = 6, MAX_ROWS = 700, ROUTERS = 2, ROUTER = 1, SAVES = 8, SLOTS = 2 * MAX_SEQ + SAVES };
enum { BELOW = DECISION_LINEAR, ABOVE = DECISION_ATTEND, UNTOUCHED = 7 };

struct shape {
    int d, r, e, n_state, n_conv, n_dt;
};

/* One tensor: as stored, and as floats. */
struct tensor {
    void *stored;
    float *v;
};
enum { IN, IN_BIAS, NORM, MIX, CONV, CONV_BIAS, X, DT, DT_BIAS, A_LOG, SKIP, MIX_OUT, OUT, OUT_BIAS, TENSORS };

struct problem {
    struct shape s;
    struct tensor t[TENSORS];
    struct mamba_parts parts;
    struct kern_mamba *w;
    bool threshold;
    float limit;
    void *dev_limit, *states; /* [SLOTS, ROUTERS, state floats] */
    int state_floats, n_seq, len[MAX_SEQ];
    float *x[MAX_SEQ];
};

/* Results of one row. */
struct row {
    float prob, gate, margin;
    unsigned char route, bad;
};

/* Rows begin .. end-1 of sequence seq as a run. */
struct piece {
    int seq, begin, end, state_in, state_out;
    int n_save, save_at[SAVES], save_slot[SAVES]; /* positions and slots */
};

/* ---- the problem ---- */

static struct kern_tensor make(struct check *c, struct problem *p, int which, size_t n, double lo, double hi)
{
    enum dtype type = which == A_LOG ? DTYPE_F32 : (enum dtype)check_int(c, 0, 2);
    struct tensor *t = &p->t[which];
    t->v = check_floats(c, n, lo, hi);
    t->stored = malloc(n * sizeof(float));
    dtype_from_f32(t->stored, type, t->v, n);
    dtype_to_f32(t->v, t->stored, type, n);
    return (struct kern_tensor){t->stored, type};
}

/* A_log from what makes a state forget at once to what keeps it for hundreds of rows. */
static void make_router(struct check *c, struct problem *p)
{
    const struct shape *s = &p->s;
    size_t d = s->d, r = s->r, e = s->e, n = s->n_state;
    double in = 2 / sqrt(s->d), mix = 2 / sqrt(s->r), inner = 2 / sqrt(s->e);
    p->parts =
        (struct mamba_parts){.d = s->d, .r = s->r, .e = s->e, .n_state = s->n_state, .n_conv = s->n_conv, .n_dt = s->n_dt, .eps = 1e-5f};
    p->parts.in_proj = make(c, p, IN, r * d, -in, in);
    p->parts.in_proj_bias = make(c, p, IN_BIAS, r, -1, 1);
    p->parts.norm = make(c, p, NORM, r, 0.5, 1.5);
    p->parts.mixer_in_proj = make(c, p, MIX, 2 * e * r, -mix, mix);
    p->parts.conv1d = make(c, p, CONV, e * s->n_conv, -0.6, 0.6);
    p->parts.conv1d_bias = make(c, p, CONV_BIAS, e, -0.5, 0.5);
    p->parts.x_proj = make(c, p, X, (s->n_dt + 2 * n) * e, -inner, inner);
    p->parts.dt_proj = make(c, p, DT, e * s->n_dt, -0.5, 0.5);
    p->parts.dt_proj_bias = make(c, p, DT_BIAS, e, -6, 1);
    p->parts.a_log = make(c, p, A_LOG, e * n, -3, 3);
    p->parts.skip = make(c, p, SKIP, e, -1, 1);
    p->parts.mixer_out_proj = make(c, p, MIX_OUT, r * e, -inner, inner);
    p->parts.out_proj = make(c, p, OUT, 2 * r, -mix, mix);
    p->parts.out_proj_bias = make(c, p, OUT_BIAS, 2, -0.2, 0.2);
    struct err err = {0};
    if (c->k->ops->mamba_new(c->k, &p->parts, &p->w, &err) < 0)
        check_fail(c, "mamba_new", "%s", err.text);
}

static void make_problem(struct check *c, struct problem *p, struct shape s, int n_seq, int longest)
{
    *p = (struct problem){.s = s, .n_seq = n_seq, .threshold = check_int(c, 0, 1), .limit = (float)check_real(c, -0.3, 0.3)};
    make_router(c, p);
    p->dev_limit = check_up(c, &p->limit, sizeof(p->limit));
    p->state_floats = (int)mamba_state_floats(s.e, s.n_state, s.n_conv);
    size_t floats = (size_t)SLOTS * ROUTERS * p->state_floats;
    float *states = check_floats(c, floats, -9, 9);
    p->states = check_up(c, states, floats * sizeof(float));
    free(states);
    for (int i = 0; i < n_seq; i++) {
        p->len[i] = check_int(c, 1, longest);
        p->x[i] = check_floats(c, (size_t)p->len[i] * s.d, -3, 3);
    }
}

static void free_problem(struct check *c, struct problem *p)
{
    c->k->ops->mamba_free(c->k, p->w);
    check_drop(c, p->dev_limit);
    check_drop(c, p->states);
    for (int i = 0; i < TENSORS; i++) {
        free(p->t[i].stored);
        free(p->t[i].v);
    }
    for (int i = 0; i < p->n_seq; i++)
        free(p->x[i]);
}

/* ---- the reference ---- */

static double silu(double z)
{
    return z / (1 + exp(-z));
}

/* y[rows] = w x + b */
static void linear(double *y, const float *w, const float *b, const double *x, int rows, int cols)
{
    for (int i = 0; i < rows; i++) {
        y[i] = b ? b[i] : 0;
        for (int j = 0; j < cols; j++)
            y[i] += w[(size_t)i * cols + j] * x[j];
    }
}

struct reference {
    double *tail, *state; /* [n_conv-1, e], [e, n_state] */
    double r[2], size;    /* size: of what the margin is a sum of */
};

/* a [e] joins the tail, c [e] comes from both. */
static void reference_conv(const struct problem *p, struct reference *ref, const double *a, double *c)
{
    int e = p->s.e, taps = p->s.n_conv;
    for (int i = 0; i < e; i++) {
        c[i] = p->t[CONV_BIAS].v[i];
        for (int j = 0; j < taps; j++)
            c[i] += p->t[CONV].v[i * taps + j] * (j < taps - 1 ? ref->tail[j * e + i] : a[i]);
        c[i] = silu(c[i]);
    }
    memmove(ref->tail, ref->tail + e, sizeof(double) * e * (taps - 2));
    memcpy(ref->tail + (size_t)(taps - 2) * e, a, sizeof(double) * e);
}

/* y [e] from c [e] and z [e]. */
static void reference_scan(const struct problem *p, struct reference *ref, const double *c, const double *z, double *y)
{
    const struct shape *s = &p->s;
    double *x = malloc(sizeof(double) * (s->n_dt + 2 * s->n_state)), *delta = malloc(sizeof(double) * s->e);
    linear(x, p->t[X].v, NULL, c, s->n_dt + 2 * s->n_state, s->e);
    linear(delta, p->t[DT].v, p->t[DT_BIAS].v, x, s->e, s->n_dt);
    for (int i = 0; i < s->e; i++) {
        double dt = log1p(exp(delta[i]));
        y[i] = p->t[SKIP].v[i] * c[i];
        for (int j = 0; j < s->n_state; j++) {
            double *state = &ref->state[i * s->n_state + j];
            *state = exp(dt * -exp(p->t[A_LOG].v[i * s->n_state + j])) * *state + dt * x[s->n_dt + j] * c[i];
            y[i] += *state * x[s->n_dt + s->n_state + j];
        }
        y[i] *= silu(z[i]);
    }
    free(x);
    free(delta);
}

static void reference_row(const struct problem *p, struct reference *ref, const float *x)
{
    const struct shape *s = &p->s;
    double *v = calloc(s->d + 3 * s->r + 4 * (size_t)s->e, sizeof(double)), *u = v + s->d, *n = u + s->r, *az = n + s->r,
           *c = az + 2 * s->e, *y = c + s->e, *o = y + s->e, square = 0;
    for (int i = 0; i < s->d; i++)
        v[i] = x[i];
    linear(u, p->t[IN].v, p->t[IN_BIAS].v, v, s->r, s->d);
    for (int i = 0; i < s->r; i++)
        square += u[i] * u[i];
    for (int i = 0; i < s->r; i++)
        n[i] = u[i] / sqrt(square / s->r + p->parts.eps) * p->t[NORM].v[i];
    linear(az, p->t[MIX].v, NULL, n, 2 * s->e, s->r);
    reference_conv(p, ref, az, c);
    reference_scan(p, ref, c, az + s->e, y);
    linear(o, p->t[MIX_OUT].v, NULL, y, s->r, s->e);
    ref->size = 1;
    for (int i = 0; i < s->r; i++) {
        o[i] += u[i];
        ref->size += fabs(o[i] * p->t[OUT].v[i]) + fabs(o[i] * p->t[OUT].v[s->r + i]);
    }
    linear(ref->r, p->t[OUT].v, p->t[OUT_BIAS].v, o, 2, s->r);
    free(v);
}

/* ---- one step ---- */

struct step {
    int n, n_saves, *pos, *run_of;
    struct kern_run runs[MAX_ROWS];
    struct kern_save saves[MAX_ROWS];
    float *x;
};

static void add_piece(const struct problem *p, struct step *s, const struct piece *piece, int run)
{
    int n = piece->end - piece->begin, d = p->s.d;
    s->runs[run] = (struct kern_run){.row0 = s->n,
                                     .n = n,
                                     .append = 1,
                                     .state_in = piece->state_in,
                                     .state_out = piece->state_out,
                                     .save0 = s->n_saves,
                                     .n_save = piece->n_save};
    for (int i = 0; i < piece->n_save; i++)
        s->saves[s->n_saves++] = (struct kern_save){s->n + piece->save_at[i] - piece->begin, piece->save_slot[i]};
    memcpy(s->x + (size_t)s->n * d, p->x[piece->seq] + (size_t)piece->begin * d, sizeof(float) * n * d);
    for (int i = 0; i < n; i++) {
        s->pos[s->n + i] = piece->begin + i;
        s->run_of[s->n + i] = run;
    }
    s->n += n;
}

static void alloc_step(const struct problem *p, struct step *s, const struct piece *pieces, int n_pieces)
{
    int n = 0;
    for (int i = 0; i < n_pieces; i++)
        n += pieces[i].end - pieces[i].begin;
    s->pos = malloc(sizeof(int) * (n + 1));
    s->run_of = malloc(sizeof(int) * (n + 1));
    s->x = malloc(sizeof(float) * p->s.d * (n + 1));
    s->n = s->n_saves = 0;
    for (int i = 0; i < n_pieces; i++)
        add_piece(p, s, &pieces[i], i);
}

/* The outputs of a step as arrays with guards. */
struct outputs {
    float *prob, *gate, *margin;
    unsigned char *route, *bad;
    void *dev[5];
};
static const size_t output_size[5] = {4, 4, 4, 1, 1};

static void outputs_up(struct check *c, struct outputs *o, int n)
{
    float *floats = check_floats(c, n, 5, 6);
    unsigned char *bytes = malloc(n + 1);
    memset(bytes, UNTOUCHED, n);
    for (int i = 0; i < 5; i++)
        o->dev[i] = check_up(c, output_size[i] == 4 ? (void *)floats : bytes, n * output_size[i]);
    o->prob = floats;
    o->gate = malloc(sizeof(float) * (n + 1));
    o->margin = malloc(sizeof(float) * (n + 1));
    o->route = bytes;
    o->bad = malloc(n + 1);
}

static void outputs_down(struct check *c, struct outputs *o, int n, struct row *ret)
{
    void *host[5] = {o->prob, o->gate, o->margin, o->route, o->bad};
    for (int i = 0; i < 5; i++) {
        check_down(c, "route_mamba", host[i], o->dev[i], n * output_size[i]);
        check_drop(c, o->dev[i]);
    }
    for (int i = 0; i < n; i++)
        ret[i] = (struct row){o->prob[i], o->gate[i], o->margin[i], o->route[i], o->bad[i]};
    for (int i = 0; i < 5; i++)
        free(host[i]);
}

/* Runs the pieces as one step. idx: the rows that get a decision, NULL: all. ret: [rows]. */
static void run_step(struct check *c, const struct problem *p, const struct piece *pieces, int n_pieces, const int *idx, int n_idx,
                     struct row *ret)
{
    static struct step s;
    struct outputs o;
    alloc_step(p, &s, pieces, n_pieces);
    outputs_up(c, &o, s.n);
    void *dev[] = {check_up(c, s.x, sizeof(float) * s.n * p->s.d),
                   check_up(c, s.pos, sizeof(int) * s.n),
                   check_up(c, s.run_of, sizeof(int) * s.n),
                   check_up(c, s.runs, sizeof(*s.runs) * n_pieces),
                   check_up(c, s.saves, sizeof(*s.saves) * s.n_saves),
                   check_up(c, &n_idx, sizeof(int)),
                   check_up(c, idx ? idx : &n_idx, sizeof(int) * n_idx)};
    struct kern_step step = {.all = {NULL, NULL, s.n},
                             .pos = dev[1],
                             .run_of = dev[2],
                             .runs = dev[3],
                             .n_runs = n_pieces,
                             .saves = dev[4],
                             .states = p->states,
                             .n_routers = ROUTERS,
                             .state_floats = p->state_floats};
    struct route_out to = {.route = o.dev[3],
                           .gate = o.dev[1],
                           .prob = o.dev[0],
                           .below = BELOW,
                           .above = ABOVE,
                           .threshold = p->threshold ? p->dev_limit : NULL,
                           .margin = o.dev[2]};
    struct rows rows = idx ? (struct rows){dev[6], dev[5], s.n} : step.all;
    c->cases++;
    check_code(c, "route_mamba", c->k->ops->route_mamba(c->k, &to, o.dev[4], p->w, dev[0], &step, ROUTER, rows));
    outputs_down(c, &o, s.n, ret);
    for (size_t i = 0; i < sizeof(dev) / sizeof(*dev); i++)
        check_drop(c, dev[i]);
    free(s.pos);
    free(s.run_of);
    free(s.x);
}

/* The states of a slot; all slots are checked for their guards. */
static void read_slot(struct check *c, const struct problem *p, int slot, float *ret)
{
    size_t floats = (size_t)SLOTS * ROUTERS * p->state_floats;
    float *all = malloc(floats * sizeof(float));
    check_down(c, "states", all, p->states, floats * sizeof(float));
    memcpy(ret, all + ((size_t)slot * ROUTERS + ROUTER) * p->state_floats, sizeof(float) * p->state_floats);
    free(all);
}

/* ---- what is checked ---- */

static void near(struct check *c, const char *what, int seq, int at, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        check_fail(c, what, "sequence %d, %d: %.9g, not %.9g (off by %.3g, and %.3g is allowed)", seq, at, got, want, got - want,
                   tolerance);
}

static void check_row(struct check *c, const struct problem *p, int seq, int pos, const struct row *got, const struct reference *ref)
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
static void check_sequence(struct check *c, const struct problem *p, int seq, const struct row *got, int slot)
{
    int e = p->s.e, tail = e * (p->s.n_conv - 1), n = e * p->s.n_state;
    struct reference ref = {.tail = calloc(tail, sizeof(double)), .state = calloc(n, sizeof(double))};
    float *state = malloc(sizeof(float) * p->state_floats);
    double tolerance = state_tolerance[on_cuda(c)];
    for (int t = 0; t < p->len[seq]; t++) {
        reference_row(p, &ref, p->x[seq] + (size_t)t * p->s.d);
        check_row(c, p, seq, t, &got[t], &ref);
    }
    read_slot(c, p, slot, state);
    for (int i = 0; i < tail; i++)
        near(c, "conv state", seq, i, state[i], ref.tail[i], tolerance * (1 + fabs(ref.tail[i])));
    for (int i = 0; i < n; i++)
        near(c, "ssm state", seq, i, state[tail + i], ref.state[i], tolerance * (1 + fabs(ref.state[i])));
    free(ref.tail);
    free(ref.state);
    free(state);
}

static void same_row(struct check *c, const char *how, int seq, int pos, const struct row *got, const struct row *want)
{
    if (memcmp(&got->prob, &want->prob, 4) || memcmp(&got->gate, &want->gate, 4) || memcmp(&got->margin, &want->margin, 4) ||
        got->route != want->route || got->bad != want->bad)
        check_fail(c, how, "sequence %d, row %d has other bits than in the whole pass (margin %.9g, not %.9g)", seq, pos, got->margin,
                   want->margin);
}

static void same_state(struct check *c, const struct problem *p, const char *how, int slot, int whole)
{
    float *a = malloc(sizeof(float) * p->state_floats), *b = malloc(sizeof(float) * p->state_floats);
    read_slot(c, p, slot, a);
    read_slot(c, p, whole, b);
    if (memcmp(a, b, sizeof(float) * p->state_floats))
        check_fail(c, how, "slot %d has other bits than slot %d", slot, whole);
    free(a);
    free(b);
}

/* A piece's results against those of the whole pass. */
static void same_piece(struct check *c, const char *how, const struct piece *piece, const struct row *got, struct row *const *whole)
{
    for (int t = piece->begin; t < piece->end; t++)
        same_row(c, how, piece->seq, t, &got[t - piece->begin], &whole[piece->seq][t]);
}

/* ---- the passes. Slot i: the whole pass of sequence i; MAX_SEQ + i: the sequence that goes on; then the saved copies ---- */

static void whole_pass(struct check *c, const struct problem *p, struct row **ret)
{
    struct piece pieces[MAX_SEQ];
    struct row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    int n = 0;
    for (int i = 0; i < p->n_seq; i++)
        pieces[i] = (struct piece){.seq = i, .end = p->len[i], .state_in = -1, .state_out = i};
    run_step(c, p, pieces, p->n_seq, NULL, 0, rows);
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
static void continue_saves(struct check *c, const struct problem *p, const struct piece *saved, int n, struct row *const *whole)
{
    struct row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    for (int i = 0; i < n; i++) {
        struct piece rest = {.seq = saved[i].seq,
                             .begin = saved[i].save_at[0] + 1,
                             .end = p->len[saved[i].seq],
                             .state_in = saved[i].save_slot[0],
                             .state_out = -1};
        if (rest.begin == rest.end) {
            same_state(c, p, "copy after the last row", rest.state_in, rest.seq);
            continue;
        }
        run_step(c, p, &rest, 1, NULL, 0, rows);
        same_piece(c, "from a kept state", &rest, rows, whole);
    }
    free(rows);
}

/* A piece of sequence i from `begin` on, with its saves, if any are left. */
static struct piece next_piece(struct check *c, const struct problem *p, int i, int begin, int longest, struct piece *saved, int *n_saved)
{
    int left = p->len[i] - begin, n = check_int(c, 1, longest < left ? longest : left), slot = MAX_SEQ + i;
    struct piece piece = {.seq = i, .begin = begin, .end = begin + n, .state_in = begin ? slot : -1, .state_out = slot};
    for (int t = begin; t < piece.end && *n_saved < SAVES; t++)
        if (!check_int(c, 0, n)) {
            int at = piece.n_save++, to = 2 * MAX_SEQ + *n_saved;
            piece.save_at[at] = t;
            piece.save_slot[at] = to;
            saved[(*n_saved)++] = (struct piece){.seq = i, .save_at = {t}, .save_slot = {to}};
        }
    return piece;
}

/* Sequences in pieces of at most `longest` rows, some of them in each step, in any order. */
static void cut_pass(struct check *c, const struct problem *p, const char *how, int longest, bool all, struct row *const *whole)
{
    struct piece saved[SAVES];
    struct row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    int done[MAX_SEQ] = {0}, n_saved = 0;
    for (bool any = true; any;) {
        struct piece pieces[MAX_SEQ];
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
        run_step(c, p, pieces, n, NULL, 0, rows);
        for (int j = 0; j < n; at += pieces[j].end - pieces[j].begin, j++)
            same_piece(c, how, &pieces[j], rows + at, whole);
    }
    for (int i = 0; i < p->n_seq; i++)
        same_state(c, p, how, MAX_SEQ + i, i);
    continue_saves(c, p, saved, n_saved, whole);
    free(rows);
}

/* About half of the rows get a decision; the others keep theirs, and states are as before. */
static void subset_pass(struct check *c, const struct problem *p, struct row *const *whole)
{
    struct piece pieces[MAX_SEQ];
    struct row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    int *idx = malloc(sizeof(int) * (MAX_ROWS + 1)), n_idx = 0, n = 0;
    for (int i = 0; i < p->n_seq; n += p->len[i++])
        pieces[i] = (struct piece){.seq = i, .end = p->len[i], .state_in = -1, .state_out = MAX_SEQ + i};
    for (int r = 0; r < n; r++)
        if (check_int(c, 0, 1))
            idx[n_idx++] = r;
    run_step(c, p, pieces, p->n_seq, idx, n_idx, rows);
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

/* A value that is not finite spoils its row and those after it, in its own sequence. */
static void bad_pass(struct check *c, struct problem *p, struct row *const *whole)
{
    struct piece pieces[MAX_SEQ];
    struct row *rows = malloc(sizeof(*rows) * (MAX_ROWS + 1));
    int seq = check_int(c, 0, p->n_seq - 1), at = check_int(c, 0, p->len[seq] - 1);
    float *x = &p->x[seq][(size_t)at * p->s.d + check_int(c, 0, p->s.d - 1)], kept = *x;
    *x = check_int(c, 0, 1) ? NAN : INFINITY;
    for (int i = 0; i < p->n_seq; i++)
        pieces[i] = (struct piece){.seq = i, .end = p->len[i], .state_in = -1, .state_out = MAX_SEQ + i};
    run_step(c, p, pieces, p->n_seq, NULL, 0, rows);
    *x = kept;
    for (int i = 0, r = 0; i < p->n_seq; i++)
        for (int t = 0; t < p->len[i]; t++, r++)
            if (i != seq || t < at)
                same_row(c, "beside a bad row", i, t, &rows[r], &whole[i][t]);
            else if (!rows[r].bad || rows[r].route != BELOW || !isnan(rows[r].prob) || !isnan(rows[r].gate) || !isnan(rows[r].margin))
                check_fail(c, "bad", "sequence %d, row %d: bad is %d, the code %d, prob %g", i, t, rows[r].bad, rows[r].route,
                           rows[r].prob);
    free(rows);
}

static void one(struct check *c, struct shape s, int n_seq, int longest)
{
    static struct problem p;
    struct row *whole[MAX_SEQ];
    make_problem(c, &p, s, n_seq, longest);
    whole_pass(c, &p, whole);
    cut_pass(c, &p, "row by row", 1, true, whole);
    cut_pass(c, &p, "short pieces", 5, false, whole);
    cut_pass(c, &p, "long pieces", longest, false, whole);
    subset_pass(c, &p, whole);
    bad_pass(c, &p, whole);
    for (int i = 0; i < n_seq; i++)
        free(whole[i]);
    free_problem(c, &p);
}

/* Sizes beyond the limits, and weights that are not finite. */
static void refusals(struct check *c)
{
    static struct problem p;
    struct shape s = {8, 4, 8, 2, 2, 1};
    const struct {
        int offset, value;
    } wrong[] = {{offsetof(struct mamba_parts, n_state), MAMBA_STATE_MAX + 1},
                 {offsetof(struct mamba_parts, n_conv), 1},
                 {offsetof(struct mamba_parts, n_dt), 0},
                 {offsetof(struct mamba_parts, r), MAMBA_INNER_MAX + 1},
                 {offsetof(struct mamba_parts, e), 0}};
    struct kern_mamba *w;
    struct err err;
    make_problem(c, &p, s, 1, 1);
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
    free_problem(c, &p);
}

void check_route_mamba(struct check *c)
{
    static const struct shape shapes[] = {{48, 16, 32, 8, 4, 1}, {33, 5, 10, 3, 2, 2},    {64, 24, 48, 8, 4, 2},  {7, 1, 1, 1, 3, 1},
                                          {20, 9, 27, 17, 5, 3}, {96, 64, 128, 16, 4, 4}, {30, 12, 24, 40, 4, 1}, {16, 70, 140, 2, 6, 5},
                                          {12, 6, 12, 4, 20, 1}, {10, 4, 8, 128, 2, 64}};
    if (c->bench)
        return;
    refusals(c);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int n = 1; n <= MAX_SEQ; n += 2)
            one(c, shapes[i], n, n == 3 ? 60 : 9);
    one(c, shapes[0], 1, MAX_ROWS); /* several blocks of rows */
    one(c, shapes[5], 4, MAX_ROWS / 4);
}
