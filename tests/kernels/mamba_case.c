/* See mamba_case.h. */
#include "tests/kernels/mamba_case.h"
#include <math.h>

static struct kern_tensor make(struct check *c, struct mamba_case *p, int which, size_t n, double lo, double hi)
{
    enum dtype type = which == A_LOG ? DTYPE_F32 : (enum dtype)check_int(c, 0, 2);
    struct mamba_tensor *t = &p->t[which];
    t->v = check_floats(c, n, lo, hi);
    t->stored = malloc(n * sizeof(float));
    dtype_from_f32(t->stored, type, t->v, n);
    dtype_to_f32(t->v, t->stored, type, n);
    return (struct kern_tensor){t->stored, type};
}

/* A_log from what makes a state forget at once to what keeps it for hundreds of rows. */
static void make_router(struct check *c, struct mamba_case *p)
{
    const struct mamba_shape *s = &p->s;
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

void mamba_case_make(struct check *c, struct mamba_case *p, struct mamba_shape s, int n_seq, int longest)
{
    *p = (struct mamba_case){.s = s, .n_seq = n_seq, .threshold = check_int(c, 0, 1), .limit = (float)check_real(c, -0.3, 0.3)};
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

void mamba_case_free(struct check *c, struct mamba_case *p)
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

struct step {
    int n, n_saves, *pos, *run_of;
    struct kern_run runs[MAX_ROWS];
    struct kern_save saves[MAX_ROWS];
    float *x;
};

static void add_piece(const struct mamba_case *p, struct step *s, const struct mamba_piece *piece, int run)
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

static void alloc_step(const struct mamba_case *p, struct step *s, const struct mamba_piece *pieces, int n_pieces)
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

static void outputs_down(struct check *c, struct outputs *o, int n, struct mamba_row *ret)
{
    void *host[5] = {o->prob, o->gate, o->margin, o->route, o->bad};
    for (int i = 0; i < 5; i++) {
        check_down(c, "route_mamba", host[i], o->dev[i], n * output_size[i]);
        check_drop(c, o->dev[i]);
    }
    for (int i = 0; i < n; i++)
        ret[i] = (struct mamba_row){o->prob[i], o->gate[i], o->margin[i], o->route[i], o->bad[i]};
    for (int i = 0; i < 5; i++)
        free(host[i]);
}

void mamba_case_run(struct check *c, const struct mamba_case *p, const struct mamba_piece *pieces, int n_pieces, const int *idx, int n_idx,
                    struct mamba_row *ret)
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

void mamba_case_slot(struct check *c, const struct mamba_case *p, int slot, float *ret)
{
    size_t floats = (size_t)SLOTS * ROUTERS * p->state_floats;
    float *all = malloc(floats * sizeof(float));
    check_down(c, "states", all, p->states, floats * sizeof(float));
    memcpy(ret, all + ((size_t)slot * ROUTERS + ROUTER) * p->state_floats, sizeof(float) * p->state_floats);
    free(all);
}
